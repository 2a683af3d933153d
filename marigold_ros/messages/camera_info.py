"""Camera calibration to and from the fields of sensor_msgs/CameraInfo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError, MessageError
from marigold_ros.geometry.camera import Camera


@dataclass(frozen=True)
class CameraInfoFields:
    """
    Fields of sensor_msgs/CameraInfo without its header, named and ordered as there.

    Attributes
    ----------
    height, width : int
        Size of the calibrated image, px.
    distortion_model : str
        'plumb_bob', 'rational_polynomial' or 'equidistant'.
    d, k, r, p : sequence of float
        Any number, 9, 9 and 12 numbers, row by row.
    """

    height: int
    width: int
    distortion_model: str
    d: Sequence[float]
    k: Sequence[float]
    r: Sequence[float]
    p: Sequence[float]


def camera_from_fields(fields: CameraInfoFields) -> Camera:
    """
    Read a camera_info message.

    Parameters
    ----------
    fields : CameraInfoFields
        The message.  Drivers that know only K leave R and P at zero: R becomes the identity and
        P becomes [K | 0].

    Returns
    -------
    Camera

    Raises
    ------
    MessageError
        For a size of zero, a matrix of another length, NaN or Inf, or an impossible focal length.
    """
    matrices: dict[str, NDArray[np.float64]] = {}
    for name, values, shape in (('k', fields.k, (3, 3)), ('r', fields.r, (3, 3)),
                                ('p', fields.p, (3, 4))):
        matrix = np.array(values, np.float64)
        if matrix.size != shape[0] * shape[1]:
            raise MessageError(f'`{name}` must have {shape[0] * shape[1]} numbers; '
                               f'got {matrix.size}')
        matrices[name] = matrix.reshape(shape)
    if not matrices['r'].any():
        matrices['r'] = np.eye(3)
    if not matrices['p'].any():
        matrices['p'] = np.hstack([matrices['k'], np.zeros((3, 1))])
    try:
        return Camera(
            width=fields.width, height=fields.height, K=matrices['k'], D=tuple(fields.d),
            distortion_model=fields.distortion_model, R=matrices['r'], P=matrices['p'])
    except InputError as err:
        raise MessageError(f'camera_info is wrong: {err}') from err


def fields_from_camera(camera: Camera) -> CameraInfoFields:
    """
    Write a camera_info message.

    Parameters
    ----------
    camera : Camera
        Calibration of the image that the message goes with.

    Returns
    -------
    CameraInfoFields
        Plain float tuples, row by row.
    """
    return CameraInfoFields(
        height=camera.height, width=camera.width, distortion_model=camera.distortion_model,
        d=camera.D, k=tuple(camera.K.ravel().tolist()), r=tuple(camera.R.ravel().tolist()),
        p=tuple(camera.P.ravel().tolist()))
