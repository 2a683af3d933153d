"""Frames in real time: the newest is processed, and every delivered frame has a result."""

from __future__ import annotations

import threading

import pytest

from marigold_ros.evaluation.policies.live import DeliveredFrame, NewestFrameBuffer, process_newest


def delivered(number):
    return DeliveredFrame(number, None, float(number))


def test_the_buffer_returns_the_newest_frame_and_then_none():
    buffer = NewestFrameBuffer()
    for number in range(3):
        buffer.put(delivered(number))
    buffer.close()
    assert buffer.take().number == 2
    assert buffer.take() is None


def test_a_waiting_frame_is_superseded_by_a_newer_one():
    """Frames 1 and 2 arrive while 0 is processed: 1 has no result, 2 is next."""
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
def test_a_read_error_ends_the_run():
    def deliver():
        yield delivered(0)
        raise OSError('the bag is gone')

    assert process_newest(deliver(), lambda frame: frame.number) == [0]
