"""Ctrl-C as a question that long work asks itself, so that it ends with a valid result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import signal
import threading


@contextmanager
def interrupt_flag() -> Iterator[threading.Event]:
    """
    Turn the first Ctrl-C into an event; a second one ends the program as usual.

    Outside the main thread, which alone gets signals, the event is never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
