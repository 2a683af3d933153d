"""The ladder: every rung with its stages, kernels, equality and memory; waits are found."""

from __future__ import annotations

import json

from engine_fixtures import MINIATURE
import pytest
import torch

from benchmarks import engine_candidates, engine_ladder
from benchmarks.engine_candidates import ARCHITECTURES, list_candidates
from benchmarks.engine_ladder import find_waits, waits_forbidden_between_encode_and_decode
from marigold_ros.depth.executors.torch import TorchExecutor

CPU = torch.device('cpu')


def test_whole_run_writes_every_rung(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'caches'))
    monkeypatch.setitem(ARCHITECTURES, 'miniature', MINIATURE)
    monkeypatch.setattr(engine_ladder, 'peak_memory', engine_candidates._peak_memory_in_process)
    engine_ladder.main(['--architecture', 'miniature', '--vae', 'kl', '--device', 'cpu',
                        '--steps', '2', '--rounds', '3', '--out', str(tmp_path)])
    report = json.loads((tmp_path / 'engine_ladder_miniature_kl.json').read_text())
    candidates, _ = list_candidates('tiny', 64, CPU, False)
    own = candidates[-1].dtype
    assert len(report['rungs']) == sum(each.dtype == own for each in candidates)
    for rung in report['rungs']:
        assert rung['difference_in_float32']['largest'] < 1e-4
        assert 0 < len(rung['kernels']) <= engine_ladder.TOP_KERNELS
        assert sum(kernel['share'] for kernel in rung['kernels']) <= 1.0 + 1e-9
        times_ms = [kernel['ms'] for kernel in rung['kernels']]
        assert times_ms == sorted(times_ms, reverse=True)
        assert set(rung['stages_ms']) == {'encode', 'denoise', 'decode', 'other'}
    first, second, *_ = report['rungs']
    assert first['times_first']['ratio'] == first['times_before']['ratio'] == 1.0
    assert second['times_first'] == second['times_before']
    text = capsys.readouterr().out
    assert 'NOT THE SAME DEPTH' not in text
    assert text.count('needs a GPU') == 2 * len(report['rungs'])
    assert text.count('\n### ') == len(report['rungs'])


@pytest.fixture
def modes(monkeypatch):
    seen = ['default']
    monkeypatch.setattr(torch.cuda, 'set_sync_debug_mode', seen.append)
    return seen


def test_waits_are_forbidden_from_encode_to_decode_only(modes, monkeypatch):
    executor = TorchExecutor(CPU, torch.float32)
    at = {}
    for stage in ('encode', 'step', 'decode'):
        monkeypatch.setattr(executor, stage, lambda *_, stage=stage: at.update({stage: modes[-1]}))
    with waits_forbidden_between_encode_and_decode(executor):
        executor.encode(None)
        executor.step(None, None, None, None)
        executor.decode(None)
    assert at == {'encode': 'default', 'step': 'error', 'decode': 'default'}
    with pytest.raises(KeyError), waits_forbidden_between_encode_and_decode(executor):
        executor.encode(None)
        raise KeyError
    assert modes[-1] == 'default'


def test_the_line_that_waits_is_named(modes):
    def wait():
        if modes[-1] == 'error':
            raise RuntimeError('called a synchronizing CUDA operation')

    def fail():
        raise RuntimeError('out of memory')

    cuda = torch.device('cuda')
    waits = find_waits(None, wait, cuda)
    assert waits['frame'].startswith('test_engine_ladder.py:')
    assert "raise RuntimeError('called a synchronizing" in waits['frame']
    assert modes[-1] == 'default'
    assert find_waits(None, lambda: None, cuda) == {'frame': 'none'}
    assert find_waits(None, fail, CPU) == {}
    with pytest.raises(RuntimeError, match='memory'):
        find_waits(None, fail, cuda)
