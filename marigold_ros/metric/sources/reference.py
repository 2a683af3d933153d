"""Sources `depth`, `cloud` and `scan`: metres from anchors that another sensor measured."""

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
from marigold_ros.metric.fit import fit_scale, INDEPENDENT_ANCHORS, ScaleFit
from marigold_ros.metric.types import ScaleFrame

# What a pixel that the model does not trust still counts.
LEAST_WEIGHT = 0.05


def pose_without_tf(config: ScaleConfig, camera_frame: str, reference_frame: str
                    ) -> Matrix | None:
    """
    Find the pose of a reference's frame in the camera's optical frame where TF need not be asked.

    Returns
    -------
    float64 [4, 4] or None
        By the configured extrinsics, or because the two are one frame; None if only TF knows.
    """
    if config.extrinsics is not None:
        optical = config.source == 'depth' or reference_frame.endswith(OPTICAL_SUFFIX)
        return optical_from_sensor(parse_extrinsics(config.extrinsics), optical)
    return np.eye(4) if reference_frame == camera_frame else None


def fit_reference(frame: ScaleFrame, known: tuple[float, float] | None, hold_s: float
                  ) -> tuple[ScaleFit, float] | None:
    """
    Fit one frame to its anchors.

    Parameters
    ----------
    frame : ScaleFrame
    known : (float, float) or None
        Scale and shift so far, m.
    hold_s : float
        How far in time the anchors may lie from the image, s.

    Returns
    -------
    (ScaleFit, float) or None
        The fit and what it is worth by the age of its anchors, in (0, 1]; None without anchors of
        the image's time.

    Raises
    ------
    InputError
        If the reference must be refused.
    """
    if frame.problem:
        raise InputError(frame.problem)
    if frame.anchors is None:
        return None
    apart_s = abs(frame.stamp_ns - frame.anchors.stamp_ns) * 1e-9
    if apart_s > hold_s:
        return None
    check_unit(frame.anchors.depth_m)
    fit = _fit_anchors(frame, frame.anchors, known)
    if known is not None:
        check_unit_jump(fit, *known)
    return fit, math.exp(-apart_s / hold_s)


def _fit_anchors(frame: ScaleFrame, anchors: Anchors, known: tuple[float, float] | None
                 ) -> ScaleFit:
    """Fit with the pixels' confidence as weights; unspread anchors keep the known proportion."""
    weight = None
    if frame.confidence is not None:
        weight = np.maximum(frame.confidence[anchors.rows, anchors.columns],
                            np.float32(LEAST_WEIGHT))
    return fit_scale(
        frame.relative[anchors.rows, anchors.columns], anchors.depth_m, weight,
        proportion=None if known is None else known[1] / known[0],
        independent=INDEPENDENT_ANCHORS * anchors.coverage(frame.relative.shape))
