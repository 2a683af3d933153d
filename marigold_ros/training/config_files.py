"""Read and write training configurations as YAML; errors name the file, the key and the rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
import yaml

from marigold_ros.data.validation_errors import describe_validation_errors
from marigold_ros.depth.errors import ConfigError
from marigold_ros.training.config import TrainingConfig

Config = TypeVar('Config', bound=TrainingConfig)


def load_config(kind: type[Config], path: Path, overrides: Sequence[str] = ()) -> Config:
    """
    Read a training configuration from YAML.

    Parameters
    ----------
    kind : type
        FinetuneConfig or VaeConfig.
    path : Path
        YAML file with the fields of `kind`.
    overrides : sequence of str
        'schedule.max_iterations=100' or 'train.0.path=drive.mcap': replace the file's values.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key is unknown, missing or has an invalid value.
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


def config_to_yaml(config: TrainingConfig) -> str:
    """Return the YAML from which `load_config` reads the same configuration."""
    return str(yaml.safe_dump(config.model_dump(mode='json'), sort_keys=False))


def config_differences(config: TrainingConfig, stored: TrainingConfig,
                       ignored: Sequence[str]) -> list[str]:
    """
    List the keys in which a configuration differs from a stored one.

    Parameters
    ----------
    config, stored : TrainingConfig
    ignored : sequence of str
        Prefixes of keys that may differ, such as 'schedule.max_iterations'.

    Returns
    -------
    list of str
        Each other key that differs, with both values.
    """
    new, old = (_flatten(each.model_dump(mode='json')) for each in (config, stored))
    return [f'{key}: was {old.get(key)!r}, now {new.get(key)!r}'
            for key in sorted(new.keys() | old.keys())
            if new.get(key) != old.get(key) and not key.startswith(tuple(ignored))]


def _flatten(value: Any, key: str = '') -> dict[str, Any]:
    """Return every leaf by its dotted key."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {key: value}
    return {name: leaf for part, inner in value.items()
            for name, leaf in _flatten(inner, f'{key}.{part}' if key else str(part)).items()}


def _override(fields: dict[str, Any], override: str) -> None:
    """Set the value of 'a.0.b=value'; missing keys and sections are created."""
    key, equals, text = override.partition('=')
    if not equals:
        raise ConfigError(f'an override must be key=value; got {override!r}')
    *sections, last = key.split('.')
    parent: Any = fields
    try:
        for section in sections:
            parent = (parent[int(section)] if isinstance(parent, list)
                      else parent.setdefault(section, {}))
        parent[int(last) if isinstance(parent, list) else last] = yaml.safe_load(text)
    except (ValueError, IndexError, TypeError, AttributeError, yaml.YAMLError) as err:
        raise ConfigError(f'an override must name a key of the configuration and a YAML '
                          f'value; got {override!r}') from err
