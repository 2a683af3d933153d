"""The frames that a report shows: selection, memory, error maps."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from marigold_ros.data.frames import DepthFrame
from marigold_ros.evaluation.report import example_frames
from marigold_ros.evaluation.report.example_frames import (
    AROUND_MEDIAN,
    ExampleFrames,
    FramePicture,
    SHOWN,
)

FLAT_M = np.full((6, 8), 2.0, np.float32)


def offer(examples, abs_rel, blocks=None):
    """Offer frames with these errors."""
    for number, value in enumerate(abs_rel):
        frame = DepthFrame(f'frame {blocks[number] if blocks else ""} {number}',
                           np.zeros((6, 8, 3), np.uint8), FLAT_M, np.ones((6, 8), bool),
                           block=blocks[number] if blocks else str(number))
        examples.add(number, frame, value, 1, FLAT_M, FLAT_M)


def shown(examples):
    """Return the numbers of the selected frames."""
    return {rank: [each.number for each in pictures]
            for rank, pictures in examples.select().items()}


def test_best_median_and_worst_of_many_frames(monkeypatch):
    errors = np.random.default_rng(1).permutation(np.linspace(0.1, 0.9, 401))
    examples = ExampleFrames()
    kept = []
    monkeypatch.setattr(example_frames, 'FramePicture',
                        lambda *values: kept.append(values) or FramePicture(*values))
    offer(examples, errors.tolist())
    chosen = examples.select()
    assert [each.abs_rel for each in chosen['best']] == pytest.approx([0.1, 0.102])
    assert [each.abs_rel for each in chosen['worst']] == pytest.approx([0.9, 0.898])
    assert chosen['median'][0].abs_rel == pytest.approx(0.5, abs=0.004)
    assert len(kept) < 200    # most frames were never downscaled


def test_shown_frames_are_from_different_blocks():
    examples = ExampleFrames()
    offer(examples, [0.1, 0.11, 0.3, 0.5, 0.52, 0.51], ['a', 'a', 'b', 'c', 'c', 'd'])
    assert [each.number for each in examples.select()['best']] == [0, 2]
    assert [each.number for each in examples.select()['worst']] == [4, 5]


def test_frames_without_error_are_ignored():
    examples = ExampleFrames()
    offer(examples, [float('nan')])
    assert examples.select() == {}
    offer(examples, [0.2])
    assert list(examples.select()) == ['best']


def test_memory_is_bounded():
    examples = ExampleFrames()
    offer(examples, np.linspace(0.9, 0.1, 300).tolist())    # each is the best so far
    assert (len(examples._best), len(examples._near_median)) == (SHOWN, AROUND_MEDIAN)


def test_parts_that_are_joined_show_the_best_and_worst_of_all():
    errors = np.random.default_rng(2).permutation(np.linspace(0.1, 0.9, 300)).tolist()
    joined, later = ExampleFrames(), ExampleFrames()
    offer(joined, errors[:100])
    offer(later, errors[100:], [str(number) for number in range(100, 300)])
    later.thin(4)
    joined.extend(later, 100)
    chosen = joined.select()
    order = np.argsort(errors)
    assert [each.number for each in chosen['best']] == order[:2].tolist()
    assert [each.number for each in chosen['worst']] == order[:-3:-1].tolist()
    assert abs(chosen['median'][0].abs_rel - 0.5) < 0.05


def test_the_error_is_signed_and_nan_where_the_truth_is_unknown():
    examples = ExampleFrames()
    target_m = np.array([[2.0, np.nan, np.inf, 4.0]], np.float32)
    frame = DepthFrame('f', np.zeros((1, 4, 3), np.uint8), target_m, ~np.isnan(target_m))
    examples.add(0, frame, 0.5, 1, np.array([[3.0, 1.0, 1.0, 3.0]]), target_m)
    picture, = examples.select()['best']
    np.testing.assert_allclose(picture.error, [[0.5, np.nan, np.nan, -0.25]])


def test_examples_of_parts_are_those_of_the_whole_recording():
    errors = np.random.default_rng(2).uniform(0.1, 0.9, 60).tolist()
    whole, part, later = ExampleFrames(), ExampleFrames(), ExampleFrames()
    blocks = [str(number) for number in range(60)]
    offer(whole, errors, blocks)
    offer(part, errors[:25], blocks[:25])
    offer(later, errors[25:], blocks[25:])
    part.extend(pickle.loads(pickle.dumps(later)), offset=25)
    assert shown(part) == shown(whole)
