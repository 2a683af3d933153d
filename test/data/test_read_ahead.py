"""Reading ahead in a thread: order, queue size, errors and closing."""

from __future__ import annotations

import threading
import time

import pytest

from marigold_ros.data.read_ahead import read_ahead


def wait_until(condition, timeout_s=10.0):
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def readers():
    return [thread for thread in threading.enumerate() if thread.name == 'read_ahead']


def test_items_keep_their_order():
    assert list(read_ahead(range(50))) == list(range(50))
    assert list(read_ahead([])) == []


def test_the_queue_is_bounded():
    taken = []
    items = read_ahead((taken.append(number) or number for number in range(50)), queue_size=3)
    assert next(items) == 0
    # One is used, three are queued, and one more has been produced and waits for the queue.
    wait_until(lambda: len(taken) == 5)
    time.sleep(0.05)
    assert len(taken) == 5
    items.close()


def test_an_error_is_raised_after_the_items_before_it():
    def failing():
        yield 1
        raise ValueError('read failed')

    items = read_ahead(failing())
    assert next(items) == 1
    with pytest.raises(ValueError, match='read failed'):
        next(items)
    wait_until(lambda: not readers())


def test_closing_ends_the_thread_and_closes_the_source():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    items = read_ahead(endless())
    next(items)
    items.close()
    assert not readers()
    assert closed.wait(10.0)
