"""Parse command-line arguments that the tools share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def split_ros_arguments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """
    Split a command line into the tool's own arguments and those from `--ros-args` to `--`.

    rclpy's remove_ros_args is unsuitable: it also removes every /old:=/new outside that range.

    Returns
    -------
    own, ros : list of str
        `ros` begins with '--ros-args' unless it is empty.

    Examples
    --------
    >>> split_ros_arguments(['bag', '--ros-args', '-r', '__node:=player', '--', '--loop'])
    (['bag', '--loop'], ['--ros-args', '-r', '__node:=player'])
    """
    own: list[str] = []
    ros: list[str] = []
    target = own
    for argument in argv:
        if argument == '--ros-args':
            target = ros
        elif argument == '--' and target is ros:
            target = own
            continue
        target.append(argument)
    return own, ros


def parse_positive(text: str) -> float:
    """Parse a number above 0."""
    value = _parse_number(text)
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'must be above 0; got {text}')
    return value


def parse_non_negative(text: str) -> float:
    """Parse a number that is 0 or more."""
    value = _parse_number(text)
    if not 0 <= value < float('inf'):
        raise argparse.ArgumentTypeError(f'must be 0 or more; got {text}')
    return value


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'must be a number; got {text}') from None
