"""What is assumed about the axes of sensors and cameras."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.sources.reference import describe_axes, pose_without_tf

EXTRINSICS = '0 0 0 0 0 0'


@pytest.mark.parametrize(('source', 'frame_id', 'optical'), [
    ('cloud', 'tof_optical', True), ('cloud', 'tof_optical_frame', True),
    ('cloud', 'lidar', False),
    ('scan', 'laser_optical', True), ('scan', 'laser', False), ('depth', 'tof_link', True)])
def test_data_are_turned_unless_they_are_optical_and_the_assumption_is_said(
        source, frame_id, optical):
    config = ScaleConfig(source, extrinsics=EXTRINSICS)
    ahead = (0.0, 0.0, 2.0, 1.0) if optical else (2.0, 0.0, 0.0, 1.0)
    np.testing.assert_allclose(pose_without_tf(config, 'camera', frame_id) @ ahead, (0, 0, 2, 1))
    text = describe_axes(config, 'camera', frame_id)
    assert repr(frame_id) in text and ('z forward' if optical else 'x forward') in text


def test_the_assumed_axes_of_the_camera_are_said_where_tf_gives_its_pose():
    said = "the frame 'camera_link' of the images is taken as optical"
    for source in ('depth', 'cloud', 'scan'):
        assert describe_axes(ScaleConfig(source), 'camera_link', 'lidar').startswith(said)
        assert describe_axes(ScaleConfig(source), 'camera_optical', 'lidar') == ''
    floor = ScaleConfig('ground_plane', camera_height_m=1.0)
    assert describe_axes(floor, 'camera_link', None).startswith(said)


@pytest.mark.parametrize('config', [
    ScaleConfig(), ScaleConfig('cloud', extrinsics=EXTRINSICS), ScaleConfig(
        'ground_plane', camera_height_m=1.0, camera_pitch_deg=0.0, camera_roll_deg=0.0)])
def test_nothing_is_said_where_no_axes_are_used(config):
    assert describe_axes(config, 'camera_link', None) == ''


def test_the_same_frame_needs_no_tf_with_and_without_a_slash():
    for frame_id in ('camera', '/camera'):
        np.testing.assert_array_equal(
            pose_without_tf(ScaleConfig('cloud'), 'camera', frame_id), np.eye(4))
    assert pose_without_tf(ScaleConfig('cloud'), 'camera', 'lidar') is None
