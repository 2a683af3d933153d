"""What the command lines of the tools have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def split_ros_arguments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """
    Tell a tool's own arguments from those between `--ros-args` and `--`.

    rclpy's remove_ros_args also takes away every /old:=/new, wherever it stands.

    Returns
    -------
    own, ros : list of str
        The second begins with '--ros-args' unless it is empty.
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


def positive(text: str) -> float:
    """Read a number above 0."""
    value = float(text)
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'must be above 0; got {text}')
    return value


def not_negative(text: str) -> float:
    """Read a number that is 0 or more."""
    value = float(text)
    if not 0 <= value < float('inf'):
        raise argparse.ArgumentTypeError(f'must be 0 or more; got {text}')
    return value
