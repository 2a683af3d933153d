"""Control of when glibc returns freed memory to the system."""

from __future__ import annotations

import ctypes
from typing import Any

# mallopt's parameter numbers, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
# The largest value that glibc accepts; larger arrays are still mapped and unmapped.
MMAP_THRESHOLD_BYTES = 32 * 2 ** 20
TRIM_THRESHOLD_BYTES = 512 * 2 ** 20
# Heaps for all threads; by default each thread may get its own, and each heap keeps its own holes.
MAX_HEAPS = 2


def keep_freed_memory() -> None:
    """
    Keep the memory of freed images for the next ones instead of returning it to the system.

    By default glibc returns the memory of large arrays when they are freed, so that each frame
    causes page faults for its images: 100 000 a second at 1920x1080, 5 Hz and every output.
    All threads share two heaps, as those of each lifecycle cycle are new ones and would leave
    holes behind: 6 % more memory after 27 cycles in an hour (`benchmarks.soak`).  Does nothing
    with another C library.
    """
    mallopt = _libc_function('mallopt')
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
        mallopt(M_ARENA_MAX, MAX_HEAPS)


def return_freed_memory() -> None:
    """Return all free memory to the system; does nothing with another C library."""
    malloc_trim = _libc_function('malloc_trim')
    if malloc_trim is not None:
        malloc_trim(0)


def _libc_function(name: str) -> Any:
    """Return a function of the C library of this process, or None if it has no such function."""
    return getattr(ctypes.CDLL(None), name, None)
