"""Sources `depth`, `cloud` and `scan`: the scale from the anchors of another sensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import math
from typing import TypeVar

import numpy as np

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.poses import (
    is_optical_frame,
    Matrix,
    optical_from_sensor,
    parse_extrinsics,
    without_slash,
)
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.checks import check_unit, check_unit_jump
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.fit import EFFECTIVE_ANCHORS, fit_scale, ScaleFit
from marigold_ros.metric.types import ScaleFrame

Placed = TypeVar('Placed')

# Smallest weight of an anchor, at a pixel of confidence 0.
MIN_WEIGHT = 0.05


def pose_without_tf(config: ScaleConfig, camera_frame: str, reference_frame: str
                    ) -> Matrix | None:
    """
    Return the pose of the reference's frame in the camera's optical frame if it needs no TF.

    Returns
    -------
    float64 [4, 4] or None
        From the configured extrinsics, or the identity if both coordinate frames are the same;
        None if TF is needed.
    """
    if config.extrinsics is not None:
        return optical_from_sensor(parse_extrinsics(config.extrinsics),
                                   _is_optical(config, reference_frame))
    return np.eye(4) if without_slash(reference_frame) == without_slash(camera_frame) else None


def place_nearest(references: Sequence[Placed], locate: Callable[[Placed], Matrix], hold_s: float
                  ) -> tuple[Placed, Matrix]:
    """
    Find the reference that is nearest in time to an image, of those whose pose is known.

    The transforms of a moving sensor arrive later than its data, so that the pose of the nearest
    reference may not be known yet.

    Parameters
    ----------
    references : sequence
        Those within `scale.hold_s` of the image, the nearest first; not empty.
    locate : callable
        Returns the pose of a reference, or raises an InputError.
    hold_s : float

    Returns
    -------
    reference
    pose : float64 [4, 4]

    Raises
    ------
    InputError
        If no pose is known; says why that of the nearest is not.
    """
    nearest_problem = ''
    for each in references:
        try:
            return each, locate(each)
        except InputError as err:
            nearest_problem = nearest_problem or str(err)
    others = (f'; nor is that of {len(references) - 1} others within scale.hold_s ({hold_s:g} s) '
              'of the image' if len(references) > 1 else '')
    raise InputError(nearest_problem + others)


def describe_axes(config: ScaleConfig, camera_frame: str, reference_frame: str | None) -> str:
    """
    Say which axes a coordinate frame is assumed to have, where no message says it.

    Parameters
    ----------
    config : ScaleConfig
    camera_frame : str
        Frame of the images.
    reference_frame : str or None
        Frame of the reference; None if there is none yet, or the source has none.

    Returns
    -------
    str
        Empty if nothing is assumed: TF supplies the pose of an optical frame.
    """
    if config.extrinsics is not None and reference_frame is not None:
        axes = ('z forward, x right, y down (optical)' if _is_optical(config, reference_frame)
                else 'x forward, y left, z up')
        reason = ('as of every depth image' if config.source == 'depth'
                  else 'by its name: optical frames end in _optical_frame or _optical')
        return f'the frame {reference_frame!r} of the reference is taken as {axes}, {reason}'
    if config.needs_transforms and not is_optical_frame(camera_frame):
        return (f'the frame {camera_frame!r} of the images is taken as optical (z forward, x '
                'right, y down), though its name does not end in _optical_frame or _optical')
    return ''


def fit_reference(frame: ScaleFrame, previous: tuple[float, float] | None, hold_s: float
                  ) -> tuple[ScaleFit, float] | None:
    """
    Fit one frame to its anchors.

    Parameters
    ----------
    frame : ScaleFrame
    previous : (float, float) or None
        Previous scale and shift, m.
    hold_s : float
        Largest time difference between anchors and image, s.

    Returns
    -------
    (ScaleFit, float) or None
        The fit and its weight in (0, 1], which falls with the time difference between anchors and
        image; None without anchors close in time to the image.

    Raises
    ------
    InputError
        If the reference is invalid.
    """
    if frame.problem:
        raise InputError(frame.problem)
    if frame.anchors is None:
        return None
    apart_s = abs(frame.stamp_ns - frame.anchors.stamp_ns) * 1e-9
    if apart_s > hold_s:
        return None
    check_unit(frame.anchors.depth_m)
    fit = _fit_anchors(frame, frame.anchors, previous)
    if previous is not None:
        check_unit_jump(fit, *previous)
    return fit, math.exp(-apart_s / hold_s)


def _is_optical(config: ScaleConfig, reference_frame: str) -> bool:
    """Return whether the data of a reference are in optical axes."""
    return config.source == 'depth' or is_optical_frame(reference_frame)


def _fit_anchors(frame: ScaleFrame, anchors: Anchors, previous: tuple[float, float] | None
                 ) -> ScaleFit:
    """Fit with the pixels' confidence as weights and the previous proportion as fallback."""
    weight = None
    if frame.confidence is not None:
        weight = np.maximum(frame.confidence[anchors.rows, anchors.columns],
                            np.float32(MIN_WEIGHT))
    return fit_scale(
        frame.affine_invariant_depth[anchors.rows, anchors.columns], anchors.depth_m, weight,
        proportion=None if previous is None else previous[1] / previous[0],
        effective_anchors=EFFECTIVE_ANCHORS * anchors.coverage(frame.affine_invariant_depth.shape))
