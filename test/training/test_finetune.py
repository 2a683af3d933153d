"""Complete trainings of the U-Net with a few iterations."""

from __future__ import annotations

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from checkpoints import make_checkpoint
from diffusers import MarigoldDepthPipeline
import numpy as np
import pytest
from safetensors.torch import load_file
import torch
from training_fixtures import changed, generator, HEIGHT, weights, WIDTH, with_schedule

from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import ConfigError
from marigold_ros.training import config
from marigold_ros.training.config import FrameSetConfig
from marigold_ros.training.config_files import config_to_yaml, load_config
from marigold_ros.training.finetune import finetune, FinetuneTrainer, main


@pytest.fixture(scope='module')
def trained(folder):
    """Train for two iterations; several tests check the result."""
    frames = FrameSetConfig(reader='shards', path=str(folder / 'frames'), size=(HEIGHT, WIDTH))
    done = config.FinetuneConfig(
        run_folder=str(folder / 'run'), seed=1, initial_checkpoint=str(folder / 'sd2'),
        train=(frames,), validation=(frames,), validation_frames=2,
        schedule=config.ScheduleConfig(batch_size=2, max_iterations=2, checkpoint_every=2),
        hardware=config.HardwareConfig(device='cpu', workers=0),
        default_processing_resolution=48)
    finetune(done)
    return done


def test_engine_and_pipeline_open_the_checkpoint_and_agree(trained):
    checkpoint = Path(trained.run_folder) / 'checkpoint'
    rgb = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    engine = DepthEngine.load(str(checkpoint), device='cpu', dtype='float32')
    assert (engine.checkpoint_info.default_steps, engine.processing_resolution) == (4, 48)
    latents = torch.randn(1, 4, HEIGHT // 8, WIDTH // 8, generator=generator())
    ours = engine.infer(rgb, num_inference_steps=2, latents=latents).affine_invariant_depth
    pipeline = MarigoldDepthPipeline.from_pretrained(checkpoint)
    theirs = pipeline(torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255, num_inference_steps=2,
                      latents=latents).prediction[0, ..., 0]
    assert np.allclose(ours, theirs, atol=2e-3)
    vocabulary = json.loads((checkpoint / 'tokenizer/vocab.json').read_text())
    assert vocabulary == pipeline.tokenizer.get_vocab()
    unet = weights(checkpoint, 'unet/diffusion_pytorch_model.safetensors')
    assert {value.dtype for value in unet.values()} == {torch.float16}


def test_a_run_writes_configuration_versions_seed_scalars_and_grids(trained):
    run = Path(trained.run_folder)
    assert load_config(config.FinetuneConfig, run / 'config.yaml') == trained
    facts = json.loads((run / 'versions.json').read_text())
    # A wheel's metadata may leave out the build: 2.13.0 for 2.13.0+cu130.
    assert facts['torch'].split('+')[0] == torch.__version__.split('+')[0]
    assert facts['seed'] == '1'
    start, losses, validation = map(
        json.loads, (run / 'scalars.jsonl').read_text().splitlines())
    assert start.keys() == validation.keys() and start['iteration'] == 0
    assert losses['iteration'] == 2 and losses['latent'] > 0
    assert 0 <= validation['validation/frames/delta1_4'] <= 1
    assert 0 <= validation['validation/frames/boundary_f1_1'] <= 1
    assert list((run / 'tensorboard').iterdir())
    assert sorted(path.name for path in (run / 'grids').iterdir()) == [
        'frames_000000.png', 'frames_000002.png']


def test_only_the_unet_trains(trained, folder):
    before = load_file(folder / 'sd2/vae/diffusion_pytorch_model.safetensors')
    after = weights(trained.run_folder, 'checkpoint/vae/diffusion_pytorch_model.safetensors')
    assert all(torch.equal(before[name].half(), after[name]) for name in before)
    unet = weights(trained.run_folder)
    start = load_file(folder / 'sd2/unet/diffusion_pytorch_model.safetensors')
    assert not torch.equal(unet['conv_out.weight'], start['conv_out.weight'])


@pytest.mark.parametrize('frames_on_device', [False, True])
def test_resuming_is_bit_for_bit_like_no_interruption(tiny_config, tmp_path, frames_on_device):
    tiny_config = changed(tiny_config, hardware=changed(tiny_config.hardware,
                                                        frames_on_device=frames_on_device))
    whole = changed(tiny_config, run_folder=str(tmp_path / 'whole'))
    finetune(whole)
    finetune(with_schedule(tiny_config, max_iterations=2))
    # The second half reads its frames in a worker process, unless they are on the device.
    finetune(changed(tiny_config, hardware=changed(tiny_config.hardware, workers=1)))
    for part in ('state/model.safetensors', 'checkpoint/unet/diffusion_pytorch_model.safetensors'):
        expected, resumed = (weights(folder, part)
                             for folder in (whole.run_folder, tiny_config.run_folder))
        assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    moments = [torch.load(Path(folder) / 'state/optimizer.bin')['state'][0]['exp_avg_sq']
               for folder in (whole.run_folder, tiny_config.run_folder)]
    assert torch.equal(*moments)
    assert not torch.equal(expected['conv_in.weight'], weights(
        tiny_config.run_folder)['conv_in.weight'].half())      # the checkpoint is the average


def command(tiny_config, *launcher):
    """Start a training by its command, in a separate process group."""
    path = Path(tiny_config.run_folder).with_suffix('.yaml')
    path.write_text(config_to_yaml(tiny_config))
    return subprocess.Popen(
        [sys.executable, '-m', *launcher, 'marigold_ros.training.finetune', '--config', path],
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_reaches_the_workers_too_and_still_saves(tiny_config):
    endless = changed(with_schedule(tiny_config, max_iterations=10 ** 6),
                      hardware=changed(tiny_config.hardware, workers=1))
    process = command(endless)
    board = Path(tiny_config.run_folder) / 'scalars.jsonl'
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
            board.exists() and '"iteration": 2, "latent"' in board.read_text()):
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.strip() == str(Path(tiny_config.run_folder) / 'checkpoint')
    assert FinetuneTrainer(tiny_config)._progress.iteration >= 2


def test_two_processes_train_the_same_weights_as_one(tiny_config, tmp_path):
    pair = with_schedule(tiny_config, max_iterations=2)
    process = command(pair, 'torch.distributed.run', '--standalone', '--nproc_per_node=2', '-m')
    alone = changed(pair, run_folder=str(tmp_path / 'alone'))
    finetune(alone)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    expected, shared = (weights(run.run_folder) for run in (alone, pair))
    assert all(torch.allclose(expected[name], shared[name], atol=1e-5) for name in expected)


def test_end_to_end_from_scratch_by_command(vae_config, tiny_config, folder, tmp_path, capsys):
    scratch = changed(
        tiny_config, initial_checkpoint=None, vae=str(folder / 'vae/checkpoint/vae'),
        architecture=config.UNetArchitecture(
            channels=(16, 32), layers_per_block=1, text_channels=16, norm_groups=8,
            attention_head_channels=16),
        objective=config.ObjectiveConfig(variant='end_to_end', gradient_weight=0.5))
    (tmp_path / 'config.yaml').write_text(config_to_yaml(scratch))
    arguments = ['--config', str(tmp_path / 'config.yaml')]
    assert main([*arguments, 'schedule.max_iterations=1']) == 0
    checkpoint = capsys.readouterr().out.strip()
    assert checkpoint == str(tmp_path / 'run/checkpoint')
    info = DepthEngine.load(checkpoint, device='cpu').checkpoint_info
    assert (info.default_steps, info.initial_latent) == (1, 'zeros')
    assert main([*arguments, 'seed=2']) == 1
    assert capsys.readouterr().err.startswith('ConfigError: `run_folder`')


def test_training_the_autoencoder_does_not_change_the_targets(tiny_config, tmp_path):
    start = make_checkpoint(tmp_path / 'marigold')
    extras = config.ObjectiveConfig(
        terminal_fraction=0.5, rollout_fraction=1.0, max_snr_weight=1.0, pixel_samples=1,
        gradient_weight=0.5, relative_pixels=True, latent_drift_weight=1.0)
    learning = with_schedule(changed(tiny_config, initial_checkpoint=str(start), objective=extras),
                             max_iterations=2, ema_decay=0.0)
    training = FinetuneTrainer(learning)
    checkpoint = training.run()
    name = 'vae/diffusion_pytorch_model.safetensors'
    before, after = load_file(start / name), load_file(checkpoint / name)
    moved = {name.split('.')[0] for name in before
             if not torch.equal(before[name].half(), after[name])}
    assert moved == {'encoder', 'decoder'}
    targets = training._frozen_vae.state_dict()
    assert all(torch.equal(before[name], targets[name]) for name in before)
    lines = (Path(tiny_config.run_folder) / 'scalars.jsonl').read_text().splitlines()
    scalars = json.loads(lines[1])
    assert set(scalars) == {'iteration', 'latent', 'pixel', 'gradient', 'latent_drift',
                            'reconstruction', 'gradient_norm', 'rate'}
    with pytest.raises(ConfigError, match="`vae` must be an AutoencoderTiny if .* got 'Autoenc"):
        FinetuneTrainer(changed(tiny_config, objective=extras))
