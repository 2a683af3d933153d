"""Convert between camera calibrations and the fields of sensor_msgs/CameraInfo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError, MessageError
from marigold_ros.geometry.camera import Camera
from marigold_ros.messages.image_transport import base_topic


@dataclass(frozen=True)
class CameraInfoFields:
    """
    Fields of sensor_msgs/CameraInfo without its header, with the message's names and order.

    Attributes
    ----------
    height, width : int
        Size of the calibrated image, px.
    distortion_model : str
        See `Camera`.
    d, k, r, p : sequence of float
        Any number of coefficients; 9, 9 and 12 numbers, row-major.
    binning_x, binning_y : int
        Pixels of the calibrated image per pixel of the published one; 0 means 1.
    roi : (x_offset, y_offset, height, width)
        Published part of the calibrated image, before binning; all 0 means the whole image.
    """

    height: int
    width: int
    distortion_model: str
    d: Sequence[float]
    k: Sequence[float]
    r: Sequence[float]
    p: Sequence[float]
    binning_x: int = 0
    binning_y: int = 0
    roi: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def published_size(self) -> tuple[int, int]:
        """Size (H, W) of the published image: cropped, then binned, as in image_geometry."""
        return ((self.roi[2] or self.height) // max(self.binning_y, 1),
                (self.roi[3] or self.width) // max(self.binning_x, 1))


def camera_from_fields(fields: CameraInfoFields) -> Camera:
    """
    Convert a camera_info message to a calibration.

    Parameters
    ----------
    fields : CameraInfoFields
        If R or P is zero, as from drivers that provide only K, R is set to the identity and P to
        K with a fourth column of zeros.

    Returns
    -------
    Camera
        Calibration of the published image: cropped to the region of interest and binned as in
        image_geometry.

    Raises
    ------
    MessageError
        If K[0] is 0, which means uncalibrated; for a size of zero, a matrix of another length, NaN
        or Inf, or an invalid focal length.

    Examples
    --------
    >>> fields = CameraInfoFields(
    ...     height=480, width=640, distortion_model='plumb_bob', d=[0.0] * 5,
    ...     k=[500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0], r=[0.0] * 9, p=[0.0] * 12,
    ...     binning_x=2, binning_y=2)
    >>> camera = camera_from_fields(fields)
    >>> camera.width, camera.height, camera.K[0].tolist()
    (320, 240, [250.0, 0.0, 160.0])
    """
    K = _matrix('k', fields.k, (3, 3))
    R = _matrix('r', fields.r, (3, 3))
    P = _matrix('p', fields.p, (3, 4))
    if K[0, 0] == 0:
        raise MessageError('camera_info is uncalibrated: K[0] is 0')
    if not R.any():
        R = np.eye(3)
    if P[0, 0] == 0:
        P = np.hstack([K, np.zeros((3, 1))])
    x_offset, y_offset, *_ = fields.roi
    bins = np.array([[max(fields.binning_x, 1)], [max(fields.binning_y, 1)], [1]])
    height, width = fields.published_size
    for matrix in (K, P):
        matrix[:2, 2] -= x_offset, y_offset
        matrix /= bins
    try:
        return Camera(
            width=width, height=height, K=K, D=tuple(fields.d),
            distortion_model=fields.distortion_model, R=R, P=P)
    except InputError as err:
        raise MessageError(f'camera_info is invalid: {err}') from err


def camera_from_info(info: Any) -> Camera:
    """
    Convert a deserialized sensor_msgs/CameraInfo, of rclpy or rosbags, to a calibration.

    Raises
    ------
    MessageError
        See `camera_from_fields`.
    """
    return camera_from_fields(fields_from_info(info))


def fields_from_info(info: Any) -> CameraInfoFields:
    """Return the fields of a deserialized sensor_msgs/CameraInfo, of rclpy or rosbags."""
    return CameraInfoFields(
        info.height, info.width, info.distortion_model, info.d, info.k, info.r, info.p,
        info.binning_x, info.binning_y,
        (info.roi.x_offset, info.roi.y_offset, info.roi.height, info.roi.width))


def _matrix(name: str, values: Sequence[float], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return the numbers of a message as a new matrix."""
    if len(values) != shape[0] * shape[1]:
        raise MessageError(f'`{name}` must have {shape[0] * shape[1]} numbers; got {len(values)}')
    return np.array(values, np.float64).reshape(shape)


def check_image_size(camera: Camera, height: int, width: int) -> None:
    """
    Check that a calibration is for an image.

    Raises
    ------
    MessageError
        If the size differs: it is unknown whether the image was scaled or cropped.
    """
    if (camera.height, camera.width) != (height, width):
        raise MessageError(f'camera_info is for {camera.width} x {camera.height} px, but the '
                           f'image is {width} x {height} px')


def rectified_by_name(topic: str) -> bool | None:
    """
    Tell from the name of a topic whether its images are rectified.

    Parameters
    ----------
    topic : str
        With or without the suffix that image_transport appends.

    Returns
    -------
    bool or None
        None if the name tells neither: drivers call an image image_rect_raw that only its
        camera_info describes (that of a RealSense D405 is distorted), and depth has many names.

    Examples
    --------
    >>> [rectified_by_name(f'/camera/{name}') for name in (
    ...     'image_rect_color', 'image_raw', 'image_rect_raw', 'depth_registered')]
    [True, False, None, None]
    """
    name = base_topic(topic).rpartition('/')[2]
    if name.startswith('image_rect'):
        return None if name.startswith('image_rect_raw') else True
    return False if 'raw' in name else None


def fields_from_camera(camera: Camera) -> CameraInfoFields:
    """
    Convert a calibration to a camera_info message.

    Parameters
    ----------
    camera : Camera
        Calibration of the published image.

    Returns
    -------
    CameraInfoFields
        With tuples of float, row-major.
    """
    return CameraInfoFields(
        height=camera.height, width=camera.width, distortion_model=camera.distortion_model,
        d=camera.D, k=tuple(camera.K.ravel().tolist()), r=tuple(camera.R.ravel().tolist()),
        p=tuple(camera.P.ravel().tolist()))
