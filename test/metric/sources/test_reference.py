"""Anchors of other sensors: assumed axes, poses without TF, and what is held of them."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.checks import WrongContentError
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.sources.reference import describe_axes, pose_without_tf, ReferenceSource
from marigold_ros.metric.types import ScaleFrame

EXTRINSICS = '0 0 0 0 0 0'


@pytest.mark.parametrize(('source', 'frame_id', 'optical'), [
    ('cloud', 'tof_optical', True), ('cloud', 'tof_optical_frame', True),
    ('cloud', 'lidar', False),
    ('scan', 'laser_optical', True), ('scan', 'laser', False), ('depth', 'tof_link', True)])
def test_data_are_turned_unless_they_are_optical_and_the_assumption_is_said(
        source, frame_id, optical):
    config = ScaleConfig((source,), extrinsics={source: EXTRINSICS})
    ahead = (0.0, 0.0, 2.0, 1.0) if optical else (2.0, 0.0, 0.0, 1.0)
    np.testing.assert_allclose(pose_without_tf(config, source, 'camera', frame_id) @ ahead,
                               (0, 0, 2, 1))
    text, = describe_axes(config, 'camera', {source: frame_id})
    assert repr(frame_id) in text and ('z forward' if optical else 'x forward') in text


def test_the_assumed_axes_of_the_camera_are_said_where_tf_gives_its_pose():
    said = "the frame 'camera_link' of the images is taken as optical"
    for source in ('depth', 'cloud', 'scan'):
        config = ScaleConfig((source,))
        text, = describe_axes(config, 'camera_link', {source: 'lidar'})
        assert text.startswith(said)
        assert describe_axes(config, 'camera_optical', {source: 'lidar'}) == []
    for config in (ScaleConfig(('ground_plane',), camera_height_m=1.0), ScaleConfig(('motion',))):
        text, = describe_axes(config, 'camera_link', {})
        assert text.startswith(said)


@pytest.mark.parametrize('config', [
    ScaleConfig(), ScaleConfig(('cloud',), extrinsics={'cloud': EXTRINSICS}), ScaleConfig(
        ('ground_plane',), camera_height_m=1.0, camera_pitch_deg=0.0, camera_roll_deg=0.0)])
def test_nothing_is_said_where_no_axes_are_used(config):
    assert describe_axes(config, 'camera_link', {}) == []


def test_the_axes_of_each_reference_with_extrinsics_are_said():
    """TF gives the pose of the cloud."""
    config = ScaleConfig(('depth', 'cloud', 'scan'),
                         extrinsics={'depth': EXTRINSICS, 'scan': EXTRINSICS})
    texts = describe_axes(config, 'camera_link',
                          {'depth': 'tof', 'cloud': 'lidar', 'scan': 'laser'})
    assert [text.split(' is taken as ')[0] for text in texts] == [
        "the frame 'tof' of the reference", "the frame 'laser' of the reference",
        "the frame 'camera_link' of the images"]


def test_extrinsics_belong_to_one_source():
    config = ScaleConfig(('cloud', 'scan'), extrinsics={'scan': '1 0 0 0 0 0'})
    assert pose_without_tf(config, 'cloud', 'camera', 'lidar') is None
    found = pose_without_tf(config, 'scan', 'camera', 'laser')
    np.testing.assert_allclose(found @ (2.0, 0.0, 0.0, 1.0), (0, 0, 3, 1), atol=1e-12)


def test_the_same_frame_needs_no_tf_with_and_without_a_slash():
    for frame_id in ('camera', '/camera'):
        np.testing.assert_array_equal(
            pose_without_tf(ScaleConfig(('cloud',)), 'cloud', 'camera', frame_id), np.eye(4))
    assert pose_without_tf(ScaleConfig(('cloud',)), 'cloud', 'camera', 'lidar') is None


# Anchors over time; hold_s is 1 s.

SECOND = 10 ** 9
K = np.array([[100.0, 0.0, 80.0], [0.0, 100.0, 60.0], [0.0, 0.0, 1.0]])
RELATIVE = np.full((120, 160), 0.5, np.float32)
POSE = np.eye(4)


def measure(source, seconds, depth_m=None, *, lag_s=0.0, problem='', pose=POSE):
    stamp_ns = round(seconds * SECOND)
    anchors = {} if depth_m is None else {'cloud': Anchors(
        np.array([60]), np.array([80]), np.array([depth_m], np.float32),
        stamp_ns - round(lag_s * SECOND))}
    return source.measure(ScaleFrame('camera', stamp_ns, RELATIVE, None, K, anchors,
                                     {'cloud': InputError(problem)} if problem else {},
                                     world_from_camera=pose))


@pytest.fixture
def source():
    return ReferenceSource('cloud', 1.0)


def test_a_new_reference_weighs_less_the_farther_it_is_in_time(source):
    for lag_s in (0.0, 0.5, -0.5):
        found = measure(source, 2.0, 2.0, lag_s=lag_s)
        assert found.weight == pytest.approx(np.exp(-abs(lag_s)))
        assert (found.held, found.measured_ns) == (False, 2 * SECOND)


def test_what_was_measured_is_held_by_the_poses_and_weighs_less_and_less(source):
    measure(source, 1.0, 2.0)
    moved = POSE.copy()
    moved[2, 3] = 0.5
    found = measure(source, 2.0, pose=moved)
    assert found.anchors.depth_m.tolist() == [1.5]
    assert (found.held, found.measured_ns) == (True, SECOND)
    assert found.weight == pytest.approx(np.exp(-1.0))
    assert measure(source, 5.1) is None


def test_without_a_pose_nothing_is_held(source):
    assert measure(source, 1.0, 2.0, pose=None) is not None
    assert measure(source, 1.1, pose=None) is measure(source, 1.2) is None


def test_a_reference_older_than_hold_s_adds_nothing(source):
    assert measure(source, 2.0, 2.0, lag_s=1.1) is None
    measure(source, 2.1, 2.0)
    assert measure(source, 2.2, 3.0, lag_s=1.1).anchors.depth_m.tolist() == [2.0]


def test_an_invalid_reference_raises_if_nothing_is_held(source):
    with pytest.raises(InputError, match='TF is late'):
        measure(source, 1.0, problem='TF is late')


def test_what_was_measured_before_is_used_beside_a_problem_which_is_told(source):
    measure(source, 1.0, 2.0)
    found = measure(source, 1.1, problem='TF is late')
    assert found.held and found.anchors.depth_m.tolist() == [2.0]
    assert str(found.problem) == 'TF is late'


def test_wrong_content_raises_whatever_is_held(source):
    measure(source, 1.0, 2.0)
    with pytest.raises(WrongContentError, match='millimetres as metres'):
        measure(source, 1.1, 2000.0)
    source.forget()
    assert measure(source, 1.2) is None
