"""Confidence from decoded depth: values computed by hand, and its range."""

from __future__ import annotations

import math

import pytest
import torch

from marigold_ros.depth.confidence import estimate_confidence


def striped(depth, roughness=0.0, height=16, width=24):
    """Return a depth map whose columns alternate above and below `depth`."""
    stripes = roughness * torch.tensor([1.0, -1.0]).repeat(width // 2)
    return (depth + stripes).expand(1, 1, height, width).clone()


def test_a_smooth_wall_has_full_confidence():
    torch.testing.assert_close(estimate_confidence(striped(0.4)), torch.ones(1, 1, 16, 24),
                               atol=1e-4, rtol=0.0)


@pytest.mark.parametrize(('depth', 'roughness', 'error'), [
    (0.4, 0.02, 0.04),    # 0.02 / (0.4 + 0.1)
    (0.9, 0.02, 0.02),    # far: the same roughness is a smaller part of the depth
    (0.1, 0.02, 0.1),
])
def test_roughness_is_relative_to_the_depth(depth, roughness, error):
    expected = torch.full((1, 1, 16, 24), math.exp(-error / 0.03))
    torch.testing.assert_close(estimate_confidence(striped(depth, roughness)), expected)


def test_a_step_inside_a_cell_lowers_the_confidence_locally():
    depth = striped(0.5, width=64)
    depth[..., 28:] = 0.7    # from the middle of the fourth cell on
    found = estimate_confidence(depth)[0, 0, 8]
    torch.testing.assert_close(found[:8], torch.ones(8), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(found[-8:], torch.ones(8), atol=1e-4, rtol=0.0)
    assert found[28] < 0.3
    # The cell's mean is 0.6; 0.6 lies 0.1 from both sides, less where the means are interpolated.
    assert found[28] > math.exp(-0.1 / (0.6 + 0.1) / 0.03)


def test_members_are_averaged():
    smooth, rough = striped(0.4), striped(0.4, 0.02)
    both = estimate_confidence(torch.cat([smooth, rough]))
    torch.testing.assert_close(both, torch.full((1, 1, 16, 24), math.exp(-0.02 / 0.03)))


@pytest.mark.parametrize('size', [(1, 1), (7, 9), (96, 128), (73, 101)])
def test_any_size_gives_a_finite_map_in_0_1(size):
    depth = torch.rand((2, 1, *size), generator=torch.Generator().manual_seed(0))
    found = estimate_confidence(depth)
    assert found.shape == (1, 1, *size) and found.dtype == torch.float32
    assert torch.isfinite(found).all() and found.min() >= 0.0 and found.max() <= 1.0
