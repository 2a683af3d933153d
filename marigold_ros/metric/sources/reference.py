"""Sources `depth`, `cloud` and `scan`: anchors that another sensor measured."""

from __future__ import annotations

import math

import numpy as np

from marigold_ros.depth.errors import InputError
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.checks import check_unit, check_unit_jump
from marigold_ros.metric.filter import ScaleFilter
from marigold_ros.metric.fit import fit_scale, INDEPENDENT_ANCHORS, ScaleFit
from marigold_ros.metric.sources.measured import MeasuredScale
from marigold_ros.metric.types import ScaleFrame

# What a pixel that the model does not trust still counts.
LEAST_WEIGHT = 0.05


class ReferenceScale(MeasuredScale):
    """Sources `depth`, `cloud` and `scan`: anchors that another sensor measured."""

    def _measure(self, frame: ScaleFrame, filter_: ScaleFilter
                 ) -> tuple[ScaleFit, float] | None:
        if frame.problem:
            raise InputError(frame.problem)
        if frame.anchors is None:
            return None
        apart_s = abs(frame.stamp_ns - frame.anchors.stamp_ns) * 1e-9
        if apart_s > self._config.filter.hold_s:
            return None
        check_unit(frame.anchors.depth_m)
        fit = _fit_anchors(frame, frame.anchors, filter_)
        if filter_.known:
            check_unit_jump(fit, *filter_.scale_shift)
        return fit, math.exp(-apart_s / self._config.filter.hold_s)


def _fit_anchors(frame: ScaleFrame, anchors: Anchors, filter_: ScaleFilter) -> ScaleFit:
    """Fit with the pixels' confidence as weights; unspread anchors keep the known proportion."""
    relative = frame.relative[anchors.rows, anchors.columns]
    weight = None
    if frame.confidence is not None:
        weight = np.maximum(frame.confidence[anchors.rows, anchors.columns],
                            np.float32(LEAST_WEIGHT))
    proportion = None
    if filter_.known:
        scale, shift = filter_.scale_shift
        proportion = shift / scale
    independent = INDEPENDENT_ANCHORS * anchors.coverage(frame.relative.shape)
    return fit_scale(relative, anchors.depth_m, weight, proportion=proportion,
                     independent=independent)
