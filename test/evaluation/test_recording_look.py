"""The page of a recording of depth_node: frames, obstacles beside a scene and beside a lidar."""

from __future__ import annotations

import json
from pathlib import Path
import re

from bag_fixtures import header, image, serialize, START_NS, TYPES, write_bag
import numpy as np
import pytest

from marigold_ros.data.bags.messages import image_fields, serialize_cloud
from marigold_ros.data.bags.reader import open_bag
from marigold_ros.data.bags.stamp_matching import match_by_stamp
from marigold_ros.evaluation.metrics.costmap import read_layer_config
from marigold_ros.evaluation.metrics.obstacle_map import CELL_FOUND, CELL_INVENTED, CELL_MISSED
from marigold_ros.evaluation.metrics.obstacles import read_scene
from marigold_ros.evaluation.recording import summarize_recording
from marigold_ros.evaluation.recording_look import map_obstacles, write_recording_page
from marigold_ros.evaluation.report.costmap_picture import open_poses
from marigold_ros.geometry.unproject import unproject
from marigold_ros.messages.camera_info import camera_from_info
from marigold_ros.messages.cloud import pack_cloud
from marigold_ros.messages.depth import unpack_depth

ROOT = Path(__file__).parents[2]
SAMPLE, SCENE = ROOT / 'sample' / 'living_room', ROOT / 'sample' / 'scene.json'
LAYER = read_layer_config(ROOT / 'config' / 'nav2_costmap.yaml')
IMAGE, CLOUD = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/PointCloud2'
ARRAY = 'diagnostic_msgs/msg/DiagnosticArray'
CLOUD_TOPIC = '/camera/points'
LIDAR, STRIDE, FRAMES = '/lidar/points', 4, 12
DRIVE_TOPICS = ('/camera/depth_gt/image_rect/compressed', '/camera/camera_info', LIDAR)


def status(stamp_ns: int, **values: object) -> bytes:
    """Serialize ~/status of a processed frame."""
    values = {'camera': 'camera', 'outcome': 'processed', 'reason': '', 'age_ms': 3.0,
              'latency_ms': 40.0, 'step_reason': 'why', **values}
    pairs = [TYPES['diagnostic_msgs/msg/KeyValue'](key=key, value=str(value))
             for key, value in values.items()]
    return serialize(ARRAY, header=header(stamp_ns), status=[
        TYPES['diagnostic_msgs/msg/DiagnosticStatus'](
            level=0, name='depth_node: camera', message='', hardware_id='', values=pairs)])


@pytest.fixture(scope='module')
def recording(tmp_path_factory):
    """Record what a node that knows the truth would publish on the first frames of the drive."""
    topics = {'/camera/rgb/image_rect': IMAGE, '/camera/depth_relative/image': IMAGE,
              '/camera/depth/image_rect': IMAGE, '/camera/depth_gt/image_rect': IMAGE,
              '/camera/points': CLOUD, '/camera/depth/camera_info': 'sensor_msgs/msg/CameraInfo',
              LIDAR: CLOUD, '/depth_node/status': ARRAY}
    messages = []
    with open_bag(SAMPLE) as bag:
        raw = [(message.topic, bytes(message.data)) for message in bag.messages(DRIVE_TOPICS[1:])]
        infos, clouds = ([data for topic, data in raw if topic == name]
                         for name in DRIVE_TOPICS[1:])
        matched = match_by_stamp(bag, DRIVE_TOPICS)
        for number, (stamp_ns, (truth, info, _)) in zip(range(FRAMES), matched):
            depth_m, K = unpack_depth(image_fields(truth)), camera_from_info(info).K
            points = unproject(depth_m, K, stride=STRIDE).astype(np.float32)
            rgb = np.full((*depth_m.shape, 3), 20 * number, np.uint8)
            # Metric depth is missing in the first frame.
            metric = [('/camera/depth/image_rect', image(depth_m, '32FC1', stamp_ns)),
                      ('/camera/points', serialize_cloud(
                          stamp_ns, 'camera_optical_frame',
                          pack_cloud(points, rgb[::STRIDE, ::STRIDE])))] if number else []
            contents = [
                (LIDAR, clouds[number]), ('/camera/depth/camera_info', infos[number]),
                ('/camera/depth_gt/image_rect', image(depth_m, '32FC1', stamp_ns)),
                ('/camera/rgb/image_rect', image(rgb, 'rgb8', stamp_ns)),
                ('/camera/depth_relative/image', image(depth_m / 10, '32FC1', stamp_ns)), *metric,
                ('/depth_node/status', status(
                    stamp_ns, num_inference_steps=int(number % 4 == 0), covered_share=0.9,
                    carried_s=0.1 * (number % 4)))]
            messages += [(topic, stamp_ns - START_NS, data) for topic, data in contents]
    return write_bag(tmp_path_factory.mktemp('look') / 'recording', topics, messages)


def test_every_frame_of_a_recording_is_shown_with_its_status(recording, tmp_path, bars):
    page = tmp_path / 'report.html'
    with open_bag(recording) as bag:
        write_recording_page(page, bag, summarize_recording(bag))
    assert bars() == {'depth errors': (FRAMES, FRAMES), 'page': (FRAMES, FRAMES)}
    text = page.read_text()
    frames = json.loads(re.search(r'id="strip-frames">(.*?)</script>', text)[1])
    assert [each['title'] for each in frames] == [
        f'Frame {number}, {number / 10:.2f} s' for number in range(FRAMES)]
    assert [each['steps'] for each in frames] == 3 * [1, 0, 0, 0]
    assert frames[1]['facts'][:2] == ['carried for 0.1 s, T = 0; covers 90.0 %',
                                      'age 3 ms, latency 40 ms, no cap']
    assert 'AbsRel (metric, 0.1 to 20 m)' in text
    # Image, relative depth, error, metric depth; the first has no metres, which stay grey.
    kinds = [[panel[5:15] for panel in each['panels']] for each in frames[:2]]
    assert sorted(kinds[0]) == ['image/gif;', 'image/gif;', 'image/jpeg', 'image/jpeg']
    assert kinds[1] == 4 * ['image/jpeg']


def test_metric_depth_is_shown_where_its_cloud_was_not_recorded(recording, tmp_path):
    with open_bag(recording) as bag:
        topics = {topic.name: topic.msgtype for topic in bag.topics if topic.name != CLOUD_TOPIC}
        messages = [(message.topic, message.log_time_ns - START_NS, bytes(message.data))
                    for message in bag.messages([*topics])]
    page = tmp_path / 'report.html'
    with open_bag(write_bag(tmp_path / 'recording', topics, messages)) as bag:
        write_recording_page(page, bag, summarize_recording(bag))
    frames = json.loads(re.search(r'id="strip-frames">(.*?)</script>', page.read_text())[1])
    assert [panel[5:15] for panel in frames[1]['panels']] == 4 * ['image/jpeg']


def test_true_clouds_find_what_they_see_of_a_scene(recording, bars):
    with open_bag(recording) as bag:
        found = map_obstacles(bag, 'camera', open_poses(SAMPLE), LAYER, scene=read_scene(SCENE))
    assert bars() == {'map': (FRAMES - 1, FRAMES - 1)}
    counts = np.bincount(found.cells().ravel(), minlength=5)
    assert counts[CELL_FOUND] > 300
    assert counts[CELL_INVENTED] < 0.02 * counts[CELL_FOUND]
    assert counts[CELL_MISSED] < 0.02 * counts[CELL_FOUND]
    assert len(found.path_m) == FRAMES - 1
    assert found.visible['dining_table'] == found.found['dining_table'] == FRAMES - 1


def test_without_a_scene_true_clouds_agree_with_the_lidar(recording, bars):
    with open_bag(recording) as bag:
        found = map_obstacles(bag, 'camera', open_poses(SAMPLE), LAYER, lidar=LIDAR)
    assert bars() == {'map': (2 * FRAMES - 1, 2 * FRAMES - 1)}  # the first frame has no cloud
    counts = np.bincount(found.cells().ravel(), minlength=5)
    assert counts[CELL_FOUND] > 100
    # What it marks, ours marks as well, but ours has more points.
    assert counts[CELL_MISSED] < 0.2 * counts[CELL_FOUND]


def test_without_anything_to_compare_with_there_is_no_map(recording, tmp_path):
    no_poses = write_bag(tmp_path / 'none', {'/camera/points': CLOUD}, [])
    with open_bag(recording) as bag:
        assert map_obstacles(bag, 'camera', open_poses(SAMPLE), LAYER) is None
        assert map_obstacles(bag, 'camera', open_poses(no_poses), LAYER, lidar=LIDAR) is None
