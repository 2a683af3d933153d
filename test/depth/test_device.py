"""CPU threads, and memory formats of networks."""

from __future__ import annotations

import os
import subprocess
import sys

from diffusers import AutoencoderKL, AutoencoderTiny
import pytest
import torch

from marigold_ros.depth.device import reserve_one_core
from marigold_ros.depth.stages import vae_memory_format


@pytest.fixture
def threads():
    """Restore the number of torch's threads after the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(7)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(('cores', 'expected'), [(1, 1), (2, 1), (8, 7)])
def test_one_core_is_reserved(threads, monkeypatch, cores, expected):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(cores)))
    reserve_one_core()
    assert torch.get_num_threads() == expected


def test_omp_num_threads_takes_precedence(threads, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '2')
    reserve_one_core()
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(sys.platform != 'linux', reason='threads have no priorities')
def test_opencv_threads_do_not_inherit_the_priority_of_the_networks():
    """They compute for the frames."""
    code = """
import os
import cv2, numpy as np
from marigold_ros.depth.device import lower_priority, start_opencv_threads
cv2.setNumThreads(3)
start_opencv_threads()
lower_priority(10)
cv2.remap(np.zeros((999, 999), np.uint8), np.zeros((999, 999, 2), np.float32), None, 1)
tasks = [int(each) for each in os.listdir('/proc/self/task')]
print(*sorted(os.getpriority(os.PRIO_PROCESS, each) for each in tasks))
"""
    printed = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True,
                             text=True).stdout.split()
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert len(printed) >= 3
    assert [int(each) for each in printed] == [before] * (len(printed) - 1) + [max(before, 10)]


@pytest.mark.parametrize(('vae', 'device', 'compiled', 'expected'), [
    (AutoencoderTiny, 'cpu', False, torch.channels_last),
    (AutoencoderTiny, 'cuda', False, torch.channels_last),
    (AutoencoderKL, 'cpu', False, torch.channels_last),
    (AutoencoderKL, 'cuda', False, torch.contiguous_format),
    (AutoencoderKL, 'cuda', True, torch.channels_last)])
def test_a_vae_with_eager_group_norm_is_contiguous_on_a_gpu(vae, device, compiled, expected):
    assert vae_memory_format(vae(), torch.device(device), compiled=compiled) == expected
