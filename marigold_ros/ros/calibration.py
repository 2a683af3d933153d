"""The camera_info of one camera: matched to its images by stamp, read and checked."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
import threading
from typing import TypeVar

import numpy as np

from marigold_ros.depth.errors import InputError, MessageError
from marigold_ros.depth.types import DepthPrediction
from marigold_ros.geometry.camera import Camera, Rectifier
from marigold_ros.messages.header import peek_header
from marigold_ros.ros.conversions import camera_from_message

REMEMBERED_INFOS = 32
Prediction = TypeVar('Prediction', bound=DepthPrediction)


@dataclass(frozen=True)
class Calibration:
    """
    What is known of the camera behind one image.

    Attributes
    ----------
    camera : Camera
        Of the image that is processed, after rectification; uncalibrated (K = 0) if unknown.
    rectifier : Rectifier or None
        To be applied to the image first.
    problem : str
        Why the camera counts as uncalibrated; empty if it does not.
    by_stamp : bool
        Whether the camera_info has the image's stamp, or is just the last one.
    frame_id : str
        Of the camera_info; empty where there is none.
    """

    camera: Camera
    rectifier: Rectifier | None
    problem: str
    by_stamp: bool
    frame_id: str

    def mask_uncovered(self, prediction: Prediction) -> Prediction:
        """Mark what the raw image did not cover as unknown: depth NaN, confidence 0."""
        if self.rectifier is None:
            return prediction
        uncovered = ~self.rectifier.valid
        depth, confidence = prediction.affine_invariant_depth.copy(), prediction.confidence
        np.copyto(depth, np.nan, where=uncovered)  # half the time of np.where
        if confidence is not None:
            confidence = confidence.copy()
            np.copyto(confidence, 0.0, where=uncovered)
        return replace(prediction, affine_invariant_depth=depth, confidence=confidence)


class CalibrationCache:
    """
    Recent camera_infos of one camera; filled by one thread and read by another.

    Parameters
    ----------
    rectified : bool
        Whether the images are free of distortion already, so that P describes them.
    """

    def __init__(self, rectified: bool) -> None:
        """Start without any camera_info."""
        self._rectified = rectified
        self._lock = threading.Lock()
        self._infos: OrderedDict[int, tuple[str, bytes]] = OrderedDict()  # oldest first
        self._rectifier: Rectifier | None = None

    def put(self, message: bytes) -> None:
        """Remember a serialized camera_info."""
        stamp_ns, frame_id, _ = peek_header(message)
        with self._lock:
            self._infos.pop(stamp_ns, None)
            self._infos[stamp_ns] = frame_id, message
            if len(self._infos) > REMEMBERED_INFOS:
                self._infos.popitem(last=False)

    def forget_stamps(self) -> None:
        """Keep the last one only, as after a jump back in time: a latched one comes once."""
        with self._lock:
            while len(self._infos) > 1:
                self._infos.popitem(last=False)

    def find(self, stamp_ns: int, height: int, width: int) -> Calibration:
        """
        Give the calibration for an image.

        Parameters
        ----------
        stamp_ns : int
            Of the image.
        height, width : int
            Of the image, px.

        Returns
        -------
        Calibration
            Never raises: what is wrong with the camera_info is its `problem`.
        """
        with self._lock:
            by_stamp = stamp_ns in self._infos
            if not by_stamp and not self._infos:
                return Calibration(_uncalibrated(height, width), None, 'no camera_info', False, '')
            frame_id, message = self._infos[stamp_ns if by_stamp else next(reversed(self._infos))]
        try:
            camera, rectifier = self._interpret(_checked(message, height, width))
        except InputError as err:
            return Calibration(_uncalibrated(height, width), None, str(err), by_stamp, frame_id)
        return Calibration(camera, rectifier, '', by_stamp, frame_id)

    def _interpret(self, camera: Camera) -> tuple[Camera, Rectifier | None]:
        """Tell the camera of the processed image from that of the sent one."""
        if self._rectified:
            return camera.rectified(), None
        if not camera.needs_rectification:
            return _without_distortion(camera), None
        if self._rectifier is None or self._rectifier.camera != camera:
            self._rectifier = Rectifier(camera)
        return camera.rectified(), self._rectifier


def _checked(message: bytes, height: int, width: int) -> Camera:
    """Read a camera_info that must be calibrated and fit an image of (height, width)."""
    camera = camera_from_message(message)
    if (camera.height, camera.width) != (height, width):
        raise MessageError(f'camera_info is for {camera.width} x {camera.height}, the image is '
                           f'{width} x {height}')
    if not camera.is_calibrated:
        raise MessageError('camera_info is uncalibrated, K[0] is 0')
    return camera


def _without_distortion(camera: Camera) -> Camera:
    """Describe a raw image that has no distortion: K is right, whatever R and P say."""
    return replace(camera, D=(0.0,) * 5, distortion_model='plumb_bob', R=np.eye(3),
                   P=np.hstack([camera.K, np.zeros((3, 1))]))


def _uncalibrated(height: int, width: int) -> Camera:
    """Describe an image of which only the size is known."""
    return Camera(width=width, height=height, K=np.zeros((3, 3)), D=(), distortion_model='',
                  R=np.eye(3), P=np.zeros((3, 4)))
