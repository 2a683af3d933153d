"""Decode an image and a depth message of a bag to a frame with matching pixels."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.bags.messages import image_fields
from marigold_ros.data.bags.read_issues import ReadIssues
from marigold_ros.data.bags.reader import Bag
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.errors import BagError, InputError
from marigold_ros.geometry.camera import Camera, Rectification, Rectifier
from marigold_ros.messages.camera_info import camera_from_info, check_image_size
from marigold_ros.messages.depth import unpack_depth
from marigold_ros.messages.image import decode_rgb

CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
BLOCK_NS = 10 ** 9
MAX_CAMERA_INFOS = 100
NO_CALIBRATION = '{}; images are used as they are, and there are no metric depth and clouds'


class PairDecoder:
    """
    Decode pairs of image and depth, and rectify both or one of them.

    Parameters
    ----------
    camera : Camera or None
        Calibration of the image; None leaves all images as they are, without intrinsics.
    image_is_rectified, depth_is_rectified : bool
        A raw depth image must not be paired with a rectified image.
    issues : ReadIssues
        Gets a note if the camera is not valid for the images.
    """

    def __init__(self, camera: Camera | None, *, image_is_rectified: bool,
                 depth_is_rectified: bool, issues: ReadIssues) -> None:
        self._camera, self._depth_is_rectified = camera, depth_is_rectified
        self._issues = issues
        self._image_rectification = Rectification(rectified=image_is_rectified)
        self._depth_rectification = Rectification()  # of depth at another resolution

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
        K, rectifier = self._calibration(*rgb.shape[:2])
        if rectifier is not None:
            rgb = rectifier.rectify(rgb)
            if depth_m.shape != rgb.shape[:2]:
                height, width = depth_m.shape
                rectifier = self._depth_rectification.rectifier(
                    rectifier.camera.resized(width, height))
            if self._depth_is_rectified:
                depth_m[~rectifier.valid] = np.nan
            else:
                depth_m = rectifier.rectify_depth(depth_m)
        return DepthFrame(
            name, rgb, depth_m, valid=np.isfinite(depth_m), set_name='camera',
            block=f'second {(stamp_ns - first_ns) // BLOCK_NS}', stamp_ns=stamp_ns,
            K=K, world_from_camera=pose)

    def _calibration(self, height: int, width: int
                     ) -> tuple[NDArray[np.float64] | None, Rectifier | None]:
        """Return intrinsics and rectifier of an image; None without a valid calibration."""
        if self._camera is None:
            return None, None
        try:
            check_image_size(self._camera, height, width)
            camera, rectifier = self._image_rectification.find(self._camera)
        except InputError as err:
            self._issues.note([NO_CALIBRATION.format(err)])
            return None, None
        return camera.K, rectifier


def read_camera(bag: Bag, topic: str, *, rectified: bool) -> Camera:
    """
    Read the first valid calibration of a camera_info topic.

    Drivers may publish invalid ones until they have read their calibration file.

    Parameters
    ----------
    bag : Bag
    topic : str
    rectified : bool
        Whether the images are already rectified, so that the distortion model does not matter.

    Raises
    ------
    BagError
        If there is no message, or none of the first hundred is valid; with the first reason.
    """
    problems = []
    try:
        for message in islice(bag.messages([topic]), MAX_CAMERA_INFOS):
            try:
                camera = camera_from_info(bag.decode(message))
                if not rectified:
                    camera.distortion()
                return camera
            except (BagError, InputError) as err:
                problems.append(str(err))
    except BagError as err:
        problems.append(str(err))
    raise BagError(f'{topic} has no valid calibration: {(problems or ["no message"])[0]}')
