"""StopFlag on SIGINT and SIGTERM."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from marigold_ros.stop_flag import StopFlag


@pytest.fixture(autouse=True)
def default_sigint_handler():
    """Install Python's default handler: shells ignore SIGINT in background jobs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_repeated_signals_set_the_flag(number):
    with StopFlag() as stop:
        assert not stop.requested
        for _ in range(3):
            signal.raise_signal(number)
            assert stop.requested


def test_a_second_signal_terminates_the_program_if_requested():
    with pytest.raises(KeyboardInterrupt), StopFlag(terminate_on_second_signal=True) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        signal.raise_signal(signal.SIGINT)


def test_handlers_are_restored_at_exit():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ZeroDivisionError), StopFlag():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_sleep_ends_at_its_deadline_or_when_a_stop_is_requested():
    with StopFlag() as stop:
        begin_s = time.monotonic()
        assert stop.sleep_until(begin_s + 0.12)
        assert time.monotonic() >= begin_s + 0.12
        timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
        timer.start()
        assert not stop.sleep_until(time.monotonic() + 60)
        assert time.monotonic() < begin_s + 30
        assert not stop.sleep_until(0.0)


def test_outside_the_main_thread_no_handler_is_installed():
    made = []
    thread = threading.Thread(target=lambda: made.append(StopFlag()))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    made[0].restore_handlers()
    assert not made[0].requested
