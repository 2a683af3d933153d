"""References in the node: pose of the sensor, rejected references, tilt from TF."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from node_harness import header
import numpy as np
import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import LaserScan

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.camera import Camera
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.filter import FilterConfig
from marigold_ros.metric.sources.ground_plane import down_vector
from marigold_ros.ros.calibration import Calibration
from marigold_ros.ros.frame_buffer import ReceivedFrame
from marigold_ros.ros.metric_inputs import CameraReferences, lookup_tilt, MetricInputs

K = np.array([[100.0, 0, 80], [0, 100, 60], [0, 0, 1]])
RGB = np.zeros((120, 160, 3), np.uint8)


class FakeTransforms:
    """Return one pose for all frames, and store the arguments."""

    def __init__(self, pose: np.ndarray) -> None:
        self.pose = pose
        self.arguments: tuple = ()

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        self.arguments = (target, source, stamp_ns)
        return self.pose


CALIBRATION = Calibration(
    Camera(160, 120, K, (0.0,) * 5, 'plumb_bob', np.eye(3), np.hstack([K, np.zeros((3, 1))])),
    None, '', True, 'camera_optical_frame')
FRAME = ReceivedFrame('camera', b'', False, 10 ** 9, 'camera_optical_frame', 0.0)


def compute_anchors(reference: CameraReferences, config: ScaleConfig, transforms):
    return reference.compute_anchors(FRAME, RGB, CALIBRATION, config, transforms, 10 ** 6)


def test_a_scan_is_projected_with_tf_at_its_own_frame_and_stamp():
    reference = CameraReferences(False)
    scan = LaserScan(header=header(9 * 10 ** 8, 'laser'), angle_min=0.0, angle_increment=0.1,
                     range_min=0.1, range_max=9.0, ranges=[2.0])
    reference.buffer.put(serialize_message(scan))
    # Body axes turned to optical ones, the laser 0.5 m below the camera.
    pose = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0.5], [1, 0, 0, 0], [0, 0, 0, 1]])
    transforms = FakeTransforms(pose)
    anchors = compute_anchors(reference, ScaleConfig('scan'), transforms)
    assert transforms.arguments == ('camera_optical_frame', 'laser', 9 * 10 ** 8)
    # 2 m ahead and 0.5 m down: v = 100 * 0.5 / 2 + 60
    assert (anchors.rows.tolist(), anchors.columns.tolist()) == ([85], [80])
    assert anchors.depth_m.tolist() == [2.0]


def test_beams_without_a_return_are_no_anchors_where_the_laser_is_in_view():
    reference = CameraReferences(False)
    scan = LaserScan(header=header(10 ** 9, 'laser'), angle_min=-0.2, angle_increment=0.1,
                     range_min=0.1, range_max=9.0,
                     ranges=[0.1, 0.0, 2.0, float('inf'), 9.0, float('nan')])
    reference.buffer.put(serialize_message(scan))
    # Body axes turned to optical ones, the laser 1 m ahead of the camera.
    pose = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 1.0], [0, 0, 0, 1]])
    anchors = compute_anchors(reference, ScaleConfig('scan'), FakeTransforms(pose))
    assert anchors.depth_m.tolist() == [3.0]


def test_an_unknown_pose_names_the_frames():
    reference = CameraReferences(False)
    reference.buffer.put(serialize_message(LaserScan(header=header(10 ** 9, 'laser'))))
    with pytest.raises(InputError, match="'laser'.*'camera_optical_frame'.* is unknown: .* not "
                                         'subscribe to TF; .* set scale.extrinsics'):
        compute_anchors(reference, ScaleConfig('scan'), None)


def test_a_reference_whose_stamp_does_not_change_is_frozen(monkeypatch):
    reference = CameraReferences(False)
    clock_s = iter((1.0, 1.5, 2.5))
    monkeypatch.setattr('marigold_ros.ros.metric_inputs.time',
                        SimpleNamespace(monotonic=lambda: next(clock_s)))
    for _ in range(3):
        reference.buffer.put(serialize_message(LaserScan(header=header(5, 'laser'))))
    config = ScaleConfig('scan', filter=FilterConfig(hold_s=0.5))
    with pytest.raises(InputError, match='is frozen: its messages have had the same stamp for '
                                         '1.5 s'):
        compute_anchors(reference, config, None)


@pytest.mark.parametrize(('image_stamp', 'scan_stamp'), [(0, 0), (0, 10 ** 9), (10 ** 9, 0)])
def test_without_stamps_the_scale_follows_times_of_receipt(monkeypatch, image_stamp, scan_stamp):
    """The scene moves away, from 2 m to 4 m, between the scans of 20 s."""
    clock_s, events = [100.0], []
    monkeypatch.setattr('marigold_ros.ros.metric_inputs.time',
                        SimpleNamespace(monotonic=lambda: clock_s[0]))
    inputs = MetricInputs(
        SimpleNamespace(resolve_topic_name=lambda name, only_expand=False: f'/{name}'),
        ScaleConfig('scan', extrinsics='0 0 0 0 0 0'), ['camera'], rectified=False,
        max_input_pixels=10 ** 6, reporter=SimpleNamespace(
            report_once=lambda camera, name, *rest, **options: events.append(name),
            report_scale=lambda camera, report: None))
    relative = np.tile(np.linspace(0, 1, 160, dtype=np.float32), (120, 1))
    prediction = SimpleNamespace(affine_invariant_depth=relative, confidence=None)
    angles = np.arange(-0.6, 0.6, 0.01)
    columns = np.rint(80 - 100 * np.tan(angles)).astype(int)
    for number in range(200):
        clock_s[0] += 0.1
        depth_m = (1 + number / 199) * (1 + 2 * relative[60, columns])
        inputs._references['camera'].buffer.put(serialize_message(LaserScan(
            header=header(scan_stamp, 'laser'), angle_min=float(angles[0]), angle_increment=0.01,
            range_min=0.1, range_max=20.0,
            ranges=(depth_m / np.cos(angles)).astype(np.float32).tolist())))
        clock_s[0] += 0.02
        frame = replace(FRAME, stamp_ns=image_stamp and image_stamp + number * 10 ** 8,
                        received_s=clock_s[0])
        report = inputs.update_scale(frame, RGB, CALIBRATION, prediction)
    assert (report.state, report.detail) == ('tracking', '')
    assert report.metric_scale.scale / 2 + report.metric_scale.shift == pytest.approx(4, rel=0.1)
    assert ('unstamped_reference' in events) == (image_stamp != 0)


def test_the_tilt_comes_from_the_cameras_pose_in_the_base_frame():
    # Looks 0.1 rad down: the z axis of the optical frame, in the base frame, sinks.
    c, s = np.cos(0.1), np.sin(0.1)
    base_from_camera = np.eye(4)
    base_from_camera[:3, :3] = np.array([[0, -s, c], [-1, 0, 0], [0, -c, -s]])
    transforms = FakeTransforms(base_from_camera)
    config = ScaleConfig('ground_plane', camera_height_m=0.35, base_frame='base')
    tilt = lookup_tilt(FRAME, config, transforms)
    assert transforms.arguments[:2] == ('base', 'camera_optical_frame')
    assert tilt == pytest.approx((0.1, 0.0))
    np.testing.assert_allclose(down_vector(*tilt), base_from_camera[:3, :3].T @ [0, 0, -1])
    assert lookup_tilt(FRAME, config, None) is None  # estimated from the image then
