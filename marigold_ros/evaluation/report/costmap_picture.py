"""The costmap of a drive from above, as point clouds mark and clear it, around the robot."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np

from marigold_ros.data.bags.messages import cloud_fields, read_stamp_ns
from marigold_ros.data.bags.pose_buffer import pose_topics, PoseBuffer
from marigold_ros.data.bags.reader import Bag, open_bag
from marigold_ros.depth.types import RgbImage
from marigold_ros.evaluation.metrics.costmap import FREE, LayerConfig, LETHAL, ObstacleLayer
from marigold_ros.geometry.poses import Matrix
from marigold_ros.messages.cloud import unpack_cloud
from marigold_ros.progress import progress_bar

# Width of the map around the places of the camera, and of what of it is shown, m.
MARGIN_M, SHOWN_M = 5.0, 6.4
PIXELS = 480
COLORS = {'unknown': (205, 205, 205), 'free': (255, 255, 255), 'lethal': (40, 40, 40),
          'camera': (200, 40, 30)}
ARROW_M, ARROW_PX = 0.6, 8


def open_poses(path: Path) -> PoseBuffer:
    """Read the transforms of a bag of at most a minute."""
    poses = PoseBuffer()
    with open_bag(path) as bag:
        topics = pose_topics(bag.topics)
        for message, decoded in bag.decoded_messages(topics) if topics else ():
            poses.add(message.topic, decoded, message.log_time_ns)
    return poses


def draw_costmaps(bag: Bag, points_topic: str, poses: PoseBuffer, config: LayerConfig,
                  stamps_ns: Collection[int]) -> dict[int, RgbImage]:
    """
    Draw the costmap after some of the clouds of a recording.

    Parameters
    ----------
    bag : Bag
    points_topic : str
        Of the clouds.
    poses : PoseBuffer
        Where their frame is.
    config : LayerConfig
    stamps_ns : collection of int
        Of these clouds, ns.

    Returns
    -------
    dict of int to uint8 [480, 480, 3]
        By stamp: the surroundings of the camera, which looks up; empty without clouds or poses.
    """
    clouds: list[tuple[int, np.ndarray, Matrix]] = []
    if points_topic not in {topic.name for topic in bag.topics}:
        return {}
    for _, message in bag.decoded_messages([points_topic]):
        stamp_ns = read_stamp_ns(message)
        pose = poses.world_from_frame(message.header.frame_id, stamp_ns)
        if pose is not None:
            clouds.append((stamp_ns, unpack_cloud(cloud_fields(message))[0].reshape(-1, 3), pose))
    if not clouds:
        return {}
    places_m = np.array([pose[:2, 3] for *_, pose in clouds])
    low, high = places_m.min(axis=0) - MARGIN_M, places_m.max(axis=0) + MARGIN_M
    layer = ObstacleLayer(config, (low[0], low[1]), (high[0], high[1]))
    drawn = {}
    for stamp_ns, points, pose in progress_bar(clouds, 'costmap', unit='cloud'):
        layer.update((points @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32), pose[:3, 3])
        if stamp_ns in stamps_ns:
            drawn[stamp_ns] = _draw(layer, low, pose)
    return drawn


def _draw(layer: ObstacleLayer, low_m: np.ndarray, pose: Matrix) -> RgbImage:
    """Draw what is around the camera, which looks up, uint8 [PIXELS, PIXELS, 3]."""
    image = np.full((*layer.costs.shape, 3), COLORS['unknown'], np.uint8)
    image[layer.costs == FREE] = COLORS['free']
    image[layer.costs == LETHAL] = COLORS['lethal']
    ahead = pose[:2, 2] / max(float(np.linalg.norm(pose[:2, 2])), 1e-9)
    scale = PIXELS / SHOWN_M  # px per m
    # From cells, of which columns lie along x and rows along y, to pixels: ahead is up.
    right = np.array([ahead[1], -ahead[0]])
    place = np.array([PIXELS / 2, PIXELS * 0.8])
    from_map = scale * np.stack([right, -ahead])
    cells = layer.config.resolution * from_map
    offset = place + from_map @ (low_m + layer.config.resolution / 2 - pose[:2, 3])
    turned = cv2.warpAffine(image, np.column_stack([cells, offset]), (PIXELS, PIXELS),
                            flags=cv2.INTER_NEAREST, borderValue=COLORS['unknown'])
    tip = (int(place[0]), int(place[1] - ARROW_M * scale))
    cv2.arrowedLine(turned, tuple(place.astype(int).tolist()), tip, COLORS['camera'], ARROW_PX,
                    tipLength=0.4)
    return np.asarray(turned, np.uint8)
