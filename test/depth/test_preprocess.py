"""Preprocessing of images."""

from __future__ import annotations

import warnings

import numpy as np
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
