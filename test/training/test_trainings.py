"""Whole trainings of a few iterations: recipes, resuming, what they leave, and accidents."""

from __future__ import annotations

import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time

from checkpoints import make_checkpoint
from diffusers import AutoencoderTiny, MarigoldDepthPipeline
import numpy as np
import pytest
from safetensors.torch import load_file
import torch

from marigold_ros.data.shards import ShardFrames, write_shard
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import CheckpointError, ConfigError, InputError, MarigoldError
from marigold_ros.training import config
from marigold_ros.training.checkpoints import initial_pipeline
from marigold_ros.training.config import AugmentationConfig, FrameSetConfig
from marigold_ros.training.finetune import finetune, Finetuning, main
from marigold_ros.training.networks import encode
from marigold_ros.training.recipe import load_recipe, recipe_as_yaml
from marigold_ros.training.run_folder import replacing
from marigold_ros.training.train_vae import images_and_depths, train_vae
from marigold_ros.training.trainer import Trainer
from marigold_ros.training.validation import Validation
from marigold_ros.training.views import random_view

CONFIG_FOLDER = Path(__file__).parents[2] / 'config'
HEIGHT, WIDTH = 32, 48


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def write_frames(folder, count=4, scale=1.0):
    """Write images in which brighter is farther, below a sky of one row."""
    folder.mkdir(exist_ok=True)
    rgb = np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
    depth_m = scale * (1 + rgb.mean(axis=-1, dtype=np.float32) / 64)
    depth_m[:, 0] = np.inf
    write_shard(folder, 0, rgb, depth_m, np.zeros((count, 3, 3)), ['room'] * count, first=0)
    return FrameSetConfig(reader='shards', path=str(folder), size=(HEIGHT, WIDTH))


def write_stable_diffusion(folder):
    """Write a tiny checkpoint whose U-Net reads one latent, in Stable Diffusion 2's layout."""
    make_checkpoint(folder, in_channels=4, vae='kl')
    index = json.loads((folder / 'model_index.json').read_text())
    kept = {name: index[name] for name in ('text_encoder', 'tokenizer', 'unet', 'vae')}
    (folder / 'model_index.json').write_text(json.dumps(kept | {
        '_class_name': 'StableDiffusionPipeline', 'scheduler': ['diffusers', 'PNDMScheduler'],
        'feature_extractor': [None, None], 'safety_checker': [None, None],
        'requires_safety_checker': False}))
    scheduler = folder / 'scheduler' / 'scheduler_config.json'
    fields = json.loads(scheduler.read_text())
    scheduler.write_text(json.dumps(fields | {
        '_class_name': 'PNDMScheduler', 'timestep_spacing': 'leading', 'skip_prk_steps': True,
        'rescale_betas_zero_snr': False}))
    return folder


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp('training')
    write_stable_diffusion(made / 'sd2')
    write_frames(made / 'frames')
    return made


@pytest.fixture
def recipe(folder, tmp_path):
    """Four iterations from Stable Diffusion, in two parts each, two before the first save."""
    frames = FrameSetConfig(reader='shards', path=str(folder / 'frames'), size=(HEIGHT, WIDTH))
    return config.FinetuneConfig(
        run_folder=str(tmp_path / 'run'), seed=1, initial_checkpoint=str(folder / 'sd2'),
        train=(frames, changed(frames, size=(24, 32))), validation=(frames,), validation_frames=2,
        augmentation=AugmentationConfig(min_crop=0.8, jitter_probability=0.5, noise=0.02),
        schedule=config.ScheduleConfig(
            batch_size=4, device_batch_size=2, max_iterations=4, learning_rate=1e-3,
            warmup_iterations=1, decay_iterations=10, checkpoint_every=2),
        hardware=config.HardwareConfig(device='cpu', workers=0),
        default_processing_resolution=48)


def changed(part, **changes):
    return part.model_copy(update=changes)


def with_schedule(recipe, **changes):
    return changed(recipe, schedule=changed(recipe.schedule, **changes))


def weights(run_folder, part='state/model.safetensors'):
    return load_file(Path(run_folder) / part)


# --- recipes -------------------------------------------------------------------------------

@pytest.mark.parametrize(('name', 'kind'), [
    ('finetune.yaml', config.FinetuneConfig), ('finetune_robot.yaml', config.FinetuneConfig),
    ('finetune_tiny_coarse.yaml', config.FinetuneConfig),
    ('finetune_tiny.yaml', config.FinetuneConfig), ('train_vae.yaml', config.VaeConfig)])
def test_shipped_recipes_are_read_and_written_alike(tmp_path, name, kind):
    recipe = load_recipe(kind, CONFIG_FOLDER / name)
    (tmp_path / 'copy.yaml').write_text(recipe_as_yaml(recipe))
    assert load_recipe(kind, tmp_path / 'copy.yaml') == recipe


def test_the_shipped_recipe_is_marigolds():
    recipe = load_recipe(config.FinetuneConfig, CONFIG_FOLDER / 'finetune.yaml')
    schedule = recipe.schedule
    assert (schedule.batch_size, schedule.learning_rate, schedule.weight_decay) == (32, 3e-5, 0)
    assert (schedule.warmup_iterations, schedule.decay_iterations) == (100, 25_000)
    assert (schedule.final_ratio, schedule.decay) == (0.01, 'exponential')
    assert (schedule.max_iterations, schedule.max_gradient_norm) == (30_000, None)
    assert recipe.objective == config.ObjectiveConfig()
    assert recipe.objective.multires_strength == 0.9
    assert [(frames.reader, frames.weight, frames.size) for frames in recipe.train] == [
        ('hypersim', 0.9, (480, 640)), ('virtual_kitti', 0.1, (352, 1216))]
    assert recipe.augmentation.flip_probability == 0.5


def test_overrides_reach_any_place_of_a_recipe():
    recipe = load_recipe(config.FinetuneConfig, CONFIG_FOLDER / 'finetune_robot.yaml', [
        'train.0.path=my drive.mcap', 'schedule.learning_rate=1.0e-4', 'seed=5'])
    assert recipe.train[0].path == 'my drive.mcap'
    assert (recipe.schedule.learning_rate, recipe.seed) == (1e-4, 5)


@pytest.mark.parametrize(('overrides', 'message'), [
    (['schedule.lr=1'], r'finetune\.yaml`: schedule\.lr: Extra inputs are not permitted, got 1$'),
    (['schedule.batch_size=many'], r'schedule\.batch_size: .* valid integer.*, got .many.$'),
    (['schedule.batch_size=0'], r'schedule\.batch_size: .* be greater than 0, got 0$'),
    (['schedule.warmup_iterations=25000'],
     r'schedule: `warmup_iterations` must be below `decay_iterations` \(25000\); got 25000$'),
    (['schedule.final_ratio=0'], r'schedule\.final_ratio: .* greater than 0, got 0$'),
    (['schedule.ema_decay=1'], r'schedule\.ema_decay: .* less than 1, got 1$'),
    (['schedule.decay=linear'], "schedule.decay: .* 'exponential' or 'cosine', got 'linear'$"),
    (['augmentation.min_crop=0.9', 'augmentation.max_crop=0.8'],
     r'augmentation: `min_crop` must be at most `max_crop` \(0\.8\); got 0\.9$'),
    (['augmentation.max_crop=1.1'], r'augmentation\.max_crop: .* or equal to 1, got 1\.1$'),
    (['augmentation.flip_probability=-0.1'], 'flip_probability: .* or equal to 0, got -0.1$'),
    (['objective.terminal_fraction=2'], 'terminal_fraction: .* less than or equal to 1, got 2$'),
    (['validation_frames=0'], 'validation_frames: .* greater than 0, got 0$'),
    (['objective.variant=end_to_end', 'default_denoising_steps=4'],
     '`default_denoising_steps` must be 1 for the variant end_to_end.*; got 4'),
    (['default_denoising_steps=1'], 'and 2 or more for diffusion; got 1'),
    (['objective.rollout_fraction=0.5'], '`max_snr_weight` must be given with'),
    (['train=[]'], r'train: Tuple should have at least 1 item .*, got \[\]$'),
    (['vae=a', 'initial_checkpoint=null'], '`initial_checkpoint` and `architecture` must be'),
    (['seed'], "must be key=value; got 'seed'"),
    (['train.7.path=a'], 'must name a place in the recipe')])
def test_a_wrong_recipe_is_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(config.FinetuneConfig, CONFIG_FOLDER / 'finetune.yaml', overrides)


def test_a_file_that_is_no_recipe_is_named(tmp_path):
    (tmp_path / 'list.yaml').write_text('- 1')
    with pytest.raises(ConfigError, match='must hold keys and values; got list'):
        load_recipe(config.VaeConfig, tmp_path / 'list.yaml')
    with pytest.raises(ConfigError, match='must be a readable YAML file'):
        load_recipe(config.VaeConfig, tmp_path / 'none.yaml')


@pytest.mark.parametrize(('name', 'kind', 'overrides', 'message'), [
    ('finetune_tiny_coarse.yaml', config.FinetuneConfig, ['architecture.norm_groups=10'],
     r'architecture: `norm_groups` must be a divisor of every width in \(96, .*; got 10$'),
    ('finetune_tiny_coarse.yaml', config.FinetuneConfig, ['vae=null'],
     '`vae` must be given where training starts from scratch; got None$'),
    ('train_vae.yaml', config.VaeConfig, ['architecture.encoder_blocks=[1, 1]'],
     r'architecture\.encoder_blocks: .* at least 4 items .*, got \[1, 1\]$'),
    ('train_vae.yaml', config.VaeConfig, ['architecture.decoder_blocks=[1, 1, 1, 1, 1]'],
     r'architecture\.decoder_blocks: .* at most 4 items'),
    ('train_vae.yaml', config.VaeConfig, ['architecture.latent_channels=0'],
     r'architecture\.latent_channels: .* greater than 0, got 0$')])
def test_a_wrong_architecture_is_named(name, kind, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(kind, CONFIG_FOLDER / name, overrides)


# --- where to start ------------------------------------------------------------------------

def test_stable_diffusion_becomes_marigold_by_doubling_conv_in(recipe, folder):
    pipeline = initial_pipeline(recipe)
    stored = load_file(folder / 'sd2/unet/diffusion_pytorch_model.safetensors')
    weight = pipeline.unet.conv_in.weight
    assert pipeline.unet.config.in_channels == 8
    assert torch.equal(weight, torch.cat([stored['conv_in.weight'] / 2] * 2, dim=1))
    assert torch.equal(pipeline.unet.conv_in.bias, stored['conv_in.bias'])
    assert pipeline.scheduler.alphas_cumprod[-1].item() == 0.0
    pipeline.scheduler.set_timesteps(4)
    assert pipeline.scheduler.timesteps.tolist() == [999, 749, 499, 249]
    assert pipeline.scheduler.config.prediction_type == 'v_prediction'


def test_a_marigold_checkpoint_is_taken_as_it_is(recipe, tmp_path):
    marigold = make_checkpoint(tmp_path / 'marigold', prediction_type='sample')
    pipeline = initial_pipeline(changed(recipe, initial_checkpoint=str(marigold)))
    stored = load_file(marigold / 'unet/diffusion_pytorch_model.safetensors')
    assert torch.equal(pipeline.unet.conv_in.weight, stored['conv_in.weight'])
    assert pipeline.scheduler.config.prediction_type == 'sample'
    assert isinstance(pipeline.vae, AutoencoderTiny)


def test_predicted_noise_keeps_a_trace_of_the_latent_at_the_end(recipe):
    pipeline = initial_pipeline(changed(recipe, prediction_type='epsilon'))
    assert pipeline.scheduler.alphas_cumprod[-1].item() == pytest.approx(0.0047, abs=1e-4)
    end_to_end = changed(recipe, prediction_type='epsilon',
                         objective=config.ObjectiveConfig(variant='end_to_end'))
    with pytest.raises(ConfigError, match='`prediction_type` must be v_prediction or sample'):
        initial_pipeline(end_to_end)


def test_a_checkpoint_that_cannot_be_used_is_named(recipe, tmp_path):
    wrong = make_checkpoint(tmp_path / 'wrong', in_channels=5)
    with pytest.raises(CheckpointError, match='must have a U-Net from 4 .* got 5 to 4'):
        initial_pipeline(changed(recipe, initial_checkpoint=str(wrong)))
    with pytest.raises(CheckpointError, match="cannot open '.*/nothing'"):
        initial_pipeline(changed(recipe, initial_checkpoint=str(tmp_path / 'nothing')))
    with pytest.raises(CheckpointError, match='`vae` must be the folder or hub id'):
        initial_pipeline(changed(recipe, vae=str(tmp_path)))


# --- a training ----------------------------------------------------------------------------

@pytest.fixture(scope='module')
def trained(folder):
    """Train for four iterations, for several tests to look at."""
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


def test_a_run_leaves_recipe_versions_seed_scalars_and_grids(trained):
    run = Path(trained.run_folder)
    assert load_recipe(config.FinetuneConfig, run / 'config.yaml') == trained
    facts = json.loads((run / 'versions.json').read_text())
    assert (facts['torch'], facts['seed']) == (torch.__version__, '1')
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
def test_four_iterations_are_two_and_two_more_bit_for_bit(recipe, tmp_path, frames_on_device):
    recipe = changed(recipe, hardware=changed(recipe.hardware, frames_on_device=frames_on_device))
    whole = changed(recipe, run_folder=str(tmp_path / 'whole'))
    finetune(whole)
    finetune(with_schedule(recipe, max_iterations=2))
    # The second half reads its frames in a process of their own, unless they are on the device.
    finetune(changed(recipe, hardware=changed(recipe.hardware, workers=1)))
    for part in ('state/model.safetensors', 'checkpoint/unet/diffusion_pytorch_model.safetensors'):
        expected, resumed = (weights(folder, part)
                             for folder in (whole.run_folder, recipe.run_folder))
        assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    moments = [torch.load(Path(folder) / 'state/optimizer.bin')['state'][0]['exp_avg_sq']
               for folder in (whole.run_folder, recipe.run_folder)]
    assert torch.equal(*moments)
    assert not torch.equal(expected['conv_in.weight'], weights(
        recipe.run_folder)['conv_in.weight'].half())      # the checkpoint is the average


def test_gradients_accumulate_to_those_of_the_whole_batch(recipe, tmp_path):
    norms, brightness = [], []

    class Brightness(Constant):

        def losses(self, model, batch, generator):
            brightness.append(batch.image.mean().item())
            return {'latent': model(batch.image.mean().reshape(1, 1)).sum()}

    for size in (1, 4):
        one = with_schedule(changed(recipe, run_folder=str(tmp_path / str(size))),
                            device_batch_size=size)
        trainer = Brightness(changed(one, train=recipe.train[:1]))
        norms.append(trainer._train_iteration(trainer._batches())['gradient_norm'])
    # The gradient of weight x brightness is the mean brightness of the four views.
    assert len(brightness) == 4 + 1
    assert norms == pytest.approx([abs(np.mean(brightness[:4]))] * 2, rel=1e-4)
    assert brightness[4] == pytest.approx(np.mean(brightness[:4]), rel=1e-4)


class Constant(Trainer):
    """A training whose loss is a weight, to see what becomes of it."""

    def __init__(self, recipe, accident=None):
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(model.weight)
        self.calls = 0
        self.accident = accident or (lambda calls, loss: loss)
        super().__init__(recipe, model)

    def prepare(self, device, train):
        """Nothing is left to prepare."""

    def losses(self, model, batch, generator):
        self.calls += 1
        return {'latent': self.accident(self.calls, model(torch.ones(1, 1)).sum())}

    def save(self, folder):
        (folder / 'weight.txt').write_text(str(self.model.weight.item()))

    def validate(self, folder, frame_sets, device):
        return Validation({}, {})


def written_weight(recipe):
    return float((Path(recipe.run_folder) / 'checkpoint/weight.txt').read_text())


def test_the_checkpoint_gets_the_average_of_the_weights(recipe):
    # Rates 0, 1e-3, 1e-3 x .01^(1/9): weights 1, .999, .9984; decays 0, 2/11, 3/12.
    training = Constant(with_schedule(recipe, max_iterations=3, checkpoint_every=100))
    training.run()
    third = 0.999 - 1e-3 * 0.01 ** (1 / 9)
    assert training.model.weight.item() == pytest.approx(third, abs=1e-6)
    second = 0.999 + 2 / 11 * 0.001
    assert written_weight(recipe) == pytest.approx(third + 3 / 12 * (second - third), abs=1e-6)


# --- accidents -----------------------------------------------------------------------------

@pytest.mark.parametrize('accident', [
    lambda loss: loss * torch.nan,                          # a loss that is not a number
    lambda loss: (loss - loss.detach()).abs().sqrt()])      # a finite one of infinite gradient
def test_what_is_not_finite_stops_and_keeps_the_checkpoint(recipe, accident):
    broken = Constant(recipe, lambda calls, loss: accident(loss) if calls > 6 else loss)
    with pytest.raises(MarigoldError, match='must stay finite; got .* in iteration 3; the last '
                                            'good checkpoint is .*/checkpoint'):
        broken.run()
    assert 0.99 < written_weight(recipe) < 1.0
    assert torch.isfinite(weights(recipe.run_folder)['weight']).all()


def test_ctrl_c_saves_and_the_run_can_go_on(recipe):
    def interrupt(calls, loss):
        if calls == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    Constant(recipe, interrupt).run()
    assert written_weight(recipe) == 1.0                    # after the one iteration of rate 0
    training = Constant(recipe)
    training.run()
    assert training.calls == 2 * 3                              # parts of the three left


def command(recipe, *launcher):
    """Start the training of a recipe as a user does, in a process group of its own."""
    path = Path(recipe.run_folder).with_suffix('.yaml')
    path.write_text(recipe_as_yaml(recipe))
    return subprocess.Popen(
        [sys.executable, '-m', *launcher, 'marigold_ros.training.finetune', '--config', path],
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_reaches_the_workers_too_and_still_saves(recipe):
    endless = changed(with_schedule(recipe, max_iterations=10 ** 6),
                      hardware=changed(recipe.hardware, workers=1))
    process = command(endless)
    board = Path(recipe.run_folder) / 'scalars.jsonl'
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
            board.exists() and '"iteration": 2, "latent"' in board.read_text()):
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.strip() == str(Path(recipe.run_folder) / 'checkpoint')
    assert Finetuning(recipe)._progress.iteration >= 2


def test_two_processes_train_what_one_does(recipe, tmp_path):
    pair = with_schedule(recipe, max_iterations=2)
    process = command(pair, 'torch.distributed.run', '--standalone', '--nproc_per_node=2', '-m')
    alone = changed(pair, run_folder=str(tmp_path / 'alone'))
    finetune(alone)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    expected, shared = (weights(run.run_folder) for run in (alone, pair))
    assert all(torch.allclose(expected[name], shared[name], atol=1e-5) for name in expected)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    with replacing(tmp_path / 'a') as new:
        (new / 'file').write_text('first')
    with pytest.raises(OSError, match='full'), replacing(tmp_path / 'a') as new:
        (new / 'file').write_text('second')
        raise OSError('full')
    assert (tmp_path / 'a/file').read_text() == 'first'
    with replacing(tmp_path / 'a') as new:
        assert not list(new.iterdir())
    assert not list((tmp_path / 'a').iterdir())


def test_a_run_goes_on_only_with_its_own_recipe(recipe):
    Constant(with_schedule(recipe, max_iterations=2)).run()
    with pytest.raises(ConfigError, match=r'another recipe \(schedule\.learning_rate: 0\.001 '
                                          r'there, 0\.1 here\)'):
        Constant(with_schedule(recipe, learning_rate=0.1))
    # Another device may take over, but views taken on it are other views.
    other = changed(recipe.hardware, device='auto', frames_on_device=True)
    with pytest.raises(ConfigError, match=r'\(hardware\.frames_on_device: False there, True'):
        Constant(changed(recipe, hardware=other))
    # A machine that stopped between two renames leaves the old state beside its place.
    state = Path(recipe.run_folder) / 'state'
    shutil.move(state, state.with_name('state.old'))
    training = Constant(recipe)
    training.run()
    assert training.calls == 2 * 2


def test_bad_data_stops_before_the_first_step(recipe, tmp_path):
    millimetres = changed(recipe, train=(write_frames(tmp_path / 'mm', scale=1000.0),))
    with pytest.raises(InputError, match='frame 0 of .*/mm: the median depth must lie between'):
        Constant(millimetres)
    (tmp_path / 'empty').mkdir()
    empty = changed(recipe, validation=(FrameSetConfig(
        reader='shards', path=str(tmp_path / 'empty'), size=(32, 48)),))
    with pytest.raises(MarigoldError, match='must hold rgb_.* shards'):
        Constant(empty)
    assert not Path(recipe.run_folder, 'state').exists()


def test_a_batch_must_be_shared_out_evenly(recipe):
    with pytest.raises(ConfigError, match='`batch_size` must be a multiple .* got 4, 3 and 1'):
        Constant(with_schedule(recipe, device_batch_size=3))


# --- from scratch, end to end, from the command line ---------------------------------------

@pytest.fixture(scope='module')
def vae_recipe(folder):
    frames = FrameSetConfig(reader='shards', path=str(folder / 'frames'), size=(HEIGHT, WIDTH))
    recipe = config.VaeConfig(
        run_folder=str(folder / 'vae'), seed=1, train=(frames,), validation=(frames,),
        architecture=config.VaeArchitecture(
            channels=8, encoder_blocks=(0, 1, 1, 1), decoder_blocks=(1, 1, 1, 0),
            latent_channels=6),
        validation_frames=2,
        schedule=config.ScheduleConfig(batch_size=2, max_iterations=3, learning_rate=1e-3),
        hardware=config.HardwareConfig(device='cpu', workers=0), depth_weight=0.5)
    train_vae(recipe)
    return recipe


def test_latents_of_the_trained_autoencoder_have_unit_size(vae_recipe, folder):
    vae = AutoencoderTiny.from_pretrained(folder / 'vae/checkpoint/vae')
    scalars = json.loads((folder / 'vae/scalars.jsonl').read_text().splitlines()[-1])
    assert scalars['validation/frames/abs_rel_round_trip'] > 0
    frames, unchanged = ShardFrames(folder / 'frames'), AugmentationConfig(flip_probability=0.0)
    views = [random_view(frames[index], (HEIGHT, WIDTH), unchanged, np.random.default_rng(0))
             for index in range(len(frames))]
    with torch.no_grad():
        latents = torch.cat([encode(vae, images_and_depths(view)) for view in views])
    assert latents.shape[1] == 6
    assert latents.square().mean().sqrt().item() == pytest.approx(1.0, abs=0.02)


def test_end_to_end_from_scratch_by_command(vae_recipe, recipe, folder, tmp_path, capsys):
    scratch = changed(
        recipe, initial_checkpoint=None, vae=str(folder / 'vae/checkpoint/vae'),
        architecture=config.UNetArchitecture(
            channels=(16, 32), layers_per_block=1, text_channels=16, norm_groups=8,
            attention_head_channels=16),
        objective=config.ObjectiveConfig(variant='end_to_end', gradient_weight=0.5))
    (tmp_path / 'recipe.yaml').write_text(recipe_as_yaml(scratch))
    arguments = ['--config', str(tmp_path / 'recipe.yaml')]
    assert main([*arguments, 'schedule.max_iterations=1']) == 0
    checkpoint = capsys.readouterr().out.strip()
    assert checkpoint == str(tmp_path / 'run/checkpoint')
    info = DepthEngine.load(checkpoint, device='cpu').checkpoint_info
    assert (info.default_steps, info.initial_latent) == (1, 'zeros')
    assert main([*arguments, 'seed=2']) == 1
    assert capsys.readouterr().err.startswith('ConfigError: `run_folder`')


def test_an_autoencoder_that_learns_leaves_the_targets_alone(recipe, tmp_path):
    start = make_checkpoint(tmp_path / 'marigold')
    extras = config.ObjectiveConfig(
        terminal_fraction=0.5, rollout_fraction=1.0, max_snr_weight=1.0, pixel_samples=1,
        gradient_weight=0.5, relative_pixels=True, autoencoder_anchor=1.0)
    learning = with_schedule(changed(recipe, initial_checkpoint=str(start), objective=extras),
                             max_iterations=2, ema_decay=0.0)
    training = Finetuning(learning)
    checkpoint = training.run()
    name = 'vae/diffusion_pytorch_model.safetensors'
    before, after = load_file(start / name), load_file(checkpoint / name)
    moved = {name.split('.')[0] for name in before
             if not torch.equal(before[name].half(), after[name])}
    assert moved == {'encoder', 'decoder'}
    targets = training._frozen_vae.state_dict()
    assert all(torch.equal(before[name], targets[name]) for name in before)
    scalars = json.loads((Path(recipe.run_folder) / 'scalars.jsonl').read_text().splitlines()[1])
    assert {'iteration', 'latent', 'pixel', 'gradient', 'anchor', 'round_trip', 'gradient_norm',
            'rate'} == set(scalars)
    with pytest.raises(ConfigError, match="`vae` must be an AutoencoderTiny if .* got 'Autoenc"):
        Finetuning(changed(recipe, objective=extras))
