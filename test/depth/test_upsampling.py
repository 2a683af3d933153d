"""Upsampling: edges from the image, nothing else from it, and never beyond the depth around."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from marigold_ros.depth.upsampling import RANGE_PX, resize_to_image, upsample_depth

SMALL, LARGE = (48, 64), (160, 213)
ROWS, COLUMNS = np.indices(LARGE)


def grey_image(levels):
    """Return an RGB image of grey levels [H, W]."""
    return np.dstack([np.clip(levels, 0, 255).astype(np.uint8)] * 3)


TEXTURES = {
    'none': grey_image(np.full(LARGE, 128)),
    'checkerboard': grey_image((ROWS // 12 + COLUMNS // 12) % 2 * 255),
    'stripes': grey_image(COLUMNS // 9 % 2 * 255),
    'noise': np.random.default_rng(0).integers(0, 256, (*LARGE, 3), np.uint8),
    'black border': grey_image(np.where((COLUMNS > 30) & (ROWS < 140), 200, 0))}
textures = pytest.mark.parametrize('rgb', TEXTURES.values(), ids=TEXTURES.keys())


def small(image):
    """Reduce a map of the size of the image."""
    return cv2.resize(image.astype(np.float32), SMALL[::-1], interpolation=cv2.INTER_AREA)


@textures
@pytest.mark.parametrize('value', [0.0, 0.7, 1.0, -0.2, 1.6])
def test_flat_depth_stays_flat(rgb, value):
    depth = upsample_depth(np.full(SMALL, value, np.float32), rgb)
    assert (depth.shape, depth.dtype) == (LARGE, np.float32)
    assert np.abs(depth - value).max() < 1e-6


@textures
@pytest.mark.parametrize('slope', [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_a_ramp_stays_a_ramp_under_texture(rgb, slope):
    ramp = slope[0] * ROWS / LARGE[0] + slope[1] * COLUMNS / LARGE[1]
    errors = [np.abs(upsample_depth(small(ramp), rgb, method) - ramp).mean()
              for method in ('guided', 'bilinear')]
    assert errors[0] < errors[1] + 0.01


def test_an_edge_of_the_image_sharpens_blurred_depth():
    """The blur before and behind the edge is halved, and what is left of the step is there."""
    step = np.where(COLUMNS < 101, 0.2, 0.8)
    blurred = cv2.GaussianBlur(small(step), (0, 0), 2.0)
    rgb = grey_image(np.where(COLUMNS < 101, 60, 180))
    bilinear, guided = (upsample_depth(blurred, rgb, method) for method in ('bilinear', 'guided'))
    near = np.s_[:, 96:106]
    assert np.abs(guided - step)[near].mean() < 0.5 * np.abs(bilinear - step)[near].mean()
    assert np.abs(guided - step).mean() < np.abs(bilinear - step).mean()
    assert np.diff(guided[80])[100] > 0.3
    assert np.diff(bilinear[80]).max() < 0.05


def test_an_edge_of_depth_without_one_in_the_image_stays_as_it_is():
    step = small(np.where(COLUMNS < 101, 0.2, 0.8))
    bilinear, guided = (upsample_depth(step, TEXTURES['none'], method)
                        for method in ('bilinear', 'guided'))
    assert np.abs(guided - bilinear).max() < 1e-6


def test_the_noise_of_a_dark_image_is_not_painted_onto_depth():
    """Of +-3 grey levels next to nothing is left."""
    levels = np.random.default_rng(0).normal(12.0, 3.0, LARGE)
    ramp = small(ROWS / LARGE[0])
    bilinear, guided = (upsample_depth(ramp, grey_image(levels), method)
                        for method in ('bilinear', 'guided'))
    assert np.abs(guided - bilinear).mean() < 1e-3


@pytest.mark.parametrize('offset', [0.0, 0.5, -3.0])
def test_depth_stays_within_that_of_its_surroundings(offset):
    """Also depth that is carried and leaves [0, 1], below random texture."""
    depth = np.random.default_rng(1).random(SMALL, np.float32) + np.float32(offset)
    window = np.ones((2 * RANGE_PX + 1, 2 * RANGE_PX + 1), np.uint8)
    got = upsample_depth(depth, TEXTURES['noise'])
    assert (got >= resize_to_image(cv2.erode(depth, window), LARGE)).all()
    assert (got <= resize_to_image(cv2.dilate(depth, window), LARGE)).all()


@pytest.mark.parametrize('method', ['guided', 'bilinear'])
def test_nan_does_not_spread(method):
    """One unknown pixel leaves only those between it and its neighbours unknown."""
    depth = np.random.default_rng(0).random(SMALL, np.float32)
    depth[20, 30] = np.nan
    got = upsample_depth(depth, TEXTURES['checkerboard'], method)
    rows, columns = np.nonzero(np.isnan(got))
    scale = LARGE[0] / SMALL[0]
    assert np.abs((rows + 0.5) / scale - 20.5).max() <= 1.0
    assert np.abs((columns + 0.5) / scale - 30.5).max() <= 1.0


@pytest.mark.parametrize('size', [SMALL, (30, 40), (48, 40)])
def test_depth_that_is_not_smaller_than_the_image_is_resized_bilinearly(size):
    depth = np.random.default_rng(0).random(SMALL, np.float32)
    rgb = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    got = upsample_depth(depth, rgb)
    assert np.array_equal(got, cv2.resize(depth, size[::-1]))
    assert size != SMALL or np.array_equal(got, depth)


@pytest.mark.parametrize('size', [(1, 1), (2, 9), (161, 40), (49, 64), (97, 333)])
def test_any_size_of_image_works(size):
    depth = np.random.default_rng(0).random(SMALL, np.float32)
    got = upsample_depth(depth, np.zeros((*size, 3), np.uint8))
    assert (got.shape, got.dtype) == (size, np.float32)
    assert np.abs(got - cv2.resize(depth, size[::-1])).max() < 1e-6
