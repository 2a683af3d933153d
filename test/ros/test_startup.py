"""The start of ROS in a bare environment, and its errors."""

from __future__ import annotations

import os
from pathlib import Path
import pwd
import subprocess
import sys

from node_harness import find_free_domain
import pytest

from marigold_ros.ros.main import SWITCH_INTERVAL_S

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


MAIN = """
import sys
from marigold_ros import memory
from marigold_ros.ros import depth_node, main
memory.keep_freed_memory = lambda: print('keeps memory')
depth_node.DepthNode.run = lambda node: print(sys.getswitchinterval())
sys.exit(main.main([]))
"""


@pytest.mark.node
def test_the_process_is_set_up_for_threads_that_share_python_and_memory():
    """Before a thread starts: frames do not wait for the networks, and memory stays flat."""
    ended = subprocess.run([sys.executable, '-c', MAIN], capture_output=True, text=True,
                           env={**os.environ, 'ROS_DOMAIN_ID': str(find_free_domain())})
    assert (ended.returncode, ended.stdout.splitlines()) == (
        0, ['keeps memory', str(SWITCH_INTERVAL_S)])
