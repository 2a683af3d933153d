"""Ctrl-C and SIGTERM as a flag that a loop looks at, so that tools end in good order."""

from __future__ import annotations

import signal
import time

# Longest wait until a signal is noticed.
SLICE_S = 0.05


class StopFlag:
    """
    Turn SIGINT and SIGTERM into `requested`, however often they come.

    A second Ctrl-C during the teardown changes nothing, so the exit code stays 0.
    """

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request)

    def _request(self, *_: object) -> None:
        self.requested = True

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
            time.sleep(min(remaining_s, SLICE_S))
        return False
