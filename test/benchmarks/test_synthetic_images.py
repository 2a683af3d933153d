"""Images of benchmarks: complexities for every number of steps, and motion to be followed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.synthetic_images import make_mixed_complexity_images, make_moving_scene, VGA
from marigold_ros.depth.carry import DepthCarrier
from marigold_ros.depth.complexity import gradient_energy, reduce_to_grey


def test_images_have_evenly_spread_complexity():
    """Each quarter of the range of C holds a fair part of them, so every T is asked for."""
    pictures = make_mixed_complexity_images(24)
    assert all(each.shape == (*VGA, 3) and each.dtype == np.uint8 for each in pictures)
    complexities = np.array([gradient_energy(each) for each in pictures])
    counts, _ = np.histogram(complexities, bins=4)
    assert counts.min() >= 3


def test_the_flow_follows_a_moving_scene():
    """It moves by 30 times 4.5 px, so that 135 of 640 px are new, and nothing else is."""
    greys = [reduce_to_grey(each) for each in make_moving_scene(VGA[::-1], 4.5, 60)[:31]]
    carrier = DepthCarrier(greys[0])
    carrier.begin_run()
    carrier.finish_run(np.zeros(VGA, np.float32), None, VGA[::-1])
    changes = [carrier.advance(each) for each in greys[1:]]
    assert carrier.new.mean() == pytest.approx(135 / 640, abs=0.03)
    assert max(changes) < 0.1
