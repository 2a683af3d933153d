"""Decode an image and a depth message of a bag to a frame with matching pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.bags.messages import image_fields
from marigold_ros.data.bags.reader import Bag
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.errors import BagError
from marigold_ros.geometry.camera import Camera, Rectifier
from marigold_ros.messages.camera_info import camera_from_fields, CameraInfoFields
from marigold_ros.messages.depth import unpack_depth
from marigold_ros.messages.image import decode_rgb
from marigold_ros.messages.image_transport import base_topic

CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
BLOCK_NS = 10 ** 9


class PairDecoder:
    """
    Decode pairs of image and depth; rectify those of topics other than 'image_rect...'.

    Parameters
    ----------
    camera : Camera or None
        Calibration of the raw image; None disables rectification.
    image_topic, depth_topic : str

    Raises
    ------
    BagError
        If the depth is raw and the image is not.
    """

    def __init__(self, camera: Camera | None, image_topic: str, depth_topic: str) -> None:
        image_is_raw, self._depth_is_raw = (
            not base_topic(topic).rpartition('/')[2].startswith('image_rect')
            for topic in (image_topic, depth_topic))
        distorted = camera is not None and camera.needs_rectification
        if distorted and self._depth_is_raw and not image_is_raw:
            raise BagError(f'{depth_topic} is raw but {image_topic} is rectified, so '
                           'their pixels do not match; choose two raw or two rectified topics')
        self._camera = camera
        self._rectifier = (Rectifier(camera) if camera is not None and distorted and image_is_raw
                           else None)
        self._depth_rectifiers: dict[tuple[int, ...], Rectifier] = {}

    def decode(self, name: str, image: Any, depth: Any, stamp_ns: int, first_ns: int,
               pose: NDArray[np.float64] | None) -> DepthFrame:
        """
        Decode a pair of messages.

        Raises
        ------
        InputError
            If a message cannot be decoded or rectified.
        """
        rgb = decode_rgb(image_fields(image))
        depth_m = unpack_depth(image_fields(depth))
        if self._rectifier is not None:
            rgb = self._rectifier.rectify(rgb)
            rectifier = self._rectifier_for_size(self._rectifier, depth_m.shape)
            if self._depth_is_raw:
                depth_m = rectifier.rectify_depth(depth_m)
            else:
                depth_m[~rectifier.valid] = np.nan
        return DepthFrame(
            name, rgb, depth_m, valid=np.isfinite(depth_m), set_name='camera',
            block=f'second {(stamp_ns - first_ns) // BLOCK_NS}', stamp_ns=stamp_ns,
            K=self._intrinsics(*rgb.shape[:2]), world_from_camera=pose)

    def _intrinsics(self, height: int, width: int) -> NDArray[np.float64] | None:
        if self._camera is None or not self._camera.is_calibrated:
            return None
        return self._camera.resized(width, height).rectified().K

    def _rectifier_for_size(self, rectifier: Rectifier, shape: tuple[int, ...]) -> Rectifier:
        """Return a rectifier of the same camera for depth at another resolution."""
        if shape == rectifier.valid.shape:
            return rectifier
        if shape not in self._depth_rectifiers:
            self._depth_rectifiers[shape] = Rectifier(
                rectifier.camera.resized(shape[1], shape[0]))
        return self._depth_rectifiers[shape]


def read_camera(bag: Bag, topic: str | None) -> Camera | None:
    """Read the first camera_info message of a topic; return None if `topic` is None."""
    if topic is None:
        return None
    for message in bag.messages([topic]):
        info = bag.decode(message)
        return camera_from_fields(CameraInfoFields(
            info.height, info.width, info.distortion_model, info.d, info.k, info.r, info.p,
            info.binning_x, info.binning_y,
            (info.roi.x_offset, info.roi.y_offset, info.roi.height, info.roi.width)))
    raise BagError(f'{bag.path} has no message on {topic}')
