"""How good metric depth is without any alignment: the metres that a robot would get."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
import math
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.evaluation.metrics.protocol_a import depth_metrics
from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.messages.cloud import CloudPacker, unpack_cloud
from marigold_ros.metric.outputs import metric_depth, POINT_STRIDE
from marigold_ros.metric.tracker import ScaleTracker
from marigold_ros.metric.types import ScaleFrame

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame
    from marigold_ros.depth.types import FloatImage
    from marigold_ros.evaluation.metrics.obstacles import ObstacleScorer
    from marigold_ros.evaluation.references import FrameReference
    from marigold_ros.metric.config import ScaleConfig
    from marigold_ros.metric.fit import ScaleFit
    from marigold_ros.metric.types import MetricScale

# Truth this close to the plane of the robot's base is floor.
FLOOR_M = 0.01
# A scale has recovered when the middle depth is this close to what it should be.
RECOVERED = 0.02
METRICS = ('abs_rel', 'rmse', 'delta1')
# Of the node by default; what it publishes is compared.
FILTER = DepthFilter()
COMPARED_RANGE = f'{FILTER.min_depth_m:g} to {FILTER.max_depth_m:g} m'

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class MetricFrame:
    """
    How metric depth did on one frame; NaN where it cannot be told.

    Attributes
    ----------
    stamp_ns : int
    state, detail : str
        See `metric.types.ScaleReport`.
    measured : bool
        Whether the scale was fitted to this very frame.
    middle_m, fit_middle_m : float
        Depth of affine-invariant 0.5 by the published scale, and by the last fit alone.
    values : dict of str to float
        `METRICS` over the published pixels; `published_share` of the measured pixels;
        `floor_error`, |height of the camera above its floor pixels / truth - 1|.
    """

    stamp_ns: int
    state: str
    detail: str
    measured: bool
    middle_m: float
    fit_middle_m: float
    values: dict[str, float]


class MetricFollower:
    """
    Makes the predictions of a sequence metric as depth_node does, and compares with the truth.

    Parameters
    ----------
    config : ScaleConfig
        Of the source.
    obstacles : ObstacleScorer or None
        Gets the clouds.

    Attributes
    ----------
    frames : list of MetricFrame
    """

    def __init__(self, config: ScaleConfig, obstacles: ObstacleScorer | None = None) -> None:
        """Start without a scale."""
        self.frames: list[MetricFrame] = []
        self._tracker, self._hold_s = ScaleTracker(config), config.filter.hold_s
        self._obstacles, self._judged, self._clouds = obstacles, 0, 0
        self._packer = CloudPacker()

    def add(self, frame: DepthFrame, relative: FloatImage, confidence: FloatImage | None,
            reference: FrameReference) -> None:
        """
        Judge the next frame.

        Parameters
        ----------
        frame : DepthFrame
            In the order of time.
        relative : float32 [H, W]
            Affine-invariant depth of its image.
        confidence : float32 [H, W] or None
        reference : FrameReference
            Of the same frame.

        Raises
        ------
        InputError
            If the camera is outside the scene of the obstacles.
        """
        # 1. The scale, as the node finds it.
        report = self._tracker.update(ScaleFrame(
            frame.set_name, reference.stamp_ns, relative, confidence, reference.K,
            reference.anchors, reference.problem, reference.tilt))
        fit = report.fit
        middle_m = math.nan if report.metric is None else _middle_m(report.metric)
        # 2. What it publishes, beside the truth.
        target_m = _at_size_of(relative, frame.known_depth_m)
        values, points = {}, None
        if report.metric is not None:
            depth_m = metric_depth(relative, confidence, reference.K, report.metric, FILTER)
            values = self._compare(depth_m, target_m, reference)
            points = unpack_cloud(self._packer.pack(depth_m, reference.K, frame.rgb,
                                                    stride=POINT_STRIDE))[0]
        self.frames.append(MetricFrame(
            reference.stamp_ns, report.state, report.detail, report.age_s == 0.0, middle_m,
            math.nan if fit is None else _middle_m(fit), values))
        # 3. What a costmap makes of it.
        if self._obstacles is not None and frame.world_from_camera is not None:
            self._judged += 1
            self._clouds += points is not None
            self._obstacles.add(target_m, reference.K, frame.world_from_camera, points,
                                POINT_STRIDE)

    def summary(self) -> dict[str, Any]:
        """
        Average over the frames.

        Returns
        -------
        dict
            Of counts, and of float, NaN where nothing could be told: as the keys `metric.*` of
            `report.summary.SCHEMA` that are not about the command.
        """
        middles = np.array([each.middle_m for each in self.frames])
        with np.errstate(invalid='ignore'):
            steps = np.abs(np.diff(np.log(middles)))
        steps = steps[np.isfinite(steps)]
        details = Counter(each.detail for each in self.frames if each.detail)
        outages = self.outages()
        known = int(np.isfinite(middles).sum())
        result: dict[str, Any] = {
            'range': COMPARED_RANGE, 'frames': len(self.frames), 'frames_with_metres': known,
            'share_with_metres': known / len(self.frames) if self.frames else math.nan,
            **{name: self.mean(name) for name in (*METRICS, 'published_share', 'floor_error')},
            'jitter': float(steps.mean()) if steps.size else math.nan,
            'largest_step': float(steps.max()) if steps.size else math.nan,
            'outages': len(outages),
            'recovery_s': float(np.max(
                [recovery_s(self.frames, back, [each.fit_middle_m for each in self.frames])
                 for back in outages])) if outages else math.nan,
            'states': dict(Counter(each.state for each in self.frames)),
            'complaint': details.most_common(1)[0][0] if details else None}
        if self._obstacles is not None:
            result['obstacles'] = {'frames': self._judged, 'clouds': self._clouds,
                                   **self._obstacles.scores()}
        return result

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a value of every frame; NaN where it has none."""
        return np.array([each.values.get(name, math.nan) for each in self.frames], np.float64)

    def mean(self, name: str) -> float:
        """Average a value over the frames that have it."""
        values = self.column(name)
        known = values[np.isfinite(values)]
        return float(known.mean()) if known.size else math.nan

    def outages(self) -> list[int]:
        """List the numbers of the frames that were measured after longer than hold_s without."""
        measured = [number for number, each in enumerate(self.frames) if each.measured]
        return [later for earlier, later in pairwise(measured)
                if (self.frames[later].stamp_ns - self.frames[earlier].stamp_ns) * 1e-9
                > self._hold_s]

    def _compare(self, depth_m: FloatImage, target_m: FloatImage, reference: FrameReference
                 ) -> dict[str, float]:
        """Compare published depth with the truth; what is beyond the range counts as its end."""
        low_m, high_m = FILTER.min_depth_m, FILTER.max_depth_m
        measured = np.isfinite(target_m) & (target_m > low_m) & (target_m < high_m)
        published = measured & ~np.isnan(depth_m)
        if not published.any():
            return {}
        found = depth_metrics(np.clip(depth_m, low_m, high_m), target_m, published,
                              alignment=None, min_depth_m=low_m, max_depth_m=high_m)
        return {**{name: found[name] for name in METRICS},
                'published_share': float(published.sum() / measured.sum()),
                'floor_error': floor_error(np.where(published, depth_m, np.float32(np.nan)),
                                           target_m, reference)}


def floor_error(depth_m: FloatImage, target_m: FloatImage, reference: FrameReference) -> float:
    """
    Tell how wrong the camera's height is by the depth of its floor pixels.

    Parameters
    ----------
    depth_m, target_m : float32 [H, W]
        Metric and true depth, m; NaN is unknown.
    reference : FrameReference
        Whose mount says where the floor is.

    Returns
    -------
    float
        |median height / true height - 1| over the pixels whose truth lies within `FLOOR_M` of the
        plane of the robot's base; NaN without any, or without a mount.
    """
    if reference.base_from_camera is None:
        return math.nan
    # How far each pixel's ray falls per metre of Z, [H, W].
    K, down = reference.K, -reference.base_from_camera[2, :3]
    rows, columns = np.mgrid[:depth_m.shape[0], :depth_m.shape[1]]
    fall = ((columns - K[0, 2]) / K[0, 0] * down[0] + (rows - K[1, 2]) / K[1, 1] * down[1]
            + down[2])
    height_m = reference.base_from_camera[2, 3]
    with np.errstate(invalid='ignore'):
        floor = (np.abs(target_m * fall - height_m) < FLOOR_M) & np.isfinite(depth_m)
    if not floor.any():
        return math.nan
    return float(abs(np.median((depth_m * fall)[floor]) / height_m - 1))


def recovery_s(frames: Sequence[MetricFrame], back: int, expected_m: Sequence[float]) -> float:
    """
    Tell how long a scale needs after an outage.

    Parameters
    ----------
    frames : sequence of MetricFrame
    back : int
        Number of the first frame after it.
    expected_m : sequence of float
        Middle depth that each frame should have: of its own fit, or without the outage.

    Returns
    -------
    float
        From that frame until the middle depth is within `RECOVERED`, s; NaN if it never is.
    """
    for frame, expected in zip(frames[back:], expected_m[back:]):
        if abs(frame.middle_m / expected - 1) < RECOVERED:
            return (frame.stamp_ns - frames[back].stamp_ns) * 1e-9
    return math.nan


def _middle_m(fit: MetricScale | ScaleFit) -> float:
    """Return the depth of affine-invariant 0.5, m."""
    return fit.scale / 2 + fit.shift


def _at_size_of(image: NDArray[Any], depth_m: FloatImage) -> FloatImage:
    """Bring true depth to the image's size without mixing near and far, known and unknown."""
    if depth_m.shape == image.shape[:2]:
        return depth_m
    return np.asarray(cv2.resize(depth_m, image.shape[1::-1], interpolation=cv2.INTER_NEAREST),
                      np.float32)
