"""Convert between depth images and message fields, by REP-117 and REP-118."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError
from marigold_ros.messages.image import DEPTH_FORMATS, ImageFields, pack_image, read_pixels

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage, RgbImage
    from marigold_ros.messages.memory import MessageMemory

MM_PER_M = 1000.0
MAX_MM = 65535


def pack_depth(depth_m: FloatImage, encoding: str = '32FC1',
               memory: MessageMemory | None = None) -> ImageFields:
    """
    Convert metric depth to message fields by REP-118 and REP-117.

    Parameters
    ----------
    depth_m : float32 [H, W]
        Depth along Z, m; NaN unknown, -Inf too near, +Inf too far, as marked by `DepthFilter`.
    encoding : {'32FC1', '16UC1'}
        32FC1: metres, unchanged.  16UC1: millimetres, rounded; 0 for NaN, -Inf, +Inf and depths
        outside the range of 16 bits (below 0 or above 65.535 m).
    memory : MessageMemory or None
        What the depth is in.

    Returns
    -------
    ImageFields

    Raises
    ------
    InputError
        For an unknown encoding, or a depth that is not float32 [H, W].

    Examples
    --------
    >>> fields = pack_depth(np.array([[1.25, np.nan, np.inf]], np.float32), '16UC1')
    >>> fields.data.view('<u2').tolist()
    [1250, 0, 0]
    >>> unpack_depth(fields).tolist()
    [[1.25, nan, nan]]
    """
    if encoding == '32FC1':
        return pack_image(depth_m, encoding, memory)
    if encoding != '16UC1':
        raise InputError(f'`encoding` must be 32FC1 or 16UC1; got {encoding!r}')
    depth_mm = depth_m * np.float32(MM_PER_M) + np.float32(0.5)
    representable = (depth_mm > 0) & (depth_mm < MAX_MM + 1)
    return pack_image(np.where(representable, depth_mm, np.float32(0)).astype(np.uint16), encoding)


def unpack_depth(fields: ImageFields) -> FloatImage:
    """
    Convert message fields to metric depth.

    Parameters
    ----------
    fields : ImageFields
        32FC1 in metres; 16UC1 or mono16 in millimetres.

    Returns
    -------
    float32 [H, W]
        Depth along Z, m; NaN for any value that is not finite and positive.  16-bit and many
        32FC1 drivers write 0 for a missing measurement.

    Raises
    ------
    MessageError
        If the fields are inconsistent or the encoding is not one of these.
    """
    pixels = read_pixels(fields, DEPTH_FORMATS)
    depth_m = pixels.astype(np.float32)
    if pixels.dtype == np.uint16:
        depth_m /= np.float32(MM_PER_M)
    np.copyto(depth_m, np.nan, where=~((depth_m > 0) & (depth_m < np.inf)))
    return depth_m


def colorize(affine_invariant_depth: FloatImage, out: RgbImage | None = None) -> RgbImage:
    """
    Convert relative depth to colours from red (near) to blue (far).

    Parameters
    ----------
    affine_invariant_depth : float32 [H, W]
        In [0, 1], 0 near; values outside are clipped.
    out : uint8 [H, W, 3] or None
        Output array; None: a new one.

    Returns
    -------
    uint8 [H, W, 3]
        RGB of the Turbo colour map; black where the depth is NaN.

    Examples
    --------
    >>> colorize(np.array([[0.1, 0.9, np.nan]], np.float32))[0].argmax(axis=-1).tolist()
    [0, 2, 0]
    """
    # Index 1 to 255 from far to near; the conversion makes NaN 0.
    clipped = np.clip(affine_invariant_depth, 0.0, 1.0)
    index = np.asarray(cv2.convertScaleAbs(clipped, alpha=-254.0, beta=255.0))
    return np.asarray(cv2.applyColorMap(index, _color_table(), dst=out), np.uint8)


@lru_cache(maxsize=1)
def _color_table() -> NDArray[np.uint8]:
    """Return black followed by the Turbo colour map, RGB [256, 1, 3]."""
    levels = np.linspace(0, 255, 255).round().astype(np.uint8)[:, None]
    turbo = np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), np.uint8)[..., ::-1]
    return np.concatenate([np.zeros((1, 1, 3), np.uint8), turbo])
