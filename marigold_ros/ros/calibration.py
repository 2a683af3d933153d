"""Matching of one camera's camera_info messages to its images, and their validation."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
import threading
from typing import TypeVar

import numpy as np

from marigold_ros.depth.errors import InputError
from marigold_ros.depth.types import DepthPrediction
from marigold_ros.geometry.camera import Camera, Rectification, Rectifier
from marigold_ros.messages.camera_info import check_image_size
from marigold_ros.messages.header import peek_header
from marigold_ros.ros.conversions import camera_from_message

CACHE_SIZE = 32
Prediction = TypeVar('Prediction', bound=DepthPrediction)


@dataclass(frozen=True)
class Calibration:
    """
    Calibration of the camera for one image.

    Attributes
    ----------
    camera : Camera
        Camera of the processed image, after rectification; K is 0 if it is uncalibrated.
    rectifier : Rectifier or None
        Applied to the image before it is processed; None if no rectification is needed.
    problem : str
        Why the camera is uncalibrated; empty if it is calibrated.
    by_stamp : bool
        Whether the camera_info has the image's stamp; else it is the last one received.
    frame_id : str
        Coordinate frame of the camera_info; empty if there is none.
    """

    camera: Camera
    rectifier: Rectifier | None
    problem: str
    by_stamp: bool
    frame_id: str

    def mask_uncovered(self, prediction: Prediction) -> Prediction:
        """Set pixels that the raw image does not cover to depth NaN and confidence 0."""
        if self.rectifier is None or self.rectifier.covers_all:
            return prediction
        uncovered = ~self.rectifier.valid
        depth, confidence = prediction.affine_invariant_depth.copy(), prediction.confidence
        np.copyto(depth, np.nan, where=uncovered)  # twice as fast as np.where
        if confidence is not None:
            confidence = confidence.copy()
            np.copyto(confidence, 0.0, where=uncovered)
        return replace(prediction, affine_invariant_depth=depth, confidence=confidence)


class CalibrationCache:
    """
    Recent camera_infos of one camera; one thread writes and another reads.

    Parameters
    ----------
    rectified : bool
        Whether the images are already rectified, so that P describes them.
    """

    def __init__(self, rectified: bool) -> None:
        """Start without any camera_info."""
        self._rectification = Rectification(rectified=rectified)
        self._lock = threading.Lock()
        self._infos: OrderedDict[int, tuple[str, bytes]] = OrderedDict()  # oldest first

    def put(self, message: bytes) -> None:
        """
        Store a serialized camera_info.

        Raises
        ------
        MessageError
            If it has no valid header.
        """
        stamp_ns, frame_id, _ = peek_header(message)
        with self._lock:
            self._infos.pop(stamp_ns, None)
            self._infos[stamp_ns] = frame_id, message
            if len(self._infos) > CACHE_SIZE:
                self._infos.popitem(last=False)

    def discard_older(self) -> None:
        """Discard all but the last, which a latched publisher does not send again."""
        with self._lock:
            while len(self._infos) > 1:
                self._infos.popitem(last=False)

    def find(self, stamp_ns: int, height: int, width: int) -> Calibration:
        """
        Return the calibration for an image.

        Parameters
        ----------
        stamp_ns : int
            Stamp of the image, ns.
        height, width : int
            Size of the image, px.

        Returns
        -------
        Calibration
            An invalid camera_info does not raise; `problem` contains the reason.
        """
        with self._lock:
            by_stamp = stamp_ns in self._infos
            if not by_stamp and not self._infos:
                return Calibration(_uncalibrated_camera(height, width), None,
                                   'no camera_info received', False, '')
            frame_id, message = self._infos[stamp_ns if by_stamp else next(reversed(self._infos))]
        try:
            camera = camera_from_message(message)
            check_image_size(camera, height, width)
            camera, rectifier = self._rectification.find(camera)
        except InputError as err:
            return Calibration(_uncalibrated_camera(height, width), None, str(err), by_stamp,
                               frame_id)
        return Calibration(camera, rectifier, '', by_stamp, frame_id)


def _uncalibrated_camera(height: int, width: int) -> Camera:
    """Return a camera of which only the size is known."""
    return Camera(width=width, height=height, K=np.zeros((3, 3)), D=(), distortion_model='',
                  R=np.eye(3), P=np.zeros((3, 4)))
