"""The variants of sharing the CPU: that the node is started with them, and the table."""

from __future__ import annotations

import os
from pathlib import Path
import sys

import cv2

from benchmarks import shared_cpu, slowed_node
from benchmarks.shared_cpu import format_rows, loaded_cases, measure, Sharing, SHARINGS
from marigold_ros.ros import worker
from marigold_ros.stop_flag import StopFlag


def test_the_node_is_as_it_is_or_differs_in_what_is_compared():
    assert Sharing() == SHARINGS[0] == Sharing(worker.NETWORKS_NICENESS)
    assert len(set(SHARINGS)) == len(SHARINGS)


def test_a_variant_reaches_the_node(monkeypatch):
    threads = cv2.getNumThreads()
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setattr(worker, 'NETWORKS_NICENESS', worker.NETWORKS_NICENESS)
    monkeypatch.setattr(slowed_node, 'slow_down', lambda *_: None)
    given, found = [], []
    monkeypatch.setattr(shared_cpu, 'run', lambda _, node, *__: given.append(node.command))
    measure(loaded_cases()[0], Sharing(7, 3, 2), Path(), 1.0, StopFlag())
    command, = given
    monkeypatch.setattr(slowed_node, 'run_node', lambda arguments: found.append(
        (worker.NETWORKS_NICENESS, os.environ['OMP_NUM_THREADS'], cv2.getNumThreads(),
         arguments[1])) or 0)
    monkeypatch.setattr(sys, 'argv', list(command[2:]))
    try:
        assert slowed_node.main() == 0
    finally:
        cv2.setNumThreads(threads)
    assert found == [(7, '3', 2, '--ros-args')]


def test_each_row_is_the_median_round():
    def result(case, p95):
        times = {'latency_ms': {'p50': 9.0, 'p95': p95, 'p99': 40.0}, 'carried_s': None}
        return {'name': case.name, 'cameras': ['camera'], 'frames_out_per_s': 30.0,
                'worst_second': (29, 30), 'times_ms': times, 'late_share': 0.0, 'runs_per_s': 4.0,
                'stamp_to_receipt_ms': None, 'reply_ms': None, 'cpu_share': 1.0}

    table = format_rows([(sharing, result(case, p95)) for p95 in (11.0, 33.0, 22.0)
                         for case in loaded_cases() for sharing in SHARINGS])
    rows = table.splitlines()[2:]
    assert len(rows) == 2 * len(SHARINGS)
    assert all('9.0, 22.0, 40.0' in row for row in rows)
