"""Rules of what refuses a reference."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.metric.checks import check_clock, check_unit, FreezeWatch


@pytest.mark.parametrize('factor', [1000.0, 0.001])
def test_depth_in_another_unit_is_no_depth_in_metres(factor):
    metres = np.array([0.5, 1.0, 8.0], np.float32)
    check_unit(metres)
    with pytest.raises(InputError, match='millimetres called metres'):
        check_unit(np.float32(factor) * metres)


def view(shade: int) -> np.ndarray:
    return np.full((48, 64, 3), shade, np.uint8)


def test_content_that_stands_still_beside_motion_is_frozen():
    watch = FreezeWatch()
    watch.check(b'depth', 0, view(100))
    watch.check(b'depth', 900_000_000, view(120))  # not long enough
    with pytest.raises(InputError, match='freezes: its content has not changed for 1.2 s'):
        watch.check(b'depth', 1_200_000_000, view(120))
    watch.check(b'other', 1_300_000_000, view(120))


def test_a_simulated_robot_that_stands_still_is_not_frozen():
    watch = FreezeWatch()
    noise = np.random.default_rng(0)
    for step in range(30):
        shown = view(100) + noise.integers(-8, 9, (48, 64, 3))
        watch.check(b'depth', step * 100_000_000, shown.astype(np.uint8))


SECOND = 10 ** 9


def test_a_reference_from_long_ago_is_no_clock_problem():
    check_clock(100 * SECOND, 90 * SECOND, received_apart_s=10.0, stamp_stands_s=0.0, hold_s=1.0)


@pytest.mark.parametrize('reference_s, word', [(90, 'before'), (110, 'after')])
def test_a_reference_that_came_with_its_image_has_its_time(reference_s, word):
    with pytest.raises(InputError, match=f'the clocks disagree: .* 10.0 s {word} it'):
        check_clock(100 * SECOND, reference_s * SECOND, 0.2, 0.0, hold_s=1.0)


def test_a_stamp_that_stands_still_is_a_clock_that_does():
    with pytest.raises(InputError, match='all with one stamp for 1.5 s'):
        check_clock(100 * SECOND, 90 * SECOND, 10.0, stamp_stands_s=1.5, hold_s=1.0)
