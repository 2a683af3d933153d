"""The scale source motion in the running node, on textured walls that move past the camera."""

from __future__ import annotations

import time

from bag_fixtures import transform
import cv2
from diagnostic_msgs.msg import DiagnosticArray
from node_harness import (
    camera_info,
    find_free_domain,
    floats,
    image,
    Robot,
    start_node,
    TFMessage,
)
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image

pytestmark = pytest.mark.node
DEPTH = '/camera/depth/image_rect'
SECOND = 10 ** 9
WIDTH, HEIGHT, F = 480, 360, 400.0
# Depth of the upper and of the lower half of the image, and the camera's motion in a tenth of s.
UPPER_M, LOWER_M, STEP_M = 2.0, 1.0, 0.04
# The optical axes of a camera that looks along y of the robot, to whose right x is.
MOUNT = (-0.5 ** 0.5, 0.0, 0.0, 0.5 ** 0.5)


def make_texture() -> np.ndarray:
    """Make smooth noise, of which the camera sees a part."""
    noise = np.random.default_rng(0).standard_normal((HEIGHT, 3000)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 2.0) + 2 * cv2.GaussianBlur(noise, (0, 0), 5.0)
    grey = np.clip(128 + 60 * blurred / blurred.std(), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


class Passage:
    """The node, and a camera that moves along two walls in steps of 0.1 s, as TF tells."""

    def __init__(self, robot: Robot) -> None:
        self.robot, self.texture = robot, make_texture()
        self.now_ns, self.step = time.time_ns(), 0

    def show(self, steps: int) -> dict[str, str]:
        """Move by so many steps, and publish the robot's place and the image from there."""
        self.now_ns += SECOND // 10
        self.step += steps
        self.robot.publish('/tf', transform(
            'odom', 'base_link', (self.step * STEP_M, 0.0, 0.0), stamp_ns=self.now_ns))
        self.robot.spin(0.02)  # nothing orders two topics
        self.robot.publish('/camera/camera_info', camera_info(self.now_ns, WIDTH, HEIGHT, F))
        halves = []
        for half, depth_m in zip(np.split(self.texture, 2), (UPPER_M, LOWER_M)):
            first = round(F * self.step * STEP_M / depth_m)  # px
            halves.append(half[:, first:first + WIDTH])
        self.robot.publish('/camera/image_raw', image(np.concatenate(halves), self.now_ns))
        return self.robot.status_of(self.now_ns)

    def check_depth(self) -> None:
        """Check the newest metric depth of both walls, away from their border."""
        depth_m = floats(self.robot.find(DEPTH, self.now_ns))
        for rows, expected_m in ((slice(20, 140), UPPER_M), (slice(220, 340), LOWER_M)):
            known = np.isfinite(depth_m[rows])
            assert known.mean() > 0.8
            error = np.abs(depth_m[rows][known] / expected_m - 1.0)
            assert np.median(error) < 0.03 and error.mean() < 0.06

    def begin(self, odom_frame: str = 'odom') -> None:
        """Stand at the begin of the walls, without what was known before."""
        assert self.robot.set_parameter('odom_frame', odom_frame) == ''
        assert self.robot.reset_scale().success
        self.now_ns, self.step = self.now_ns + 20 * SECOND, 0

    def drive(self) -> dict[str, str]:
        """Drive along the walls until their depth is known."""
        self.begin()
        return [self.show(1) for _ in range(15)][-1]


@pytest.fixture(scope='module')
def passage(tmp_path_factory):
    domain = find_free_domain()
    process = start_node(
        tmp_path_factory.mktemp('node'), domain, '-p', 'scale.sources:=[motion]',
        '-p', 'max_inference_steps:=1', '-p', 'max_age_s:=3600', '-p', 'latency_cap_ms:=0',
        '-p', 'min_surface_angle_deg:=0.0')
    robot = Robot(domain)
    robot.until(lambda: robot.node.count_subscribers('/camera/image_raw'), 200, 'an active node')
    robot.listen_all({'/depth_node/status': DiagnosticArray, DEPTH: Image})
    for topic, message_type in (('/camera/camera_info', CameraInfo), ('/camera/image_raw', Image),
                                ('/tf', TFMessage)):
        robot.advertise(topic, message_type)
    robot.offer('/tf_static', TFMessage, latched=True)
    robot.publish('/tf_static', transform('base_link', 'camera_optical_frame', (0.0, 0.0, 0.3),
                                          MOUNT))
    passage = Passage(robot)
    robot.until(lambda: passage.show(0)['pose'] == 'odom', what='a known pose')
    yield passage
    robot.close()
    process.stop()


def test_a_scene_that_moves_past_the_camera_gives_the_scale(passage):
    status = passage.drive()
    assert (status['scale_state'], status['scale_sources']) == ('tracking', 'motion')
    assert (status['scale_motion_state'], status['scale_motion_age_s']) == ('used', '0.000')
    assert int(status['scale_motion_anchors']) > 50
    passage.check_depth()


def test_a_camera_that_stands_still_holds_what_motion_has_measured(passage):
    passage.drive()
    statuses = [passage.show(0) for _ in range(30)]  # the views from before last 2.4 s
    held = statuses[-1]
    assert statuses[0]['scale_motion_state'] == 'used'
    assert (held['scale_motion_state'], held['scale_sources']) == ('holding', 'motion')
    assert 0.3 < float(held['scale_motion_age_s']) < 1.5
    assert int(held['scale_motion_anchors']) > 50
    passage.check_depth()


def test_a_camera_that_has_never_moved_has_no_scale(passage):
    passage.begin()
    status = [passage.show(0) for _ in range(15)][-1]
    assert (status['scale_state'], status['scale_motion_state']) == ('waiting', 'waiting')
    assert (status['scale'], status['scale_motion_anchors']) == ('', '0')


def test_without_poses_motion_measures_nothing_and_names_the_reason(passage):
    passage.begin('elsewhere')
    status = [passage.show(1) for _ in range(15)][-1]
    assert (status['scale_state'], status['scale']) == ('rejected', '')
    assert status['scale_motion_detail'] == (
        'motion needs the pose of the camera in a fixed coordinate frame: '
        "'elsewhere' is not a coordinate frame of TF")


def test_motion_is_refused_without_a_fixed_frame(passage):
    reason = passage.robot.set_parameter('odom_frame', '')
    assert '`odom_frame` must name a coordinate frame for the scale source motion' in reason
