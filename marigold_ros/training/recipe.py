"""Recipes to and from YAML: one reader that names the file, the key and the rule of a mistake."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
import yaml

from marigold_ros.data.validation_errors import describe_validation_errors
from marigold_ros.depth.errors import ConfigError
from marigold_ros.training.config import TrainingConfig

Recipe = TypeVar('Recipe', bound=TrainingConfig)


def load_recipe(kind: type[Recipe], path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """
    Read a recipe.

    Parameters
    ----------
    kind : type
        FinetuneConfig or VaeConfig.
    path : Path
        YAML with its fields.
    overrides : sequence of str
        'schedule.max_iterations=100' or 'train.0.path=drive.mcap': replace what the file says.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key is unknown, missing or breaks its rule.
    """
    try:
        fields = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise ConfigError(f'`{path}` must be a readable YAML file; got {err}') from err
    if not isinstance(fields, dict):
        raise ConfigError(f'`{path}` must hold keys and values; got {type(fields).__name__}')
    for override in overrides:
        _override(fields, override)
    try:
        return kind.model_validate(fields)
    except ValidationError as err:
        raise ConfigError(f'`{path}`: {describe_validation_errors(err)}') from err


def recipe_as_yaml(recipe: TrainingConfig) -> str:
    """Write a recipe so that reading it gives the same recipe."""
    return str(yaml.safe_dump(recipe.model_dump(mode='json'), sort_keys=False))


def differences(recipe: TrainingConfig, other: TrainingConfig, free: Sequence[str]) -> list[str]:
    """
    Compare two recipes.

    Parameters
    ----------
    recipe, other : TrainingConfig
    free : sequence of str
        Keys, 'schedule.max_iterations' for one, that may differ.

    Returns
    -------
    list of str
        Where they differ otherwise, with both values.
    """
    mine, theirs = (_flatten(each.model_dump(mode='json')) for each in (recipe, other))
    return [f'{key}: {theirs.get(key)!r} there, {mine.get(key)!r} here'
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key) and not key.startswith(tuple(free))]


def _flatten(value: Any, key: str = '') -> dict[str, Any]:
    """Give every leaf its dotted key."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {key: value}
    return {name: leaf for part, inner in value.items()
            for name, leaf in _flatten(inner, f'{key}.{part}' if key else str(part)).items()}


def _override(fields: dict[str, Any], override: str) -> None:
    """Put the value of 'a.0.b=value' in its place; new keys may be made, new sections too."""
    key, equals, text = override.partition('=')
    if not equals:
        raise ConfigError(f'an override must be key=value; got {override!r}')
    *sections, last = key.split('.')
    place: Any = fields
    try:
        for section in sections:
            place = (place[int(section)] if isinstance(place, list)
                     else place.setdefault(section, {}))
        place[int(last) if isinstance(place, list) else last] = yaml.safe_load(text)
    except (ValueError, IndexError, TypeError, AttributeError, yaml.YAMLError) as err:
        raise ConfigError(f'an override must name a place in the recipe and a YAML value; '
                          f'got {override!r}') from err
