"""The fine-tuning protocol's rules, on hand-made numbers, and two short trainings."""

from __future__ import annotations

from dataclasses import replace
import json
import math
import os
from pathlib import Path
import signal

from diffusers import AutoencoderTiny, MarigoldDepthPipeline
import numpy as np
import pytest
from safetensors.torch import load_file
import torch

from marigold_ros.data.scenes.shards import write_shard
from marigold_ros.depth.errors import ConfigError, MarigoldError
from marigold_ros.training import architecture, config, dataset, latents, losses, noise, targets
from marigold_ros.training.diffusion import Diffusion
from marigold_ros.training.finetune import Finetuning
from marigold_ros.training.run_folder import stop_on_signal
from marigold_ros.training.schedule import learning_rate, Progress
from marigold_ros.training.state import load_state, save_state, WeightAverage
from marigold_ros.training.train_vae import VaeTraining

CONFIG_FOLDER = Path(__file__).parents[1] / 'config'


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- targets -------------------------------------------------------------------------------

def normalized_depth(depth):
    return targets.normalize_depth(depth, *targets.depth_range(depth))


def test_two_percent_quantiles_become_minus_one_and_one():
    depth = torch.arange(101.0)[None, None] + 1          # quantiles 2 %: 3 m, 98 %: 99 m
    normalized = normalized_depth(depth)[0, 0, 0]
    assert normalized[[0, 2, 50, 98, 100]].tolist() == pytest.approx([-1, -1, 0, 1, 1])


def test_sky_is_far_and_leaves_the_quantiles_alone():
    depth = torch.cat([torch.arange(101.0) + 1, torch.full((50,), torch.inf)])[None, None]
    normalized = normalized_depth(depth)[0, 0, 0]
    assert normalized[50].item() == pytest.approx(0.0)
    assert (normalized[101:] == 1).all()


def test_unknown_depth_is_masked_and_sky_is_not():
    depth = torch.tensor([[[1.0, torch.inf, torch.nan, 0.0, -1.0]]])
    assert targets.known_depth(depth)[0, 0].tolist() == [True, True, False, False, False]
    assert targets.valid_depth(depth)[0, 0].tolist() == [True, False, False, False, False]
    assert torch.isfinite(normalized_depth(depth)).all()


def test_relative_weight_turns_normalised_error_into_relative_error():
    depth = torch.tensor([[[1.0, 2.0, 10.0, torch.inf, torch.nan]]])
    weight = targets.relative_weight(depth, torch.tensor([[[4.0]]]))
    # One normalised unit is 2 m: 200 % at 1 m, 100 % at 2 m, 20 % at 10 m.
    assert weight[0, 0, 0].tolist() == pytest.approx([2.0, 1.0, 0.2, 0.0, 0.0])
    assert targets.relative_weight(depth, torch.tensor([[[40.0]]])).max() == 8.0


def test_one_unknown_pixel_masks_its_latent_cell_in_all_channels():
    known = torch.ones(1, 16, 24, dtype=torch.bool)
    known[0, 9, 17] = False
    mask = targets.latent_mask(known, 8, 4)
    assert mask.shape == (1, 4, 2, 3)
    assert mask[0, :, 1, 2].tolist() == [False] * 4
    assert mask.sum() == 4 * (2 * 3 - 1)


# --- noise ---------------------------------------------------------------------------------

def test_noise_has_unit_deviation_over_the_batch():
    drawn = noise.multi_resolution_noise(
        torch.Size((8, 4, 24, 32)), torch.full((8,), 0.9), generator())
    assert drawn.std().item() == pytest.approx(1.0, abs=1e-5)


def test_stronger_noise_correlates_neighbours_and_annealing_removes_it():
    timesteps = torch.tensor([999, 0])
    drawn = noise.annealed_noise(
        torch.Size((2, 64, 32, 32)), timesteps, 0.9, 1000, generator())
    left, right = drawn[..., :-1], drawn[..., 1:]
    correlation = (left * right).mean(dim=(1, 2, 3)) / (drawn ** 2).mean(dim=(1, 2, 3))
    assert correlation[0] > 0.2
    assert abs(correlation[1]) < 0.03


def test_noise_without_strength_is_gaussian():
    timesteps = torch.tensor([999])
    drawn = noise.annealed_noise(torch.Size((1, 4, 6, 8)), timesteps, 0.0, 1000, generator(3))
    assert torch.equal(drawn, torch.randn((1, 4, 6, 8), generator=generator(3)))


# --- diffusion -----------------------------------------------------------------------------

@pytest.fixture
def diffusion():
    # abar = .64, .36, 0: sqrt(abar) = .8, .6, 0 and sqrt(1 - abar) = .6, .8, 1.
    return Diffusion(
        torch.tensor([0.64, 0.36, 0.0]),
        config.DiffusionConfig(terminal_fraction=0.5, max_snr_weight=2.0))


def test_noisy_latent_and_x0_of_hand_made_numbers(diffusion):
    timesteps = torch.tensor([0, 1, 2])
    x0, eps = torch.full((3, 1, 1, 1), 2.0), torch.full((3, 1, 1, 1), 1.0)
    noisy = diffusion.add_noise(x0, eps, timesteps)
    assert noisy.flatten().tolist() == pytest.approx([2.2, 2.0, 1.0])
    velocity = torch.tensor([-0.4, -1.0, -2.0]).reshape(3, 1, 1, 1)    # .8-1.2, .6-1.6, 0-2
    assert diffusion.predicted_x0(noisy, velocity, timesteps).flatten().tolist() == (
        pytest.approx([2.0, 2.0, 2.0]))


def test_x0_weight_is_that_of_the_v_objective_up_to_the_limit(diffusion):
    weight = diffusion.x0_weight(torch.tensor([0, 1, 2]))
    assert weight.tolist() == pytest.approx([2.0, 1 / 0.64, 1.0])      # 1 / .36 is limited to 2


def test_half_of_the_batch_starts_at_the_last_timestep(diffusion):
    timesteps = diffusion.draw_timesteps(200, generator())
    assert (timesteps[:100] == 2).all()
    assert set(timesteps[100:].tolist()) == {0, 1, 2}


# --- losses --------------------------------------------------------------------------------

def test_masked_mse_counts_masked_elements_and_weights_images():
    prediction = torch.tensor([[1.0, 5.0], [2.0, 2.0]]).reshape(2, 1, 1, 2)
    mask = torch.tensor([[True, False], [True, True]]).reshape(2, 1, 1, 2)
    loss = losses.masked_mse(
        prediction, torch.zeros_like(prediction), mask, torch.tensor([1.0, 0.5]))
    assert loss.item() == pytest.approx((1 + 0.5 * 4 + 0.5 * 4) / 3)


def test_weighted_l1_averages_over_the_elements_that_count():
    error = torch.tensor([1.0, -2.0, 5.0]).reshape(1, 1, 1, 3)
    weight = torch.tensor([3.0, 0.5, 0.0]).reshape(1, 1, 1, 3)
    loss = losses.weighted_l1(error, torch.zeros_like(error), weight)
    assert loss.item() == pytest.approx((3 * 1 + 0.5 * 2) / 2)


def test_alignment_removes_scale_and_shift_per_image():
    target = torch.rand(2, 1, 4, 5, generator=generator())
    prediction = torch.stack([target[0] * 30 - 7, target[1] * -40 + 1])
    mask = torch.ones_like(target, dtype=torch.bool)
    aligned = losses.align_least_squares(prediction, target, mask)
    assert torch.allclose(aligned, target, atol=1e-4)


def test_alignment_of_a_constant_is_the_mean_and_finite():
    target = torch.tensor([0.0, 1.0, 5.0]).reshape(1, 1, 1, 3)
    mask = torch.tensor([True, True, False]).reshape(1, 1, 1, 3)
    prediction = torch.ones_like(target).requires_grad_()
    aligned = losses.align_least_squares(prediction, target, mask)
    assert aligned.flatten().tolist() == pytest.approx([0.5, 0.5, 0.5])
    aligned.sum().backward()
    assert torch.isfinite(prediction.grad).all()


def test_gradient_loss_sees_edges_not_offsets():
    step = torch.tensor([0.0, 0.0, 1.0, 1.0]).reshape(1, 1, 1, 4)
    mask = torch.ones_like(step, dtype=torch.bool)
    assert losses.gradient_l1(step + 3, step, mask).item() == 0.0
    flat = torch.zeros_like(step)
    assert losses.gradient_l1(flat, step, mask).item() == pytest.approx(1 / 3)
    mask[..., 2] = False
    assert losses.gradient_l1(flat, step, mask).item() == 0.0


# --- frames and views ----------------------------------------------------------------------

def frames(number, count=4, height=16, width=24):
    random = np.random.default_rng(number)
    rgb = random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    ramp = np.linspace(4, 1, height, dtype=np.float32)[None, :, None]
    depth_m = ramp + rgb.mean(axis=-1, dtype=np.float32) / 255
    depth_m[:, 0, 0] = np.inf
    return rgb, depth_m


def put_shard(folder, number, **size):
    rgb, depth_m = frames(number, **size)
    K = np.repeat(np.eye(3)[None], len(rgb), axis=0)
    write_shard(folder, number, rgb, depth_m, K, ['room'] * len(rgb), first=number * len(rgb))
    return rgb, depth_m


def test_shards_grow_and_indices_cross_them(tmp_path):
    first, _ = put_shard(tmp_path, 0)
    shards = dataset.FrameShards(tmp_path)
    _, second_depth = put_shard(tmp_path, 1)
    assert (len(shards), shards.refresh()) == (4, 8)
    rgb, depth_m = shards.take(np.array([3, 4]))
    assert np.array_equal(rgb[0], first[3])
    assert np.array_equal(depth_m[1], second_depth[0])


def test_a_view_without_changes_is_the_frame():
    rgb = torch.randint(0, 256, (2, 8, 16, 3), dtype=torch.uint8, generator=generator())
    depth_m = torch.rand(2, 8, 16, generator=generator()) + 1
    depth_m[0, 0, 0] = torch.inf
    plain = dataset.ViewConfig(height=8, width=16, flip_probability=0.0)
    image, depth = dataset.random_views(rgb, depth_m, plain, generator())
    assert torch.equal(depth, depth_m)
    assert torch.allclose(image, rgb.permute(0, 3, 1, 2) / 127.5 - 1, atol=1e-5)


def test_a_flip_mirrors_image_and_depth_together():
    rgb = torch.randint(0, 256, (1, 8, 16, 3), dtype=torch.uint8, generator=generator())
    depth_m = torch.rand(1, 8, 16, generator=generator())
    mirror = dataset.ViewConfig(height=8, width=16, flip_probability=1.0)
    image, depth = dataset.random_views(rgb, depth_m, mirror, generator())
    assert torch.equal(depth, depth_m.flip(-1))
    assert torch.allclose(image, rgb.permute(0, 3, 1, 2).flip(-1) / 127.5 - 1, atol=1e-5)


def test_a_crop_shows_image_and_depth_of_the_same_place():
    grey = torch.linspace(0, 255, 64)[None, None, :].expand(8, 48, 64)
    rgb = grey.round().to(torch.uint8)[..., None].expand(-1, -1, -1, 3)
    crop = dataset.ViewConfig(height=24, width=32, min_crop=0.5, max_crop=0.9)
    image, depth = dataset.random_views(rgb, grey.contiguous(), crop, generator())
    assert ((image.mean(dim=1) + 1) * 127.5 - depth).abs().max() < 255 / 64 + 1
    assert depth[0].std() != depth[1].std()


def test_jitter_changes_colours_within_range():
    rgb = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8, generator=generator())
    bright = dataset.ViewConfig(height=8, width=8, flip_probability=0.0, jitter=0.3, noise=0.05)
    image, _ = dataset.random_views(rgb, torch.ones(4, 8, 8), bright, generator())
    assert image.min() >= -1 and image.max() <= 1
    assert (image - (rgb.permute(0, 3, 1, 2) / 127.5 - 1)).abs().mean() > 0.02


# --- pool, schedule, average, state --------------------------------------------------------

def latent_batch(*values):
    column = torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1, 1)
    return latents.LatentBatch(column, column, column, column > 0, column, column)


def test_pool_fills_then_replaces_and_keeps_fields_together():
    pool = latents.LatentPool(3, generator())
    pool.add(latent_batch(1, 2))
    assert (len(pool), set(pool.draw(50).image.flatten().tolist())) == (2, {1.0, 2.0})
    pool.add(latent_batch(3, 4))
    drawn = pool.draw(100)
    assert len(pool) == 3
    assert {3.0, 4.0} <= set(drawn.image.flatten().tolist())
    assert torch.equal(drawn.image, drawn.normalized_depth)


@pytest.mark.parametrize(('decay', 'middle'), [('cosine', 0.505), ('exponential', 0.1)])
def test_learning_rate_warms_up_and_decays(decay, middle):
    schedule = config.ScheduleConfig(
        batch_size=1, max_iterations=1000, max_minutes=1.0, learning_rate=1.0,
        warmup_iterations=100, final_ratio=0.01, decay=decay)
    assert learning_rate(schedule, 49, 0.0) == pytest.approx(0.5)
    assert learning_rate(schedule, 500, 0.5) == pytest.approx(middle)
    assert learning_rate(schedule, 1000, 1.0) == pytest.approx(0.01)


def test_training_ends_at_the_first_of_iterations_and_minutes():
    schedule = config.ScheduleConfig(
        batch_size=1, max_iterations=10, max_minutes=5.0, learning_rate=1.0)
    assert Progress(schedule, iteration=10).finished
    assert Progress(schedule, iteration=1, spent_minutes=6.0).finished
    assert not Progress(schedule, iteration=9).finished


def test_weight_average_follows_early_and_slowly_later():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    average = WeightAverage(module, decay=0.9)
    torch.nn.init.ones_(module.weight)
    average.update(module)
    assert average.weights['weight'].item() == pytest.approx(1 - 2 / 11)
    average.updates = 1000
    average.update(module)
    assert average.weights['weight'].item() == pytest.approx(1 - 0.9 * 2 / 11)


def test_saved_state_continues_as_if_never_interrupted(tmp_path):
    def step(module, optimizer, average):
        optimizer.zero_grad()
        module(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
        average.update(module)

    def fresh(seed):
        torch.manual_seed(seed)
        module = torch.nn.Linear(3, 2)
        return module, torch.optim.AdamW(module.parameters(), 0.1), WeightAverage(module, 0.99)

    first = fresh(0)
    for _ in range(3):
        step(*first)
    save_state(tmp_path / 'state.safetensors', *first, iteration=3, minutes=1.5)
    second = fresh(1)
    assert load_state(tmp_path / 'state.safetensors', *second) == (3, 1.5)
    for training in (first, second):
        step(*training)
    assert torch.equal(first[0].weight, second[0].weight)
    assert torch.equal(first[2].weights['weight'], second[2].weights['weight'])


def test_ctrl_c_asks_for_a_stop():
    with stop_on_signal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(1.0)


# --- architecture and recipes --------------------------------------------------------------

def test_schedule_is_trailing_with_zero_terminal_snr():
    scheduler = architecture.build_scheduler()
    assert scheduler.alphas_cumprod[-1].item() == 0.0
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]


@pytest.mark.parametrize('name', ['finetune.yaml', 'finetune_encoder.yaml'])
def test_shipped_recipes_are_read_and_written_alike(tmp_path, name):
    recipe = config.load_finetune_config(CONFIG_FOLDER / name)
    (tmp_path / 'copy.yaml').write_text(config.config_as_yaml(recipe))
    assert config.load_finetune_config(tmp_path / 'copy.yaml') == recipe
    vae = config.load_vae_config(CONFIG_FOLDER / 'train_vae.yaml')
    assert vae.views.height % architecture.VAE_SCALE_FACTOR == 0
    assert recipe.views.width % architecture.VAE_SCALE_FACTOR == 0


@pytest.mark.parametrize(('text', 'message'), [
    ('- 1', 'must hold keys and values; got list'),
    ('frames: a', "must have exactly the keys of VaeConfig; 'architecture'"),
])
def test_a_wrong_recipe_is_named(tmp_path, text, message):
    (tmp_path / 'recipe.yaml').write_text(text)
    with pytest.raises(ConfigError, match=message):
        config.load_vae_config(tmp_path / 'recipe.yaml')


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match=r'`terminal_fraction` must be in \[0, 1\]; got 2'):
        config.DiffusionConfig(terminal_fraction=2)
    with pytest.raises(ConfigError, match=r'`norm_groups` must divide'):
        architecture.UNetArchitecture((10,), 1, 8, 4, 8)
    with pytest.raises(ConfigError, match=r'`encoder_blocks` must have 4 resolutions'):
        architecture.VaeArchitecture(8, (1, 1), (1, 1))


# --- the two trainings ---------------------------------------------------------------------

@pytest.fixture(scope='module')
def recipes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('training')
    (folder / 'frames').mkdir()
    put_shard(folder / 'frames', 0, height=32, width=48)
    views = dataset.ViewConfig(height=32, width=48, min_crop=0.8)
    schedule = config.ScheduleConfig(
        batch_size=4, max_iterations=4, max_minutes=5.0, learning_rate=1e-3)
    vae = config.VaeConfig(
        frames=str(folder / 'frames'), validation_frames=str(folder / 'frames'),
        run_folder=str(folder / 'vae'), seed=1,
        architecture=architecture.VaeArchitecture(8, (1, 1, 1, 1), (1, 1, 1, 1)),
        views=views, schedule=schedule)
    finetune = config.FinetuneConfig(
        frames=vae.frames, validation_frames=vae.frames, run_folder=str(folder / 'unet'),
        vae=str(folder / 'vae' / 'checkpoint' / 'vae'), seed=1,
        architecture=architecture.UNetArchitecture((16, 32), 1, 16, 8, 16),
        views=views, schedule=schedule,
        diffusion=config.DiffusionConfig(
            terminal_fraction=0.5, rollout_fraction=0.5, pixel_samples=2, pixel_weight=1.0,
            gradient_weight=0.5, latent_reuse=2, latent_pool=8))
    VaeTraining(vae).run()
    Finetuning(finetune).run()
    return folder, vae, finetune


def test_trained_latents_have_unit_size(recipes):
    folder, vae_config, _ = recipes
    training = VaeTraining(vae_config)
    factor = json.loads(
        (folder / 'vae/checkpoint/vae/config.json').read_text())['scaling_factor']
    rgb, depth_m = training._shards.take(np.arange(4))
    image, depth = dataset.random_views(rgb, depth_m, vae_config.views, generator())
    trained = AutoencoderTiny.from_pretrained(folder / 'vae/checkpoint/vae')
    batch = latents.encode_views(trained, image, depth)
    size = torch.cat([batch.image, batch.depth]).square().mean().sqrt().item()
    assert math.isfinite(factor) and 0.5 < size < 2.0


def test_the_pipeline_opens_the_checkpoint_and_runs_it(recipes):
    folder, _, _ = recipes
    pipeline = MarigoldDepthPipeline.from_pretrained(folder / 'unet/checkpoint')
    image = torch.rand(1, 3, 32, 48, generator=generator())
    output = pipeline(image, num_inference_steps=2, generator=generator())
    assert output.prediction.shape == (1, 32, 48, 1)
    assert np.isfinite(output.prediction).all()
    stored = load_file(folder / 'unet/checkpoint/empty_text_embedding.safetensors')
    assert stored['empty_text_embedding'].shape == (1, 2, 16)
    assert torch.allclose(stored['empty_text_embedding'].float(),
                          pipeline.empty_text_embedding, atol=2e-3)


def test_a_run_leaves_recipe_versions_scalars_and_state(recipes):
    folder, _, finetune = recipes
    run = folder / 'unet'
    assert config.load_finetune_config(run / 'config.yaml') == finetune
    assert json.loads((run / 'versions.json').read_text())['torch'] == torch.__version__
    last = json.loads((run / 'scalars.jsonl').read_text().splitlines()[-1])
    assert last['validation/abs_rel_1'] > 0
    vae_scalars = (folder / 'vae' / 'scalars.jsonl').read_text()
    assert json.loads(vae_scalars.splitlines()[-1])['validation/round_trip_abs_rel'] > 0
    assert list((run / 'tensorboard').iterdir())


def test_training_goes_on_where_it_stopped(recipes):
    folder, _, finetune = recipes
    before = load_file(folder / 'unet' / 'state.safetensors')
    longer = replace(finetune, schedule=replace(finetune.schedule, max_iterations=5))
    training = Finetuning(longer)
    training.run()
    after = load_file(folder / 'unet' / 'state.safetensors')
    name = 'weight.unet.conv_in.weight'
    assert 0 < (after[name] - before[name]).abs().max() < 0.01


def test_an_encoder_that_learns_keeps_its_depth_latents(recipes, tmp_path):
    folder, _, finetune = recipes
    learning = replace(
        finetune, run_folder=str(tmp_path / 'run'),
        initial_checkpoint=str(folder / 'unet/checkpoint'),
        diffusion=replace(finetune.diffusion, encoder_anchor=1.0, anchor_samples=2))
    checkpoint = Finetuning(learning).run()
    weights = 'vae/diffusion_pytorch_model.safetensors'
    before = load_file(folder / 'unet/checkpoint' / weights)
    after = load_file(checkpoint / weights)
    moved = {name.split('.')[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {'encoder'}
    assert 0 <= json.loads((tmp_path / 'run/scalars.jsonl').read_text())['validation/abs_rel_1']


def test_an_empty_set_is_an_error(recipes, tmp_path):
    _, vae, finetune = recipes
    with pytest.raises(MarigoldError, match='must hold rgb_.* shards'):
        VaeTraining(replace(vae, frames=str(tmp_path)))
    with pytest.raises(MarigoldError, match='must hold rgb_.* shards'):
        Finetuning(replace(finetune, validation_frames=str(tmp_path)))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(recipes, tmp_path):
    folder, _, finetune = recipes
    broken = Finetuning(replace(finetune, run_folder=str(tmp_path / 'run')))
    torch.nn.init.constant_(broken._trained['unet'].conv_in.bias, torch.nan)
    with pytest.raises(MarigoldError, match='the loss must stay finite'):
        broken.run()
    assert not (tmp_path / 'run' / 'checkpoint').exists()
