"""The start of ROS in a bare environment, and its errors."""

from __future__ import annotations

import os
from pathlib import Path
import pwd
import subprocess
import sys

import pytest

INIT = """
import os, sys
from marigold_ros.depth.errors import ConfigError
from marigold_ros.ros.startup import init_rclpy
try:
    init_rclpy(sys.argv[1:])
    print(os.environ.get('ROS_LOG_DIR'))
except ConfigError as err:
    sys.exit(str(err))
"""


def init(*arguments: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
    """Initialize rclpy in a process with changed environment variables; None unsets one."""
    environment = {name: value for name, value in {**os.environ, **variables}.items()
                   if value is not None}
    return subprocess.run([sys.executable, '-c', INIT, *arguments], env=environment,
                          capture_output=True, text=True)


def test_without_home_the_log_folder_is_that_of_the_user():
    bare = init(HOME=None, ROS_HOME=None, ROS_LOG_DIR=None)
    assert bare.stdout.strip() == str(Path(pwd.getpwuid(os.getuid()).pw_dir, '.ros', 'log'))
    assert init(HOME=None, ROS_HOME='/tmp', ROS_LOG_DIR=None).stdout == 'None\n'


@pytest.mark.parametrize(('arguments', 'variables', 'message'), [
    ((), {'ROS_LOG_DIR': '/proc/nowhere'}, 'set ROS_LOG_DIR to a folder that can be written'),
    ((), {'ROS_LOG_DIR': '/sys'}, 'set ROS_LOG_DIR to a folder that can be written'),
    ((), {'ROS_DOMAIN_ID': 'abc'}, 'ROS_DOMAIN_ID is not an integral number'),
    (('--ros-args', '--nothing'), {}, "unknown ROS arguments: ['--nothing']"),
    (('--ros-args', '-r', 'nothing'), {}, "Couldn't parse remap rule: '-r nothing'"),
    (('--ros-args', '--params-file', 'nowhere.yaml'), {}, 'no parameter file nowhere.yaml')])
def test_what_keeps_ros_from_starting_is_said_in_one_line(arguments, variables, message):
    error = init(*arguments, **variables).stderr
    assert message in error.splitlines()[-1] and 'Traceback' not in error
