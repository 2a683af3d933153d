"""How networks lie on a device: threads on the CPU, memory on a GPU."""

from __future__ import annotations

import os

from diffusers import AutoencoderKL, AutoencoderTiny
import pytest
import torch

from marigold_ros.depth.device import reserve_one_core
from marigold_ros.depth.networks import vae_memory_format


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
    reserve_one_core()
    assert torch.get_num_threads() == expected


def test_omp_num_threads_is_obeyed(threads, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '2')
    reserve_one_core()
    assert torch.get_num_threads() == 7


@pytest.mark.parametrize(('vae', 'device', 'expected'), [
    (AutoencoderTiny, 'cpu', torch.channels_last),
    (AutoencoderTiny, 'cuda', torch.channels_last),
    (AutoencoderKL, 'cpu', torch.channels_last),
    (AutoencoderKL, 'cuda', torch.contiguous_format)])
def test_a_vae_with_norms_stays_contiguous_on_a_gpu(vae, device, expected):
    assert vae_memory_format(vae(), torch.device(device)) == expected
