"""The periodic load: on by the clock, and gone with its block."""

from __future__ import annotations

import threading
import time

import numpy as np

from benchmarks.latency_cap_load import cpu_times_s, load_is_on, periodic_load


def test_load_is_off_first_then_on_every_other_period():
    assert [load_is_on(t, 5.0) for t in (-1.0, 0.0, 4.9, 5.0, 9.9, 10.0, 15.0)] == [
        False, False, False, True, True, False, True]


def test_load_ends_with_its_block():
    now = time.monotonic()
    before = threading.active_count()
    with periodic_load(2, now, 0.05, now + 60.0):
        pass
    assert time.monotonic() < now + 30.0
    assert threading.active_count() == before


def test_work_of_this_process_is_part_of_what_all_cores_do():
    before = cpu_times_s()
    end_s = time.process_time() + 0.2
    while time.process_time() < end_s:
        pass
    busy_s, own_s = np.subtract(cpu_times_s(), before)
    assert own_s >= 0.2
    assert busy_s >= own_s - 0.05  # counted in ticks of 10 ms
