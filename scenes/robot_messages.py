"""Serialize the messages of the sample drive's robot as CDR, without ROS."""
from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from scipy.spatial.transform import Rotation

from marigold_ros.data.bags.messages import (
    make_header,
    new_message,
    serialize,
    serialize_cloud,
)
from marigold_ros.geometry.camera import Camera
from marigold_ros.geometry.filters import mark_out_of_range
from marigold_ros.messages.camera_info import fields_from_camera
from marigold_ros.messages.cloud import pack_cloud
from marigold_ros.messages.depth import pack_depth
from scenes import robot_path
from scenes.meshes import Floats
from scenes.robot_path import Matrix, RobotState

OPTICAL_FRAME = 'camera_optical_frame'
JPEG_QUALITY = 80
# The limit of 16UC1 in millimetres.
MAX_DEPTH_M = 65.0

TOPICS = {
    '/tf_static': 'tf2_msgs/msg/TFMessage',
    '/tf': 'tf2_msgs/msg/TFMessage',
    '/odom': 'nav_msgs/msg/Odometry',
    '/scan': 'sensor_msgs/msg/LaserScan',
    '/lidar/points': 'sensor_msgs/msg/PointCloud2',
    '/camera/image_raw/compressed': 'sensor_msgs/msg/CompressedImage',
    '/camera/camera_info': 'sensor_msgs/msg/CameraInfo',
    '/camera/depth_gt/image_rect/compressed': 'sensor_msgs/msg/CompressedImage',
    '/camera/depth_gt/camera_info': 'sensor_msgs/msg/CameraInfo',
}


def offered_qos(topic: str) -> Qos:
    """
    Return the quality of service that the robot's publishers offer.

    Returns
    -------
    Qos
        Reliable; transient local for /tf_static, volatile for all other topics.
    """
    no_limit = QosTime(9223372036, 854775807)
    durability = (QosDurability.TRANSIENT_LOCAL if topic == '/tf_static'
                  else QosDurability.VOLATILE)
    return Qos(QosHistory.KEEP_LAST, 100 if topic == '/tf' else 10, QosReliability.RELIABLE,
               durability, no_limit, no_limit, QosLiveliness.AUTOMATIC, no_limit, False)


def static_transforms(stamp_ns: int) -> bytes:
    """
    Serialize the poses of the sensors on the robot.

    Returns
    -------
    bytes
        TFMessage.
    """
    return serialize_transforms(stamp_ns, [
        ('base_link', 'camera_link', robot_path.base_from_camera_link()),
        ('camera_link', OPTICAL_FRAME, robot_path.camera_link_from_optical()),
        ('base_link', 'laser_link', robot_path.pose(robot_path.SCANNER_XYZ_M, np.eye(3))),
        ('base_link', 'lidar_link', robot_path.pose(robot_path.LIDAR_XYZ_M, np.eye(3)))])


def moving_transforms(stamp_ns: int, map_from_odom: Matrix, odom_from_base: Matrix) -> bytes:
    """
    Serialize the pose of the robot.

    Returns
    -------
    bytes
        TFMessage.
    """
    return serialize_transforms(stamp_ns, [('map', 'odom', map_from_odom),
                                           ('odom', 'base_link', odom_from_base)])


def odometry(stamp_ns: int, odom_from_base: Matrix, state: RobotState) -> bytes:
    """
    Serialize the wheel odometry.

    Returns
    -------
    bytes
        Odometry.
    """
    covariance = np.diag([1e-4, 1e-4, 1e-6, 1e-6, 1e-6, 4e-4]).ravel()
    pose = new_message('geometry_msgs/msg/Pose', position=_vector('Point', odom_from_base[:3, 3]),
                       orientation=_quaternion(odom_from_base[:3, :3]))
    twist = new_message('geometry_msgs/msg/Twist',
                        linear=_vector('Vector3', np.array([state.speed_mps, 0.0, 0.0])),
                        angular=_vector('Vector3', np.array([0.0, 0.0, state.yaw_rate])))
    return serialize(
        'nav_msgs/msg/Odometry', header=make_header(stamp_ns, 'odom'), child_frame_id='base_link',
        pose=new_message('geometry_msgs/msg/PoseWithCovariance', pose=pose, covariance=covariance),
        twist=new_message('geometry_msgs/msg/TwistWithCovariance', twist=twist,
                          covariance=covariance))


def laser_scan(stamp_ns: int, ranges_m: Floats) -> bytes:
    """
    Serialize a laser scan whose beams all have the same stamp.

    Returns
    -------
    bytes
        LaserScan.
    """
    step = 2 * np.pi / len(ranges_m)
    return serialize(
        'sensor_msgs/msg/LaserScan', header=make_header(stamp_ns, 'laser_link'), angle_min=-np.pi,
        angle_max=np.pi - step, angle_increment=step, time_increment=0.0, scan_time=0.1,
        range_min=robot_path.SCAN_RANGE_M[0], range_max=robot_path.SCAN_RANGE_M[1],
        ranges=ranges_m, intensities=np.zeros(0, np.float32))


def point_cloud(stamp_ns: int, points_m: Floats) -> bytes:
    """
    Serialize lidar points, one row per ring.

    Returns
    -------
    bytes
        PointCloud2.
    """
    return serialize_cloud(stamp_ns, 'lidar_link', pack_cloud(points_m, None))


def camera_info(stamp_ns: int, width: int, height: int, K: Matrix) -> bytes:
    """
    Serialize the calibration of a pinhole camera without distortion.

    Returns
    -------
    bytes
        CameraInfo.
    """
    fields = fields_from_camera(Camera(
        width=width, height=height, K=K, D=(0.0,) * 5, distortion_model='plumb_bob', R=np.eye(3),
        P=np.hstack([K, np.zeros((3, 1))])))
    full_image = new_message('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0,
                             width=0, do_rectify=False)
    return serialize(
        'sensor_msgs/msg/CameraInfo', header=make_header(stamp_ns, OPTICAL_FRAME),
        height=fields.height, width=fields.width, distortion_model=fields.distortion_model,
        d=np.array(fields.d), k=np.array(fields.k), r=np.array(fields.r), p=np.array(fields.p),
        binning_x=0, binning_y=0, roi=full_image)


def colour_image(stamp_ns: int, rgb: NDArray[np.uint8]) -> bytes:
    """
    Serialize a colour image as JPEG.

    Returns
    -------
    bytes
        CompressedImage.
    """
    stream = cv2.imencode('.jpg', np.ascontiguousarray(rgb[..., ::-1]),
                          [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return serialize(
        'sensor_msgs/msg/CompressedImage', header=make_header(stamp_ns, OPTICAL_FRAME),
        format='rgb8; jpeg compressed bgr8', data=stream.reshape(-1))


def depth_image(stamp_ns: int, depth_m: Floats) -> bytes:
    """
    Serialize metric depth as PNG in millimetres, 0 where it is invalid (REP-118).

    Returns
    -------
    bytes
        CompressedImage.
    """
    fields = pack_depth(mark_out_of_range(depth_m, 0.001, MAX_DEPTH_M), '16UC1')
    depth_mm = fields.data.view(np.uint16).reshape(fields.height, fields.width)
    stream = cv2.imencode('.png', depth_mm, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    return serialize(
        'sensor_msgs/msg/CompressedImage', header=make_header(stamp_ns, OPTICAL_FRAME),
        format='16UC1; png compressed', data=stream.reshape(-1))


def _vector(name: str, xyz: Matrix) -> Any:
    return new_message(f'geometry_msgs/msg/{name}', x=float(xyz[0]), y=float(xyz[1]),
                       z=float(xyz[2]))


def _quaternion(rotation: Matrix) -> Any:
    x, y, z, w = (float(v) for v in Rotation.from_matrix(rotation).as_quat())
    return new_message('geometry_msgs/msg/Quaternion', x=x, y=y, z=z, w=w)


def serialize_transforms(stamp_ns: int, poses: list[tuple[str, str, Matrix]]) -> bytes:
    """
    Serialize poses with one stamp.

    Parameters
    ----------
    stamp_ns : int
    poses : list of (str, str, float64 [4, 4])
        Frame, child frame, and pose of the child in the frame, m.

    Returns
    -------
    bytes
        TFMessage.
    """
    transforms = [
        new_message('geometry_msgs/msg/TransformStamped', header=make_header(stamp_ns, parent),
                    child_frame_id=child,
                    transform=new_message('geometry_msgs/msg/Transform',
                                          translation=_vector('Vector3', matrix[:3, 3]),
                                          rotation=_quaternion(matrix[:3, :3])))
        for parent, child, matrix in poses]
    return serialize('tf2_msgs/msg/TFMessage', transforms=transforms)
