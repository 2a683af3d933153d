"""DepthEngine equals diffusers' MarigoldDepthPipeline, with and without batches."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
import os
from pathlib import Path
import shutil

from checkpoints import make_checkpoint
from diffusers import MarigoldDepthPipeline
import numpy as np
import pytest
import torch

from marigold_ros.depth import engine as engine_module
from marigold_ros.depth.checkpoint import MODELS
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.ensemble import merge_ensemble
from marigold_ros.depth.errors import ConfigError, InputError, OutOfMemoryError

ATOL = 1e-4
STEPS = (1, 2, 3, 4, 7, 10)
RECIPES = {
    'v_trailing': {},
    'kl_vae': {'vae': 'kl'},
    'epsilon_leading': {'prediction_type': 'epsilon', 'timestep_spacing': 'leading',
                        'zero_snr': False},
    'sample': {'prediction_type': 'sample', 'zero_snr': False},
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Return the folder of this module's checkpoints."""
    return tmp_path_factory.mktemp('checkpoints')


@cache
def load_both(parent: Path, name: str, **recipe):
    """Load one checkpoint with DepthEngine and with the reference, in float32."""
    path = make_checkpoint(parent / name, **recipe)
    reference = MarigoldDepthPipeline.from_pretrained(path)
    reference.set_progress_bar_config(disable=True)
    engine = DepthEngine.load(str(path), device='cpu', dtype='float32', upsampling='bilinear')
    return engine, reference


def make_image(height, width, seed=0):
    """Return a smooth random image, which resizing changes."""
    coarse = np.random.default_rng(seed).random((6, 8, 3), dtype=np.float32)
    tensor = torch.from_numpy(coarse).permute(2, 0, 1)[None]
    fine = torch.nn.functional.interpolate(tensor, (height, width), mode='bicubic')
    return (fine[0].permute(1, 2, 0).clip(0, 1).numpy() * 255).astype(np.uint8)


def reference_depth(reference, rgb, steps, latents, resolution=64, **kwargs):
    """Run the reference pipeline from given latents."""
    image = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255.0
    return reference(image, num_inference_steps=steps, latents=latents, output_type='np',
                     processing_resolution=resolution, output_latent=True, **kwargs)


def noise(*shape, seed=0):
    """Return Gaussian latents."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('steps', STEPS)
@pytest.mark.parametrize('name', RECIPES)
def test_equals_reference_pipeline(folder, name, steps):
    """For the same weights, latents, steps and resolution."""
    engine, reference = load_both(folder, name, **RECIPES[name])
    rgb, latents = make_image(48, 64), noise(1, 4, 6, 8)
    expected = reference_depth(reference, rgb, steps, latents)
    got = engine.infer(rgb, num_inference_steps=steps, latents=latents)
    assert np.abs(got.affine_invariant_depth - expected.prediction[0, ..., 0]).max() < ATOL
    scale = max(1.0, expected.latent.abs().max().item())
    assert (got.latent - expected.latent).abs().max().item() < ATOL * scale
    assert got.num_inference_steps == steps


def test_embedded_checkpoint_equals_reference():
    """At the checkpoint's own resolution, for a camera's image size."""
    engine = DepthEngine.load('tiny', device='cpu', dtype='float32', upsampling='bilinear')
    reference = MarigoldDepthPipeline.from_pretrained(MODELS / 'tiny')
    reference.set_progress_bar_config(disable=True)
    rgb = make_image(240, 320)
    height, width = engine.padded_size(240, 320)
    latents = noise(1, reference.vae.config.latent_channels, height // 8, width // 8)
    for steps in (1, 2, 3, 4):
        expected = reference_depth(reference, rgb, steps, latents, resolution=None)
        got = engine.infer(rgb, num_inference_steps=steps, latents=latents)
        assert np.abs(got.affine_invariant_depth - expected.prediction[0, ..., 0]).max() < ATOL


@pytest.mark.parametrize('size, latent_size', [((61, 97), (5, 8)), ((97, 61), (8, 5)),
                                               ((200, 120), (8, 5)), ((30, 40), (6, 8))])
def test_equals_reference_at_odd_sizes(folder, size, latent_size):
    """Landscape, portrait, larger and smaller than the processing resolution."""
    engine, reference = load_both(folder, 'v_trailing')
    rgb, latents = make_image(*size), noise(1, 4, *latent_size)
    expected = reference_depth(reference, rgb, 3, latents).prediction[0, ..., 0]
    got = engine.infer(rgb, num_inference_steps=3, latents=latents).affine_invariant_depth
    assert got.shape == size
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() < ATOL


def test_native_resolution_equals_reference(folder):
    """processing_resolution 0 keeps the input's size and pads it to the VAE's factor."""
    _, reference = load_both(folder, 'v_trailing')
    engine = DepthEngine.load(str(folder / 'v_trailing'), device='cpu', dtype='float32',
                              processing_resolution=0)
    rgb, latents = make_image(37, 51), noise(1, 4, 5, 7)
    expected = reference_depth(reference, rgb, 2, latents, resolution=0).prediction[0, ..., 0]
    got = engine.infer(rgb, num_inference_steps=2, latents=latents).affine_invariant_depth
    assert np.abs(got - expected).max() < ATOL


@pytest.mark.parametrize('size', [(48, 64), (97, 61)])
def test_batch_equals_reference_batch(folder, size):
    """Three images at once, landscape and portrait."""
    engine, reference = load_both(folder, 'v_trailing')
    frames = [make_image(*size, seed) for seed in range(3)]
    height, width = engine.padded_size(*size)
    latents = noise(3, 4, height // 8, width // 8)
    images = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255.0
    expected = reference(images, num_inference_steps=3, latents=latents, output_type='np',
                         processing_resolution=64, batch_size=3).prediction[..., 0]
    got = engine.infer_batch(frames, [3] * 3, latents=list(latents[:, None]))
    for i in range(3):
        assert np.abs(got[i].affine_invariant_depth - expected[i]).max() < ATOL


@pytest.mark.parametrize('steps', [1, 4])
@pytest.mark.parametrize('name', ['v_trailing', 'kl_vae'])
def test_ensemble_members_equal_the_reference(folder, name, steps, monkeypatch):
    """The members equal the reference's, one by one, and are merged."""
    engine, reference = load_both(folder, name, **RECIPES[name])
    rgb, latents = make_image(48, 64), noise(4, 4, 6, 8)
    decoded = []
    decode = engine._executor.decode
    monkeypatch.setattr(engine._executor, 'decode', lambda latent: (
        decoded.append(decode(latent)), decoded[-1])[1])
    got = engine.infer(rgb, num_inference_steps=steps, latents=latents, ensemble_size=4)

    members = (decoded[0].clip(-1.0, 1.0) + 1.0) / 2.0
    for i in range(4):
        alone = reference_depth(reference, rgb, steps, latents[i:i + 1]).prediction[0, ..., 0]
        assert np.abs(members[i, 0].numpy() - alone).max() < ATOL
    depth, uncertainty = merge_ensemble(members)  # see test_ensemble
    assert np.array_equal(got.affine_invariant_depth, depth[0, 0].numpy())
    assert np.array_equal(got.uncertainty, uncertainty[0, 0].numpy())


def test_ensemble_undoes_scale_and_shift():
    """Scaled and shifted copies of one depth with noise are merged into that depth."""
    depth = torch.from_numpy(make_image(48, 64)[..., 0]).float()[None, None] / 255.0
    scales = torch.tensor([0.5, 0.6, 0.7, 0.4]).view(4, 1, 1, 1)
    members = depth * scales + 0.1 + 0.02 * noise(4, 1, 48, 64)
    got, _ = merge_ensemble(members)
    assert (got - depth).abs().mean().item() < 0.1


def test_an_ensemble_returns_uncertainty_and_all_latents(folder):
    """E members return E latents and one depth that covers [0, 1]."""
    engine, _ = load_both(folder, 'v_trailing')
    got = engine.infer(make_image(48, 64), ensemble_size=3)
    assert got.latent.shape == (3, 4, 6, 8)
    assert got.uncertainty.shape == (48, 64)
    assert (got.affine_invariant_depth.min(), got.affine_invariant_depth.max()) == (0.0, 1.0)


def test_lcm_equals_reference_at_one_step(folder):
    """An LCM checkpoint applies its boundary condition and supports one step only."""
    engine, reference = load_both(folder, 'lcm', scheduler='LCMScheduler', default_steps=1,
                                  zero_snr=False)
    rgb, latents = make_image(48, 64), noise(1, 4, 6, 8)
    expected = reference_depth(reference, rgb, 1, latents).prediction[0, ..., 0]
    got = engine.infer(rgb, latents=latents).affine_invariant_depth
    assert np.abs(got - expected).max() < ATOL
    assert engine.checkpoint_info.max_useful_steps == 1
    with pytest.raises(InputError, match='between 1 and 1 .*got 4'):
        engine.infer(rgb, num_inference_steps=4)


def test_end_to_end_checkpoint_starts_from_zeros(folder):
    """A DDIM checkpoint with one default step is end-to-end: zero latent, one useful step."""
    engine, reference = load_both(folder, 'e2e', default_steps=1)
    info = engine.checkpoint_info
    assert (info.initial_latent, info.max_useful_steps, info.default_steps) == ('zeros', 1, 1)
    rgb = make_image(48, 64)
    expected = reference_depth(reference, rgb, 1, torch.zeros(1, 4, 6, 8)).prediction[0, ..., 0]
    assert np.abs(engine.infer(rgb, seed=5).affine_invariant_depth - expected).max() < ATOL


def test_ragged_batch_equals_frames_one_by_one(folder, monkeypatch):
    """Steps 4, 1, 2 in one batch of one padded size equal separate inference."""
    engine, _ = load_both(folder, 'v_trailing')
    frames = [make_image(48, 64, 1), make_image(96, 128, 2), make_image(45, 61, 3)]
    steps = [4, 1, 2]
    calls = []
    step = engine._executor.step
    monkeypatch.setattr(engine._executor, 'step', lambda image_latent, *rest: (
        calls.append(len(image_latent)), step(image_latent, *rest))[1])
    batch = engine.infer_batch(frames, steps, seed=[7, 8, 9])
    assert calls == [3, 2, 1, 1]
    for i in range(3):
        alone = engine.infer(frames[i], num_inference_steps=steps[i], seed=7 + i)
        difference = batch[i].affine_invariant_depth - alone.affine_invariant_depth
        assert np.abs(difference).max() < ATOL
        assert batch[i].num_inference_steps == steps[i]


@pytest.mark.parametrize('ensemble_size', [1, 2])
def test_out_of_memory_splits_the_batch(folder, monkeypatch, caplog, ensemble_size):
    """With memory for two images the depths are equal, and the limit is determined once."""
    engine = DepthEngine.load(str(folder / 'v_trailing'), device='cpu', dtype='float32')
    frames, steps = [make_image(48, 64, seed) for seed in range(5)], [2, 1, 3, 1, 2]
    expected = engine.infer_batch(frames, steps, ensemble_size=ensemble_size)
    step, calls = engine._executor.step, []

    def step_of_at_most_two(image_latent, *rest):
        calls.append(len(image_latent))
        if len(image_latent) > 2:
            raise torch.OutOfMemoryError('CUDA out of memory')
        return step(image_latent, *rest)

    monkeypatch.setattr(engine._executor, 'step', step_of_at_most_two)
    for _ in range(2):
        got = engine.infer_batch(frames, steps, ensemble_size=ensemble_size)
        assert [prediction.num_inference_steps for prediction in got] == steps
        for one, other in zip(got, expected):
            assert (one.latent - other.latent).abs().max().item() < ATOL
    assert engine.batch_limits == {(48, 64): 2}
    assert sum(n > 2 for n in calls) == {1: 1, 2: 2}[ensemble_size]  # 5; or 10, then 5
    assert 'images of 64x48 px do not fit' in caplog.text


def test_out_of_memory_with_a_single_image_is_an_error(folder, monkeypatch):
    """The message contains the size and the remedy."""
    engine = DepthEngine.load(str(folder / 'v_trailing'), device='cpu', dtype='float32')

    def step(*_):
        raise torch.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(engine._executor, 'step', step)
    with pytest.raises(OutOfMemoryError, match='64x48 px .* lower `processing_resolution`'):
        engine.infer_batch([make_image(48, 64)] * 2, [1, 1])


def test_warm_up_measures_every_size_and_batch_size(folder):
    """Return padded sizes, batch sizes and positive times."""
    engine, _ = load_both(folder, 'v_trailing')
    timings = engine.warm_up([(48, 64), (97, 61)], [1, 2], 2)
    assert [(timing.padded_size, timing.num_inference_steps) for timing in timings] == [
        ((48, 64), (2,)), ((48, 64), (2, 2)), ((64, 40), (2,)), ((64, 40), (2, 2))]
    assert min(min(t.before_s, t.denoise_s, t.after_s) for t in timings) > 0.0


@pytest.mark.skipif(shutil.which(os.environ.get('CXX', 'g++')) is None, reason='no C++ compiler')
def test_compiled_engine_equals_reference(folder):
    _, reference = load_both(folder, 'v_trailing')
    compiled = DepthEngine.load(str(folder / 'v_trailing'), device='cpu', dtype='float32',
                                compile=True)
    rgb, latents = make_image(48, 64), noise(1, 4, 6, 8)
    for steps in (1, 3):
        expected = reference_depth(reference, rgb, steps, latents).prediction[0, ..., 0]
        got = compiled.infer(rgb, num_inference_steps=steps, latents=latents)
        assert np.abs(got.affine_invariant_depth - expected).max() < ATOL


def test_compile_without_a_compiler_fails_at_load(folder, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(ConfigError, match='`compile` needs a C\\+\\+ compiler.*no-such-compiler'):
        DepthEngine.load(compile=True, device='cpu')


def test_frames_of_different_padded_size_keep_their_order(folder):
    engine, _ = load_both(folder, 'v_trailing')
    frames = [make_image(48, 64, 1), make_image(64, 48, 2), make_image(48, 64, 3)]
    shapes = [p.affine_invariant_depth.shape for p in engine.infer_batch(frames, [1, 2, 3])]
    assert shapes == [(48, 64), (64, 48), (48, 64)]


@pytest.mark.parametrize('upsampling', ['guided', 'bilinear'])
@pytest.mark.parametrize('ensemble_size', [1, 3])
def test_upsampling_afterwards_gives_the_same_maps(folder, monkeypatch, upsampling, ensemble_size):
    """Without `upsample` the maps have the processing size, without padding."""
    engine, _ = load_both(folder, 'v_trailing')
    monkeypatch.setattr(engine, 'upsampling', upsampling)
    frames = [make_image(97, 61, 1), make_image(96, 128, 2), make_image(48, 64, 3)]
    expected = engine.infer_batch(frames, [1, 2, 1], ensemble_size=ensemble_size)
    small = engine.infer_batch(frames, [1, 2, 1], ensemble_size=ensemble_size, upsample=False)
    assert [each.affine_invariant_depth.shape for each in small] == [(64, 40), (48, 64), (48, 64)]
    for one, rgb, other in zip(small, frames, expected):
        large = engine.upsample(one, rgb)
        for name in ('affine_invariant_depth', 'confidence', 'uncertainty'):
            if ensemble_size > 1 or name != 'uncertainty':
                assert getattr(one, name).shape == one.affine_invariant_depth.shape
                assert getattr(large, name).shape == rgb.shape[:2]
            assert np.array_equal(getattr(large, name), getattr(other, name))
        assert torch.equal(large.latent, other.latent)


def test_maps_are_upsampled_only_once_the_device_has_been_waited_for(folder, monkeypatch):
    """A GPU copies them to the host while the host goes on."""
    loaded, _ = load_both(folder, 'v_trailing')
    calls = []
    monkeypatch.setattr(engine_module, 'synchronized_time_s', lambda device: calls.append('wait'))
    upsample_depth = engine_module.upsample_depth
    monkeypatch.setattr(engine_module, 'upsample_depth', lambda *arguments: (
        calls.append('upsample'), upsample_depth(*arguments))[1])
    loaded.infer_batch([make_image(96, 128)] * 2, [1, 1])
    assert calls == ['wait', 'upsample', 'upsample']


def test_what_carried_depth_covers_is_upsampled_with_it(folder):
    engine, _ = load_both(folder, 'v_trailing')
    rgb, covered = make_image(96, 128), np.zeros((48, 64), bool)
    covered[:, :20] = True
    small = engine.infer_batch([rgb], [1], upsample=False)[0]
    large = engine.upsample(replace(small, confidence=None, covered=covered), rgb)
    assert large.confidence is None
    assert np.array_equal(large.covered, np.arange(128) < np.full((96, 1), 40))


def test_same_seed_same_depth_other_seed_other_depth(folder):
    """Noise depends only on the seed."""
    engine, _ = load_both(folder, 'v_trailing')
    rgb = make_image(48, 64)
    first, again, other = (engine.infer(rgb, seed=seed).affine_invariant_depth
                           for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_past_deadline_returns_x0_of_the_first_step(folder):
    engine, _ = load_both(folder, 'v_trailing')
    rgb = make_image(48, 64)
    stopped = engine.infer(rgb, num_inference_steps=10, deadline_s=0.0)
    one = engine.infer(rgb, num_inference_steps=1)
    assert stopped.num_inference_steps == 1
    # v1-0's final cumulative alpha is not 1, so its last latent is not quite x0.
    assert np.abs(stopped.affine_invariant_depth - one.affine_invariant_depth).max() < 0.05


@pytest.mark.parametrize('rgb', [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32),
                                 np.zeros((0, 4, 3), np.uint8)])
def test_arrays_that_are_not_rgb_images_are_rejected(folder, rgb):
    engine, _ = load_both(folder, 'v_trailing')
    with pytest.raises(InputError, match=r'`rgb` must be uint8 \[H, W, 3\]'):
        engine.infer(rgb)


def test_invalid_arguments_are_rejected(folder):
    engine, _ = load_both(folder, 'v_trailing')
    rgb = make_image(48, 64)
    with pytest.raises(InputError, match=r'`latents` must have shape \[1, 4, 6, 8\].*1, 4, 2, 2'):
        engine.infer(rgb, latents=noise(1, 4, 2, 2))
    with pytest.raises(InputError, match='`ensemble_size` must be at least 1; got 0'):
        engine.infer(rgb, ensemble_size=0)
    with pytest.raises(InputError, match='`num_inference_steps` must be between .* got 0'):
        engine.infer(rgb, num_inference_steps=0)
    with pytest.raises(InputError, match='`num_inference_steps` must have one entry per frame'):
        engine.infer_batch([rgb, rgb], [1])
    with pytest.raises(ConfigError, match='`device` must be one of auto.*cuda:x'):
        DepthEngine.load(device='cuda:x')
    with pytest.raises(ConfigError, match='`device` must be .* CUDA devices .*cuda:999'):
        DepthEngine.load(device='cuda:999')
    with pytest.raises(ConfigError, match='`processing_resolution` must be .*; got 70'):
        DepthEngine.load(processing_resolution=70)
    with pytest.raises(ConfigError, match="`upsampling` must be one of guided, .*; got 'cubic'"):
        DepthEngine.load(upsampling='cubic')


def test_stage_times_sum_to_the_total(folder):
    engine, _ = load_both(folder, 'v_trailing')
    timing = engine.infer(make_image(48, 64)).timing
    stages = (timing.preprocess_s, timing.encode_s, timing.denoise_s, timing.decode_s,
              timing.postprocess_s)
    assert min(stages) > 0.0
    assert timing.total_s == pytest.approx(sum(stages))
