"""The engine benchmark: equal work on both sides, hardware limit, complete output."""

from __future__ import annotations

from dataclasses import replace
import json

import numpy as np
import pytest
import torch

from benchmarks import engine_speed
from benchmarks.engine_speed import (
    ARCHITECTURES,
    compute_exact_depths,
    count_flops,
    EngineCandidate,
    list_candidates,
    make_unet,
    make_vae,
    make_workload,
    measure_matrix_rate,
    measure_setting,
    median_stages_ms,
    peak_memory,
    save_random_checkpoint,
)
from marigold_ros.depth.checkpoint import load_components
from marigold_ros.depth.engine import DepthEngine

MINIATURE = {
    'unet': {'block_out_channels': (32, 64), 'attention_head_dim': (2, 4), 'layers_per_block': 1,
             'cross_attention_dim': 48, 'use_linear_projection': True,
             'down_block_types': ('CrossAttnDownBlock2D', 'DownBlock2D'),
             'up_block_types': ('UpBlock2D', 'CrossAttnUpBlock2D')},
    'kl': {'block_out_channels': (32, 32, 32, 32), 'layers_per_block': 1,
           'down_block_types': ('DownEncoderBlock2D',) * 4,
           'up_block_types': ('UpDecoderBlock2D',) * 4},
    'tiny': {'encoder_block_out_channels': (8, 8, 8, 8),
             'decoder_block_out_channels': (8, 8, 8, 8),
             'num_encoder_blocks': (1, 1, 1, 1), 'num_decoder_blocks': (1, 1, 1, 1)},
    'processing_resolution': 64}
MIB = 2 ** 20


def on_meta(make, *arguments):
    with torch.device('meta'):
        return make(*arguments)


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return str(save_random_checkpoint(tmp_path_factory.mktemp('miniature'), MINIATURE, 'kl'))


@pytest.fixture(scope='module')
def runners(checkpoint):
    candidates = [EngineCandidate(checkpoint, 'cpu', 64, *each) for each in (
        ('pipeline', 'float32'), ('engine', 'float32'), ('engine', 'bfloat16'))]
    return {each.name: each.load() for each in candidates}


@pytest.fixture(scope='module')
def components(checkpoint):
    return load_components(checkpoint)


@pytest.mark.parametrize(('batch_size', 'steps'), [(1, 3), (2, 1)])
def test_both_sides_do_the_same_work(components, runners, batch_size, steps):
    """Same images, noise, steps and output size: float32 depths agree, bfloat16 about."""
    work = make_workload(components, 64, batch_size, steps)
    rows = measure_setting(runners, work, 2, torch.device('cpu'))
    differences = {row['candidate']: row['largest_difference'] for row in rows}
    assert differences['pipeline float32'] == 0.0
    assert differences['engine float32'] < 1e-4
    assert 1e-4 < differences['engine bfloat16'] < 0.2


def test_different_depth_is_marked(components, runners):
    """An engine that runs one step less is faster, and marked."""
    class OneStepLess:
        def prepare(self, work, *, by_stage=False):
            fewer = replace(work, num_inference_steps=work.num_inference_steps - 1)
            return runners['engine float32'].prepare(fewer, by_stage=by_stage)

    rows = measure_setting(
        {'pipeline float32': runners['pipeline float32'], 'engine float32': OneStepLess()},
        make_workload(components, 64, 1, 2), 2, torch.device('cpu'))
    described = [engine_speed.format_difference(row) for row in rows]
    assert ['NOT THE SAME DEPTH' in each for each in described] == [False, True]


def test_equality_is_checked_with_cudnn_on_and_tf32_off(components):
    """cudnn.flags() switches cuDNN off by default, so that other kernels than the timed run."""
    class Spy:
        def prepare(self, work):
            cudnn = torch.backends.cudnn
            return lambda: (seen.append((cudnn.enabled, cudnn.allow_tf32)), {})

    seen = []
    compute_exact_depths({'engine float32': Spy()}, make_workload(components, 64, 1, 1))
    assert seen == [(True, False)]


def test_stages_add_up_to_the_call(components, runners):
    work = make_workload(components, 64, 1, 2)
    for runner in runners.values():
        _, stages_s = runner.prepare(work, by_stage=True)()
        assert list(stages_s) == ['encode', 'denoise', 'decode']
        assert all(seconds > 0.0 for seconds in stages_s.values())
    assert median_stages_ms(
        np.array([0.010, 0.012]),
        [{'encode': 0.001, 'denoise': 0.004, 'decode': 0.002},
         {'encode': 0.001, 'denoise': 0.006, 'decode': 0.002}],
    ) == pytest.approx({'encode': 1.0, 'denoise': 5.0, 'decode': 2.0, 'other': 3.0})


def test_pipeline_is_wrapped_only_while_stages_are_timed(components, runners):
    """Its networks carry no wrapper in the rounds whose total time counts, nor after watching."""
    runner = runners['pipeline float32']
    work = make_workload(components, 64, 1, 1)
    assert runner.prepare(work)()[1] == {}
    runner.prepare(work, by_stage=True)()
    assert 'forward' not in vars(runner.pipeline.unet)
    assert not {'encode', 'decode'} & set(vars(runner.pipeline.vae))


def test_memory_is_that_of_the_candidate_only():
    """More than the embedded checkpoint's weights, less than torch."""
    components = load_components('tiny')
    weights = 4 * sum(map(parameters, (components.unet, components.vae)))
    works = [make_workload(components, 128, size, 1) for size in (1, 4)]
    ballast = torch.ones(400 * MIB, dtype=torch.uint8)  # of this process, not of the child
    one, four = peak_memory(EngineCandidate('tiny', 'cpu', 128, 'engine', 'float32'), works)
    assert weights < one <= four < 300 * MIB
    assert ballast.sum() == 400 * MIB


def test_sd2_has_the_published_size():
    """865.9 M parameters with 8 input channels; the KL VAE 83.7 M, TAESD 2.4 M."""
    sd2 = ARCHITECTURES['sd2']
    assert parameters(on_meta(make_unet, sd2)) == pytest.approx(865.9e6, rel=1e-4)
    assert parameters(on_meta(make_vae, sd2, 'kl')) == pytest.approx(83.7e6, rel=1e-3)
    assert parameters(on_meta(make_vae, sd2, 'tiny')) == pytest.approx(2.445e6, rel=1e-3)


@pytest.mark.parametrize(('vae', 'encode', 'decode'), [('kl', 1.92, 4.28), ('tiny', 0.21, 0.24)])
def test_sd2_costs_the_known_work_at_768x576(vae, encode, decode):
    """TFLOP of a U-Net step at latent 96x72 and of both VAEs, from an independent count."""
    sd2 = ARCHITECTURES['sd2']
    flops = count_flops(on_meta(make_unet, sd2), on_meta(make_vae, sd2, vae), (576, 768))
    assert flops['unet_step'] / 1e12 == pytest.approx(1.49, abs=0.005)
    assert flops['encode'] / 1e12 == pytest.approx(encode, abs=0.005)
    assert flops['decode'] / 1e12 == pytest.approx(decode, abs=0.005)


@pytest.mark.parametrize('vae', ['kl', 'tiny'])
def test_random_checkpoint_runs_in_the_engine(tmp_path, vae):
    engine = DepthEngine.load(str(save_random_checkpoint(tmp_path, MINIATURE, vae)))
    assert engine.processing_resolution == 64
    assert engine.checkpoint_info.max_useful_steps == 10
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    depth = engine.infer(image, num_inference_steps=2).affine_invariant_depth
    assert depth.shape == (48, 64)
    assert np.isfinite(depth).all()


def test_matrix_rate_is_a_rate(monkeypatch):
    """Twice the edge cubed over the median time; a processor does 1e8 to 1e14 a second."""
    monkeypatch.setattr(engine_speed, 'MATRIX_EDGE', {'cpu': 256})
    assert 1e8 < measure_matrix_rate(torch.device('cpu'), torch.float32, rounds=3) < 1e14


def test_on_a_gpu_the_pipeline_also_runs_in_the_engines_dtype(monkeypatch):
    """And the speedup is counted from that faster one."""
    monkeypatch.setattr(engine_speed, 'resolve_device', torch.device)
    monkeypatch.setattr(engine_speed, 'resolve_dtype', lambda dtype, device: torch.bfloat16)
    names = [each.name for each in list_candidates('tiny', 'cuda', 128, True)]
    assert names == ['pipeline bfloat16', 'pipeline float32', 'engine float32',
                     'engine bfloat16', 'engine bfloat16 compiled']


def test_whole_run_writes_every_setting(tmp_path, monkeypatch, capsys):
    """The path of a full-size architecture, at a miniature's size."""
    monkeypatch.setitem(ARCHITECTURES, 'miniature', MINIATURE)
    monkeypatch.setattr(engine_speed, 'peak_memory', engine_speed._peak_memory_in_process)
    monkeypatch.setattr(engine_speed, 'MATRIX_EDGE', {'cpu': 256})
    engine_speed.main(['--architecture', 'miniature', '--vae', 'tiny', '--device', 'cpu',
                       '--steps', '1', '4', '--batch-sizes', '1', '2', '--rounds', '2',
                       '--out', str(tmp_path)])
    report = json.loads((tmp_path / 'engine_speed_miniature_tiny.json').read_text())
    result, = report['results']
    assert result['processing_resolution'] == 64
    assert result['vae'] == 'AutoencoderTiny'
    names = [each.name for each in list_candidates('tiny', 'cpu', 64, False)]
    assert [(row['batch_size'], row['num_inference_steps'], row['candidate'])
            for row in result['rows']] == [
        (batch, steps, name) for batch in (1, 2) for steps in (1, 4) for name in names]
    assert all(row['rounds'] == engine_speed.MIN_ROUNDS for row in result['rows'])
    assert set(result['flops']) == {'encode', 'unet_step', 'decode'}
    assert [len(peaks) for peaks in result['memory'].values()] == [2] * len(names)
    text = (tmp_path / 'engine_speed_miniature_tiny.md').read_text()
    assert text.count('| engine float32') == 4
    assert 'NOT THE SAME DEPTH' not in text
    assert capsys.readouterr().out.strip() in text
