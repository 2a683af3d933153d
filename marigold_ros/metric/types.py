"""Inputs and results of the scale estimation: frame, scale and report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from marigold_ros.depth.types import FloatImage, GaugeChange
    from marigold_ros.metric.anchors import Anchors
    from marigold_ros.metric.fit import ScaleFit


@dataclass(frozen=True)
class MetricScale:
    """
    Map from relative to metric depth: depth_m = scale * affine_invariant_depth + shift.

    Attributes
    ----------
    scale, shift : float
        Metres.
    confidence : float
        In [0, 1], 1 is certain; 0 if the scale is assumed.
    source : str
        Value of `scale.source` that it comes from.
    assumed : bool
        Whether the scale is assumed instead of measured.
    """

    scale: float
    shift: float
    confidence: float
    source: str
    assumed: bool

    def to_metric_depth(self, affine_invariant_depth: FloatImage,
                        out: FloatImage | None = None) -> FloatImage:
        """
        Convert relative depth to metric depth along Z.

        Parameters
        ----------
        affine_invariant_depth : float32 [H, W]
            In [0, 1], 0 near; NaN unknown.
        out : float32 [H, W] or None
            Output array; None: a new one.

        Returns
        -------
        float32 [H, W]
            Depth along Z, m; NaN stays NaN.
        """
        depth_m: FloatImage = np.multiply(affine_invariant_depth, np.float32(self.scale), out=out,
                                          dtype=np.float32)
        depth_m += np.float32(self.shift)
        return depth_m


@dataclass(frozen=True)
class TransformTilt:
    """
    Tilt of a camera from TF, as `FloorFit` defines it.

    Attributes
    ----------
    pitch, roll : float
        Radians.
    stamp_ns : int
        Time for which TF gave it, ns.
    """

    pitch: float
    roll: float
    stamp_ns: int


@dataclass(frozen=True)
class CameraTilt:
    """
    The tilt of a camera that the source `ground_plane` uses, and where it comes from.

    Attributes
    ----------
    pitch, roll : float
        As `FloorFit` defines them, rad.
    origin : str
        'parameter', 'TF', 'TF (held)' or 'searched'; both of them if pitch and roll differ.
    age_s : float or None
        Time from the answer of TF to the image, s; None if TF is not asked.
    """

    pitch: float
    roll: float
    origin: str
    age_s: float | None


@dataclass(frozen=True, eq=False)
class ScaleFrame:
    """
    One frame as input of a scale source.

    Attributes
    ----------
    camera : str
        Name of the camera.
    stamp_ns : int
        Stamp of the image, ns.
    affine_invariant_depth : float32 [H, W]
        Relative depth in [0, 1], 0 near; NaN unknown.
    confidence : float32 [H, W] or None
        Confidence of the prediction, in [0, 1].
    K : float64 [3, 3]
        Intrinsics of the image, px.
    anchors : Anchors or None
        Anchors from the reference nearest in time, if there is one.
    problem : str
        Why the reference must be rejected, or why TF does not tell the tilt; empty if nothing is
        wrong.
    tilt : TransformTilt or None
        The newest tilt that TF tells, up to the image.
    gauge_change : GaugeChange or None
        How the relative depth differs from that of the last frame; None if it has the same scale
        and shift, or that is unknown.
    """

    camera: str
    stamp_ns: int
    affine_invariant_depth: FloatImage
    confidence: FloatImage | None
    K: NDArray[np.float64]
    anchors: Anchors | None = None
    problem: str = ''
    tilt: TransformTilt | None = None
    gauge_change: GaugeChange | None = None


def measured_scale(scale: MetricScale | None) -> tuple[float, float] | None:
    """Return (scale, shift) by which depth may be moved in metres; None if not measured."""
    return None if scale is None or scale.assumed else (scale.scale, scale.shift)


@dataclass(frozen=True)
class ScaleReport:
    """
    State of a camera's scale at one frame.

    Attributes
    ----------
    state : str
        'none' and 'assumed' for the sources none and fixed; else 'waiting' (nothing measured
        yet), 'tracking', 'holding' (the last measurement is old), 'expired' (the last measurement
        is too old to be used) or 'rejected' (the newest measurement was rejected).
    metric_scale : MetricScale or None
        None while the scale is unknown; no metric depth may be published then.
    fit : ScaleFit or None
        The last accepted fit.
    age_s : float or None
        Time since the image of that fit, or since the tilt from TF that it used, s.
    detail : str
        Why the measurement was rejected; empty if it was not.
    tilt : CameraTilt or None
        The tilt used for the frame; None if it is unknown or not needed.
    """

    state: str
    metric_scale: MetricScale | None
    fit: ScaleFit | None = None
    age_s: float | None = None
    detail: str = ''
    tilt: CameraTilt | None = None
