"""Training targets and masks, on hand-computed numbers."""

from __future__ import annotations

import pytest
import torch

from marigold_ros.training import targets


def normalized_depth(depth, valid=None):
    valid = torch.isfinite(depth) if valid is None else valid
    return targets.normalize_depth(depth, *targets.depth_range(depth, valid))


def test_two_percent_quantiles_become_minus_one_and_one():
    depth = torch.arange(101.0)[None, None] + 1          # quantiles 2 %: 3 m, 98 %: 99 m
    normalized = normalized_depth(depth)[0, 0, 0]
    assert normalized[[0, 2, 50, 98, 100]].tolist() == pytest.approx([-1, -1, 0, 1, 1])


def test_quantiles_are_each_images_own_and_of_valid_depth_alone():
    near = torch.cat([torch.arange(101.0) + 1, torch.full((40,), 500.0)])
    depth = torch.stack([near, 10 * near])[:, None]
    low, spread = targets.depth_range(depth, depth < 5000 * 0.9 * torch.tensor([[[0.1]], [[1]]]))
    assert low.flatten().tolist() == pytest.approx([3, 30])
    assert spread.flatten().tolist() == pytest.approx([96, 960])


def test_sky_is_far_and_leaves_the_quantiles_alone():
    depth = torch.cat([torch.arange(101.0) + 1, torch.full((50,), torch.inf)])[None, None]
    normalized = normalized_depth(depth, torch.ones_like(depth, dtype=torch.bool))[0, 0, 0]
    assert normalized[50].item() == pytest.approx(0.0)
    assert (normalized[101:] == 1).all()


def test_an_image_without_valid_depth_gives_finite_numbers():
    assert torch.isfinite(normalized_depth(torch.full((1, 2, 2), torch.nan))).all()


def test_relative_weight_makes_normalized_error_relative():
    depth = torch.tensor([[[1.0, 2.0, 10.0, torch.inf, 1.0]]])
    valid = torch.tensor([[[True, True, True, True, False]]])
    weight = targets.relative_error_weight(depth, valid, torch.tensor([[[4.0]]]))
    # One normalized unit is 2 m: 200 % at 1 m, 100 % at 2 m, 20 % at 10 m.
    assert weight[0, 0, 0].tolist() == pytest.approx([2.0, 1.0, 0.2, 0.0, 0.0])
    assert targets.relative_error_weight(depth, valid, torch.tensor([[[40.0]]])).max() == 16.0


def test_one_invalid_pixel_masks_its_cell_in_all_channels():
    valid = torch.ones(1, 16, 24, dtype=torch.bool)
    valid[0, 9, 17] = False
    mask = targets.latent_mask(valid, 8, 4)
    assert mask.shape == (1, 4, 2, 3)
    assert mask[0, :, 1, 2].tolist() == [False] * 4
    assert mask.sum() == 4 * (2 * 3 - 1)
