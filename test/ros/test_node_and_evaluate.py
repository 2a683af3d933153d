"""The metric depth of the running node is that of `evaluate`, for a drive with three sources."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from types import SimpleNamespace

from bag_fixtures import transform
from diagnostic_msgs.msg import DiagnosticArray
from node_harness import camera_info, find_free_domain, floats, image, Robot, start_node, TFMessage
import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from marigold_ros.data.bags.reader import open_bag
from marigold_ros.data.datasets.bag import bag_data_set, SAMPLE_TOPICS
from marigold_ros.depth.carry import StepFinder
from marigold_ros.depth.types import Flow
from marigold_ros.evaluation.metrics.metric_depth import MetricDepthEvaluator
from marigold_ros.evaluation.references import BagReferences
from marigold_ros.metric.config import ScaleConfig

pytestmark = pytest.mark.node
BAG = Path(__file__).parents[2] / 'sample' / 'living_room'
LIDAR, CLOUD = '/lidar/points', '/camera/scale/cloud'
STATUS, RELATIVE, DEPTH = ('/depth_node/status', '/camera/depth_relative/image',
                           '/camera/depth/image_rect')
COUNT = 12
EXTRINSICS = '-0.1298 0 0.0869 0 -0.10472 0'
CONFIG = ScaleConfig(('cloud', 'motion', 'ground_plane'), extrinsics={'cloud': EXTRINSICS},
                     camera_height_m=0.35, camera_pitch_deg=6.0, camera_roll_deg=0.0)


@pytest.fixture(scope='module')
def robot(tmp_path_factory):
    domain = find_free_domain()
    # The networks run once, so that relative depth has one gauge.
    settings = {'scale.sources': '[cloud, motion, ground_plane]',
                'scale.cloud.extrinsics': f"'{EXTRINSICS}'", 'scale.camera_height_m': 0.35,
                'scale.camera_pitch_deg': 6.0, 'scale.camera_roll_deg': 0.0,
                'max_inference_steps': 1, 'complexity_min': 1.0, 'max_carry_s': 10.0,
                'max_age_s': 3600, 'latency_cap_ms': 0, 'min_surface_angle_deg': 0.0}
    process = start_node(tmp_path_factory.mktemp('node'), domain, *(
        word for name, value in settings.items() for word in ('-p', f'{name}:={value}')))
    robot = Robot(domain)
    robot.until(lambda: robot.node.count_subscribers('/camera/image_raw'), 200, 'an active node')
    robot.listen_all({STATUS: DiagnosticArray, RELATIVE: Image, DEPTH: Image})
    for topic, message_type in (('/camera/camera_info', CameraInfo), ('/camera/image_raw', Image),
                                (CLOUD, PointCloud2), ('/tf', TFMessage)):
        robot.advertise(topic, message_type)
    yield robot
    robot.close()
    process.stop()


def show(robot, frame, cloud):
    """Publish pose, cloud and image of a frame; return relative and metric depth, and status."""
    pose = frame.world_from_camera
    robot.publish('/tf', transform(
        'odom', 'camera_optical_frame', tuple(pose[:3, 3].tolist()),
        tuple(Rotation.from_matrix(pose[:3, :3]).as_quat().tolist()), frame.stamp_ns))
    robot.publish(CLOUD, cloud)
    robot.spin(0.1)  # nothing orders two topics
    height, width = frame.rgb.shape[:2]
    info = camera_info(frame.stamp_ns, width, height)
    info.k = frame.K.ravel()
    info.p = np.c_[frame.K, np.zeros(3)].ravel()
    robot.publish('/camera/camera_info', info)
    message = image(frame.rgb, frame.stamp_ns)
    message.header.frame_id = 'camera_optical_frame'
    robot.publish('/camera/image_raw', message)
    status = robot.status_of(frame.stamp_ns)
    return (*(floats(robot.find(topic, frame.stamp_ns)) if status['scale_state'] == 'tracking'
              else None for topic in (RELATIVE, DEPTH)), status)


def test_metric_depth_agrees_to_1_percent(robot):
    """What evaluate makes of the relative depth that the node has published."""
    evaluator, steps, flow, last = MetricDepthEvaluator(CONFIG), StepFinder(), None, None
    with open_bag(BAG) as bag:
        clouds = [deserialize_message(bytes(message.data), PointCloud2)
                  for message in islice(bag.messages([LIDAR]), COUNT)]
        references = BagReferences(bag, SAMPLE_TOPICS, CONFIG, {'cloud': LIDAR})
        for frame, cloud in zip(bag_data_set(BAG).frames(), clouds):
            relative, shown_m, status = show(robot, frame, cloud)
            assert shown_m is not None, status
            # Pixels that carried depth does not cover are unknown to both.
            known = np.where(np.isnan(shown_m), np.float32(np.nan), relative)
            grey = steps.reduce(frame.rgb)
            if last is not None:
                flow = Flow(last[0], steps.find(last[1], grey).source)
            last = frame.stamp_ns, grey
            scale = evaluator.add(frame, SimpleNamespace(
                affine_invariant_depth=relative, known_depth=known, confidence=None),
                references.lookup(frame), flow=flow)
            expected_m = scale.field.correct(scale.to_metric_depth(relative))
            compared = np.isfinite(shown_m)
            assert compared.mean() > 0.6
            difference = np.abs(shown_m[compared] / expected_m[compared] - 1.0)
            assert difference.mean() < 0.01, (frame.name, status)
            # The node also weighs by the confidence of its prediction, which it does not publish.
            assert np.quantile(difference, 0.95) < 0.06, (frame.name, status)
    # At the end each source counts, whether or not it has wrong anchors.
    assert {status[f'scale_{name}_state'] for name in CONFIG.sources} <= {'used', 'weighed down'}
