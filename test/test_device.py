"""How many threads the node's networks use on the CPU."""

from __future__ import annotations

import os

import pytest
import torch

from marigold_ros.depth.device import leave_a_core


@pytest.fixture
def threads():
    """Give torch its threads back."""
    before = torch.get_num_threads()
    torch.set_num_threads(7)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(('cores', 'expected'), [(1, 1), (2, 1), (8, 7)])
def test_one_core_is_left_to_others(threads, monkeypatch, cores, expected):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(cores)))
    leave_a_core()
    assert torch.get_num_threads() == expected


def test_omp_num_threads_is_obeyed(threads, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '2')
    leave_a_core()
    assert torch.get_num_threads() == 7
