"""Obstacle scores on the sample drive: obstacles of scene.json, free floor, distances."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
import json
from pathlib import Path
import time

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from node_harness import camera_info, find_free_domain, image, Robot, stamp_of, start_node
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from marigold_ros.data.bags.reader import open_bag
from marigold_ros.data.datasets.bag import bag_data_set, SAMPLE_TOPICS
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import InputError
from marigold_ros.depth.types import DepthPrediction
from marigold_ros.evaluation.metrics.costmap import FREE, LETHAL, read_layer_config, UNKNOWN
from marigold_ros.evaluation.metrics.metric_depth import FILTER, MetricDepthEvaluator
from marigold_ros.evaluation.metrics.obstacles import ObstacleScorer, read_scene
from marigold_ros.evaluation.references import BagReferences
from marigold_ros.geometry.filters import find_flying_pixels
from marigold_ros.messages.cloud import unpack_cloud
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.outputs import POINT_STRIDE, PointFilter
from marigold_ros.metric.types import MetricScale
from marigold_ros.ros.camera_output import FramePacker
from marigold_ros.ros.parameters import settings_from_parameters

ROOT = Path(__file__).parents[3]
BAG, SCENE = ROOT / 'sample' / 'living_room', ROOT / 'sample' / 'scene.json'
COSTMAP = ROOT / 'config' / 'nav2_costmap.yaml'
# What relative depth represents: the true one of the tests, and that of config/demo.yaml.
TRUE_RANGE_M, ASSUMED_M = (0.01, 100.0), (0.5, 4.5)


class Clouds:
    """Record the clouds that `MetricDepthEvaluator` passes to its ObstacleScorer."""

    def __init__(self):
        self.points = []

    def add(self, target_m, K, map_from_camera, points, stride, *others):
        assert stride == POINT_STRIDE
        self.points.append(points)


@pytest.fixture(scope='module')
def scene():
    return read_scene(SCENE)


@pytest.fixture(scope='module')
def drive():
    """Read every eighth frame of the drive, its references and the tilt of the camera."""
    config = ScaleConfig(('ground_plane', 'cloud', 'scan'), camera_height_m=0.3)
    with open_bag(BAG) as bag:
        references = BagReferences(bag, SAMPLE_TOPICS, config,
                                   {'cloud': '/lidar/points', 'scan': '/scan'})
        return [(frame, references.lookup(frame))
                for frame in islice(bag_data_set(BAG).frames(), 0, None, 8)]


def true_relative_depth(frame):
    """Return the relative depth that means true depth in `TRUE_RANGE_M`."""
    low_m, high_m = TRUE_RANGE_M
    return ((frame.known_depth_m - low_m) / (high_m - low_m)).astype(np.float32)


def clouds_of(drive, config, relatives):
    """Return the clouds of a fixed scale, as the node publishes them."""
    clouds = Clouds()
    evaluator = MetricDepthEvaluator(config, clouds)
    for (frame, reference), relative in zip(drive, relatives):
        evaluator.add(frame, DepthPrediction(relative, None, None, None, 1, 'schedule', None),
                      reference)
    return clouds.points


@pytest.fixture(scope='module')
def true_clouds(drive):
    return clouds_of(drive, ScaleConfig(('fixed',), *TRUE_RANGE_M),
                     [true_relative_depth(frame) for frame, _ in drive])


def scored(scene, drive, clouds) -> ObstacleScorer:
    """Score the clouds in a costmap with the shipped configuration."""
    scorer = ObstacleScorer(scene, read_layer_config(COSTMAP))
    for (frame, reference), points in zip(drive, clouds, strict=True):
        scorer.add(frame.known_depth_m, reference.K, frame.world_from_camera, points,
                   POINT_STRIDE)
    return scorer


def test_true_depth_scores_best(scene, drive, true_clouds):
    scores = scored(scene, drive, true_clouds).scores()
    assert scores['recall'] == 1.0
    assert scores['precision'] == 1.0
    assert scores['floor_free'] > 0.997
    assert scores['distance_m'] < 0.05


def test_frames_in_which_an_obstacle_is_found_and_visible_are_counted(scene, drive, true_clouds):
    found = scored(scene, drive, true_clouds).scores()['found']
    assert len(found) > 5 and list(found) == sorted(found) and 'wall 1' in found
    assert all(each['found'] == each['visible'] > 0 for each in found.values())
    nothing = scored(scene, drive, [None] * len(drive)).scores()['found']
    assert nothing == {name: {'found': 0, 'visible': each['visible']}
                       for name, each in found.items()}


def test_frames_before_an_obstacle_is_marked_are_not_counted(scene, drive, true_clouds):
    """Without the cloud of the first frame, in which a table is visible."""
    found = scored(scene, drive, true_clouds).scores()['found']['dining_table']
    late = scored(scene, drive, [None, *true_clouds[1:]]).scores()['found']['dining_table']
    assert late == {'found': found['found'] - 1, 'visible': found['visible']}


def test_clouds_of_other_sensors_mark_the_costmap_but_the_distance_is_that_of_ours(
        scene, drive, true_clouds):
    frame, reference = drive[0]
    scorer = ObstacleScorer(scene, read_layer_config(COSTMAP))
    scorer.add(frame.known_depth_m, reference.K, frame.world_from_camera, None, POINT_STRIDE,
               true_clouds[0].reshape(-1, 3))
    ours = scored(scene, drive[:1], true_clouds[:1])
    np.testing.assert_array_equal(scorer.layer.costs, ours.layer.costs)
    assert np.isnan(scorer.scores()['distance_m']) and ours.scores()['distance_m'] < 0.05
    assert scorer.scores()['found'] == ours.scores()['found']


def test_clouds_of_other_sensors_mark_and_clear_within_their_own_ranges(
        scene, drive, true_clouds):
    frame, reference = drive[0]
    layer = read_layer_config(COSTMAP)
    near = replace(layer, obstacle_max_range=0.3, raytrace_max_range=0.3)
    scorer = ObstacleScorer(scene, layer, near)
    scorer.add(frame.known_depth_m, reference.K, frame.world_from_camera, None, POINT_STRIDE,
               true_clouds[0].reshape(-1, 3))
    seen = scorer.layer.cell_centres_m()[scorer.layer.costs != UNKNOWN]
    away_m = np.hypot(*(seen - frame.world_from_camera[:2, 3]).T)
    assert len(seen) > 10 and away_m.max() < 0.4


def test_what_the_costmap_of_a_lidar_alone_misses_is_in_the_one_with_the_cloud(scene, drive):
    evaluator = MetricDepthEvaluator(
        ScaleConfig(('cloud',)), ObstacleScorer(scene, read_layer_config(COSTMAP)))
    for frame, reference in drive:
        relative = (np.nan_to_num(frame.known_depth_m, nan=12.0) - 0.2) / 12.0
        evaluator.add(frame, DepthPrediction(relative.astype(np.float32), None, None, None, 1,
                                             'schedule', None), reference)
    sensor = evaluator.summary()['sensors']['cloud']
    alone, both = sensor['alone'], sensor['with_cloud']
    assert alone['recall'] < both['recall'] == 1.0
    assert alone['floor_free'] < 0.95 < both['floor_free']
    assert np.isnan(alone['distance_m']) and both['distance_m'] < 0.05


def test_a_scale_error_of_10_percent_worsens_every_score(scene, drive, true_clouds):
    scores = scored(scene, drive, [1.1 * points for points in true_clouds]).scores()
    assert scores['distance_m'] > 0.1
    assert scores['precision'] < 0.95
    assert scores['recall'] < 1.0
    assert scores['floor_free'] < 0.997


def test_a_wrong_camera_pitch_marks_the_floor(scene, drive, true_clouds):
    # A pitch error of 6 degrees raises the floor by a tenth of its distance.
    pitch = drive[0][1].tilt.pitch
    c, s = np.cos(pitch), np.sin(pitch)
    up = np.array([[1, 0, 0], [0, c, -s], [0, s, c]], np.float32)
    assert scored(scene, drive, [points @ up.T for points in true_clouds]).scores()[
        'precision'] < 0.95


def test_the_filter_removes_flying_pixels_and_little_else(drive):
    removed, lost = [], []
    for frame, reference in drive:
        sky_m = 12.0  # seen through the windows
        depth_m = np.nan_to_num(frame.known_depth_m, nan=sky_m).astype(np.float32)
        soft_m = cv2.GaussianBlur(depth_m, (0, 0), 1.0)
        hangs = np.abs(soft_m / depth_m - 1) > 0.05
        flying = find_flying_pixels(soft_m, reference.K, FILTER.min_surface_angle_deg)
        removed.append(flying[hangs].mean())
        lost.append(flying[~hangs].mean())
    assert np.mean(removed) > 0.75
    assert np.mean(lost) < 0.001


def test_without_metric_depth_the_costmap_stays_empty(scene, drive):
    scores = scored(scene, drive, [None] * len(drive)).scores()
    assert (scores['recall'], scores['floor_free']) == (0.0, 0.0)
    assert np.isnan([scores['precision'], scores['distance_m']]).all()


def test_wrong_marks_are_cleared_by_rays_to_the_floor(scene, drive, true_clouds):
    scorer = scored(scene, drive[:1], true_clouds[:1])
    floor = scorer.layer.costs == FREE
    assert floor.sum() > 1000
    scorer.layer.costs[floor] = LETHAL
    frame, reference = drive[0]
    scorer.add(frame.known_depth_m, reference.K, frame.world_from_camera, true_clouds[0],
               POINT_STRIDE)
    assert (scorer.layer.costs[floor] == FREE).all()


def test_the_clouds_equal_those_of_the_node(drive, true_clouds):
    settings = settings_from_parameters({})
    assert settings.depth_filter() == FILTER
    assert settings.point_filter() == PointFilter()
    frame, reference = drive[3]
    relative = true_relative_depth(frame)
    prediction = DepthPrediction(relative, None, None, None, 1, 'schedule', None)
    low_m, high_m = TRUE_RANGE_M
    scale = MetricScale(high_m - low_m, low_m, 0.0, ('fixed',))
    fields = FramePacker().pack(frozenset({'points'}), frame.rgb, reference.K, prediction, scale,
                                settings.depth_filter(), settings.point_filter())
    np.testing.assert_array_equal(unpack_cloud(fields['points'])[0], true_clouds[3])


def points_of(cloud: PointCloud2) -> np.ndarray:
    """Read float32 x, y, z by their fields' offsets, as PointCloud2Iterator does."""
    offsets = {field.name: field.offset for field in cloud.fields}
    table = np.frombuffer(cloud.data, np.uint8).reshape(cloud.height, cloud.width,
                                                        cloud.point_step)
    return np.concatenate([np.ascontiguousarray(table[..., at:at + 4]).view(np.float32)
                           for at in (offsets[axis] for axis in 'xyz')], axis=-1)


def cloud_of(robot, frame, reference) -> np.ndarray:
    """Publish a frame until its cloud arrives; discovery may not be complete at first."""
    published = set()

    def received():
        stamp_ns = time.time_ns()
        info = camera_info(stamp_ns, 640, 480, float(reference.K[0, 0]))
        info.k = reference.K.ravel()
        info.p = np.c_[reference.K, np.zeros(3)].ravel()
        robot.publish('/camera/camera_info', info)
        robot.publish('/camera/image_raw', image(frame.rgb, stamp_ns))
        published.add(stamp_ns)
        robot.spin(0.5)
        return [cloud for cloud in robot.messages['/camera/points']
                if stamp_of(cloud.header) in published]

    return points_of(robot.until(received, what='a cloud')[0])


@pytest.mark.node
def test_clouds_of_the_running_node_mark_the_same_cells(scene, drive, tmp_path):
    few = drive[::4]
    low_m, high_m = ASSUMED_M
    process = start_node(
        tmp_path, domain := find_free_domain(), '-p', 'scale.sources:=[fixed]',
        '-p', f'scale.min_depth_m:={low_m}', '-p', f'scale.max_depth_m:={high_m}',
        '-p', 'max_inference_steps:=1', '-p', 'dtype:=float32', '-p', 'latency_cap_ms:=0',
        '-p', 'max_age_s:=60')
    robot = Robot(domain)
    try:
        robot.until(lambda: robot.node.count_subscribers('/camera/image_raw'), 200, 'a node')
        robot.listen_all({'/camera/points': PointCloud2, '/depth_node/status': DiagnosticArray})
        robot.advertise('/camera/camera_info', CameraInfo)
        robot.advertise('/camera/image_raw', Image)
        received = [cloud_of(robot, *each) for each in few]
    finally:
        robot.close()
        process.stop()
    engine = DepthEngine.load('tiny', dtype='float32')
    offline = clouds_of(few, ScaleConfig(('fixed',), *ASSUMED_M), [
        engine.infer(frame.rgb, num_inference_steps=1, seed=0).affine_invariant_depth
        for frame, _ in few])
    costs = [scored(scene, few, clouds).layer.costs for clouds in (received, offline)]
    marked = np.array(costs) == LETHAL
    assert marked.any(axis=0).sum() > 50
    # A rounding of 1e-6 m may move a point into the next cell.
    assert marked.all(axis=0).sum() > 0.99 * marked.any(axis=0).sum()


def test_a_camera_outside_the_scene_is_rejected(scene, drive, true_clouds):
    frame, reference = drive[0]
    away = frame.world_from_camera.copy()
    away[0, 3] = 50.0
    with pytest.raises(InputError, match=r'`scene` must surround the camera.*at \[50.0, '):
        ObstacleScorer(scene, read_layer_config(COSTMAP)).add(
            frame.known_depth_m, reference.K, away, true_clouds[0], POINT_STRIDE)


@pytest.mark.parametrize(('change', 'message'), [
    ({'walls': None}, 'TypeError'), ({'obstacles': [{'name': 'box'}]}, "KeyError: 'min_m'"),
    ({'obstacles': [{'name': 'box', 'min_m': [0, 0, 1], 'max_m': [1, 1, 0]}]},
     'min_m not above max_m'),
    ({'obstacles': [{'name': 'box', 'min_m': [0, 0], 'max_m': [1, 1]}]}, 'three numbers')])
def test_an_invalid_scene_file_is_rejected(change, message, tmp_path):
    path = tmp_path / 'scene.json'
    path.write_text(json.dumps(json.loads(SCENE.read_text()) | change))
    with pytest.raises(InputError, match=f'`scene` must be a file .*scene.json: .*{message}'):
        read_scene(path)


def test_a_missing_scene_file_is_rejected(tmp_path):
    with pytest.raises(InputError, match='nowhere.json: FileNotFoundError'):
        read_scene(tmp_path / 'nowhere.json')


def test_parts_with_what_leads_in_are_joined_to_the_scores_of_the_whole(scene, drive):
    """The lead-in of the second part is all of the first, so that nothing differs."""
    def evaluate(frames):
        evaluator = MetricDepthEvaluator(ScaleConfig(('cloud',)), ObstacleScorer(
            scene, read_layer_config(COSTMAP)))
        for frame, reference in frames:
            evaluator.add(frame, DepthPrediction(true_relative_depth(frame), None, None, None, 1,
                                                 'schedule', None), reference)
        return evaluator

    whole, first = evaluate(drive), evaluate(drive[:4])
    second = evaluate([(replace(frame, is_lead_in=True), reference)
                       for frame, reference in drive[:4]] + drive[4:])
    joined = first.obstacle_map().join(second.obstacle_map())
    for name in ('costs', 'seen', 'marked', 'path_m'):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole.obstacle_map(), name))
    first.extend(second)
    summary = whole.summary()
    assert summary['frames'] == len(drive) and summary['obstacles']['clouds'] > 4
    assert json.dumps(first.summary()) == json.dumps(summary)
