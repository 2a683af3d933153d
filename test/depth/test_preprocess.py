"""Preprocessing of images."""

from __future__ import annotations

import warnings

from diffusers.pipelines.marigold.marigold_image_processing import MarigoldImageProcessor
import numpy as np
import pytest
import torch

from marigold_ros.depth.preprocess import preprocess


def test_a_read_only_image_causes_no_warning():
    """Bags return read-only arrays, about which torch would warn."""
    rgb = np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3)
    expected = preprocess(rgb, (8, 16), 8, torch.device('cpu'))
    rgb.flags.writeable = False
    warned_always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)    # otherwise only the first warning is shown
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            found = preprocess(rgb, (8, 16), 8, torch.device('cpu'))
    finally:
        torch.set_warn_always(warned_always)
    assert torch.equal(found, expected)


@pytest.mark.parametrize('size', [(144, 192), (100, 130), (480, 640)])
def test_resizing_equals_diffusers(size):
    """Diffusers converts to float32 in [-1, 1] first and then resizes; 1e-5 of [0, 1]."""
    rgb = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    processor = MarigoldImageProcessor(vae_scale_factor=8)
    image = torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255.0 * 2.0 - 1.0
    resized = processor.resize_antialias(image, size, 'bilinear', is_aa=True)
    expected, _ = processor.pad_image(resized, 8)
    found = preprocess(rgb, size, 8, torch.device('cpu'))
    assert (found - expected).abs().max() < 2e-5
    # In uint8, the result is rounded to whole pixel values.
    rounded = preprocess(rgb, size, 8, torch.device('cpu'), torch.bfloat16)
    assert (rounded - expected).abs().max() < 2.0 / 255.0
