"""Progress bars with the remaining time, where somebody watches."""

from __future__ import annotations

from collections.abc import Iterable
from threading import RLock
from typing import Any, TypeAlias

from tqdm import tqdm

ProgressBar: TypeAlias = 'tqdm[Any]'

# Whether this process may show bars, if stderr is a terminal.
_shown = True


def progress_bar(iterable: Iterable[Any] | None = None, desc: str | None = None,
                 total: float | None = None, *, disable: bool = False, **options: Any
                 ) -> ProgressBar:
    """
    Return a progress bar on stderr, which is quiet unless that is a terminal.

    Parameters
    ----------
    iterable, desc, total, disable, options
        As of `tqdm.tqdm`.
    """
    return tqdm(iterable, desc, total, disable=None if _shown and not disable else True,
                **options)


def hide_progress_bars() -> None:
    """Show no more bars in this process, as its parent shows them."""
    global _shown
    _shown = False
    tqdm.set_lock(RLock())  # its own is shared by processes, and leaks when one is killed
