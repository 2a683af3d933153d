"""The worst seconds of a recording: means, pictures, memory, chunks."""

from __future__ import annotations

from itertools import pairwise
import pickle

import cv2
import numpy as np
import pytest

from marigold_ros.data.frames import DepthFrame
from marigold_ros.evaluation.report.example_frames import ExampleFrames, FramePicture
from marigold_ros.evaluation.report.second_pictures import (
    draw_mosaic,
    encode_jpeg,
    GAP_PX,
    LARGEST_BYTES,
    write_worst_seconds,
)
from marigold_ros.evaluation.report.worst_seconds import KEPT

FLAT_M = np.full((6, 8), 2.0, np.float32)
RATE_HZ = 5


def collect(errors, first=0):
    """Collect frames of a bag with these errors, the first of which is that many periods in."""
    examples = ExampleFrames()
    for number, abs_rel in enumerate(errors):
        stamp_ns = (first + number) * 10 ** 9 // RATE_HZ
        frame = DepthFrame(f'at {stamp_ns} ns', np.zeros((6, 8, 3), np.uint8), FLAT_M,
                           np.ones((6, 8), bool), block=f'second {stamp_ns // 10 ** 9}',
                           stamp_ns=stamp_ns)
        examples.add(number, frame, abs_rel, 1, 1.5 * FLAT_M, FLAT_M)
    return examples.worst_seconds


def described(seconds):
    """Return what identifies the selected seconds, and their pictures."""
    return [(each.name, each.abs_rel, len(each.errors), each.picture.number)
            for each in seconds.select()]


def test_seconds_are_ordered_by_their_mean_and_shown_by_their_worst_frame():
    """The worst frame of all lies in a good second, which comes last."""
    seconds = collect([0.1, 0.1, 0.9, 0.1, 0.1, 0.4, 0.6, 0.5, 0.4, 0.4, 0.3, 0.3, 0.3, 0.35, 0.3])
    assert [(name, pytest.approx(mean), count, shown) for name, mean, count, shown in
            described(seconds)] == [('second 1', 0.46, 5, 6), ('second 2', 0.31, 5, 13),
                                    ('second 0', 0.26, 5, 2)]


def test_memory_is_bounded_and_the_worst_are_kept():
    errors = np.random.default_rng(0).uniform(0.1, 0.9, 100 * RATE_HZ)
    seconds = collect(errors.tolist())
    assert len(seconds._seconds) <= KEPT + 2
    means = errors.reshape(-1, RATE_HZ).mean(axis=1)
    worst = np.argsort(-means)[:KEPT]
    assert [each[0] for each in described(seconds)] == [f'second {number}' for number in worst]
    assert [each[3] for each in described(seconds)] == [
        number * RATE_HZ + errors.reshape(-1, RATE_HZ)[number].argmax() for number in worst]


@pytest.mark.parametrize('seed', range(5))
def test_parts_give_what_the_whole_recording_gives(seed):
    """Wherever it is cut: also a second of which two parts hold some frames."""
    rng = np.random.default_rng(seed)
    errors = rng.uniform(0.1, 0.9, 20 * RATE_HZ).tolist()
    cuts = [0, *sorted(rng.choice(len(errors), 4, replace=False).tolist()), len(errors)]
    joined = collect([])
    for begin, end in pairwise(cuts):
        part = pickle.loads(pickle.dumps(collect(errors[begin:end], begin)))
        joined.extend(part, offset=begin)
    assert described(joined) == described(collect(errors))


def test_pictures_are_written_and_replace_those_of_an_earlier_run(tmp_path):
    write_worst_seconds(tmp_path, collect([0.1] * 4 * RATE_HZ).select())
    rows = write_worst_seconds(tmp_path, collect([0.2] * RATE_HZ + [0.4] * RATE_HZ).select())
    assert [(row['name'], row['frames'], row['picture']) for row in rows] == [
        ('second 1', RATE_HZ, 'worst_second_1.jpg'), ('second 0', RATE_HZ, 'worst_second_2.jpg')]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'worst_second_1.jpg', 'worst_second_2.jpg']
    shape = cv2.imread(str(tmp_path / 'worst_second_1.jpg')).shape
    assert shape == (2 * 6 + GAP_PX, 2 * 8 + GAP_PX, 3)


def test_a_picture_is_small_whatever_it_shows():
    noise = np.random.default_rng(0)
    shape = (400, 320)
    picture = FramePicture(0, '', '', 0.5, 1, noise.integers(0, 256, (*shape, 3), np.uint8),
                           noise.uniform(1, 9, shape).astype(np.float32),
                           noise.uniform(1, 9, shape).astype(np.float32))
    assert 0.5 * LARGEST_BYTES < len(encode_jpeg(draw_mosaic(picture))) <= LARGEST_BYTES
