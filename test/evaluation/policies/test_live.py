"""Frames in real time: the newest wins, and every frame delivered has an outcome."""

from __future__ import annotations

import threading

import pytest

from marigold_ros.evaluation.policies.live import Delivered, NewestFrame, process_newest


def delivered(number):
    return Delivered(number, None, float(number))


def test_newest_frame_wins_and_the_last_is_taken_at_the_end():
    place = NewestFrame()
    for number in range(3):
        place.put(delivered(number))
    place.close()
    assert place.take().number == 2
    assert place.take() is None


def test_a_frame_that_waits_is_superseded_by_a_newer_one():
    """1 and 2 come while 0 is processed: 1 has no outcome, 2 is taken next."""
    taken, done = threading.Event(), threading.Event()

    def deliver():
        yield delivered(0)
        assert taken.wait(30)
        yield delivered(1)
        yield delivered(2)
        done.set()

    def process(frame):
        taken.set()
        assert done.wait(30)
        return 10 * frame.number

    assert process_newest(deliver(), process) == [0, None, 20]


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_frames_that_cannot_be_read_end_the_run():
    def deliver():
        yield delivered(0)
        raise OSError('the bag is gone')

    assert process_newest(deliver(), lambda frame: frame.number) == [0]
