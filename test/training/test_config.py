"""Validation rules of the training configurations, and the values they compute."""

from __future__ import annotations

from pathlib import Path
import re

from pydantic import ValidationError
import pytest

from marigold_ros.data.validation_errors import describe_validation_errors
from marigold_ros.depth.errors import ConfigError
from marigold_ros.training import config
from marigold_ros.training.config import FrameSetConfig, ScheduleConfig
from marigold_ros.training.config_files import load_config

CONFIG_FOLDER = Path(__file__).parents[2] / 'config'


@pytest.mark.parametrize(('iteration', 'rate'), [
    (0, 0.0), (50, 1.5e-5), (100, 3e-5), (12_550, 3e-6), (25_000, 3e-7), (29_999, 3e-7)])
def test_marigolds_rate_warms_up_and_decays_to_one_percent(iteration, rate):
    # Half of the 24 900 iterations of decay are a factor of 10.
    assert ScheduleConfig().rate_at(iteration) == pytest.approx(rate)


def test_cosine_decay_is_half_done_in_the_middle():
    schedule = ScheduleConfig(learning_rate=1.0, warmup_iterations=0, decay_iterations=100,
                              final_ratio=0.01, decay='cosine')
    assert schedule.rate_at(50) == pytest.approx(0.505)


@pytest.mark.parametrize(('fields', 'rule'), [
    ({'size': (30, 32)}, r'size\.0: Input should be a multiple of 8, got 30'),
    ({'size': (32, 0)}, r'size\.1: Input should be greater than 0, got 0'),
    ({'weight': 0.0}, 'weight: Input should be greater than 0, got 0.0'),
    ({'tolerance_ms': 0}, 'tolerance_ms: Input should be greater than 0, got 0'),
    ({'reader': 'hypersim'}, '`file_list` must be given for the reader hypersim; got None'),
    ({'reader': 'bag', 'image_topic': '/a'}, '`depth_topic` must be given for the reader bag')])
def test_an_invalid_data_set_entry_is_named(fields, rule):
    with pytest.raises(ValidationError) as caught:
        FrameSetConfig(**{'reader': 'shards', 'path': 'x', 'size': (32, 32)} | fields)
    assert re.search(rule, describe_validation_errors(caught.value))


def test_a_bag_may_say_whether_its_images_are_rectified():
    bag = {'reader': 'bag', 'path': 'x', 'size': (32, 32), 'image_topic': '/a',
           'depth_topic': '/b'}
    assert FrameSetConfig(**bag).input_rectified is None
    assert FrameSetConfig(**bag, input_rectified=False).input_rectified is False
    with pytest.raises(ValidationError, match='input_rectified'):
        FrameSetConfig(**bag, input_rectified='raw')


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
    (['vae=a', 'initial_checkpoint=null'], '`architecture` must be given, but not both'),
    (['seed'], "must be key=value; got 'seed'"),
    (['train.7.path=a'], 'must name a key of the configuration')])
def test_an_invalid_value_is_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(config.FinetuneConfig, CONFIG_FOLDER / 'finetune.yaml', overrides)


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
def test_an_invalid_architecture_is_named(name, kind, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(kind, CONFIG_FOLDER / name, overrides)


def test_the_shipped_configuration_is_marigolds():
    tiny_config = load_config(config.FinetuneConfig, CONFIG_FOLDER / 'finetune.yaml')
    schedule = tiny_config.schedule
    assert (schedule.batch_size, schedule.learning_rate, schedule.weight_decay) == (32, 3e-5, 0)
    assert (schedule.warmup_iterations, schedule.decay_iterations) == (100, 25_000)
    assert (schedule.final_ratio, schedule.decay) == (0.01, 'exponential')
    assert (schedule.max_iterations, schedule.max_gradient_norm) == (30_000, None)
    assert tiny_config.objective == config.ObjectiveConfig()
    assert tiny_config.objective.multires_strength == 0.9
    assert [(frames.reader, frames.weight, frames.size) for frames in tiny_config.train] == [
        ('hypersim', 0.9, (480, 640)), ('virtual_kitti', 0.1, (352, 1216))]
    assert tiny_config.augmentation.flip_probability == 0.5
