"""Training configurations to and from YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from marigold_ros.depth.errors import ConfigError
from marigold_ros.training import config
from marigold_ros.training.config_files import config_to_yaml, load_config

CONFIG_FOLDER = Path(__file__).parents[2] / 'config'


@pytest.mark.parametrize(('name', 'kind'), [
    ('finetune.yaml', config.FinetuneConfig), ('finetune_robot.yaml', config.FinetuneConfig),
    ('finetune_tiny_coarse.yaml', config.FinetuneConfig),
    ('finetune_tiny.yaml', config.FinetuneConfig),
    ('finetune_tiny_places.yaml', config.FinetuneConfig),
    ('finetune_tiny_mixed.yaml', config.FinetuneConfig), ('train_vae.yaml', config.VaeConfig)])
def test_shipped_configurations_are_read_back_unchanged(tmp_path, name, kind):
    tiny_config = load_config(kind, CONFIG_FOLDER / name)
    (tmp_path / 'copy.yaml').write_text(config_to_yaml(tiny_config))
    assert load_config(kind, tmp_path / 'copy.yaml') == tiny_config


def test_overrides_reach_nested_keys():
    tiny_config = load_config(config.FinetuneConfig, CONFIG_FOLDER / 'finetune_robot.yaml', [
        'train.0.path=my drive.mcap', 'schedule.learning_rate=1.0e-4', 'seed=5'])
    assert tiny_config.train[0].path == 'my drive.mcap'
    assert (tiny_config.schedule.learning_rate, tiny_config.seed) == (1e-4, 5)


def test_a_file_that_is_not_a_configuration_is_named(tmp_path):
    (tmp_path / 'list.yaml').write_text('- 1')
    with pytest.raises(ConfigError, match='must hold keys and values; got list'):
        load_config(config.VaeConfig, tmp_path / 'list.yaml')
    with pytest.raises(ConfigError, match='must be a readable YAML file'):
        load_config(config.VaeConfig, tmp_path / 'none.yaml')
