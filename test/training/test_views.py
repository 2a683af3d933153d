"""Augmented views of frames."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from training_fixtures import frame

from marigold_ros.data.frames import DepthFrame
from marigold_ros.training.config import AugmentationConfig
from marigold_ros.training.views import (
    filter_per_image,
    gaussian_kernel_1d,
    motion_blur_kernel,
    random_view,
)

PLAIN = AugmentationConfig(flip_probability=0.0)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_view_without_changes_is_the_frame():
    given = frame()
    given.valid[0, 0] = False
    view = random_view(given, (16, 24), PLAIN, rng())
    assert np.array_equal(view.depth_m[0], given.depth_m)
    assert np.array_equal(view.valid[0], given.valid)
    assert np.allclose(view.image[0].permute(1, 2, 0), given.rgb / 127.5 - 1, atol=1e-5)


def test_a_flip_mirrors_image_depth_and_mask_together():
    given = frame()
    given.depth_m[2, 3], given.valid[4, 5] = 3.0, False
    view = random_view(given, (16, 24), AugmentationConfig(flip_probability=1.0), rng())
    assert np.array_equal(view.depth_m[0], given.depth_m[:, ::-1])
    assert np.array_equal(view.valid[0], given.valid[:, ::-1])
    assert np.allclose(view.image[0].permute(1, 2, 0), given.rgb[:, ::-1] / 127.5 - 1, atol=1e-5)


def test_a_crop_has_image_and_depth_of_the_same_pixels():
    grey = np.repeat(np.linspace(1, 200, 96, dtype=np.float32)[None], 48, axis=0)
    ramp = DepthFrame('a', np.repeat(grey[..., None].round().astype(np.uint8), 3, 2), grey,
                      grey > 0)
    crop = AugmentationConfig(flip_probability=0.0, min_crop=0.5, max_crop=0.9)
    views = [random_view(ramp, (24, 32), crop, rng(seed)) for seed in range(4)]
    for view in views:
        shown = (view.image[0].mean(dim=0) + 1) * 127.5
        # Depth is the nearest pixel's, the image a mean over at most 1.8 x 2 pixels.
        assert (shown - view.depth_m[0]).abs().max() < 2 * 200 / 96 + 1
        # 4:3 out of 2:1: at most 64 of 96 columns are seen, 0.9 of them.
        assert view.depth_m[0].max() - view.depth_m[0].min() < 200 * 0.9 * 64 / 96
    assert len({view.depth_m[0, 0, 0].item() for view in views}) == 4


@pytest.mark.parametrize('change', [
    {'jitter_probability': 1.0}, {'blur_probability': 1.0}, {'motion_blur_probability': 1.0},
    {'noise': 0.1}])
def test_image_augmentation_does_not_change_depth_and_stays_in_range(change):
    given = frame()
    view = random_view(given, (16, 24), AugmentationConfig(flip_probability=0.0, **change), rng(1))
    assert view.image.min() >= -1 and view.image.max() <= 1
    assert np.abs(view.image[0].permute(1, 2, 0).numpy() - (given.rgb / 127.5 - 1)).mean() > 0.01
    assert np.array_equal(view.depth_m[0], given.depth_m)


def test_motion_blurs_along_its_direction_only():
    kernel = motion_blur_kernel(5.0, 0.0)
    assert kernel.sum() == pytest.approx(1.0)
    assert kernel[len(kernel) // 2].sum() == pytest.approx(1.0, abs=0.02)
    assert np.allclose(motion_blur_kernel(5.0, np.pi / 2), kernel.T, atol=0.02)


def test_every_image_is_filtered_with_its_own_kernel():
    pair = torch.full((2, 3, 9, 9), 0.5)
    pair[0, :, 4, 4] = 1.5
    wide, narrow = gaussian_kernel_1d(1.0), gaussian_kernel_1d(0.5)
    assert wide.shape == (9, 1) and narrow.shape == (5, 1)
    blurred = filter_per_image(filter_per_image(pair, [wide, narrow]), [wide.T, narrow.T])
    impulse = (pair[0, 0] - 0.5).numpy()
    assert np.allclose(blurred[0] - 0.5, cv2.GaussianBlur(
        impulse, (9, 9), 1.0, borderType=cv2.BORDER_REPLICATE), atol=1e-5)
    # A constant image stays constant up to the edges, which are replicated.
    assert torch.allclose(blurred[1], pair[1])
