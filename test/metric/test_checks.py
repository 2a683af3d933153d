"""Checks that reject a reference."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.metric.checks import (
    check_clock,
    check_unit,
    check_unit_jump,
    FrozenContentCheck,
)


@pytest.mark.parametrize('factor', [1000.0, 0.001])
def test_depth_in_another_unit_is_rejected(factor):
    metres = np.array([0.5, 1.0, 8.0], np.float32)
    check_unit(metres)
    with pytest.raises(InputError, match='publishes millimetres as metres'):
        check_unit(np.float32(factor) * metres)


@pytest.mark.parametrize(('factor', 'jumps'), [
    (1.0, False), (29.0, False), (1 / 29, False), (30.0, True), (1 / 30, True), (1000.0, True)])
def test_depth_that_is_30_times_the_expected_one_or_a_thirtieth_has_another_unit(factor, jumps):
    expected_m = np.array([0.5, 1.0, 8.0], np.float64)
    refusal = pytest.raises(InputError, match='jumped to .* times the previous depth')
    with refusal if jumps else nullcontext():
        check_unit_jump(factor * expected_m, expected_m)


def test_where_no_depth_is_expected_nothing_jumps():
    """Expected depth is unknown, or carried behind the camera, at all anchors but the last."""
    depth_m = np.array([1000.0, 1000.0, 2.0], np.float32)
    check_unit_jump(depth_m, np.array([np.nan, -1.0, 2.0], np.float32))
    check_unit_jump(depth_m, np.full(3, np.nan, np.float32))


def view(shade: int) -> np.ndarray:
    return np.full((48, 64, 3), shade, np.uint8)


def test_unchanged_content_is_frozen_while_the_image_changes():
    check = FrozenContentCheck()
    check.check(b'depth', 0, view(100))
    check.check(b'depth', 900_000_000, view(120))  # not long enough
    with pytest.raises(InputError, match='is frozen: its content has not changed for 1.2 s'):
        check.check(b'depth', 1_200_000_000, view(120))
    check.check(b'other', 1_300_000_000, view(120))


def test_unchanged_content_is_accepted_while_the_image_is_static():
    check = FrozenContentCheck()
    noise = np.random.default_rng(0)
    for step in range(30):
        shown = view(100) + noise.integers(-8, 9, (48, 64, 3))
        check.check(b'depth', step * 100_000_000, shown.astype(np.uint8))


SECOND = 10 ** 9


def test_an_old_reference_is_no_clock_error():
    check_clock(100 * SECOND, 90 * SECOND, received_apart_s=10.0, unchanged_stamp_s=0.0,
                hold_s=1.0)


@pytest.mark.parametrize('reference_s, word', [(90, 'before'), (110, 'after')])
def test_a_reference_received_with_its_image_must_have_its_stamp(reference_s, word):
    with pytest.raises(InputError, match=f'clocks of .* disagree: .* 10.0 s {word} the'):
        check_clock(100 * SECOND, reference_s * SECOND, 0.2, 0.0, hold_s=1.0)


def test_a_stamp_that_does_not_change_is_frozen():
    with pytest.raises(InputError, match='have had the same stamp for 1.5 s'):
        check_clock(100 * SECOND, 90 * SECOND, 10.0, unchanged_stamp_s=1.5, hold_s=1.0)
