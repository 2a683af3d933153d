"""What the report of an evaluation shows of the frames of the primary policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from marigold_ros.evaluation.metrics.metric_depth import COMPARED_RANGE
from marigold_ros.evaluation.metrics.protocol_a import relative_error
from marigold_ros.evaluation.metrics.protocols import abs_rel_label
from marigold_ros.evaluation.report.look import describe_depth, StripFrame

if TYPE_CHECKING:
    from marigold_ros.depth.types import AdaptivePrediction, FloatImage
    from marigold_ros.evaluation.metrics.metric_depth import MetricDepthEvaluator
    from marigold_ros.evaluation.policies.replay import RecordedFrame, Replay, ReplayedFrame
    from marigold_ros.evaluation.report.look import RecordingLook


def add_replay(look: RecordingLook, replay: Replay) -> None:
    """Show a frame without metres, with the error of its depth after alignment."""
    recorded, prediction, scored = replay.recorded, replay.prediction, replay.scored
    if prediction is None or scored is None or not _is_shown(look, recorded):
        return
    error, aligned, abs_rel = None, scored.aligned, {}
    if aligned is not None:
        error = relative_error(aligned.depth_m.astype(np.float32), aligned.target_m)
        abs_rel = {abs_rel_label(aligned.protocol, aligned.compared_range):
                   f'{scored.errors["abs_rel"]:.3f}'}
    look.add(_strip_frame(recorded, prediction, error, abs_rel))


def add_metric(look: RecordingLook, recorded: RecordedFrame, prediction: AdaptivePrediction,
               evaluator: MetricDepthEvaluator) -> None:
    """Show the frame that was evaluated last, with its metric depth where that is known."""
    if not _is_shown(look, recorded):
        return
    published = evaluator.published
    error = depth_m = points = None
    abs_rel = evaluator.frames[-1].values.get('abs_rel', np.nan)
    if published is not None:
        depth_m, target_m, points = published
        error = relative_error(depth_m, target_m)
    look.add(_strip_frame(recorded, prediction, error, {
        abs_rel_label('metric', COMPARED_RANGE): f'{abs_rel:.3f}'}, depth_m, points))


def add_stream(look: RecordingLook, frames: Sequence[ReplayedFrame], cap_s: float | None) -> None:
    """Add what happened to the frames when they arrived at the times of their stamps."""
    cap = 'no cap' if cap_s is None else f'cap {1e3 * cap_s:.0f} ms'
    outcomes = {each.frame.number: each for each in frames}

    def describe(number: int) -> dict[str, str]:
        replayed = outcomes[number]
        if replayed.outcome != 'processed':
            return {'in the stream': replayed.outcome}
        return {'in the stream': f'T = {replayed.num_inference_steps}, '
                                 f'age {1e3 * replayed.age_s:.0f} ms, '
                                 f'latency {1e3 * replayed.latency_s:.0f} ms, {cap}'}

    look.add_facts(describe)


def _is_shown(look: RecordingLook, recorded: RecordedFrame) -> bool:
    return look.wants(recorded.evaluated.number) and not recorded.frame.is_lead_in


def _strip_frame(recorded: RecordedFrame, prediction: AdaptivePrediction,
                 error: FloatImage | None, abs_rel: Mapping[str, str],
                 depth_m: FloatImage | None = None, points: FloatImage | None = None
                 ) -> StripFrame:
    frame, steps = recorded.frame, prediction.num_inference_steps
    stride = 1 if points is None else round(frame.rgb.shape[1] / points.shape[1])
    return StripFrame(
        recorded.evaluated.number, frame.stamp_ns, frame.rgb, prediction.known_depth, depth_m,
        error, points, frame.rgb[::stride, ::stride], steps, {
            'depth': describe_depth(steps, prediction.decision.carried_s,
                                    prediction.covered_share),
            **abs_rel,
            'reason': prediction.decision.reason})
