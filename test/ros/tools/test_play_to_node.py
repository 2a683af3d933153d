"""Bags of a simulation, played by play_bag to depth_node in simulated time."""

from __future__ import annotations

import os
import sys

from bag_fixtures import camera_info, header, image, serialize, write_mcap
from checkpoints import make_checkpoint
from diagnostic_msgs.msg import DiagnosticArray
from node_harness import find_free_domain, Robot, start_node
import numpy as np
import pytest
from sensor_msgs.msg import Image

from marigold_ros.ros.tools.processes import LoggedProcess, make_domain_environment

pytestmark = pytest.mark.node
FRAMES, PERIOD_NS = 10, 10 ** 8
DEPTH = '/camera/depth_relative/image'
TYPES = {'/clock': 'rosgraph_msgs/msg/Clock', '/camera/image_raw': 'sensor_msgs/msg/Image',
         '/camera/camera_info': 'sensor_msgs/msg/CameraInfo'}


@pytest.fixture(scope='module')
def domain(tmp_path_factory):
    """Run a node in simulated time."""
    folder, domain = tmp_path_factory.mktemp('node'), find_free_domain()
    node = start_node(folder, domain, '-p', f'checkpoint:={make_checkpoint(folder / "random")}',
                      '-p', 'use_sim_time:=true', '-p', 'max_age_s:=0.5')
    yield domain
    log = node.log.read_text()
    node.stop()
    assert 'time jumped back' not in log


@pytest.fixture
def robot(domain):
    robot = Robot(domain)
    robot.until(lambda: robot.node.count_subscribers('/camera/image_raw'), 200, 'an active node')
    robot.listen_all({'/depth_node/status': DiagnosticArray, DEPTH: Image})
    yield robot
    robot.close()


def write_simulation(path, start_ns, *, with_clock):
    """Write an MCAP of ROS 1, without a profile and beside topics of another world."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    messages = []
    for number in range(FRAMES):
        at, stamp_ns = number * PERIOD_NS, start_ns + number * PERIOD_NS
        contents = {'/camera/camera_info': camera_info(stamp_ns=stamp_ns),
                    '/camera/image_raw': image(pixels, 'rgb8', stamp_ns)}
        if with_clock:
            contents['/clock'] = serialize(TYPES['/clock'], clock=header(stamp_ns).stamp)
        messages += [(topic, TYPES[topic], at, data) for topic, data in contents.items()]
    return write_mcap(path, messages, ros1=True, foreign=True, profile='')


# Each simulation begins after the one before, because the node is the same.
@pytest.mark.parametrize(('start_s', 'with_clock', 'options'), [
    (12, True, ['--clock']), (112, True, []), (212, False, ['--clock']), (312, False, [])])
def test_no_frame_of_a_simulation_is_too_old(robot, domain, tmp_path, start_s, with_clock,
                                             options):
    start_ns = start_s * 10 ** 9
    path = write_simulation(tmp_path / 'drive.mcap', start_ns, with_clock=with_clock)
    player = LoggedProcess(
        'play_bag', [sys.executable, '-m', 'marigold_ros.ros.tools.play_bag', str(path), *options,
                     '--wait-for-subscribers', '20'], tmp_path,
        {**os.environ, **make_domain_environment(domain)})
    assert player.wait(60) == 0, player.log.read_text()
    last_ns = start_ns + (FRAMES - 1) * PERIOD_NS
    assert robot.status_of(last_ns)['outcome'] == 'processed'
    robot.find(DEPTH, last_ns)
    assert not robot.counters('camera').get('dropped_too_old')
