"""Inputs and results of the scale estimation: frame, scale and report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from marigold_ros.depth.errors import InputError
    from marigold_ros.depth.types import FloatImage, Flow, GaugeChange, GreyImage
    from marigold_ros.geometry.poses import Matrix
    from marigold_ros.metric.anchors import Anchors
    from marigold_ros.metric.field import DepthField
    from marigold_ros.metric.fit import ScaleFit


@dataclass(frozen=True, eq=False)
class MetricScale:
    """
    Map from relative to metric depth: (scale * affine_invariant_depth + shift) * field.

    Attributes
    ----------
    scale, shift : float
        Metres.
    confidence : float
        In [0, 1], 1 is certain; 0 if the scale is assumed.
    sources : tuple of str
        Of `scale.sources` that it comes from.
    field : DepthField or None
        Local correction; None if the scale is assumed.
    """

    scale: float
    shift: float
    confidence: float
    sources: tuple[str, ...]
    field: DepthField | None = None

    @property
    def assumed(self) -> bool:
        """Check whether the scale is assumed instead of measured."""
        return self.sources == ('fixed',)

    def to_metric_depth(self, affine_invariant_depth: FloatImage,
                        out: FloatImage | None = None) -> FloatImage:
        """
        Convert relative depth to metric depth along Z, not corrected locally.

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
    Tilt of a camera from TF, as `down_vector` defines it.

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
    The tilt of a camera above the floor, and where it comes from.

    Attributes
    ----------
    pitch, roll : float
        As `down_vector` defines them, rad.
    origin : str
        'parameter', 'TF' or 'TF (held)'; two of them if pitch and roll differ.
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
    anchors : mapping of str to Anchors
        By source: those of the reference nearest in time, where there is one.
    problems : mapping of str to InputError
        By source: why the reference must be rejected, or, for `ground_plane`, why TF does not
        tell the tilt.
    tilt : TransformTilt or None
        The newest tilt that TF tells, up to the image.
    gauge_change : GaugeChange or None
        How the relative depth differs from that of the last frame; None if it has the same scale
        and shift, or that is unknown.
    grey : uint8 [H, W] or None
        The rectified image, for `motion`.
    flow : Flow or None
        To that image, from an earlier one.
    world_from_camera : float64 [4, 4] or None
        Pose of the optical frame in a fixed coordinate frame, m; None: unknown.
    pose_problem : str
        Why it is unknown.
    """

    camera: str
    stamp_ns: int
    affine_invariant_depth: FloatImage
    confidence: FloatImage | None
    K: NDArray[np.float64]
    anchors: Mapping[str, Anchors] = field(default_factory=dict)
    problems: Mapping[str, InputError] = field(default_factory=dict)
    tilt: TransformTilt | None = None
    gauge_change: GaugeChange | None = None
    grey: GreyImage | None = None
    flow: Flow | None = None
    world_from_camera: Matrix | None = None
    pose_problem: str = ''


@dataclass(frozen=True, eq=False)
class Measurement:
    """
    What one source knows of a frame.

    Attributes
    ----------
    anchors : Anchors
        At least one.
    weight : float
        In (0, 1]; falls with the time between what was measured and the image.
    measured_ns : int
        Stamp from which the age of the measurement counts, ns.
    held : bool
        Whether nothing is new: all anchors are from earlier images.
    problem : InputError or None
        Why what is new cannot be used.
    """

    anchors: Anchors
    weight: float
    measured_ns: int
    held: bool = False
    problem: InputError | None = None


def measured_scale(scale: MetricScale | None) -> tuple[float, float] | None:
    """Return (scale, shift) by which depth may be moved in metres; None if not measured."""
    return None if scale is None or scale.assumed else (scale.scale, scale.shift)


@dataclass(frozen=True)
class SourceReport:
    """
    State of one source at one frame.

    Attributes
    ----------
    state : str
        'waiting' (nothing measured), 'used', 'holding' (nothing new, but what it has measured is
        used), 'weighed down' (many of its anchors are contradicted by their neighbours) or
        'rejected'.
    detail : str
        What is wrong; empty if nothing is.
    anchor_count : int
        Anchors in this frame.
    age_s : float or None
        Time since its last measurement, s; None: there is none.
    """

    state: str
    detail: str = ''
    anchor_count: int = 0
    age_s: float | None = None


@dataclass(frozen=True)
class ScaleReport:
    """
    State of a camera's scale at one frame.

    Attributes
    ----------
    state : str
        'none' and 'assumed' for the sources none and fixed; else 'waiting' (nothing measured
        yet), 'tracking', 'holding' (the last measurement is old), 'expired' (the last measurement
        is too old to be used) or 'rejected' (no source has a valid measurement).
    metric_scale : MetricScale or None
        None while the scale is unknown; no metric depth may be published then.
    fit : ScaleFit or None
        The last accepted fit.
    age_s : float or None
        Time since the image of that fit, or since the tilt from TF that it used, s.
    detail : str
        Why sources are rejected; empty if none is, or only the floor while others measure.
    tilt : CameraTilt or None
        The tilt used for the frame; None if it is unknown or not needed.
    sources : mapping of str to SourceReport
        Of each source that measures.
    """

    state: str
    metric_scale: MetricScale | None
    fit: ScaleFit | None = None
    age_s: float | None = None
    detail: str = ''
    tilt: CameraTilt | None = None
    sources: Mapping[str, SourceReport] = field(default_factory=dict)
