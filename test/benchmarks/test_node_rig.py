"""Measurements of a node: counters, complete lines, CPU time and memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.node_rig import (
    child_environment,
    last_counters,
    LineCounter,
    memory_bytes,
    process_cpu_s,
)
from marigold_ros.ros.tools.share_files import PROFILE_VARIABLES


def diagnostics_line(**counters):
    return {'topic': '/diagnostics', 'stamp_ns': 0, 'received_ns': 0, 'statuses': [
        {'name': 'depth_node', 'message': 'active'},
        {'name': 'depth_node: camera', 'message': '', 'camera': 'camera', 'last_bad_image': 'x',
         **{key: str(value) for key, value in counters.items()}}]}


def test_counters_are_those_of_the_last_diagnostics():
    lines = [diagnostics_line(frames_in=3), diagnostics_line(frames_in=8, dropped_late=2)]
    assert last_counters(lines) == {'camera': {'frames_in': 8, 'dropped_late': 2}}


def test_whole_lines_of_a_growing_file_are_counted_once(tmp_path):
    path = tmp_path / 'lines'
    counter = LineCounter(path, '/a')
    assert counter.count() == 0
    path.write_text('{"topic": "/a"}\n{"topic": "/a/b"}\n{"topic": "/a"')
    assert counter.count() == 1
    with path.open('a') as lines:
        lines.write('}\n')
    assert counter.count() == 2
    assert counter.count() == 2


def test_the_profile_is_chosen_whatever_the_shell_has_set(monkeypatch):
    for name in PROFILE_VARIABLES:
        monkeypatch.setenv(name, '/somewhere.xml')
    large, bare = child_environment(7, True), child_environment(7, False)
    assert [Path(large[name]).name for name in PROFILE_VARIABLES if name in large] == [
        'fastdds_large_images.xml']
    assert not bare.keys() & set(PROFILE_VARIABLES)
    assert bare['ROS_DOMAIN_ID'] == '7'


def test_cpu_time_and_memory_of_a_process_are_its_own():
    before_s = process_cpu_s(os.getpid())
    own_s = sum(os.times()[:2])
    assert before_s == pytest.approx(own_s, abs=0.1)
    assert 10 * 2 ** 20 < memory_bytes(os.getpid()) < 2 ** 36
