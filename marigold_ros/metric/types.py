"""What crosses the borders of metric/: a frame to measure, its scale, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from marigold_ros.depth.types import FloatImage
    from marigold_ros.metric.anchors import Anchors
    from marigold_ros.metric.fit import ScaleFit


@dataclass(frozen=True)
class MetricScale:
    """
    Map from affine-invariant depth to metres: depth_m = scale * affine_invariant_depth + shift.

    Attributes
    ----------
    scale, shift : float
        Metres.
    confidence : float
        In [0, 1], 1 sure; 0 for an assumption, which no measurement supports.
    source : str
        Value of `scale.source` that it comes from.
    assumed : bool
        Whether it is an assumption and not a measurement.
    """

    scale: float
    shift: float
    confidence: float
    source: str
    assumed: bool

    def to_metres(self, affine_invariant_depth: FloatImage) -> FloatImage:
        """
        Turn relative depth into metres along Z.

        Parameters
        ----------
        affine_invariant_depth : float32 [H, W]
            In [0, 1], 0 near.

        Returns
        -------
        float32 [H, W]
            Depth along Z, m; NaN stays NaN.
        """
        depth_m: FloatImage = np.multiply(affine_invariant_depth, np.float32(self.scale),
                                          dtype=np.float32)
        depth_m += np.float32(self.shift)
        return depth_m


@dataclass(frozen=True, eq=False)
class ScaleFrame:
    """
    What a source may look at to make one frame metric.

    Attributes
    ----------
    camera : str
        Name of the camera.
    stamp_ns : int
        Of the image, ns.
    relative : float32 [H, W]
        Affine-invariant depth in [0, 1], 0 near; NaN unknown.
    confidence : float32 [H, W] or None
        Of the prediction, in [0, 1].
    K : float64 [3, 3]
        Intrinsics of the image, px.
    anchors : Anchors or None
        The reference nearest in time, if there is one.
    problem : str
        Why the reference must be refused; empty if it need not.
    tilt : (float, float) or None
        Pitch and roll of the camera as TF knows them, rad, nose and right side down.
    """

    camera: str
    stamp_ns: int
    relative: FloatImage
    confidence: FloatImage | None
    K: NDArray[np.float64]
    anchors: Anchors | None = None
    problem: str = ''
    tilt: tuple[float, float] | None = None


@dataclass(frozen=True)
class ScaleReport:
    """
    What is known of a camera's scale at one frame.

    Attributes
    ----------
    state : str
        'none' and 'assumed' for the sources none and fixed; else 'waiting' (nothing measured
        yet), 'tracking', 'holding' (the last measurement is old), 'expired' (too old for metres)
        or 'refused' (what comes cannot be used).
    metric : MetricScale or None
        None while no metres are known: then nothing metric may be published.
    fit : ScaleFit or None
        The last that was accepted.
    age_s : float or None
        Since the image of that fit.
    detail : str
        What is wrong, in words; empty if nothing is.
    """

    state: str
    metric: MetricScale | None
    fit: ScaleFit | None = None
    age_s: float | None = None
    detail: str = ''
