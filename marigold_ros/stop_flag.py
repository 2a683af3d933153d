"""Convert SIGINT and SIGTERM to a flag that long-running loops poll for a clean shutdown."""

from __future__ import annotations

import signal
import threading
import time
from types import TracebackType

# Longest delay until a signal is noticed.
POLL_PERIOD_S = 0.05


def ignore_signals() -> None:
    """Ignore SIGINT and SIGTERM while the process ends; Python would restore their defaults."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class StopFlag:
    """
    Set `requested` on SIGINT or SIGTERM.

    As a context manager, restore the previous signal handlers at exit.  Python delivers signals
    to the main thread only; in other threads the handlers are not installed.

    Parameters
    ----------
    terminate_on_second_signal : bool
        Restore the previous handlers after the first signal, so that a second one terminates
        most programs.  Otherwise further signals are ignored: a launch file forwards a Ctrl-C
        that the terminal has already sent to the process.
    signals : tuple of int
        Those that set the flag; none in a worker, which its parent ends.
    """

    def __init__(self, *, terminate_on_second_signal: bool = False,
                 signals: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)) -> None:
        self.requested = False
        self._terminate_on_second_signal = terminate_on_second_signal
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._handlers = {number: signal.signal(number, self._request)
                          for number in signals if in_main_thread}

    def _request(self, *_: object) -> None:
        self.requested = True
        if self._terminate_on_second_signal:
            self.restore_handlers()

    def restore_handlers(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def __enter__(self) -> StopFlag:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.restore_handlers()

    def sleep_until(self, deadline_s: float) -> bool:
        """
        Sleep until a time on the monotonic clock, or until a stop is requested.

        Parameters
        ----------
        deadline_s : float
            Time on `time.monotonic`; returns at once if it is in the past.

        Returns
        -------
        bool
            False if a stop is requested.
        """
        while not self.requested:
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                return True
            time.sleep(min(remaining_s, POLL_PERIOD_S))
        return False
