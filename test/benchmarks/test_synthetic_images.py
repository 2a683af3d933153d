"""Images of benchmarks: their complexity covers every number of steps."""

from __future__ import annotations

import numpy as np

from benchmarks.synthetic_images import make_mixed_complexity_images, VGA
from marigold_ros.depth.complexity import gradient_energy


def test_images_have_evenly_spread_complexity():
    """Each quarter of the range of C holds a fair part of them, so every T is asked for."""
    pictures = make_mixed_complexity_images(24)
    assert all(each.shape == (*VGA, 3) and each.dtype == np.uint8 for each in pictures)
    complexities = np.array([gradient_energy(each) for each in pictures])
    counts, _ = np.histogram(complexities, bins=4)
    assert counts.min() >= 3
