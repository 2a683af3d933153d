"""
Check the arguments of launch files.

Launch files import this module, in a Python that may have nothing but ROS.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
import re
import sys
from typing import Any

from marigold_ros.depth.errors import ConfigError
from marigold_ros.ros.spelling import describe_unknown


def parse_arguments(texts: Mapping[str, str],
                    parsers: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """
    Convert the arguments that are not empty.

    Parameters
    ----------
    texts : mapping
        Name of an argument -> its text.
    parsers : mapping
        Name of an argument -> function that converts its text as `argparse` wants it; an argument
        without one stays text.

    Raises
    ------
    ConfigError
        If a text is invalid.

    Examples
    --------
    >>> parse_arguments({'rviz': 'True', 'device': ''}, {'rviz': parse_boolean})
    {'rviz': True}
    """
    values = {}
    for name, text in texts.items():
        try:
            if text:
                values[name] = parsers.get(name, str)(text)
        except ArgumentTypeError as err:
            raise ConfigError(f'launch argument `{name}` {err}') from None
    return values


def parse_boolean(text: str) -> bool:
    """Parse what a condition of launch accepts: true, false, 1 or 0, in any case."""
    values = {'true': True, '1': True, 'false': False, '0': False}
    if text.strip().lower() not in values:
        raise ArgumentTypeError(f'must be true or false; got {text}')
    return values[text.strip().lower()]


def parse_names(text: str) -> list[str]:
    """
    Parse one name, or a list of them.

    Examples
    --------
    >>> parse_names('[front, rear]')
    ['front', 'rear']
    """
    names = re.findall(r'[^\s,\[\]\'"]+', text)
    if not names:
        raise ArgumentTypeError(f'must hold at least one name, as [front, rear]; got {text}')
    return names


def parse_existing_path(text: str) -> str:
    """Check that a file or folder exists."""
    if not Path(text).exists():
        raise ArgumentTypeError(f'must be an existing file or folder; got {text}')
    return text


def describe_ignored_arguments(file: str, arguments: Sequence[str],
                               known: Collection[str]) -> str:
    """
    Describe arguments that a launch file does not have, which `ros2 launch` ignores.

    Parameters
    ----------
    file : str
        Path of the launch file.  If another file includes it, the arguments are that one's.
    arguments : sequence of str
        `<name>:=<value>`, from the command line.
    known : collection of str
        Names of its arguments.

    Returns
    -------
    str
        Empty if there are none.
    """
    name = Path(file).name
    unknown = sorted({each.partition(':=')[0] for each in arguments} - set(known))
    if not unknown or name not in [Path(word).name for word in sys.argv]:
        return ''
    return (f'ignored, because {name} has no such argument: '
            + ', '.join(describe_unknown(each, known) for each in unknown))
