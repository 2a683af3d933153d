"""
Keep a core busy in every other period; a separate program, so that it starts fast.

    python -m benchmarks.latency_cap_load START_S PERIOD_S END_S
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import subprocess
import sys
import time


def load_is_on(elapsed_s: float, period_s: float) -> bool:
    """Check whether the load is on: off in the first period, on in the second, and so on."""
    return elapsed_s >= 0.0 and int(elapsed_s // period_s) % 2 == 1


def load_periodically(start_s: float, period_s: float, end_s: float) -> None:
    """
    Keep one core busy in every other period until the end.

    Parameters
    ----------
    start_s, end_s : float
        On `time.monotonic`, which all processes of a Linux machine share.
    period_s : float
    """
    while (now := time.monotonic()) < end_s:
        if not load_is_on(now - start_s, period_s):
            time.sleep(min(0.001, end_s - now))


def cpu_times_s() -> tuple[float, float]:
    """Return the busy time of all cores since boot and the CPU time of this process, s."""
    fields = Path('/proc/stat').read_text().split('\n', 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
    busy = user + nice + system + irq + softirq + steal
    return busy / os.sysconf('SC_CLK_TCK'), time.process_time()


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep cores busy with another process each until the end of the block."""
    command = [sys.executable, '-c', 'while True: pass']
    running = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


@contextmanager
def periodic_load(processes: int, start_s: float, period_s: float,
                  end_s: float) -> Iterator[None]:
    """Run `load_periodically` in `processes` processes until `end_s` or the end of the block."""
    command = [sys.executable, '-m', __name__, str(start_s), str(period_s), str(end_s)]
    running = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


if __name__ == '__main__':
    load_periodically(*map(float, sys.argv[1:]))
