"""A running node whose camera sees one image of the sample drive, and references of its depth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
import time

from bag_fixtures import transform
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node_harness import (
    camera_info,
    find_free_domain,
    floats,
    header,
    image,
    Robot,
    start_node,
    TFMessage,
)
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from marigold_ros.data.bags.messages import image_fields
from marigold_ros.data.bags.reader import open_bag
from marigold_ros.messages.image import decode_rgb
from marigold_ros.ros.tools.processes import LoggedProcess

SAMPLE = 'sample/living_room'
DEPTH, CLOUD, SCAN = (f'/camera/scale/{name}' for name in ('depth', 'cloud', 'scan'))
F, CX, CY = 457.0073621574767, 319.5, 239.5
SECOND = 10 ** 9


def read_rgb() -> np.ndarray:
    """Read the first image of the sample drive, 640x480."""
    with open_bag(SAMPLE) as bag:
        message = next(bag.messages(['/camera/image_raw/compressed']))
        return decode_rgb(image_fields(bag.decode(message)))


class Stage:
    """The node, a robot, and stamps that only the test advances."""

    def __init__(self, process: LoggedProcess, robot: Robot, rgb: np.ndarray) -> None:
        self.process, self.robot, self.rgb = process, robot, rgb
        self.now_ns = time.time_ns()
        self.relative = np.empty(0)

    def tick(self, seconds: float = 0.1) -> int:
        """Advance the stamps, and return the new one, ns."""
        self.now_ns += round(seconds * SECOND)
        return self.now_ns

    def wait(self, seconds: float) -> None:
        """Advance the stamps, and let the reference age on the steady clock, too."""
        self.robot.spin(1.2)
        self.tick(seconds)

    def publish_image(self, rgb: np.ndarray | None = None) -> dict[str, str]:
        """Publish an image with the current stamp and wait for its status."""
        info = camera_info(self.now_ns, 640, 480, F)
        for matrix in (info.k, info.p):
            matrix[2], matrix[5 if matrix is info.k else 6] = CX, CY
        self.robot.publish('/camera/camera_info', info)
        self.robot.publish('/camera/image_raw', image(self.rgb if rgb is None else rgb,
                                                      self.now_ns))
        return self.robot.status_of(self.now_ns)

    def measure(self, topic: str, message) -> dict[str, str]:
        """Publish a reference, and images until it was used or rejected for one."""
        return self.until(lambda status: status['scale_state'] in ('tracking', 'rejected'),
                          lambda: self.robot.publish(topic, message))

    def until(self, holds, again=lambda: None) -> dict[str, str]:
        """Publish images, 0.01 s apart, until a condition holds for the status of one."""
        for attempt in range(60):
            # Messages before the subscriptions match are lost; on a busy machine that takes long.
            is_slow = attempt >= 20
            if is_slow or attempt % 10 == 0:
                again()
            self.tick(0.01)
            status = self.publish_image()
            if holds(status):
                return status
            self.robot.spin(0.5 if is_slow else 0.1)
        raise AssertionError(status)

    def rejection(self, detail: str, publish) -> dict[str, str]:
        """Publish a reference, and images until it is rejected with this detail."""
        return self.until(lambda status: status['scale_state'] == 'rejected'
                          and detail in status['scale_detail'], publish)

    def diagnosis(self, text: str, again=lambda: None) -> DiagnosticStatus:
        """Publish images until the camera's message in /diagnostics contains a text."""
        for _ in range(20):
            again()
            self.tick(0.01)
            self.publish_image()
            camera = self.robot.diagnostics(': camera')
            if text in camera.message:
                return camera
        raise AssertionError(camera)

    def depth_m(self) -> np.ndarray:
        """Return the metric depth of the current stamp, m."""
        return floats(self.robot.find('/camera/depth/image_rect', self.now_ns))

    def use(self, *sources: str, extrinsics: str | None = None, **changes) -> None:
        """Set the sources, extrinsics of the first one and other parameters; reset the scale."""
        if extrinsics is not None:
            changes[f'{sources[0]}.extrinsics'] = extrinsics
        for name, value in changes.items():
            assert self.robot.set_parameter(f'scale.{name}', value) == ''
        assert self.robot.set_parameter('scale.sources', list(sources)) == ''
        assert self.robot.reset_scale().success
        self.tick(5.0)


@contextmanager
def run_stage(folder: Path) -> Iterator[Stage]:
    """Run a node that writes its log to a folder, and wait until it has a camera_info."""
    domain = find_free_domain()
    process = start_node(
        folder, domain, '-p', 'scale.sources:=[depth]',
        '-p', 'max_inference_steps:=1', '-p', 'max_age_s:=3600', '-p', 'latency_cap_ms:=0',
        '-p', 'scale.expire_s:=3.0', '-p', 'min_surface_angle_deg:=0.0')
    robot = Robot(domain)
    robot.until(lambda: robot.node.count_subscribers('/camera/image_raw'), 200, 'an active node')
    robot.listen_all({'/depth_node/status': DiagnosticArray, '/camera/depth/image_rect': Image,
                      '/camera/depth_relative/image': Image})
    robot.advertise('/camera/camera_info', CameraInfo)
    robot.advertise('/camera/image_raw', Image)
    robot.advertise(DEPTH, Image)
    robot.advertise('/camera/scale/camera_info', CameraInfo)
    robot.advertise('/tf', TFMessage)
    robot.offer('/tf_static', TFMessage, latched=True)
    half = np.radians(3.0)
    for parent, child, z, xyzw in (
            ('base_link', 'camera_link', 0.35, (0.0, np.sin(half), 0.0, np.cos(half))),
            ('camera_link', 'camera_optical_frame', 0.0, (-0.5, 0.5, -0.5, 0.5))):
        robot.publish('/tf_static', transform(parent, child, (0.0, 0.0, z), xyzw))
    stage = Stage(process, robot, read_rgb())
    stage.until(lambda status: status.get('scale_state') == 'waiting')  # camera_info has matched
    stage.relative = floats(robot.find('/camera/depth_relative/image', stage.now_ns))
    yield stage
    robot.close()
    process.stop()


def true_depth(stage: Stage) -> np.ndarray:
    """Return what the depth of the image is taken to be, m."""
    return (3.0 * stage.relative + 1.0).astype(np.float32)


def small_depth(stage: Stage, factor: float = 1.0, encoding: str = '32FC1',
                frame_id: str = 'camera_optical_frame') -> Image:
    """Sample the true depth at 160x120 px, and publish the camera_info of such a camera."""
    info = camera_info(stage.now_ns, 160, 120, F / 4)
    info.k[2], info.k[5] = CX / 4, CY / 4  # its pixels are the image's 0, 4, 8, ...
    stage.robot.publish('/camera/scale/camera_info', info)
    depth = factor * true_depth(stage)[::4, ::4]
    if encoding != '32FC1':
        depth = np.round(1000 * depth).astype(np.uint16)
    message = image(np.ascontiguousarray(depth).view(np.uint8), stage.now_ns, encoding)
    message.width, message.header.frame_id = 160, frame_id
    return message


def cloud(points: np.ndarray, stamp_ns: int, frame_id: str, names: str = 'xyz') -> PointCloud2:
    """Pack points as a driver does, unordered."""
    data = np.ascontiguousarray(points.reshape(-1, 3)[:, :len(names)], np.float32)
    return PointCloud2(
        header=header(stamp_ns, frame_id), height=1, width=len(data), point_step=4 * len(names),
        row_step=4 * len(names) * len(data), data=data.tobytes(), is_dense=False,
        fields=[PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
                for i, name in enumerate(names)])


def body_points(stage: Stage) -> np.ndarray:
    """Sample the true surface in the camera's body frame: x forward, y left, z up."""
    rows, columns = np.mgrid[4:480:16, 4:640:16]
    z = true_depth(stage)[rows, columns]
    return np.stack([z, -(columns - CX) / F * z, -(rows - CY) / F * z], axis=-1)


def check_depth(stage: Stage, status: dict[str, str], tolerance: float = 0.03) -> None:
    """Check the published depth and the status against the true depth."""
    np.testing.assert_allclose(stage.depth_m(), true_depth(stage), rtol=tolerance)
    assert status['scale_state'] == 'tracking'
    assert float(status['scale']) == pytest.approx(3.0, rel=tolerance)
    assert float(status['shift']) == pytest.approx(1.0, rel=tolerance)
    assert float(status['scale_inliers']) > 0.9 and float(status['scale_residual']) < 0.05
    assert float(status['scale_confidence']) > 0.5 and float(status['scale_age_s']) == 0.0


def move(stage: Stage, parent: str, child: str, xyz: tuple[float, ...], stamp_ns: int,
         xyzw: tuple[float, ...] = (0.0, 0.0, 0.0, 1.0)) -> None:
    """Publish a moving transform."""
    stage.robot.publish('/tf', transform(parent, child, xyz, xyzw, stamp_ns))
