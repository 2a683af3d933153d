"""Which pictures a report keeps, and what they show."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.data.frames import DepthFrame
from marigold_ros.evaluation.report.exemplars import AROUND_MEDIAN, Exemplars, SHOWN

FLAT_M = np.full((6, 8), 2.0, np.float32)


def offer(exemplars, abs_rel, blocks=None):
    """Offer frames with these errors; return how many were kept at least for a while."""
    kept = 0
    for number, value in enumerate(abs_rel):
        frame = DepthFrame(f'frame {number}', np.zeros((6, 8, 3), np.uint8), FLAT_M,
                           np.ones((6, 8), bool), block=blocks[number] if blocks else str(number))
        if exemplars.wants(value):
            kept += 1
            exemplars.add(number, frame, value, 1, FLAT_M, FLAT_M)
    return kept


def test_best_median_and_worst_of_many_frames():
    errors = np.random.default_rng(1).permutation(np.linspace(0.1, 0.9, 401))
    exemplars = Exemplars()
    kept = offer(exemplars, errors.tolist())
    chosen = exemplars.chosen()
    assert [each.abs_rel for each in chosen['best']] == pytest.approx([0.1, 0.102])
    assert [each.abs_rel for each in chosen['worst']] == pytest.approx([0.9, 0.898])
    assert chosen['median'][0].abs_rel == pytest.approx(0.5, abs=0.004)
    assert kept < 200    # most pictures were never made


def test_neighbours_of_one_block_are_not_shown_twice():
    exemplars = Exemplars()
    offer(exemplars, [0.1, 0.11, 0.3, 0.5, 0.52, 0.51], ['a', 'a', 'b', 'c', 'c', 'd'])
    assert [each.number for each in exemplars.chosen()['best']] == [0, 2]
    assert [each.number for each in exemplars.chosen()['worst']] == [4, 5]


def test_frames_without_error_are_passed_over():
    exemplars = Exemplars()
    assert offer(exemplars, [float('nan')]) == 0
    assert exemplars.chosen() == {}
    offer(exemplars, [0.2])
    assert list(exemplars.chosen()) == ['best']


def test_memory_is_bounded():
    exemplars = Exemplars()
    offer(exemplars, np.linspace(0.9, 0.1, 300).tolist())    # each is the best so far
    held = [len(kept) for kept in (exemplars._best, exemplars._middle, exemplars._worst)]
    assert held == [SHOWN, AROUND_MEDIAN, SHOWN]


def test_the_error_has_a_sign_and_none_beside_the_truth():
    exemplars = Exemplars()
    truth_m = np.array([[2.0, np.nan, np.inf, 4.0]], np.float32)
    frame = DepthFrame('f', np.zeros((1, 4, 3), np.uint8), truth_m, ~np.isnan(truth_m))
    assert exemplars.wants(0.5)
    exemplars.add(0, frame, 0.5, 1, np.array([[3.0, 1.0, 1.0, 3.0]]), truth_m)
    picture, = exemplars.chosen()['best']
    np.testing.assert_allclose(picture.error, [[0.5, np.nan, np.nan, -0.25]])
