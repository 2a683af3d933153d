"""Sources `depth`, `cloud` and `scan`: the scale from the anchors of another sensor."""

from __future__ import annotations

import math

import numpy as np

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.poses import (
    Matrix,
    optical_from_sensor,
    OPTICAL_SUFFIX,
    parse_extrinsics,
)
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.checks import check_unit, check_unit_jump
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.fit import EFFECTIVE_ANCHORS, fit_scale, ScaleFit
from marigold_ros.metric.types import ScaleFrame

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
        optical = config.source == 'depth' or reference_frame.endswith(OPTICAL_SUFFIX)
        return optical_from_sensor(parse_extrinsics(config.extrinsics), optical)
    return np.eye(4) if reference_frame == camera_frame else None


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
