"""Every parameter of the running node: description, validation, and effect on the next frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
import re
import time
from typing import Any

from checkpoints import make_checkpoint
from diagnostic_msgs.msg import DiagnosticArray
from node_harness import camera_info, floats, image, node_in_process, points, Robot
import numpy as np
import pytest
from rcl_interfaces.srv import DescribeParameters
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from marigold_ros.depth.complexity import entropy, gradient_energy
from marigold_ros.ros.parameters import TABLE

pytestmark = pytest.mark.node
RGB = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
BASE: dict[str, Any] = {
    'ensemble_size': 1, 'step_policy': 'fixed', 'complexity_measure': 'gradient_energy',
    'min_inference_steps': 1, 'max_inference_steps': 4, 'complexity_min': 'auto',
    'alpha': 'auto', 'latency_cap_ms': 0.0, 'max_carry_s': 2.0, 'odom_frame': 'odom',
    'max_age_s': 30.0, 'max_input_pixels': 16_000_000,
    'scale.min_depth_m': 1.0, 'scale.max_depth_m': 5.0, 'scale.sources': ['fixed'],
    'min_depth_m': 0.1, 'max_depth_m': 20.0, 'point_stride': 4,
    'points_min_surface_angle_deg': 0.0, 'points_confidence_min': 0.0, 'confidence_min': 0.0,
    'max_relative_depth': 1.0, 'min_surface_angle_deg': 0.0, 'depth_encoding': '32FC1'}
OUTPUTS = {'relative': ('depth_relative/image', Image), 'depth': ('depth/image_rect', Image),
           'points': ('points', PointCloud2), 'confidence': ('confidence', Image)}
AT_CONFIGURE = {'cameras': ['rear'], 'input_transport': 'raw', 'input_rectified': True,
                'checkpoint': 'other', 'device': 'cpu', 'dtype': 'float32',
                'processing_resolution': 128, 'upsampling': 'bilinear', 'compile': True,
                'autostart': False}


@dataclass(frozen=True)
class Frame:
    """Status and outputs of one frame."""

    status: dict[str, str]
    relative: np.ndarray | None = None
    depth: Image | None = None
    points: PointCloud2 | None = None
    confidence: np.ndarray | None = None

    @property
    def steps(self) -> int:
        return int(self.status['num_inference_steps'])

    @property
    def depth_m(self) -> np.ndarray:
        return floats(self.depth)


@dataclass(frozen=True)
class Change:
    """
    A run-time parameter's new value, the parameters set before, and the effect on the frames.

    The value can be a function of the frame before.  If the parameter is one of the networks'
    runs, both frames wait for a run of their own.
    """

    value: Any
    effect: Callable[[Frame, Frame], bool]
    given: dict[str, Any] = field(default_factory=dict)
    stamp_age_s: float = 0.0
    pause_s: float = 0.0
    of_runs: bool = False


def steps(before: int, after: int) -> Callable[[Frame, Frame], bool]:
    """Return a check that the steps change."""
    return lambda a, b: (a.steps, b.steps) == (before, after)


def metric_depth(convert: Callable[[np.ndarray], np.ndarray]) -> Callable[[Frame, Frame], bool]:
    """Return a check of depth and cloud; before the change, depth is 1 to 5 m."""
    def effect(before: Frame, after: Frame) -> bool:
        expected = convert(after.relative)
        z = points(after.points)[..., 2]  # invalid points are NaN, whatever is wrong with them
        visible = np.where(np.isfinite(expected), expected, np.nan)[::4, ::4]
        return (np.allclose(before.depth_m, 1 + 4 * before.relative, atol=1e-5)
                and np.allclose(after.depth_m, expected, atol=1e-5)
                and np.allclose(z, visible, atol=1e-5, equal_nan=True))

    return effect


def some_unknown(before: Frame, after: Frame) -> bool:
    """Check that some pixels are unknown now, and the others unchanged."""
    known = ~np.isnan(after.depth_m)
    return bool(not np.isnan(before.depth_m).any() and 0.01 < known.mean() < 0.99
                and np.allclose(after.depth_m[known], 1 + 4 * after.relative[known], atol=1e-5))


def valid_points(frame: Frame) -> np.ndarray:
    """Return which pixels of the cloud are points."""
    return np.isfinite(points(frame.points)).all(axis=-1)


def some_are_no_points(before: Frame, after: Frame) -> bool:
    """Check that some pixels are no points now, and depth and all other points unchanged."""
    stride = 120 // after.points.height
    expected = np.where(valid_points(after), 1 + 4 * after.relative[::stride, ::stride], np.nan)
    return bool(valid_points(before).all() and 0.01 < valid_points(after).mean() < 0.99
                and np.allclose(points(after.points)[..., 2], expected, atol=1e-5, equal_nan=True)
                and np.allclose(after.depth_m, 1 + 4 * after.relative, atol=1e-5))


def median_confidence(before: Frame) -> float:
    return float(np.median(before.confidence))


def low_confidence_is_nan(before: Frame, after: Frame) -> bool:
    """Check that exactly the pixels of confidence below the median are unknown."""
    low_confidence = before.confidence < np.median(before.confidence)
    cloud = points(after.points)
    return bool(
        0.1 < low_confidence.mean() < 0.9 and not np.isnan(before.depth_m).any()
        and np.array_equal(np.isnan(after.depth_m), low_confidence)
        and np.array_equal(np.isnan(cloud).all(axis=-1), low_confidence[::4, ::4])
        and not np.isinf(cloud).any())


def low_confidence_is_no_point(before: Frame, after: Frame) -> bool:
    """Check that exactly the pixels of confidence below the median are no points."""
    low_confidence = before.confidence < np.median(before.confidence)
    return (some_are_no_points(before, after)
            and np.array_equal(~valid_points(after), low_confidence[::4, ::4]))


CHANGES = {
    'ensemble_size': Change(3, lambda a, b: (
        a.steps == b.steps and not np.allclose(a.relative, b.relative)), of_runs=True),
    'step_policy': Change('fixed', lambda a, b: (
        a.status['step_reason'].startswith('complexity: T(')
        and b.status['step_reason'] == 'fixed: Tmax = 4'), {'step_policy': 'complexity'},
        of_runs=True),
    'complexity_measure': Change('entropy', lambda a, b: np.allclose(
        [float(a.status['complexity']), float(b.status['complexity'])],
        [gradient_energy(RGB), entropy(RGB)], rtol=1e-5), of_runs=True),
    # Every image has a complexity between 0 and 100.
    'min_inference_steps': Change(2, steps(1, 2), {
        'step_policy': 'complexity', 'complexity_min': 100.0, 'alpha': 1.0}, of_runs=True),
    'max_inference_steps': Change(2, steps(4, 2), of_runs=True),
    'complexity_min': Change(0.0, steps(1, 4), {
        'step_policy': 'complexity', 'complexity_min': 100.0, 'alpha': 1e9}, of_runs=True),
    'alpha': Change(1e9, steps(1, 4), {
        'step_policy': 'complexity', 'complexity_min': 0.0, 'alpha': 0.0}, of_runs=True),
    'latency_cap_ms': Change(1.0, lambda a, b: (a.steps, b.steps) == (4, 1) and b.status[
        'step_reason'].startswith('late, run with 1: the cap: 1 ms - age'), of_runs=True),
    'max_carry_s': Change(0.1, lambda a, b: a.steps == 0 < b.steps, {
        'step_policy': 'novelty', 'min_inference_steps': 0}, pause_s=0.15),
    'odom_frame': Change('', lambda a, b: (
        'tf' in a.status['pose'] and b.status['pose'] == 'odom_frame is empty'), {
            'scale.sources': ['depth']}),
    'max_age_s': Change(1.0, lambda a, b: (
        a.status['outcome'] == 'processed' and b.status['reason'] == 'too_old'), stamp_age_s=5.0),
    'max_input_pixels': Change(100, lambda a, b: (
        b.status['reason'] == 'bad_image' and '100 pixels' in b.status['detail'])),
    'scale.sources': Change(['none'], lambda a, b: (
        a.status['scale_sources'] == 'fixed (assumed)' and b.status['scale_sources'] == 'none'
        and b.depth is None and b.points is None)),
    'scale.min_depth_m': Change(2.0, metric_depth(lambda relative: 2 + 3 * relative)),
    'scale.max_depth_m': Change(9.0, metric_depth(lambda relative: 1 + 8 * relative)),
    'min_depth_m': Change(3.0, metric_depth(
        lambda relative: np.where(1 + 4 * relative < 3, -np.inf, 1 + 4 * relative))),
    'max_depth_m': Change(3.0, metric_depth(
        lambda relative: np.where(1 + 4 * relative > 3, np.inf, 1 + 4 * relative))),
    'max_relative_depth': Change(0.5, metric_depth(
        lambda relative: np.where(relative > 0.5, np.inf, 1 + 4 * relative))),
    # A slope of 1 % a pixel, which random depth often has; ridges do not count.
    'min_surface_angle_deg': Change(45.0, some_unknown),
    'points_min_surface_angle_deg': Change(45.0, some_are_no_points, {'point_stride': 1}),
    'points_confidence_min': Change(median_confidence, low_confidence_is_no_point),
    'point_stride': Change(8, lambda a, b: (
        (a.points.height, a.points.width) == (30, 40)
        and (b.points.height, b.points.width) == (15, 20))),
    'confidence_min': Change(median_confidence, low_confidence_is_nan),
    'depth_encoding': Change('16UC1', lambda a, b: (
        b.depth.encoding == '16UC1' and np.allclose(
            np.frombuffer(b.depth.data, np.uint16).reshape(120, 160),
            1000 + 4000 * b.relative, atol=0.51))),
}


@pytest.fixture(scope='module')
def robot(tmp_path_factory):
    checkpoint = make_checkpoint(tmp_path_factory.mktemp('models') / 'random')
    arguments = [word for name, value in {'checkpoint': checkpoint, **BASE}.items()
                 for word in ('-p', f'{name}:={value}')]
    with node_in_process(*arguments) as (_, robot):
        robot.listen_all({'/depth_node/status': DiagnosticArray, **{
            f'/camera/{topic}': message_type for topic, message_type in OUTPUTS.values()}})
        robot.advertise('/camera/camera_info', CameraInfo)
        robot.advertise('/camera/image_raw', Image)
        yield robot


def send(robot: Robot, stamp_age_s: float) -> Frame:
    """Send a frame, and return its status and outputs."""
    stamp_ns = time.time_ns() - round(stamp_age_s * 1e9)
    robot.publish('/camera/camera_info', camera_info(stamp_ns))
    robot.publish('/camera/image_raw', image(RGB, stamp_ns))
    status = robot.status_of(stamp_ns)
    if status['outcome'] != 'processed':
        return Frame(status)
    without_scale = status['scale_sources'] == 'none'
    published = set(OUTPUTS) - ({'depth', 'points'} if without_scale else set())
    found = {output: robot.find(f'/camera/{OUTPUTS[output][0]}', stamp_ns)
             for output in published}
    found.update({output: floats(found[output]) for output in ('relative', 'confidence')})
    return Frame(status, **found)


@pytest.mark.parametrize(('name', 'value', 'reason'), [
    ('max_inference_steps', 20, 'no gain in accuracy above 10 steps'),
    ('min_inference_steps', 9, 'must be at most max_inference_steps'),
    ('step_policy', 'guess', 'must be string, one of novelty, complexity, fixed'),
    ('scale.min_depth_m', 'unset', '`scale.min_depth_m` and `scale.max_depth_m` must be set'),
])
def test_an_invalid_value_is_rejected_with_the_reason(robot, name, value, reason):
    assert reason in robot.set_parameter(name, value)


@pytest.mark.parametrize('name', CHANGES)
def test_a_run_time_parameter_takes_effect_at_the_next_frame(robot, name):
    change = CHANGES[name]
    assert set(robot.set_parameters({**BASE, **change.given})) == {''}
    if change.of_runs:
        robot.cut()
    else:
        send(robot, change.stamp_age_s)  # so that there is depth to carry
    before = send(robot, change.stamp_age_s)
    value = change.value(before) if callable(change.value) else change.value
    if change.of_runs:
        robot.cut()
    assert robot.set_parameter(name, value) == ''
    time.sleep(change.pause_s)
    after = send(robot, change.stamp_age_s)
    assert change.effect(before, after), (before, after)
    assert set(robot.set_parameters(BASE)) == {''}


def test_every_parameter_is_among_those_tested_here():
    """Parameters of a single scale source are tested with that source."""
    tested = {*CHANGES, *AT_CONFIGURE}
    missing = {row.name for row in TABLE} - tested
    assert all(name.startswith('scale.') for name in missing)
    assert {row.name for row in TABLE if not row.run_time} >= set(AT_CONFIGURE)


def test_configure_time_parameters_are_rejected_with_the_reason(robot):
    for name, reason in zip(AT_CONFIGURE, robot.set_parameters(AT_CONFIGURE)):
        assert reason.startswith(f'`{name}` can only change while the node is unconfigured: run')


def test_numbers_out_of_range_are_rejected_with_the_range(robot):
    rows = [row for row in TABLE if row.limits and row.run_time]
    for side, step in ((0, -1), (1, 1)):
        beyond = {row.name: row.kind(row.limits[side] + step) for row in rows}
        for row, reason in zip(rows, robot.set_parameters(beyond)):
            assert row.name in reason
            numbers = {float(each) for each in re.findall(r'-?\d[\d.]*(?:e[+-]?\d+)?', reason)}
            assert set(row.limits) <= numbers, reason
    assert send(robot, 0.0).status['outcome'] == 'processed'


def test_param_describe_shows_description_unit_and_rule(robot):
    request = DescribeParameters.Request(names=[row.name for row in TABLE])
    answer = robot.call(DescribeParameters, '/depth_node/describe_parameters', request)
    for row, descriptor in zip(TABLE, answer.descriptors):
        assert descriptor.name == row.name
        assert descriptor.description == row.description + (f' [{row.unit}]' if row.unit else '')
        for choice in row.choices:
            assert choice in descriptor.additional_constraints
        if row.limits:
            low, high = row.limits
            assert f'{low:g} to {high:g}' in descriptor.additional_constraints
        assert ('takes effect at the next configure' in descriptor.additional_constraints) == (
            not row.run_time)
