"""The engine benchmark: ratios over the named baselines, hardware limit, complete output."""

from __future__ import annotations

import json

from engine_fixtures import MINIATURE
import numpy as np
import pytest
import torch

from benchmarks import engine_candidates, engine_speed
from benchmarks.engine_candidates import (
    ARCHITECTURES,
    EngineCandidate,
    list_candidates,
    make_unet,
    make_vae,
    StockCandidate,
    Workload,
)
from benchmarks.engine_speed import count_flops, measure_matrix_rate, measure_setting
from benchmarks.timing import TimedRuns

CPU = torch.device('cpu')


def on_meta(make, *arguments):
    with torch.device('meta'):
        return make(*arguments)


def test_each_row_is_compared_with_the_stock_of_float32_and_of_its_dtype(monkeypatch):
    seconds = {
        StockCandidate('tiny', 64, CPU, 'float32'): 8.0,
        StockCandidate('tiny', 64, CPU, 'bfloat16'): 6.0,
        StockCandidate('tiny', 64, CPU, 'bfloat16', compiled=True): 4.0,
        EngineCandidate('tiny', 64, CPU, 'float32', 'OpenVINO'): 4.0,
        EngineCandidate('tiny', 64, CPU, 'bfloat16', 'OpenVINO'): 2.0}

    class Runner:
        def prepare(self, work):
            return lambda: (np.full((1, 2, 2), 0.25, np.float32), {})

    stages_s = dict.fromkeys(('encode', 'denoise', 'decode'), 0.5)
    monkeypatch.setattr(engine_speed, 'time_interleaved', lambda calls, **_: {
        each.name: TimedRuns(np.full(3, time_s), [stages_s] * 3)
        for each, time_s in seconds.items()})
    rows = measure_setting(
        {each: Runner() for each in seconds}, Workload([None] * 2, None, 1),
        {'stock, eager, float32': np.zeros((1, 2, 2), np.float32),
         'engine, OpenVINO, float32': np.full((1, 2, 2), 0.5, np.float32)}, 3)
    assert [[round(each['ratio'], 2) for each in row['speedups'].values()] for row in rows] == [
        [1.0, 1.0], [1.33, 1.0, 0.67], [2.0, 1.5, 1.0], [2.0, 2.0], [4.0, 3.0, 2.0]]
    assert list(rows[-1]['speedups']) == [
        'times stock eager float32', 'times stock eager, same dtype',
        'times stock compiled, same dtype']
    assert [row['difference']['largest'] for row in rows] == [0.0, 0.25, 0.25, 0.5, 0.25]
    assert rows[-1]['frames_per_s'] == 1.0
    assert rows[0]['stages_ms']['other'] == 6500.0


@pytest.mark.parametrize(('vae', 'encode', 'decode'), [('kl', 1.92, 4.28), ('tiny', 0.21, 0.24)])
def test_sd2_costs_the_known_work_at_768x576(vae, encode, decode):
    """TFLOP of a U-Net step at latent 96x72 and of both VAEs, from an independent count."""
    sd2 = ARCHITECTURES['sd2']
    flops = count_flops(on_meta(make_unet, sd2), on_meta(make_vae, sd2, vae), (576, 768))
    assert flops['unet_step'] / 1e12 == pytest.approx(1.49, abs=0.005)
    assert flops['encode'] / 1e12 == pytest.approx(encode, abs=0.005)
    assert flops['decode'] / 1e12 == pytest.approx(decode, abs=0.005)


def test_matrix_rate_is_a_rate(monkeypatch):
    """Twice the edge cubed over the median time; a processor does 1e8 to 1e14 a second."""
    monkeypatch.setattr(engine_speed, 'MATRIX_EDGE', {'cpu': 256})
    assert 1e8 < measure_matrix_rate(torch.device('cpu'), torch.float32, rounds=3) < 1e14


def test_whole_run_writes_every_setting(tmp_path, monkeypatch, capsys):
    """The path of a full-size architecture, at a miniature's size."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'caches'))
    monkeypatch.setitem(ARCHITECTURES, 'miniature', MINIATURE)
    monkeypatch.setattr(engine_speed, 'peak_memory', engine_candidates._peak_memory_in_process)
    monkeypatch.setattr(engine_speed, 'MATRIX_EDGE', {'cpu': 256})
    monkeypatch.setattr(engine_speed, 'MIN_ROUNDS', 2)
    engine_speed.main(['--architecture', 'miniature', '--vae', 'tiny', '--device', 'cpu',
                       '--steps', '1', '4', '--batch-sizes', '1', '2', '--rounds', '2',
                       '--out', str(tmp_path)])
    report = json.loads((tmp_path / 'engine_speed_miniature_tiny.json').read_text())
    result, = report['results']
    assert result['processing_resolution'] == 64
    assert result['vae'] == 'AutoencoderTiny'
    candidates, left_out = list_candidates('tiny', 64, CPU, False)
    assert result['left_out'] == left_out
    dtypes = {each.dtype for each in candidates}
    assert set(result['channels_last_ratios']) == dtypes
    rows = result['rows']
    assert [(row['batch_size'], row['num_inference_steps'], row['dtype']) for row in rows] == [
        (batch, steps, each.dtype) for batch in (1, 2) for steps in (1, 4) for each in candidates]
    assert all(row['rounds'] == engine_speed.MIN_ROUNDS for row in rows)
    assert set(result['flops']) == {'encode', 'unet_step', 'decode'}
    assert [len(peaks) for peaks in result['memory'].values()] == [2] * len(candidates)
    text = (tmp_path / 'engine_speed_miniature_tiny.md').read_text()
    assert text.count('| engine, torch eager, float32') == 4
    assert '- 1 thread(s) for the networks of every candidate' in text
    assert 'NOT THE SAME DEPTH' not in text
    assert capsys.readouterr().out.strip() in text
