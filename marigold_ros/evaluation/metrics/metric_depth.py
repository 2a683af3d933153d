"""Accuracy of metric depth as depth_node would publish it, without alignment to the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
import math
from typing import Any, NamedTuple, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.evaluation.metrics.protocol_a import depth_metrics
from marigold_ros.evaluation.metrics.temporal import STRIDE, temporal_alignment_error
from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.geometry.poses import PoseContinuity
from marigold_ros.geometry.unproject import unproject
from marigold_ros.metric.outputs import (
    metric_confidence,
    metric_depth,
    PointFilter,
    select_points,
)
from marigold_ros.metric.tracker import ScaleTracker
from marigold_ros.metric.types import ScaleFrame

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame
    from marigold_ros.depth.types import DepthPrediction, FloatImage, Flow, GaugeChange
    from marigold_ros.evaluation.metrics.obstacle_map import ObstacleMap
    from marigold_ros.evaluation.metrics.obstacles import ObstacleScorer
    from marigold_ros.evaluation.references import FrameReference
    from marigold_ros.metric.config import ScaleConfig
    from marigold_ros.metric.fit import ScaleFit
    from marigold_ros.metric.types import MetricScale

# Pixels whose true position is this close to the plane of the robot's base are floor.
FLOOR_TOLERANCE_M = 0.01
# The scale has recovered when the mid depth is within this relative error of the expected one.
RECOVERY_TOLERANCE = 0.02
METRICS = ('abs_rel', 'rmse', 'delta1')
VALUES = (*METRICS, 'tae', 'published_share', 'floor_error')
# The node's default; pixels that it removes are not compared.
FILTER = DepthFilter()
COMPARED_RANGE = f'{FILTER.min_depth_m:g} to {FILTER.max_depth_m:g} m'

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class MetricFrameResult:
    """
    Result for the metric depth of one frame; NaN where a value is unknown.

    Attributes
    ----------
    stamp_ns : int
    state, detail : str
        See `metric.types.ScaleReport`.
    measured : bool
        Whether the scale was fitted to this frame.
    mid_depth_m, fit_mid_depth_m : float
        Metric depth of relative depth 0.5, m: by the published scale, and by the last fit alone.
    log_ratio : float
        Logarithm of the median ratio of metric depth to the truth.
    sources : mapping of str to str
        State of each scale source.
    values : dict of str to float
        `METRICS`; `tae`, the temporal alignment error of the metric depth; `published_share`, the
        share of the measured pixels that is published; `floor_error`, see the function.
    """

    stamp_ns: int
    state: str
    detail: str
    measured: bool
    mid_depth_m: float
    fit_mid_depth_m: float
    log_ratio: float
    sources: Mapping[str, str]
    values: dict[str, float]


class PublishedDepth(NamedTuple):
    """
    What the node would publish of a frame, and the truth.

    Attributes
    ----------
    depth_m, target_m : float32 [H, W]
        Metric and true depth, m; NaN unknown.
    points : float32 [h, w, 3]
        Cloud in the optical frame, m.
    """

    depth_m: FloatImage
    target_m: FloatImage
    points: FloatImage


class MetricDepthEvaluator:
    """
    Convert the predictions of a sequence to metric depth as depth_node does, and score them.

    Parameters
    ----------
    config : ScaleConfig
    obstacles : ObstacleScorer or None
        Scores the point clouds made from the metric depth.
    point_filter : PointFilter or None
        What becomes points; None: the node's default.

    Attributes
    ----------
    frames : list of MetricFrameResult
    published : PublishedDepth or None
        Of the last frame; None if its scale is unknown.
    """

    def __init__(self, config: ScaleConfig, obstacles: ObstacleScorer | None = None,
                 point_filter: PointFilter | None = None) -> None:
        """Start without a scale."""
        self._point_filter = point_filter or PointFilter()
        self.frames: list[MetricFrameResult] = []
        self.published: PublishedDepth | None = None
        self._tracker, self._hold_s = ScaleTracker(config), config.filter.hold_s
        self._obstacles, self._scored, self._clouds = obstacles, 0, 0
        # The costmap of each reference sensor itself, without and with the cloud.
        self._sensors = {source: (deepcopy(obstacles), deepcopy(obstacles))
                         for source in config.reference_sources if obstacles is not None}
        self._previous: tuple[FloatImage, Matrix] | None = None
        self._continuity = PoseContinuity()

    def add(self, frame: DepthFrame, prediction: DepthPrediction, reference: FrameReference,
            gauge_change: GaugeChange | None = None, flow: Flow | None = None
            ) -> MetricScale | None:
        """
        Score the next frame.

        Parameters
        ----------
        frame : DepthFrame
            In the order of time.
        prediction : DepthPrediction
            For its image.  Pixels that carried depth does not cover are missing in the scale and
            in the cloud, as in the node; the error counts them with the depth of their neighbours.
        reference : FrameReference
            Of the same frame.
        gauge_change, flow
            See `ScaleFrame`.

        Returns
        -------
        MetricScale or None
            Of this frame; None while it is unknown.

        Raises
        ------
        InputError
            If the camera is outside the scene of the obstacles.
        """
        # 1. Update the scale as the node does.
        report = self._tracker.update(ScaleFrame(
            frame.set_name, reference.stamp_ns, prediction.known_depth, prediction.confidence,
            reference.K, reference.anchors, reference.problems, reference.tilt, gauge_change,
            np.asarray(cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY), np.uint8), flow,
            self._pose(frame, reference.stamp_ns)))
        fit, scale = report.fit, report.metric_scale
        mid_depth_m = math.nan if scale is None else _mid_depth_m(scale)
        # 2. Compare the published depth with the truth.
        target_m = _resize_truth(prediction.affine_invariant_depth, frame.known_depth_m)
        values = self._compare_published(frame, prediction, reference, scale, target_m)
        points = None if self.published is None else self.published.points
        if not frame.is_lead_in:
            self.frames.append(MetricFrameResult(
                reference.stamp_ns, report.state, report.detail, report.age_s == 0.0, mid_depth_m,
                math.nan if fit is None else _mid_depth_m(fit),
                values.pop('log_ratio', math.nan),
                {name: each.state for name, each in report.sources.items()}, values))
        # 3. Update and score the costmaps.
        if self._obstacles is not None and frame.world_from_camera is not None:
            self._score_costmaps(self._obstacles, target_m, reference, frame.world_from_camera,
                                 points, is_lead_in=frame.is_lead_in)
        return scale

    def _compare_published(self, frame: DepthFrame, prediction: DepthPrediction,
                           reference: FrameReference, scale: MetricScale | None,
                           target_m: FloatImage) -> dict[str, float]:
        """Return the errors of the depth that is published; none without a scale."""
        self.published = None
        if scale is None:
            self._previous = None
            return {}
        confidence = metric_confidence(prediction.confidence, scale, target_m.shape)
        filled_m, depth_m = (
            metric_depth(depth, confidence, reference.K, scale, FILTER)
            for depth in (prediction.affine_invariant_depth, prediction.known_depth))
        self.published = PublishedDepth(depth_m, target_m,
                                        self._points(depth_m, confidence, reference.K))
        return {**self._compare(filled_m, depth_m, target_m, reference),
                'tae': self._temporal_error(
                    _correct(scale, prediction.affine_invariant_depth), reference.K,
                    frame.world_from_camera)}

    def extend(self, later: MetricDepthEvaluator) -> None:
        """Append the frames and scores of the part that follows."""
        self.frames += later.frames
        self._scored += later._scored
        self._clouds += later._clouds
        for mine, theirs in zip(self._costmaps(), later._costmaps()):
            mine.extend(theirs)

    def _costmaps(self) -> list[ObstacleScorer]:
        """Return the costmaps of the cloud and of each sensor without and with it."""
        return [] if self._obstacles is None else [
            self._obstacles, *(each for pair in self._sensors.values() for each in pair)]

    def _score_costmaps(self, of_cloud: ObstacleScorer, target_m: FloatImage,
                        reference: FrameReference, pose: Matrix, points: FloatImage | None, *,
                        is_lead_in: bool) -> None:
        """Update the costmap of the cloud, and those of each sensor without and with it."""
        K, stride = reference.K, self._point_filter.stride
        of_cloud.add(target_m, K, pose, points, stride)
        for source, (alone, with_cloud) in self._sensors.items():
            seen = ([reference.anchors[source].points(K).astype(np.float32)]
                    if source in reference.anchors else [])
            alone.add(target_m, K, pose, None, stride, *seen)
            with_cloud.add(target_m, K, pose, points, stride, *seen)
        if is_lead_in:
            for each in self._costmaps():
                each.discard_scores()
        else:
            self._scored += 1
            self._clouds += points is not None

    def _pose(self, frame: DepthFrame, stamp_ns: int) -> Matrix | None:
        """Return the pose of the camera without the jumps of odometry, as in the node."""
        pose = frame.world_from_camera
        return None if pose is None else self._continuity.follow(frame.set_name, stamp_ns, pose)

    def _points(self, depth_m: FloatImage, confidence: FloatImage | None, K: Matrix
                ) -> FloatImage:
        """Return the points of the cloud, float32 [h, w, 3], m."""
        selected_m = select_points(depth_m, confidence, K, self._point_filter)
        return np.asarray(unproject(selected_m, self._point_filter.intrinsics(K)), np.float32)

    def summary(self) -> dict[str, Any]:
        """
        Summarize all frames.

        Returns
        -------
        dict
            Counts, and floats that are NaN where unknown, with the keys of
            `report.summary.METRIC_DEPTH_SCHEMA` except `abs_rel_interval`.
        """
        steps = np.abs(np.diff([each.log_ratio for each in self.frames]))
        steps = steps[np.isfinite(steps)]
        details = Counter(each.detail for each in self.frames if each.detail)
        outages = self.outages()
        expected_m = [each.fit_mid_depth_m for each in self.frames]
        known = int(np.isfinite([each.mid_depth_m for each in self.frames]).sum())
        result: dict[str, Any] = {
            'frames': len(self.frames), 'frames_with_metric_depth': known,
            'share_with_metric_depth': known / len(self.frames) if self.frames else math.nan,
            **{name: self.mean(name) for name in VALUES},
            'jitter': float(steps.mean()) if steps.size else math.nan,
            'largest_step': float(steps.max()) if steps.size else math.nan,
            'outages': len(outages),
            'recovery_s': float(np.max(
                [recovery_time_s(self.frames, first_after_outage, expected_m)
                 for first_after_outage in outages])) if outages else math.nan,
            'states': dict(Counter(each.state for each in self.frames)),
            'source_states': {name: dict(Counter(each.sources[name] for each in self.frames))
                              for name in (self.frames[0].sources if self.frames else ())},
            'most_frequent_problem': details.most_common(1)[0][0] if details else None}
        if self._obstacles is not None:
            result['obstacles'] = {'frames': self._scored, 'clouds': self._clouds,
                                   **self._obstacles.scores()}
            result['sensors'] = {source: {'alone': alone.scores(), 'with_cloud': both.scores()}
                                 for source, (alone, both) in self._sensors.items()}
        return result

    def obstacle_map(self) -> ObstacleMap | None:
        """Return the costmap of the clouds, compared with the scene; None without one."""
        return None if self._obstacles is None else self._obstacles.map()

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a value for every frame, [F]; NaN where it is unknown."""
        return np.array([each.values.get(name, math.nan) for each in self.frames], np.float64)

    def mean(self, name: str) -> float:
        """Average a value over the frames for which it is known."""
        values = self.column(name)
        known = values[np.isfinite(values)]
        return float(known.mean()) if known.size else math.nan

    def outages(self) -> list[int]:
        """List the first measured frame after each gap longer than `scale.hold_s`, by number."""
        measured = [number for number, each in enumerate(self.frames) if each.measured]
        return [later for earlier, later in pairwise(measured)
                if (self.frames[later].stamp_ns - self.frames[earlier].stamp_ns) * 1e-9
                > self._hold_s]

    def _temporal_error(self, depth_m: FloatImage, K: Matrix,
                        world_from_camera: Matrix | None) -> float:
        """Compare depth with that of the previous frame; NaN without poses."""
        if world_from_camera is None:
            self._previous = None
            return math.nan
        previous, current = self._previous, (
            np.clip(depth_m, FILTER.min_depth_m, FILTER.max_depth_m)[::STRIDE, ::STRIDE],
            world_from_camera)
        self._previous = current
        if previous is None or previous[0].shape != current[0].shape:
            return math.nan
        subsampled_K = K * np.array([[1.0 / STRIDE], [1.0 / STRIDE], [1.0]])
        return temporal_alignment_error(current[0], previous[0], subsampled_K,
                                        np.linalg.inv(previous[1]) @ world_from_camera)

    def _compare(self, filled_m: FloatImage, depth_m: FloatImage, target_m: FloatImage,
                 reference: FrameReference) -> dict[str, float]:
        """Compare depth, clipped to the range of the filter, with the truth."""
        low_m, high_m = FILTER.min_depth_m, FILTER.max_depth_m
        measured = np.isfinite(target_m) & (target_m > low_m) & (target_m < high_m)
        compared, published = measured & ~np.isnan(filled_m), measured & ~np.isnan(depth_m)
        if not compared.any():
            return {}
        found = depth_metrics(np.clip(filled_m, low_m, high_m), target_m, compared,
                              alignment=None, min_depth_m=low_m, max_depth_m=high_m)
        ratio = np.clip(filled_m[compared], low_m, high_m) / target_m[compared]
        return {**{name: found[name] for name in METRICS},
                'log_ratio': float(np.log(np.median(ratio))),
                'published_share': float(published.sum() / measured.sum()),
                'floor_error': floor_error(np.where(published, depth_m, np.float32(np.nan)),
                                           target_m, reference)}


def floor_error(depth_m: FloatImage, target_m: FloatImage, reference: FrameReference) -> float:
    """
    Compute the relative error of the camera height that the predicted floor pixels imply.

    Parameters
    ----------
    depth_m, target_m : float32 [H, W]
        Metric and true depth, m; NaN is unknown.
    reference : FrameReference
        Its `base_from_camera` defines the floor plane and the true camera height.

    Returns
    -------
    float
        abs(median implied height / true height - 1) over the floor pixels, whose true position is
        within `FLOOR_TOLERANCE_M` of the plane z = 0 of the robot's base; NaN if there are none,
        or if the pose of the camera on the robot is unknown.
    """
    if reference.base_from_camera is None:
        return math.nan
    # Descent of each pixel's ray per metre of Z, [H, W].
    K, down = reference.K, -reference.base_from_camera[2, :3]
    rows, columns = np.mgrid[:depth_m.shape[0], :depth_m.shape[1]]
    fall = ((columns - K[0, 2]) / K[0, 0] * down[0] + (rows - K[1, 2]) / K[1, 1] * down[1]
            + down[2])
    height_m = reference.base_from_camera[2, 3]
    with np.errstate(invalid='ignore'):
        floor = (np.abs(target_m * fall - height_m) < FLOOR_TOLERANCE_M) & np.isfinite(depth_m)
    if not floor.any():
        return math.nan
    return float(abs(np.median((depth_m * fall)[floor]) / height_m - 1))


def recovery_time_s(frames: Sequence[MetricFrameResult], first_after_outage: int,
                    expected_m: Sequence[float]) -> float:
    """
    Compute the time that the scale needs to recover after an outage of the reference.

    Parameters
    ----------
    frames : sequence of MetricFrameResult
    first_after_outage : int
        Number of the first frame after the outage.
    expected_m : sequence of float
        Expected mid depth of each frame, m: that of the frame's own fit, or of a run without the
        outage.

    Returns
    -------
    float
        Time from that frame until the mid depth is within `RECOVERY_TOLERANCE` of the expected
        one, s; NaN if it never is.
    """
    for frame, expected in zip(frames[first_after_outage:], expected_m[first_after_outage:]):
        if abs(frame.mid_depth_m / expected - 1) < RECOVERY_TOLERANCE:
            return (frame.stamp_ns - frames[first_after_outage].stamp_ns) * 1e-9
    return math.nan


def _mid_depth_m(fit: MetricScale | ScaleFit) -> float:
    """Return the metric depth of relative depth 0.5, not corrected locally, m."""
    return fit.scale / 2 + fit.shift


def _correct(scale: MetricScale, affine_invariant_depth: FloatImage) -> FloatImage:
    depth_m = scale.to_metric_depth(affine_invariant_depth)
    return depth_m if scale.field is None else scale.field.correct(depth_m)


def _resize_truth(image: NDArray[Any], depth_m: FloatImage) -> FloatImage:
    """Resize true depth to the image's size; nearest neighbour mixes no depths and no NaN."""
    if depth_m.shape == image.shape[:2]:
        return depth_m
    return np.asarray(cv2.resize(depth_m, image.shape[1::-1], interpolation=cv2.INTER_NEAREST),
                      np.float32)
