"""The first-look signal: gradient energy of the x0 latent, by hand."""

from __future__ import annotations

import pytest
import torch

from marigold_ros.depth.first_look import signal


def test_a_flat_latent_has_none():
    assert signal(torch.full((2, 4, 3, 5), 0.7)).tolist() == [0.0, 0.0]


def test_squared_differences_of_neighbours_are_averaged_by_axis_and_channel():
    x0 = torch.zeros(1, 2, 2, 3)
    x0[0, 0] = torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 3.0]])
    # Right neighbours: 1, 0, 1, 2 squared is 6, over 2 channels of 4; lower ones: 0, 0, 2
    # squared is 4, over 2 channels of 3.
    assert signal(x0).item() == pytest.approx(6 / 8 + 4 / 6)


def test_each_frame_has_its_own():
    x0 = torch.randn((3, 4, 6, 8), generator=torch.Generator().manual_seed(0))
    together = signal(x0)
    assert together.shape == (3,)
    torch.testing.assert_close(together, torch.cat([signal(each[None]) for each in x0]))


def test_what_the_depth_is_does_not_count_only_how_it_varies():
    x0 = torch.randn((1, 4, 6, 8), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(signal(x0 + 3.0), signal(x0))
    torch.testing.assert_close(signal(2.0 * x0), 4.0 * signal(x0))
