"""Ctrl-C and SIGTERM as a flag that long work looks at, so that it ends in good order."""

from __future__ import annotations

import signal
import threading
import time
from types import TracebackType

# Longest wait until a signal is noticed.
POLL_PERIOD_S = 0.05


class StopFlag:
    """
    Turn SIGINT and SIGTERM into `requested`.

    As a context manager it gives the signals back at the block's end.  Outside the main thread,
    which alone gets signals, nothing is ever requested.

    Parameters
    ----------
    terminate_on_second_signal : bool
        Whether a second signal does what it did before, which ends most programs.  If not,
        further ones change nothing: a launch file sends on the Ctrl-C that a terminal has sent.
    """

    def __init__(self, *, terminate_on_second_signal: bool = False) -> None:
        self.requested = False
        self._second_signal_ends = terminate_on_second_signal
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._handlers = {number: signal.signal(number, self._request)
                          for number in (signal.SIGINT, signal.SIGTERM) if in_main_thread}

    def _request(self, *_: object) -> None:
        self.requested = True
        if self._second_signal_ends:
            self.restore_handlers()

    def restore_handlers(self) -> None:
        """Give the signals back to who had them before."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def __enter__(self) -> StopFlag:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.restore_handlers()

    def sleep_until(self, deadline_s: float) -> bool:
        """
        Sleep until a time on the steady clock, or until asked to stop.

        Parameters
        ----------
        deadline_s : float
            Compared with time.monotonic(); a time in the past does not sleep.

        Returns
        -------
        bool
            Whether to go on.
        """
        while not self.requested:
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                return True
            time.sleep(min(remaining_s, POLL_PERIOD_S))
        return False
