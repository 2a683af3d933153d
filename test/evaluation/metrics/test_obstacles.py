"""Nav2's view of the sample drive: obstacles where scene.json has them, and a free floor."""

from __future__ import annotations

import json
from pathlib import Path
import time

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from node_harness import camera_info, free_domain, image, NodeProcess, Robot, stamp_of
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from benchmarks.drive import read_drive
from benchmarks.drive_clouds import ASSUMED_M, FILTER, make_clouds, SOURCES, true_prediction
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import InputError
from marigold_ros.depth.types import DepthPrediction
from marigold_ros.evaluation.metrics.costmap import FREE, LETHAL, read_layer
from marigold_ros.evaluation.metrics.known_scene import read_known_scene
from marigold_ros.evaluation.metrics.obstacles import main, ObstacleScorer
from marigold_ros.geometry.camera import Camera
from marigold_ros.geometry.filters import flying_pixels
from marigold_ros.messages.cloud import unpack_cloud
from marigold_ros.ros.calibration import Calibration
from marigold_ros.ros.camera_output import FramePacker
from marigold_ros.ros.parameters import settings_from

ROOT = Path(__file__).parents[3]
BAG, SCENE = ROOT / 'sample' / 'living_room', ROOT / 'sample' / 'scene.json'
COSTMAP = ROOT / 'config' / 'nav2_costmap.yaml'
STRIDE = settings_from({}).point_stride


@pytest.fixture(scope='module')
def scene():
    return read_known_scene(SCENE)


@pytest.fixture(scope='module')
def engine():
    return DepthEngine.load('tiny', dtype='float32')


@pytest.fixture(scope='module')
def drive(engine):
    """Every eighth frame of the drive, and its image."""
    images = []

    def predict(rgb):
        images.append(rgb)
        if len(images) % 8 == 1:
            return engine.infer(rgb, num_inference_steps=1, seed=0)
        return DepthPrediction(None, None, None, None, 1, 'schedule', None)

    frames = read_drive(BAG, predict)
    return frames[::8], images[::8]


@pytest.fixture(scope='module')
def frames(drive):
    return drive[0]


def points_of(cloud: PointCloud2) -> np.ndarray:
    """Read float32 x, y, z by their fields' offsets, as PointCloud2Iterator does."""
    offsets = {field.name: field.offset for field in cloud.fields}
    table = np.frombuffer(cloud.data, np.uint8).reshape(cloud.height, cloud.width,
                                                        cloud.point_step)
    return np.concatenate([np.ascontiguousarray(table[..., at:at + 4]).view(np.float32)
                           for at in (offsets[axis] for axis in 'xyz')], axis=-1)


def scored(scene, frames, clouds) -> ObstacleScorer:
    """Feed a costmap as the shipped configuration makes it."""
    scorer = ObstacleScorer(scene, read_layer(COSTMAP))
    for frame, points in zip(frames, clouds, strict=True):
        scorer.add(frame, points, STRIDE)
    return scorer


@pytest.fixture(scope='module')
def true_clouds(frames):
    return [clouds['truth'] for clouds in make_clouds(frames, ['truth'])]


def test_with_true_depth_every_obstacle_is_found_within_5_cm_and_the_floor_is_free(
        scene, frames, true_clouds):
    score = scored(scene, frames, true_clouds).score()
    assert (score.clouds, score.frames) == (10, 10)
    assert score.recall == 1.0
    assert score.precision == 1.0
    assert score.floor_free > 0.999
    assert score.distance_m < 0.05


def test_a_scale_that_is_wrong_by_a_tenth_shows_in_every_figure(scene, frames, true_clouds):
    score = scored(scene, frames, [1.1 * points for points in true_clouds]).score()
    assert score.distance_m > 0.1
    assert score.precision < 0.95
    assert score.recall < 1.0
    assert score.floor_free < 0.999


def test_a_camera_that_is_thought_to_look_level_marks_the_floor(scene, frames, true_clouds):
    # 6 degrees up lift the floor by a tenth of its distance.
    c, s = np.cos(frames[0].tilt[0]), np.sin(frames[0].tilt[0])
    up = np.array([[1, 0, 0], [0, c, -s], [0, s, c]], np.float32)
    score = scored(scene, frames, [points @ up.T for points in true_clouds]).score()
    assert score.precision < 0.9


def test_soft_edges_lose_most_of_what_hangs_in_the_air_and_hardly_anything_else(frames):
    removed, lost = [], []
    for frame in frames:
        sky_m = 12.0  # through the windows
        depth_m = np.nan_to_num(frame.depth_m, nan=sky_m).astype(np.float32)
        soft_m = cv2.GaussianBlur(depth_m, (0, 0), 1.0)
        hangs = np.abs(soft_m / depth_m - 1) > 0.05
        flying = flying_pixels(soft_m, frame.K, FILTER.min_surface_angle_deg)
        removed.append(flying[hangs].mean())
        lost.append(flying[~hangs].mean())
    assert np.mean(removed) > 0.75
    assert np.mean(lost) < 0.001


def test_a_source_without_metres_leaves_the_costmap_empty(scene, frames):
    score = scored(scene, frames, [None] * len(frames)).score()
    assert (score.clouds, score.recall, score.floor_free) == (0, 0.0, 0.0)
    assert np.isnan([score.precision, score.distance_m]).all()


def test_a_ghost_is_cleared_by_the_rays_to_the_floor(scene, frames, true_clouds):
    scorer = scored(scene, frames[:1], true_clouds[:1])
    floor = scorer.layer.costs == FREE
    assert floor.sum() > 1000
    scorer.layer.costs[floor] = LETHAL
    scorer.add(frames[0], true_clouds[0], STRIDE)
    assert (scorer.layer.costs[floor] == FREE).all()


def test_the_clouds_are_those_of_the_nodes_own_function(scene, frames, true_clouds):
    settings = settings_from({})
    assert settings.depth_filter() == FILTER
    frame = frames[3]
    relative, confidence, metric = true_prediction(frame.depth_m)
    prediction = DepthPrediction(relative, confidence, None, None, 1, 'schedule', None)
    camera = Camera(640, 480, frame.K, (), 'plumb_bob', np.eye(3),
                    np.hstack([frame.K, np.zeros((3, 1))]))
    calibration = Calibration(camera, None, '', True, 'camera_optical_frame')
    fields = FramePacker().pack(
        frozenset({'points'}), np.zeros((480, 640, 3), np.uint8), calibration, prediction, metric,
        settings.depth_filter(), point_stride=settings.point_stride)
    np.testing.assert_array_equal(unpack_cloud(fields['points'])[0], true_clouds[3])


def cloud_of(robot, frame, rgb) -> np.ndarray:
    """Show a frame until its cloud comes: a match on one side may be too early for the other."""
    shown = set()

    def received():
        stamp_ns = time.time_ns()
        info = camera_info(stamp_ns, 640, 480, float(frame.K[0, 0]))
        info.k = frame.K.ravel()
        info.p = np.c_[frame.K, np.zeros(3)].ravel()
        robot.publish('/camera/camera_info', info)
        robot.publish('/camera/image_raw', image(rgb, stamp_ns))
        shown.add(stamp_ns)
        robot.spin(0.5)
        return [cloud for cloud in robot.messages['/camera/points']
                if stamp_of(cloud.header) in shown]

    return points_of(robot.until(received, what='a cloud')[0])


def test_the_running_nodes_cloud_marks_what_the_offline_one_marks(scene, drive, tmp_path):
    few, images = drive[0][::4], drive[1][::4]
    low_m, high_m = ASSUMED_M
    process = NodeProcess(
        tmp_path / 'log', domain := free_domain(), '-p', 'scale.source:=fixed',
        '-p', f'scale.min_depth_m:={low_m}', '-p', f'scale.max_depth_m:={high_m}',
        '-p', 'max_inference_steps:=1', '-p', 'dtype:=float32', '-p', 'latency_cap_ms:=0',
        '-p', 'max_age_s:=60')
    robot = Robot(domain)
    try:
        robot.until(lambda: robot.node.count_subscribers('/camera/image_raw'), 200, 'a node')
        robot.listen_all({'/camera/points': PointCloud2, '/depth_node/status': DiagnosticArray})
        robot.advertise('/camera/camera_info', CameraInfo)
        robot.advertise('/camera/image_raw', Image)
        received = [cloud_of(robot, frame, rgb) for frame, rgb in zip(few, images, strict=True)]
    finally:
        robot.close()
        process.end()
    offline = [clouds['fixed'] for clouds in make_clouds(few, ['fixed'])]
    costs = [scored(scene, few, clouds).layer.costs for clouds in (received, offline)]
    marked = np.array(costs) == LETHAL
    assert marked.any(axis=0).sum() > 50
    # A rounding of 1e-6 m may move a point into the next cell.
    assert marked.all(axis=0).sum() > 0.99 * marked.any(axis=0).sum()


def test_every_source_makes_clouds(frames):
    for clouds in make_clouds(frames[:2], SOURCES):
        assert set(clouds) == {'truth', 'fixed', 'depth', 'cloud', 'scan', 'ground_plane'}
        for source, points in clouds.items():
            assert points is not None and points.shape == (120, 160, 3), source


def test_the_command_prints_its_table_and_says_what_is_wrong(drive, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('marigold_ros.evaluation.metrics.obstacles.read_drive',
                        lambda path, predict: drive[0][:2])
    arguments = ['--bag', str(BAG), '--costmap', str(COSTMAP), '--source', 'truth', '--scene']
    assert main([*arguments, str(SCENE)]) == 0
    row = capsys.readouterr().out.splitlines()[2]
    assert row.startswith('| truth | 2 of 2 | 100 % | 100 % | 100 % | 0.0')
    wrong = tmp_path / 'scene.json'
    wrong.write_text(json.dumps({'obstacles': []}))
    assert main([*arguments, str(wrong)]) == 1
    assert "KeyError: 'camera'" in capsys.readouterr().err


def test_a_frame_that_the_trajectory_does_not_know_is_refused(scene):
    with pytest.raises(InputError, match='no stamp 7'):
        scene.map_from_camera(7)
