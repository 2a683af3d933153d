"""Initialize rclpy in a bare environment, or say in one line why it cannot be."""

from __future__ import annotations

import os
from pathlib import Path
import pwd
import re
import tempfile
from typing import Any

import rclpy

from marigold_ros.depth.errors import ConfigError

# rcl writes log files below the first of these that is set.
LOG_FOLDER_VARIABLES = ('ROS_LOG_DIR', 'ROS_HOME', 'HOME')
PARAMETER_FILE_FORM = ('expected are sections {<node>: {ros__parameters: {<parameter>: <value>}}} '
                       'without empty values')


def init_rclpy(args: list[str] | None = None, **options: Any) -> None:
    """
    Call rclpy.init; without HOME, log files go to the home folder of the user database.

    Parameters
    ----------
    args : list of str or None
        ROS arguments; None takes those of the process.
    options : object
        Further arguments of rclpy.init.

    Raises
    ------
    ConfigError
        If a ROS argument, a parameter file or an environment variable is invalid.
    """
    if not any(map(os.environ.get, LOG_FOLDER_VARIABLES)):
        os.environ['ROS_LOG_DIR'] = str(_home_folder() / '.ros' / 'log')
    try:
        rclpy.init(args=args, **options)
    except RuntimeError as err:
        raise ConfigError(_describe(err)) from None


def _home_folder() -> Path:
    """Return the home folder of the process's user, whom a container may not know."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path(tempfile.gettempdir())


def _describe(err: RuntimeError) -> str:
    """Return rcl's message in one line, without the lines of its source, and what helps."""
    text = re.sub(r' ?,? at \S+\.c(pp)?:\d+', '', ' '.join(str(err).split()))
    if found := re.search(r"'--params-file (.*)'\. Error: (.*)", text):
        path, reason = found.groups()
        if not Path(path).is_file():
            return f'there is no parameter file {path}'
        return f'the parameter file {path} is invalid: {reason}; {PARAMETER_FILE_FORM}'
    if type(err).__name__ == 'UnknownROSArgsError':
        return f'unknown ROS arguments: {text}'
    if 'log' in text:
        text += '; set ROS_LOG_DIR to a folder that can be written'
    return f'ROS cannot start: {text}'
