"""A rendered floor and wall through the node's own functions, up to the bytes of its messages."""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image, PointCloud2

from marigold_ros.depth.types import DepthPrediction
from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.metric.outputs import PointFilter
from marigold_ros.metric.types import MetricScale
from marigold_ros.ros.camera_output import FramePacker
from marigold_ros.ros.conversions import make_header, serialize_cloud, serialize_image
from scenes import cameras, meshes, render
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import RenderCamera, Scene, View

# A room's corner in the map: the floor's top at 0, the wall's face at x = 4 m.
WALL_X_M = 4.0
# Not round, so that no pixel centre meets the border between floor and wall.
WIDTH, HEIGHT, F_PX = 640, 480, 457.3


@pytest.fixture(scope='module')
def room() -> Scene:
    b = SceneBuilder(np.random.default_rng(0), 16)
    b.palette.solid((0.5, 0.5, 0.5))
    b.add(meshes.box((40, 40, 1), (0, 0, -0.5), 0))
    b.add(meshes.box((1, 40, 40), (WALL_X_M + 0.5, 0, 0), 0))
    view = View(np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32))
    return b.build('corner', np.ones((4, 8, 3), np.float32), [view], sky_irradiates=False)


def messages_of(room: Scene, camera: RenderCamera, stride: int):
    """Return cloud and depth image of a frame whose relative depth and scale are exact."""
    depth_m = render.depth_along_z(room, camera)
    low, high = np.float32(depth_m.min()), np.float32(depth_m.max())
    prediction = DepthPrediction((depth_m - low) / (high - low), np.ones_like(depth_m), None, None,
                                 1, 'schedule', None)
    fields = FramePacker().pack(
        frozenset({'depth', 'points'}), np.zeros((HEIGHT, WIDTH, 3), np.uint8), camera.K,
        prediction, MetricScale(float(high - low), float(low), 1.0, ('depth',)),
        DepthFilter(), PointFilter(stride, min_surface_angle_deg=0.0))
    header = make_header(0, 'camera_optical_frame')
    cloud, depth = (serialize_cloud(header, fields['points']),
                    serialize_image(header, fields['depth']))
    return (deserialize_message(cloud.tobytes(), PointCloud2),
            deserialize_message(depth.tobytes(), Image))


def map_points(cloud, camera: RenderCamera) -> np.ndarray:
    """Read x, y, z as any consumer does, and transform them to the map, [n, 3]."""
    assert [(f.name, f.offset, f.datatype) for f in cloud.fields][:3] == [
        ('x', 0, 7), ('y', 4, 7), ('z', 8, 7)]
    table = np.frombuffer(cloud.data, np.float32).reshape(cloud.height * cloud.width, 4)
    return table[:, :3].astype(np.float64) @ camera.rotation.T + camera.position


@pytest.mark.parametrize('stride', [1, 4])
@pytest.mark.parametrize(('height_m', 'yaw_deg', 'pitch_deg', 'roll_deg'), [
    (0.35, 0.0, -6.0, 0.0), (0.35, 20.0, -6.0, 3.0), (1.4, -15.0, -25.0, -8.0)])
def test_floor_and_wall_are_flat_level_and_at_their_distance(room, stride, height_m, yaw_deg,
                                                             pitch_deg, roll_deg):
    K = np.array([[F_PX, 0, 321.7], [0, F_PX, 238.9], [0, 0, 1]])
    axes = cameras.optical_axes(*np.radians([yaw_deg, pitch_deg, roll_deg]))
    camera = RenderCamera(WIDTH, HEIGHT, K, axes, np.array([0.0, 0.0, height_m]))
    cloud, depth = messages_of(room, camera, stride)
    points = map_points(cloud, camera)
    assert np.isfinite(points).all()
    # Flat and at the right distance: every point is on the floor or the wall, to 0.1 mm.
    on_floor = np.abs(points[:, 2]) < 1e-4
    on_wall = np.abs(points[:, 0] - WALL_X_M) < 1e-4
    assert (on_floor | on_wall).all()
    assert 0.05 < on_floor.mean() < 0.95
    # Level, by a plane fitted to the floor: z = a x + b y + c.
    floor = points[on_floor]
    a, b, c = np.linalg.lstsq(np.c_[floor[:, :2], np.ones(len(floor))], floor[:, 2], rcond=None)[0]
    assert max(abs(a), abs(b), abs(c)) < 1e-5
    # The depth image has the same depth along z.
    depth_m = np.frombuffer(depth.data, np.float32).reshape(HEIGHT, WIDTH)
    np.testing.assert_array_equal(
        depth_m[::stride, ::stride].ravel(),
        np.frombuffer(cloud.data, np.float32).reshape(-1, 4)[:, 2])
