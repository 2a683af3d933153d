"""What the engine's benchmarks compare: equal work, named candidates, the better stock."""

from __future__ import annotations

from dataclasses import replace

from engine_fixtures import MINIATURE
import numpy as np
import pytest
import torch

from benchmarks import engine_candidates
from benchmarks.engine_candidates import (
    ARCHITECTURES,
    choose_memory_formats,
    compute_exact_depths,
    describe_difference,
    EngineCandidate,
    format_difference,
    list_candidates,
    make_unet,
    make_vae,
    make_workload,
    median_stages_ms,
    peak_memory,
    save_random_checkpoint,
    StockCandidate,
)
from marigold_ros.depth.checkpoint import load_components
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import ConfigError

CPU = torch.device('cpu')
MIB = 2 ** 20


def on_meta(make, *arguments):
    with torch.device('meta'):
        return make(*arguments)


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope='module', autouse=True)
def caches(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('caches')))
        yield


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return str(save_random_checkpoint(tmp_path_factory.mktemp('miniature'), MINIATURE, 'kl'))


@pytest.fixture(scope='module')
def components(checkpoint):
    return load_components(checkpoint)


@pytest.fixture(scope='module')
def runners(checkpoint):
    candidates = [
        *(StockCandidate(checkpoint, 64, CPU, dtype) for dtype in ('float32', 'bfloat16')),
        *(EngineCandidate(checkpoint, 64, CPU, dtype, 'torch eager')
          for dtype in ('float32', 'bfloat16')),
        EngineCandidate(checkpoint, 64, CPU, 'float32', 'OpenVINO')]
    return {each.name: each.load() for each in candidates}


@pytest.mark.parametrize(('batch_size', 'steps'), [(1, 3), (2, 1)])
def test_all_do_the_same_work(components, runners, batch_size, steps):
    """Same images, noise, steps and output size: float32 depths agree, bfloat16 about."""
    work = make_workload(components, 64, batch_size, steps)
    depths = {name: runner.prepare(work)()[0] for name, runner in runners.items()}
    largest = {name: np.abs(depth - depths['stock, eager, float32']).max()
               for name, depth in depths.items()}
    assert largest['engine, torch eager, float32'] < 1e-4
    assert largest['engine, OpenVINO, float32'] < 1e-4
    assert 1e-4 < largest['engine, torch eager, bfloat16'] < 0.2
    assert 1e-4 < largest['stock, eager, bfloat16'] < 0.2


def test_a_different_depth_is_marked_in_float32():
    """An engine that runs one step less would be faster."""
    depth = np.zeros((2, 2), np.float32)
    difference = describe_difference(depth + np.float32([[0, 0], [0, 0.5]]), depth)
    assert difference == {'mean': 0.125, 'largest': 0.5}
    assert format_difference(difference, 'bfloat16') == '1.2e-01, at most 5.0e-01'
    assert format_difference(difference, 'float32').endswith(' NOT THE SAME DEPTH')
    assert 'NOT' not in format_difference({'mean': 0.0, 'largest': 9e-5}, 'float32')


def test_equality_is_checked_with_cudnn_on_and_tf32_off(monkeypatch):
    """cudnn.flags() switches cuDNN off by default, so that other kernels than the timed run."""
    class Spy:
        def prepare(self, work):
            cudnn = torch.backends.cudnn
            return lambda: (seen.append((work, cudnn.enabled, cudnn.allow_tf32)), {})

    seen = []
    monkeypatch.setattr(EngineCandidate, 'load', lambda self: Spy())
    compute_exact_depths([EngineCandidate('tiny', 64, CPU, 'float32', 'torch eager')], [1, 4])
    assert seen == [(1, True, False), (4, True, False)]


def test_stages_are_parts_of_the_call(components, runners):
    work = make_workload(components, 64, 1, 2)
    for runner in runners.values():
        _, stages_s = runner.prepare(work)()
        assert list(stages_s) == ['encode', 'denoise', 'decode']
        assert all(seconds > 0.0 for seconds in stages_s.values())
    assert median_stages_ms(
        np.array([0.010, 0.012]),
        [{'encode': 0.001, 'denoise': 0.004, 'decode': 0.002},
         {'encode': 0.001, 'denoise': 0.006, 'decode': 0.002}],
    ) == pytest.approx({'encode': 1.0, 'denoise': 5.0, 'decode': 2.0, 'other': 3.0})


def test_on_a_cpu_every_executor_runs_in_both_dtypes(monkeypatch):
    monkeypatch.setattr(engine_candidates, 'resolve_dtype', lambda dtype, device: torch.bfloat16)
    monkeypatch.setattr(engine_candidates, 'executor_for', fake_executor_for)
    candidates, left_out = list_candidates('tiny', 64, CPU, with_compiled=True)
    assert [each.name for each in candidates] == [
        'stock, eager, float32', 'stock, eager, bfloat16',
        'stock, U-Net compiled, float32', 'stock, U-Net compiled, bfloat16',
        'engine, torch eager, float32', 'engine, torch eager, bfloat16',
        'engine, OpenVINO, float32', 'engine, OpenVINO, bfloat16', 'engine, Inductor, bfloat16']
    assert left_out == {}
    names = [each.name for each in list_candidates('tiny', 64, CPU, with_compiled=False)[0]]
    assert not any('compiled' in name or 'Inductor' in name for name in names)


def test_on_a_gpu_the_engine_also_runs_eagerly(monkeypatch):
    """No setting of the engine asks for that."""
    monkeypatch.setattr(engine_candidates, 'resolve_dtype', lambda dtype, device: torch.bfloat16)
    monkeypatch.setattr(engine_candidates, 'executor_for', fake_executor_for)
    candidates, _ = list_candidates('tiny', 64, torch.device('cuda'), with_compiled=True)
    assert [each.name for each in candidates if isinstance(each, EngineCandidate)] == [
        'engine, torch eager, float32', 'engine, torch eager, bfloat16',
        'engine, CUDA graphs, float32', 'engine, CUDA graphs, bfloat16',
        'engine, CUDA graphs, Inductor, bfloat16']
    assert candidates[-1].settings == {
        'checkpoint': 'tiny', 'device': 'cuda', 'dtype': 'bfloat16', 'compile': True,
        'processing_resolution': 64, 'upsampling': 'bilinear'}


def test_what_is_not_installed_is_left_out_and_named(monkeypatch):
    def without_openvino(device, dtype='auto', **options):
        if device.startswith('openvino'):
            raise ConfigError('pip install openvino')
        return fake_executor_for(device)

    monkeypatch.setattr(engine_candidates, 'executor_for', without_openvino)
    candidates, left_out = list_candidates('tiny', 64, CPU, with_compiled=False)
    assert left_out == {'OpenVINO': 'pip install openvino'}
    assert not any('OpenVINO' in each.name for each in candidates)


def fake_executor_for(device, dtype='auto', **options):
    class HalfPrecision:
        dtype = torch.bfloat16
    return HalfPrecision()


def test_stock_is_compiled_as_its_guide_says(checkpoint, components, monkeypatch):
    calls = []
    monkeypatch.setattr(torch, 'compile',
                        lambda network, **options: calls.append(options) or network)
    runner = StockCandidate(checkpoint, 64, CPU, 'float32', compiled=True).load()
    assert calls == [{'mode': 'reduce-overhead', 'fullgraph': True, 'dynamic': False}]
    assert runner.prepare(make_workload(components, 64, 1, 1))()[0].shape == (1, 480, 640)


def test_stock_gets_the_faster_memory_format_of_each_network(checkpoint, components,
                                                             monkeypatch):
    """Channels_last halves the U-Net's time and doubles the VAE's; the name says so."""
    class Timed:
        def __init__(self, candidate):
            loaded.append(candidate.name)
            factors = {'unet': 0.5, 'vae': 2.0} if candidate.channels_last else {}
            unet, vae = factors.get('unet', 1.0), factors.get('vae', 1.0)
            self.stages_s = {'encode': 3.0 * vae, 'denoise': 4.0 * unet, 'decode': 3.0 * vae}

        def prepare(self, work):
            return lambda: (None, self.stages_s)

    loaded = []
    monkeypatch.setattr(StockCandidate, 'load', lambda self: Timed(self))
    eager = StockCandidate(checkpoint, 64, CPU, 'float32')
    engine = EngineCandidate(checkpoint, 64, CPU, 'float32', 'torch eager')
    chosen, ratios = choose_memory_formats([eager, replace(eager, compiled=True), engine], None)
    assert loaded == ['stock, eager, float32',
                      'stock, eager, float32, U-Net and VAE channels_last']
    assert ratios == {'float32': {'unet': 2.0, 'vae': 0.5}}
    assert [each.name for each in chosen] == [
        'stock, eager, float32, U-Net channels_last',
        'stock, U-Net compiled, float32, U-Net channels_last', engine.name]


def test_channels_last_networks_compute_the_same_depth(checkpoint, components, runners):
    work = make_workload(components, 64, 1, 1)
    stock = StockCandidate(checkpoint, 64, CPU, 'float32', channels_last=('unet', 'vae')).load()
    weight = stock.pipeline.unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    expected = runners['stock, eager, float32'].prepare(work)()[0]
    np.testing.assert_allclose(stock.prepare(work)()[0], expected, atol=1e-5)


def test_memory_is_that_of_the_candidate_only():
    """More than the embedded checkpoint's weights, less than torch."""
    components = load_components('tiny')
    weights = 4 * sum(map(parameters, (components.unet, components.vae)))
    works = [make_workload(components, 128, size, 1) for size in (1, 4)]
    ballast = torch.ones(400 * MIB, dtype=torch.uint8)  # of this process, not of the child
    one, four = peak_memory(EngineCandidate('tiny', 128, CPU, 'float32', 'torch eager'), works)
    assert weights < one <= four < 300 * MIB
    assert ballast.sum() == 400 * MIB


def test_sd2_has_the_published_size():
    """865.9 M parameters with 8 input channels; the KL VAE 83.7 M, TAESD 2.4 M."""
    sd2 = ARCHITECTURES['sd2']
    assert parameters(on_meta(make_unet, sd2)) == pytest.approx(865.9e6, rel=1e-4)
    assert parameters(on_meta(make_vae, sd2, 'kl')) == pytest.approx(83.7e6, rel=1e-3)
    assert parameters(on_meta(make_vae, sd2, 'tiny')) == pytest.approx(2.445e6, rel=1e-3)


@pytest.mark.parametrize('vae', ['kl', 'tiny'])
def test_random_checkpoint_runs_in_the_engine(tmp_path, vae):
    engine = DepthEngine.load(str(save_random_checkpoint(tmp_path, MINIATURE, vae)), device='cpu')
    assert engine.processing_resolution == 64
    assert engine.checkpoint_info.max_useful_steps == 10
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    depth = engine.infer(image, num_inference_steps=2).affine_invariant_depth
    assert depth.shape == (48, 64)
    assert np.isfinite(depth).all()
