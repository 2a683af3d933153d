"""The transforms of a bag: where the world is, and which transforms are ignored."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from marigold_ros.data.bags.pose_buffer import MAX_GAP_NS, PoseBuffer
from marigold_ros.geometry.poses import ContinuousPoses, pose_matrix, PoseSource

QUARTER_LEFT = (0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5))


def transforms(*links, at_s=0):
    """Create a decoded TFMessage of (parent, child, x, quaternion)."""
    names = ('x', 'y', 'z', 'w')
    return SimpleNamespace(__msgtype__='tf2_msgs/msg/TFMessage', transforms=[SimpleNamespace(
        header=SimpleNamespace(frame_id=parent, stamp=SimpleNamespace(sec=at_s, nanosec=0)),
        child_frame_id=child, transform=SimpleNamespace(
            translation=SimpleNamespace(x=x, y=0.0, z=0.0),
            rotation=SimpleNamespace(**dict(zip(names, quaternion)))))
        for parent, child, x, quaternion in links])


@pytest.fixture
def robot():
    """Drive 1 m/s with a camera 1 m ahead, which looks left, and a lidar 3 m ahead of the base."""
    poses = PoseBuffer()
    poses.add('/tf_static', transforms(('base', 'camera', 1.0, QUARTER_LEFT),
                                       ('/base', '/lidar', 3.0, (0.0, 0.0, 0.0, 1.0))))
    for at_s in (1, 2):
        poses.add('/tf', transforms(('odom', 'base', float(at_s), (0.0, 0.0, 0.0, 1.0)),
                                    at_s=at_s))
    return poses


def test_the_world_is_the_root_of_a_tree_that_moves(robot):
    robot.add('/tf_static', transforms(('map', 'beacon', 1.0, QUARTER_LEFT)))
    assert robot.world_from_frame('/lidar', 15 * 10 ** 8)[0, 3] == pytest.approx(4.5)
    assert robot.world_from_frame('lidar', 99 * 10 ** 9) is None  # unknown
    assert robot.world_from_frame('beacon', 10 ** 9) is None      # nothing above it moves


def test_a_bag_tells_poses_as_tf_does_in_the_node(robot):
    poses: PoseSource = robot
    np.testing.assert_allclose(ContinuousPoses(poses).world_from_frame('camera', 15 * 10 ** 8),
                               pose_matrix((2.5, 0.0, 0.0), QUARTER_LEFT), atol=1e-12)


def test_a_cycle_of_frames_has_no_world():
    poses = PoseBuffer()
    poses.add('/tf', transforms(('a', 'b', 1.0, QUARTER_LEFT), ('b', 'a', 1.0, QUARTER_LEFT)))
    assert poses.world_from_frame('a', 0) is None


def test_poses_are_not_interpolated_over_a_gap_of_the_recording():
    poses = PoseBuffer(MAX_GAP_NS)
    for at_s in (1, 2, 4):
        poses.add('/tf', transforms(('odom', 'base', float(at_s), QUARTER_LEFT), at_s=at_s))
    assert poses.world_from_frame('base', 15 * 10 ** 8)[0, 3] == pytest.approx(1.5)
    assert poses.world_from_frame('base', 3 * 10 ** 9) is None


ZERO, NAN = (0.0, 0.0, 0.0, 0.0), (0.0, np.nan, 0.0, 1.0)


def test_invalid_transforms_are_ignored_and_counted(robot):
    before = robot.world_from_frame('camera', 15 * 10 ** 8)
    robot.add('/tf_static', transforms(('base', 'camera', 9.0, ZERO),
                                       ('base', 'camera', np.inf, QUARTER_LEFT)))
    for at_s, quaternion in ((1, NAN), (2, ZERO), (3, NAN)):
        robot.add('/tf', transforms(('odom', 'base', 9.0, quaternion), at_s=at_s))
    np.testing.assert_array_equal(robot.world_from_frame('camera', 15 * 10 ** 8), before)
    assert robot.world_from_frame('camera', 3 * 10 ** 9) is None
    assert robot.notes == [
        "transforms ignored on /tf_static: 2; the first, 'base' to 'camera' at 0 ns: the rotation "
        'must be a finite quaternion other than 0; got (0.0, 0.0, 0.0, 0.0)',
        "transforms ignored on /tf: 3; the first, 'odom' to 'base' at 1000000000 ns: the rotation "
        'must be a finite quaternion other than 0; got (0.0, nan, 0.0, 1.0)']


def test_a_frame_whose_first_transform_is_invalid_is_placed_by_the_next():
    poses = PoseBuffer()
    poses.add('/tf', transforms(('wrong', 'base', np.nan, QUARTER_LEFT),
                                ('base', 'base', 1.0, QUARTER_LEFT)))
    poses.add('/tf', transforms(('odom', 'base', 2.0, QUARTER_LEFT)))
    assert poses.world_from_frame('base', 0)[0, 3] == 2.0


def test_a_moving_frame_that_changes_its_parent_is_counted(robot):
    robot.add('/tf', transforms(('map', 'base', 1.0, QUARTER_LEFT), at_s=1))
    assert robot.notes == [
        "transforms ignored on /tf: 1; the first, 'map' to 'base' at 1000000000 ns: the parent of "
        "a moving frame must stay the same; it was 'odom'"]
