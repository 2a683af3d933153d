"""Recipes to and from YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from marigold_ros.depth.errors import ConfigError
from marigold_ros.training import config
from marigold_ros.training.recipe import load_recipe, recipe_as_yaml

CONFIG_FOLDER = Path(__file__).parents[2] / 'config'


@pytest.mark.parametrize(('name', 'kind'), [
    ('finetune.yaml', config.FinetuneConfig), ('finetune_robot.yaml', config.FinetuneConfig),
    ('finetune_tiny_coarse.yaml', config.FinetuneConfig),
    ('finetune_tiny.yaml', config.FinetuneConfig), ('train_vae.yaml', config.VaeConfig)])
def test_shipped_recipes_are_read_and_written_alike(tmp_path, name, kind):
    recipe = load_recipe(kind, CONFIG_FOLDER / name)
    (tmp_path / 'copy.yaml').write_text(recipe_as_yaml(recipe))
    assert load_recipe(kind, tmp_path / 'copy.yaml') == recipe


def test_overrides_reach_any_place_of_a_recipe():
    recipe = load_recipe(config.FinetuneConfig, CONFIG_FOLDER / 'finetune_robot.yaml', [
        'train.0.path=my drive.mcap', 'schedule.learning_rate=1.0e-4', 'seed=5'])
    assert recipe.train[0].path == 'my drive.mcap'
    assert (recipe.schedule.learning_rate, recipe.seed) == (1e-4, 5)


def test_a_file_that_is_no_recipe_is_named(tmp_path):
    (tmp_path / 'list.yaml').write_text('- 1')
    with pytest.raises(ConfigError, match='must hold keys and values; got list'):
        load_recipe(config.VaeConfig, tmp_path / 'list.yaml')
    with pytest.raises(ConfigError, match='must be a readable YAML file'):
        load_recipe(config.VaeConfig, tmp_path / 'none.yaml')
