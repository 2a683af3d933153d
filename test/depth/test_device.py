"""CPU threads, and memory formats of networks."""

from __future__ import annotations

import os

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


@pytest.mark.parametrize(('vae', 'device', 'compiled', 'expected'), [
    (AutoencoderTiny, 'cpu', False, torch.channels_last),
    (AutoencoderTiny, 'cuda', False, torch.channels_last),
    (AutoencoderKL, 'cpu', False, torch.channels_last),
    (AutoencoderKL, 'cuda', False, torch.contiguous_format),
    (AutoencoderKL, 'cuda', True, torch.channels_last)])
def test_a_vae_with_eager_group_norm_is_contiguous_on_a_gpu(vae, device, compiled, expected):
    assert vae_memory_format(vae(), torch.device(device), compiled=compiled) == expected
