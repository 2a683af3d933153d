"""Tests of the sample bag: contents, and consistency of its sensors with scene.json."""
from __future__ import annotations

from collections import defaultdict
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.interfaces import QosDurability
from scipy.spatial.transform import Rotation

from marigold_ros.data.bags.messages import read_stamp_ns
from marigold_ros.data.bags.reader import open_bag
from marigold_ros.depth.complexity import gradient_energy
from scenes import render
from scenes.drive_bag import robot_camera
from scenes.drive_room import make_drive_room
from scenes.robot_path import integrate_path
from scenes.sample_drive import CONTROLS, START, write_sample
from scenes.scene_types import Quality

SAMPLE = Path(__file__).parents[2] / 'sample'
IMAGE, DEPTH = '/camera/image_raw/compressed', '/camera/depth_gt/image_rect/compressed'
INFOS = ('/camera/camera_info', '/camera/depth_gt/camera_info')


@pytest.fixture(scope='module')
def messages() -> dict[str, list[Any]]:
    """Return the log times and messages of the bag by topic."""
    found = defaultdict(list)
    with open_bag(SAMPLE / 'living_room') as bag:
        for message in bag.messages():
            found[message.topic].append((message.log_time_ns, bag.decode(message)))
    return found


@pytest.fixture(scope='module')
def scene() -> Any:
    """Read scene.json."""
    return json.loads((SAMPLE / 'scene.json').read_text(encoding='utf-8'))


def matrix(translation: Any, rotation: Any) -> np.ndarray:
    """Convert a translation and quaternion message to a matrix [4,4]."""
    result = np.eye(4)
    result[:3, :3] = Rotation.from_quat([rotation.x, rotation.y, rotation.z,
                                         rotation.w]).as_matrix()
    result[:3, 3] = translation.x, translation.y, translation.z
    return result


def transforms(message: Any) -> dict[tuple[str, str], np.ndarray]:
    """Return the matrices of a TFMessage by (parent, child)."""
    return {(t.header.frame_id, t.child_frame_id): matrix(t.transform.translation,
                                                          t.transform.rotation)
            for t in message.transforms}


def sensor_poses(messages: dict[str, list[Any]]) -> dict[str, np.ndarray]:
    """Return the poses of the sensors in base_link, from /tf_static."""
    static = transforms(messages['/tf_static'][0][1])
    camera = static['base_link', 'camera_link'] @ static['camera_link', 'camera_optical_frame']
    return {'camera': camera, 'laser': static['base_link', 'laser_link'],
            'lidar': static['base_link', 'lidar_link']}


def base_in_map(messages: dict[str, list[Any]]) -> dict[int, np.ndarray]:
    """Return the poses of base_link in the map by stamp, from /tf."""
    return {time_ns: transforms(m)['map', 'odom'] @ transforms(m)['odom', 'base_link']
            for time_ns, m in messages['/tf']}


def depth_m(message: Any) -> np.ndarray:
    """Decode a depth image to metres."""
    return cv2.imdecode(message.data, cv2.IMREAD_UNCHANGED) / 1000.0


def transform_points(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Transform points [n,3]."""
    return points @ pose[:3, :3].T + pose[:3, 3]


def ground_truth_points(messages: dict[str, list[Any]], number: int) -> np.ndarray:
    """Unproject every fourth pixel of a depth image into the map, [h,w,3], NaN without depth."""
    time_ns, message = messages[DEPTH][number]
    K = messages[INFOS[1]][number][1].k.reshape(3, 3)
    z = depth_m(message)[::4, ::4]
    v, u = np.mgrid[0:480:4, 0:640:4]
    z = np.where(z > 0, z, np.nan)
    points = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], -1)
    pose = base_in_map(messages)[time_ns] @ sensor_poses(messages)['camera']
    return transform_points(pose, points.reshape(-1, 3)).reshape(points.shape)


def test_the_sample_is_small_and_complete(messages: dict[str, list[Any]]) -> None:
    size = sum(path.stat().st_size for path in SAMPLE.rglob('*') if path.is_file())
    assert size < 8_000_000
    frames = {topic: len(messages[topic]) for topic in (
        IMAGE, DEPTH, *INFOS, '/scan', '/lidar/points')}
    assert set(frames.values()) == {80}, frames
    assert len(messages['/tf']) == len(messages['/odom']) == 160
    assert len(messages['/tf_static']) == 1


def test_each_message_is_logged_at_its_stamp(
        messages: dict[str, list[Any]]) -> None:
    for topic, entries in messages.items():
        headers = [e[1].transforms[0] if topic.startswith('/tf') else e[1] for e in entries]
        assert [e[0] for e in entries] == [read_stamp_ns(h) for h in headers], topic
    for topic in (DEPTH, *INFOS, '/scan', '/lidar/points'):
        assert [e[0] for e in messages[topic]] == [e[0] for e in messages[IMAGE]]
    assert set(np.diff([e[0] for e in messages[IMAGE]])) == {100_000_000}


def test_static_transforms_are_latched() -> None:
    with open_bag(SAMPLE / 'living_room') as bag:
        assert bag.topic('/tf_static').qos[0].durability == QosDurability.TRANSIENT_LOCAL
        assert bag.topic('/tf').qos[0].durability == QosDurability.VOLATILE


def test_images_are_vga_without_lens_distortion(messages: dict[str, list[Any]],
                                                scene: Any) -> None:
    for topic in INFOS:
        info = messages[topic][0][1]
        K = info.k.reshape(3, 3)
        assert (info.width, info.height, info.distortion_model) == (640, 480, 'plumb_bob')
        assert not info.d.any()
        np.testing.assert_array_equal(info.r.reshape(3, 3), np.eye(3))
        np.testing.assert_array_equal(info.p.reshape(3, 4), np.hstack([K, np.zeros((3, 1))]))
        np.testing.assert_allclose(K, scene['camera']['K'])
        # 70 degrees across 640 pixels
        assert K[0, 0] == pytest.approx(320 / np.tan(np.radians(35)))
    image, depth = messages[IMAGE][0][1], messages[DEPTH][0][1]
    assert cv2.imdecode(image.data, cv2.IMREAD_COLOR).shape == (480, 640, 3)
    assert depth_m(depth).shape == (480, 640) and depth.format == '16UC1; png compressed'
    assert image.header.frame_id == depth.header.frame_id == 'camera_optical_frame'


def test_the_camera_pose_equals_that_in_scene_json(messages: dict[str, list[Any]],
                                                   scene: Any) -> None:
    camera = scene['camera']
    expected = np.eye(4)
    expected[:3, :3] = Rotation.from_quat(camera['quaternion_xyzw']).as_matrix()
    expected[:3, 3] = camera['xyz_m']
    pose = sensor_poses(messages)['camera']
    np.testing.assert_allclose(pose, expected, atol=1e-9)
    assert pose[2, 3] == camera['height_m'] == 0.35
    # The optical axis points down by the pitch; x points to the robot's right.
    assert pose[2, 2] == pytest.approx(-np.sin(camera['pitch_down_rad']))
    np.testing.assert_allclose(pose[:3, 0], [0, -1, 0], atol=1e-9)


def test_transforms_and_odometry_follow_the_trajectory(messages: dict[str, list[Any]],
                                                       scene: Any) -> None:
    poses = base_in_map(messages)
    map_from_odom = transforms(messages['/tf'][0][1])['map', 'odom']
    for expected, (time_ns, odom) in zip(scene['trajectory'], messages['/odom'], strict=True):
        assert expected['stamp_ns'] == time_ns
        pose = poses[time_ns]
        np.testing.assert_allclose(pose[:3, 3], [expected['x_m'], expected['y_m'], 0], atol=1e-5)
        heading = [np.cos(expected['yaw_rad']), np.sin(expected['yaw_rad']), 0]
        np.testing.assert_allclose(pose[:3, 0], heading, atol=1e-5)
        inner = odom.pose.pose
        np.testing.assert_allclose(map_from_odom @ matrix(inner.position, inner.orientation), pose,
                                   atol=1e-9)


def test_the_poses_move_with_the_twist_of_the_odometry(messages: dict[str, list[Any]]) -> None:
    poses = np.stack(list(base_in_map(messages).values()))
    twists = [(m.twist.twist.linear.x, m.twist.twist.angular.z) for _, m in messages['/odom']]
    steps = np.linalg.norm(np.diff(poses[:, :2, 3], axis=0), axis=1)
    turns = np.diff(np.unwrap(np.arctan2(poses[:, 1, 0], poses[:, 0, 0])))
    # At 20 Hz, the twist changes little during the 50 ms to the next stamp.
    np.testing.assert_allclose(steps / 0.05, [t[0] for t in twists[:-1]], atol=0.02)
    np.testing.assert_allclose(turns / 0.05, [t[1] for t in twists[:-1]], atol=0.05)


@pytest.mark.parametrize('number', [0, 25, 45, 79])
def test_ground_truth_floor_is_at_height_zero(
        messages: dict[str, list[Any]], scene: Any, number: int) -> None:
    points = ground_truth_points(messages, number)
    floor = points[-8:, :, 2]
    assert (np.abs(floor) < 0.004).mean() > 0.7  # rounded to 1 mm; chair legs cover some pixels
    seen = points[np.isfinite(points[..., 0])]
    # Windows and doors are inside the walls of 0.16 m; their frames protrude.
    low = np.array(scene['walls']['min_m']) - [0.25, 0.25, 0.005]
    high = np.array(scene['walls']['max_m']) + [0.25, 0.25, 0.005]
    assert ((seen > low) & (seen < high)).all()


def test_ground_truth_points_lie_on_listed_objects(messages: dict[str, list[Any]],
                                                   scene: Any) -> None:
    for number in (0, 45, 79):
        points = ground_truth_points(messages, number).reshape(-1, 3)
        assert on_listed_object(points, scene).mean() > 0.98


def on_listed_object(points: np.ndarray, scene: Any) -> np.ndarray:
    """Return which finite points lie on floor, ceiling, walls or in an obstacle's box."""
    points = points[np.isfinite(points).all(-1)]
    low, high = (np.array(scene['walls'][key]) for key in ('min_m', 'max_m'))
    # Skirting, curtains and pictures are within 0.15 m of the walls; a rug within 0.02 m.
    known = (points[:, 2] < 0.02) | (points[:, 2] > high[2] - 0.02)
    known |= ((points[:, :2] < low[:2] + 0.15) | (points[:, :2] > high[:2] - 0.15)).any(-1)
    for obstacle in scene['obstacles']:
        inside = (points > np.array(obstacle['min_m']) - 0.02) & (
            points < np.array(obstacle['max_m']) + 0.02)
        known |= inside.all(-1)
    return known


@pytest.mark.parametrize('number', [0, 40, 79])
def test_lidar_points_lie_on_listed_objects(messages: dict[str, list[Any]], scene: Any,
                                            number: int) -> None:
    time_ns, cloud = messages['/lidar/points'][number]
    assert (cloud.height, cloud.width, cloud.point_step) == (8, 120, 12)
    points = cloud.data.view(np.float32).reshape(-1, 3)
    in_map = transform_points(base_in_map(messages)[time_ns] @ sensor_poses(messages)['lidar'],
                              points)
    # The noise is 5 mm; the pendant lamp over the table is not listed as an obstacle.
    assert np.isfinite(in_map).all(-1).mean() > 0.8
    assert on_listed_object(in_map, scene).mean() > 0.98


@pytest.mark.parametrize('number', [0, 40, 79])
def test_scan_points_agree_with_ground_truth_depth(messages: dict[str, list[Any]], scene: Any,
                                                   number: int) -> None:
    time_ns, scan = messages['/scan'][number]
    angle = scan.angle_min + np.arange(len(scan.ranges)) * scan.angle_increment
    finite = np.isfinite(scan.ranges)
    ends = np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1) * scan.ranges[:, None]
    base, poses = base_in_map(messages)[time_ns], sensor_poses(messages)
    in_map = transform_points(base @ poses['laser'], ends[finite])
    assert in_map[:, 2] == pytest.approx(0.2)
    assert on_listed_object(in_map, scene).mean() > 0.98
    optical = transform_points(np.linalg.inv(base @ poses['camera']), in_map)
    optical = optical[optical[:, 2] > 0.3]
    K = np.array(scene['camera']['K'])
    uv = np.round(optical @ K.T / optical[:, 2:])[:, :2].astype(int)
    inside = ((uv >= 0) & (uv < [640, 480])).all(-1)
    seen = depth_m(messages[DEPTH][number][1])[uv[inside, 1], uv[inside, 0]]
    difference = seen - optical[inside, 2]
    # At edges a beam and its pixel may hit different objects, and an obstacle may occlude.
    assert len(difference) > 30
    assert (np.abs(difference) < 0.03).mean() > 0.6
    assert (difference < 0.03).mean() > 0.85


def test_complexity_varies_by_a_factor_of_two(messages: dict[str, list[Any]]) -> None:
    energy = [gradient_energy(cv2.imdecode(m.data, cv2.IMREAD_COLOR)[..., ::-1])
              for _, m in messages[IMAGE][::4]]
    assert max(energy) > 2 * min(energy)


def test_the_same_seed_gives_the_same_drive(tmp_path: Path) -> None:
    coarse = Quality(passes=1, edge_samples=0, texture_size=16)
    write_sample(tmp_path, quality=coarse, seed=3, duration_s=0.05, workers=1)
    again = make_drive_room(3, 16)
    state = integrate_path(START, CONTROLS, 20, 0.05)[0]
    expected_m = render.depth_along_z(again, robot_camera(state, 640, 480))
    with open_bag(tmp_path / 'living_room') as bag:
        message, = bag.messages([DEPTH])
        made_m = depth_m(bag.decode(message))
    expected_m[~np.isfinite(expected_m)] = 0
    np.testing.assert_allclose(made_m, expected_m, atol=0.00051)
    listed = json.loads((tmp_path / 'scene.json').read_text(encoding='utf-8'))['obstacles']
    assert [o['name'] for o in listed] == [o.name for o in again.obstacles]
