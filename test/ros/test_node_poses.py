"""Poses in the running node: carried metric depth follows the odometry on TF, or says why not."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
import time

from bag_fixtures import transform
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
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image

from marigold_ros.data.bags.bag_frames import BagTopics, read_bag_frames
from marigold_ros.data.frames import DepthFrame
from marigold_ros.geometry.poses import pose_matrix
from marigold_ros.ros.tools.processes import LoggedProcess

pytestmark = pytest.mark.node
SAMPLE = Path('sample/living_room')
STATUS, DEPTH = '/depth_node/status', '/camera/depth/image_rect'
REFERENCE = '/camera/scale/depth'
SECOND = 10 ** 9
# Here the sample robot drives 0.23 m towards furniture, and nothing makes the networks run anew.
FIRST, LAST = 2, 10
MOUNT = (0.12, 0.0, 0.35), (-0.5, 0.5, -0.5, 0.5)  # of the camera on the robot


class Drive:
    """The node, and a part of the sample drive whose stamps only the test advances."""

    def __init__(self, process: LoggedProcess, robot: Robot, frames: list[DepthFrame]) -> None:
        self.process, self.robot, self.frames = process, robot, frames
        self.now_ns = time.time_ns()

    def publish_frame(self, frame: DepthFrame) -> dict[str, str]:
        """Publish an image with the current stamp, and wait for its status."""
        height, width = frame.rgb.shape[:2]
        info = camera_info(self.now_ns, width, height)
        for matrix, columns in ((info.k, 3), (info.p, 4)):
            matrix[0], matrix[2] = frame.K[0, 0], frame.K[0, 2]
            matrix[columns + 1], matrix[columns + 2] = frame.K[1, 1], frame.K[1, 2]
        self.robot.publish('/camera/camera_info', info)
        self.robot.publish('/camera/scale/camera_info', info)
        self.robot.publish('/camera/image_raw', image(frame.rgb, self.now_ns))
        return self.robot.status_of(self.now_ns)

    def until(self, holds, frame: DepthFrame, again=lambda: None) -> dict[str, str]:
        """Publish one frame, 0.01 s apart, until a condition holds for its status."""
        for attempt in range(60):
            if attempt % 10 == 0:
                again()
            self.now_ns += SECOND // 100
            if holds(status := self.publish_frame(frame)):
                return status
            self.robot.spin(0.2)
        raise AssertionError(status)

    def measure(self) -> None:
        """Let the node run on the first frame, and fit its depth to the true one."""
        frame = self.frames[0]
        assert self.robot.reset_scale().success

        def publish_reference() -> None:
            depth = np.where(frame.valid, frame.depth_m, 0.0).astype(np.float32)
            message = image(depth.view(np.uint8), self.now_ns, '32FC1')
            message.width = depth.shape[1]
            self.robot.publish(REFERENCE, message)

        self.until(lambda status: status['scale_state'] == 'tracking', frame, publish_reference)

    def place(self, frame: DepthFrame, stamp_ns: int, offset_m: float = 0.0) -> None:
        """Publish where the robot is at a frame."""
        pose = frame.world_from_camera @ np.linalg.inv(pose_matrix(*MOUNT))
        xyz = tuple((pose[:3, 3] + [offset_m, 0.0, 0.0]).tolist())
        xyzw = tuple(Rotation.from_matrix(pose[:3, :3]).as_quat().tolist())
        self.robot.publish('/tf', transform('odom', 'base_link', xyz, xyzw, stamp_ns))

    def go(self, *, jump_m: float = 0.0) -> list[dict[str, str]]:
        """
        Start anew: stand on the first frame until it is measured, then drive along.

        From the middle of the drive on, the odometry is off by `jump_m`.
        """
        self.now_ns += 20 * SECOND
        for tenth in range(10):
            self.place(self.frames[0], self.now_ns + tenth * SECOND // 10)
        self.measure()
        start_ns = self.now_ns
        statuses = []
        for number, frame in enumerate(self.frames):
            offset_m = jump_m if number > len(self.frames) // 2 else 0.0
            self.place(frame, start_ns + SECOND + number * SECOND // 10, offset_m)
        self.robot.spin(0.5)
        for number, frame in enumerate(self.frames[1:], 1):
            self.now_ns = start_ns + SECOND + number * SECOND // 10
            statuses.append(self.publish_frame(frame))
        return statuses

    def error(self) -> tuple[float, float]:
        """Return AbsRel and the median ratio of the last frame's metric depth."""
        frame = self.frames[-1]
        found = floats(self.robot.find(DEPTH, self.now_ns))
        use = frame.valid & np.isfinite(found)
        ratio = found[use] / frame.depth_m[use]
        return float(np.abs(ratio - 1.0).mean()), float(np.median(ratio))


@pytest.fixture(scope='module')
def drive(tmp_path_factory):
    domain = find_free_domain()
    process = start_node(
        tmp_path_factory.mktemp('node'), domain, '-p', 'scale.sources:=[depth]',
        '-p', 'scale.max_change_per_s:=0.001', '-p', 'max_inference_steps:=1',
        '-p', 'complexity_min:=1.0', '-p', 'max_carry_s:=10.0', '-p', 'max_age_s:=3600',
        '-p', 'latency_cap_ms:=0', '-p', 'min_surface_angle_deg:=0.0')
    topics = BagTopics('/camera/image_raw', '/camera/depth_gt/image_rect')
    frames = list(islice(read_bag_frames(SAMPLE, topics), FIRST, LAST + 1))
    robot = Robot(domain)
    robot.until(lambda: robot.node.count_subscribers('/camera/image_raw'), 200, 'an active node')
    robot.listen_all({STATUS: DiagnosticArray, DEPTH: Image})
    for topic, message_type in (('/camera/camera_info', CameraInfo), ('/camera/image_raw', Image),
                                (REFERENCE, Image), ('/camera/scale/camera_info', CameraInfo),
                                ('/tf', TFMessage)):
        robot.advertise(topic, message_type)
    robot.offer('/tf_static', TFMessage, latched=True)
    robot.publish('/tf_static', transform('base_link', 'camera_optical_frame', *MOUNT))
    drive = Drive(process, robot, frames)
    drive.until(lambda status: status['outcome'] == 'processed', frames[0])  # camera_info matched
    yield drive
    robot.close()
    process.stop()


def test_carried_metric_depth_follows_the_odometry(drive):
    """Along the image only, the furniture stays as far away as it was before."""
    errors, origins = {}, {}
    for odom_frame in ('', 'odom'):
        assert drive.robot.set_parameter('odom_frame', odom_frame) == ''
        statuses = drive.go()
        assert [each['num_inference_steps'] for each in statuses] == ['0'] * len(statuses)
        errors[odom_frame] = drive.error()
        origins[odom_frame] = {each['pose'] for each in statuses}
    assert origins == {'': {'odom_frame is empty'}, 'odom': {'odom'}}
    assert errors['odom'][0] < 0.8 * errors[''][0], errors
    assert abs(errors['odom'][1] - 1.0) < 0.5 * abs(errors[''][1] - 1.0), errors


def test_a_jump_of_the_odometry_does_not_tear_the_depth(drive):
    """By 3 m; no depth would be left in front of the camera."""
    drive.go()
    without_jump = drive.error()
    statuses = drive.go(jump_m=-3.0)
    assert {each['pose'] for each in statuses} == {'odom'}
    found = drive.error()
    assert found[1] == pytest.approx(without_jump[1], rel=0.1), (found, without_jump)


def test_a_missing_pose_is_said_in_the_status_and_is_no_warning(drive):
    assert drive.robot.set_parameter('odom_frame', 'elsewhere') == ''
    drive.now_ns += 20 * SECOND
    status = drive.publish_frame(drive.frames[0])
    assert status['pose'] == "'elsewhere' is not a coordinate frame of TF"
    assert drive.robot.set_parameter('odom_frame', 'odom') == ''
    drive.now_ns += SECOND // 10
    late = drive.publish_frame(drive.frames[0])
    assert late['pose'].startswith("the transform of 'base_link' is unknown: the time ")
    assert 'into the future' in late['pose']
    assert drive.robot.set_parameter('scale.sources', ['none']) == ''
    log = drive.process.wait_for_log('scale.sources none')
    assert 'elsewhere' not in log and 'the transform of' not in log
