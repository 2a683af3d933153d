"""
Publish a metric reference of a camera, and the robot's transforms, in a separate process.

    python -m benchmarks.synthetic_reference front cloud
    python -m benchmarks.synthetic_reference front tf

The cloud is the depth that the node published, made metric by a known scale and shift: a sensor
that agrees with the networks.  The transforms say where that sensor and the camera are on a robot
that drives; as the sensor turns on a mast, its place is unknown once they stop.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, qos_profile_sensor_data, QoSProfile
from sensor_msgs.msg import Image, PointCloud2

from benchmarks.spinning import spin_until_stopped
from benchmarks.synthetic_camera import make_camera_info, STARTED
from marigold_ros.geometry.unproject import unproject
from marigold_ros.messages.cloud import pack_cloud
from marigold_ros.ros.conversions import make_header, serialize_cloud
from marigold_ros.stop_flag import StopFlag
from scenes.robot_messages import serialize_transforms

SCALE_M, SHIFT_M, NOISE_M = 4.0, 1.0, 0.02
STRIDE_PX = 16
LIDAR_FRAME = 'lidar_link'
TF_PERIOD_S = 0.02
SPEED_MPS = 0.2


class ReferenceCloud:
    """
    Publish a cloud for each relative depth image of a camera.

    Parameters
    ----------
    node : rclpy.node.Node
    camera : str
    """

    def __init__(self, node: Any, camera: str) -> None:
        self._rng = np.random.default_rng(0)
        self._publisher = node.create_publisher(PointCloud2, f'{camera}/scale/cloud',
                                                qos_profile_sensor_data)
        node.create_subscription(Image, f'{camera}/depth_relative/image', self._publish,
                                 qos_profile_sensor_data)

    def _publish(self, message: Image) -> None:
        relative = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
        depth_m = SCALE_M * relative + SHIFT_M
        depth_m = depth_m + self._rng.normal(scale=NOISE_M, size=depth_m.shape)
        K = np.reshape(make_camera_info(message.width, message.height).k, (3, 3))
        points = unproject(depth_m.astype(np.float32), K, stride=STRIDE_PX)
        stamp_ns = message.header.stamp.sec * 10 ** 9 + message.header.stamp.nanosec
        fields = pack_cloud(points.astype(np.float32), None)
        cloud = serialize_cloud(make_header(stamp_ns, LIDAR_FRAME), fields)
        self._publisher.publish(cloud.tobytes())


class RobotTransforms:
    """
    Publish where camera and sensor are on a robot that drives to and fro.

    Parameters
    ----------
    node : rclpy.node.Node
    camera : str
    """

    def __init__(self, node: Any, camera: str) -> None:
        from tf2_msgs.msg import TFMessage
        self._node = node
        self._moving = node.create_publisher(TFMessage, '/tf', QoSProfile(depth=100))
        self._fixed = node.create_publisher(TFMessage, '/tf_static', QoSProfile(
            depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
        self._mount = np.eye(4)
        self._mount[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
        self._fixed.publish(serialize_transforms(node.get_clock().now().nanoseconds, [
            ('base_link', f'{camera}_optical_frame', self._mount)]))
        node.create_timer(TF_PERIOD_S, self._publish)

    def _publish(self) -> None:
        pose = np.eye(4)
        pose[0, 3] = SPEED_MPS * np.sin(time.monotonic())
        self._moving.publish(serialize_transforms(
            self._node.get_clock().now().nanoseconds,
            [('odom', 'base_link', pose), ('base_link', LIDAR_FRAME, self._mount)]))


def main() -> int:
    """Publish until Ctrl-C."""
    stop = StopFlag()
    print(STARTED, flush=True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('camera')
    parser.add_argument('what', choices=('cloud', 'tf'))
    options = parser.parse_args()
    make = {'cloud': ReferenceCloud, 'tf': RobotTransforms}[options.what]
    spin_until_stopped(f'synthetic_{options.what}', lambda node: make(node, options.camera), stop)
    return 0


if __name__ == '__main__':
    sys.exit(main())
