"""References in the node: pose of the sensor, late transforms, rejected references."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from node_harness import header
import numpy as np
import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import LaserScan, PointCloud2

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.camera import Camera
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.filter import FilterConfig
from marigold_ros.metric.types import ScaleReport
from marigold_ros.ros.calibration import Calibration
from marigold_ros.ros.frame_buffer import ReceivedFrame
from marigold_ros.ros.metric_inputs import (
    BUFFER_SIZE,
    MetricInputs,
    NEWEST_SIZE,
    ReferenceBuffer,
)

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


class Events:
    """A reporter that remembers what was reported once."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def report_once(self, camera: str, name: str, *rest: str, warn: bool = True) -> None:
        self.names.append(name)

    def report_scale(self, camera: str, report: ScaleReport) -> None:
        pass


def make_inputs(config: ScaleConfig, transforms=None) -> MetricInputs:
    """Create the inputs of one camera, with these transforms instead of subscriptions."""
    inputs = MetricInputs(
        SimpleNamespace(resolve_topic_name=lambda name, only_expand=False: f'/{name}'),
        config, ['camera'], rectified=False, max_input_pixels=10 ** 6, reporter=Events())
    inputs._transforms = transforms
    return inputs


def put(inputs: MetricInputs, message: bytes, source: str = 'scan') -> None:
    """Receive a serialized reference."""
    inputs._references['camera'][source].buffer.put(message)


def compute_anchors(inputs: MetricInputs, frame: ReceivedFrame = FRAME) -> Anchors:
    """Return the anchors of the scan for an image, or raise what is wrong with it."""
    anchors, problems = inputs._compute_anchors(frame, RGB, CALIBRATION)
    if problems:
        raise InputError(problems['scan'])
    return anchors['scan']


def test_a_scan_is_projected_with_tf_at_its_own_frame_and_stamp():
    scan = LaserScan(header=header(9 * 10 ** 8, 'laser'), angle_min=0.0, angle_increment=0.1,
                     range_min=0.1, range_max=9.0, ranges=[2.0])
    # Body axes turned to optical ones, the laser 0.5 m below the camera.
    pose = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0.5], [1, 0, 0, 0], [0, 0, 0, 1]])
    transforms = FakeTransforms(pose)
    inputs = make_inputs(ScaleConfig(('scan',)), transforms)
    put(inputs, serialize_message(scan))
    anchors = compute_anchors(inputs)
    assert transforms.arguments == ('camera_optical_frame', 'laser', 9 * 10 ** 8)
    # 2 m ahead and 0.5 m down: v = 100 * 0.5 / 2 + 60
    assert (anchors.rows.tolist(), anchors.columns.tolist()) == ([85], [80])
    assert anchors.depth_m.tolist() == [2.0]


def test_beams_without_a_return_are_no_anchors_where_the_laser_is_in_view():
    scan = LaserScan(header=header(10 ** 9, 'laser'), angle_min=-0.2, angle_increment=0.1,
                     range_min=0.1, range_max=9.0,
                     ranges=[0.1, 0.0, 2.0, float('inf'), 9.0, float('nan')])
    # Body axes turned to optical ones, the laser 1 m ahead of the camera.
    pose = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 1.0], [0, 0, 0, 1]])
    inputs = make_inputs(ScaleConfig(('scan',)), FakeTransforms(pose))
    put(inputs, serialize_message(scan))
    anchors = compute_anchors(inputs)
    assert anchors.depth_m.tolist() == [3.0]


def test_an_unknown_pose_names_the_frames():
    inputs = make_inputs(ScaleConfig(('scan',)))
    put(inputs, serialize_message(LaserScan(header=header(10 ** 9, 'laser'))))
    with pytest.raises(InputError, match="'laser'.*'camera_optical_frame'.* is unknown: .* not "
                                         'subscribe to TF; .* set scale.scan.extrinsics'):
        compute_anchors(inputs)


def test_a_reference_whose_stamp_does_not_change_is_frozen(monkeypatch):
    inputs = make_inputs(ScaleConfig(('scan',), filter=FilterConfig(hold_s=0.5)))
    clock_s = iter((1.0, 1.5, 2.5))
    monkeypatch.setattr('marigold_ros.ros.metric_inputs.time',
                        SimpleNamespace(monotonic=lambda: next(clock_s)))
    for _ in range(3):
        put(inputs, serialize_message(LaserScan(header=header(5, 'laser'))))
    with pytest.raises(InputError, match='is frozen: its messages have had the same stamp for '
                                         '1.5 s'):
        compute_anchors(inputs)


@pytest.mark.parametrize(('image_stamp', 'scan_stamp'), [(0, 0), (0, 10 ** 9), (10 ** 9, 0)])
def test_without_stamps_the_scale_follows_times_of_receipt(monkeypatch, image_stamp, scan_stamp):
    """The scene moves away, from 2 m to 4 m, between the scans of 20 s."""
    clock_s = [100.0]
    monkeypatch.setattr('marigold_ros.ros.metric_inputs.time',
                        SimpleNamespace(monotonic=lambda: clock_s[0]))
    inputs = make_inputs(ScaleConfig(('scan',), extrinsics={'scan': '0 0 0 0 0 0'}))
    relative = np.tile(np.linspace(0, 1, 160, dtype=np.float32), (120, 1))
    prediction = SimpleNamespace(known_depth=relative, confidence=None, gauge_change=None,
                                 flow=None)
    angles = np.arange(-0.6, 0.6, 0.01)
    columns = np.rint(80 - 100 * np.tan(angles)).astype(int)
    for number in range(200):
        clock_s[0] += 0.1
        depth_m = (1 + number / 199) * (1 + 2 * relative[60, columns])
        put(inputs, serialize_message(LaserScan(
            header=header(scan_stamp, 'laser'), angle_min=float(angles[0]), angle_increment=0.01,
            range_min=0.1, range_max=20.0,
            ranges=(depth_m / np.cos(angles)).astype(np.float32).tolist())))
        clock_s[0] += 0.02
        frame = replace(FRAME, stamp_ns=image_stamp and image_stamp + number * 10 ** 8,
                        received_s=clock_s[0])
        report = inputs.update_scale(frame, RGB, CALIBRATION, prediction, None, 'no TF')
    assert (report.state, report.detail) == ('tracking', '')
    assert report.metric_scale.scale / 2 + report.metric_scale.shift == pytest.approx(4, rel=0.1)
    assert ('unstamped_reference' in inputs._reporter.names) == (image_stamp != 0)


class LateTransforms:
    """Know the pose of the sensor up to a time only."""

    def __init__(self, newest_ns: int) -> None:
        self.newest_ns = newest_ns
        self.asked: list[int] = []

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        self.asked.append(stamp_ns)
        if stamp_ns > self.newest_ns:
            raise InputError(f'{stamp_ns} ns is in the future')
        return np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def scan(stamp_ns: int) -> bytes:
    """Serialize a scan whose range is its stamp in s."""
    return serialize_message(LaserScan(
        header=header(stamp_ns, 'laser'), angle_increment=0.1, range_min=0.1, range_max=9.0,
        ranges=[stamp_ns / 1e9]))


def at(stamp_s: float) -> ReceivedFrame:
    """Return the image of a time."""
    return replace(FRAME, stamp_ns=round(stamp_s * 1e9))


@pytest.mark.parametrize(('rate_hz', 'late_s', 'used_s'), [
    (10, 0.0, 5.0), (10, 0.1, 4.9), (10, 0.3, 4.7), (10, 0.95, 4.1), (40, 0.1, 4.9),
    (40, 0.3, 4.7), (100, 0.3, 4.7), (100, 0.95, 4.05)])
def test_late_transforms_make_the_reference_older_and_never_starve_it(rate_hz, late_s, used_s):
    transforms = LateTransforms(round((5.0 - late_s) * 1e9))
    inputs = make_inputs(ScaleConfig(('scan',)), transforms)
    for number in range(1, 5 * rate_hz + 1):
        put(inputs, scan(number * 10 ** 9 // rate_hz))
    anchors = compute_anchors(inputs, at(5.0))
    # Of the references that are not among the newest, one each 0.2 s is kept.
    assert used_s - 0.2 <= anchors.depth_m[0] <= used_s + 1e-6
    assert len(transforms.asked) <= BUFFER_SIZE


def test_a_full_buffer_keeps_the_newest_and_spreads_the_rest_over_hold_s():
    buffer = ReferenceBuffer(span_s=1.0)
    for number in range(1, 201):
        buffer.put(scan(number * 10 ** 9 // 40))
    stamps_s = np.array([each.stamp_ns for each in buffer.near(at(5.0), 99.0)]) / 1e9
    assert len(stamps_s) == BUFFER_SIZE
    np.testing.assert_allclose(stamps_s[:NEWEST_SIZE], 5.0 - np.arange(NEWEST_SIZE) / 40)
    gaps_s = -np.diff(stamps_s)
    assert gaps_s.max() <= 0.2 and 0.8 <= stamps_s[0] - stamps_s[-1] <= 1.2
    assert buffer.near(at(6.0), 0.5) == []


def test_where_no_reference_can_be_placed_the_rule_is_named():
    inputs = make_inputs(ScaleConfig(('scan',)), LateTransforms(0))
    for tenth in range(30, 51):
        put(inputs, scan(tenth * 10 ** 8))
    with pytest.raises(InputError, match='^the pose of the reference .* is unknown: 5000000000 ns '
                                         'is in the future; publish the transform or set '
                                         'scale.scan.extrinsics; nor is that of 10 others within '
                                         r'scale.hold_s \(1 s\) of the image$'):
        compute_anchors(inputs, at(5.0))


class Odometry:
    """A camera that drives ahead at 1 m/s, whose poses are known from a time on."""

    def __init__(self, known_from_s: float) -> None:
        self.known_from_s = known_from_s

    def world_from_frame(self, frame_id: str, time_ns: int) -> np.ndarray | None:
        pose = np.eye(4)
        pose[2, 3] = time_ns * 1e-9
        return pose if time_ns >= 1e9 * self.known_from_s else None


@pytest.mark.parametrize(('known_from_s', 'expected_m'), [(0.0, 4.2), (4.9, 4.7)])
def test_a_reference_is_moved_to_the_time_of_the_image_where_poses_are_known(
        known_from_s, expected_m):
    """The scan of 4.7 s is 4.7 m ahead, and the image is taken 0.5 s later."""
    inputs = make_inputs(ScaleConfig(('scan',)), LateTransforms(5 * 10 ** 9))
    inputs._odometry = Odometry(known_from_s)
    put(inputs, scan(47 * 10 ** 8))
    assert compute_anchors(inputs, at(5.2)).depth_m.tolist() == pytest.approx([expected_m])


def test_references_of_different_sources_do_not_disturb_each_other():
    inputs = make_inputs(ScaleConfig(('cloud', 'scan')), LateTransforms(5 * 10 ** 9))
    put(inputs, scan(4 * 10 ** 9))
    put(inputs, serialize_message(PointCloud2(header=header(4 * 10 ** 9, 'lidar'))), 'cloud')
    anchors, problems = inputs._compute_anchors(at(4.0), RGB, CALIBRATION)
    assert anchors['scan'].depth_m.tolist() == [4.0]
    assert (set(anchors), set(problems)) == ({'scan'}, {'cloud'})


@pytest.mark.parametrize('timed', ['cloud', 'scan'])
def test_if_one_reference_has_no_stamp_all_are_placed_by_times_of_receipt(monkeypatch, timed):
    monkeypatch.setattr('marigold_ros.ros.metric_inputs.time',
                        SimpleNamespace(monotonic=lambda: 100.0))
    inputs = make_inputs(ScaleConfig(('cloud', 'scan')), LateTransforms(5 * 10 ** 9))
    for source in ('cloud', 'scan'):
        put(inputs, scan(3 * 10 ** 9 if source == timed else 0), source)
    frame = inputs._with_common_time(replace(at(3.0), received_s=100.0))
    assert (frame.stamp_ns, inputs._reporter.names) == (0, ['unstamped_reference'])
