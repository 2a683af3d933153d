"""
Score a prediction against the truth of a frame by one of several evaluation protocols.

Protocol A is that of prs-eth/Marigold (see `protocol_a`): scale and shift by least squares in
depth, or in disparity.  Protocol B is that of Marigold V2 (see `protocol_b`): scale and shift by
RANSAC in log depth, pixels at edges excluded.  Numbers of different protocols or depth ranges
cannot be compared: every result names both, and averaging across them is an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.datasets.data_set import Rules
from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.metrics.edges import TrueBoundaries, TrueEdges
from marigold_ros.evaluation.metrics.protocol_a import align, Alignment, error_metrics
from marigold_ros.evaluation.metrics.protocol_b import (
    align_log_depth,
    resize_nearest,
    select_compared_pixels,
)

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame
    from marigold_ros.depth.types import FloatImage, Mask

Protocol = Literal['A', 'A-disparity', 'B', 'metric']
DELTA1 = 1.25
EDGE_SCORES = ('boundary_f1', 'edge_accuracy_px', 'edge_completeness_px')
LABELS: dict[Protocol, str] = {
    'A': 'protocol A (least squares in depth)',
    'A-disparity': 'protocol A (least squares in disparity)',
    'B': 'protocol B (RANSAC in log depth, edges masked)',
    'metric': 'metric (no alignment)'}
ALIGNMENTS: dict[Protocol, Alignment | None] = {
    'A': 'least_square', 'A-disparity': 'least_square_disparity', 'metric': None}


def format_depth_range(protocol: Protocol, rules: Rules) -> str:
    """
    Format the depth range that a protocol compares, such as '0.1 to 10 m'.

    '80+ m' means: up to 80 m, or up to the farthest measurement of a frame if that is farther.
    """
    if protocol == 'B':
        low_m, high_m, plus = rules.b_min_depth_m, rules.b_max_depth_m, ''
    else:
        low_m, high_m = rules.min_depth_m, rules.max_depth_m
        plus = '+' if rules.extend_to_farthest else ''
    low = np.format_float_positional(low_m, trim='-')
    if np.isinf(high_m):
        return f'above {low} m'
    return f'{low} to {np.format_float_positional(high_m, trim="-")}{plus} m'


def describe_protocol(protocol: Protocol, compared_range: str) -> str:
    """Format protocol and depth range for captions."""
    return f'{LABELS[protocol]}, {compared_range}'


def abs_rel_label(protocol: Protocol, compared_range: str) -> str:
    """Format the label of AbsRel for tables and plots, such as 'AbsRel (A, 0.1 to 10 m)'."""
    return f'AbsRel ({protocol}, {compared_range})'


@dataclass(frozen=True, eq=False)
class Aligned:
    """
    A prediction aligned with the truth of its frame.

    Attributes
    ----------
    protocol : str
        Key of `LABELS`.
    compared_range : str
        See `format_depth_range`.
    depth_m, target_m : float64, float32 [H, W]
        Prediction and truth, m; in the truth NaN is unknown and +inf is sky.
    compared : bool [H, W]
        Pixels that the protocol compares.
    scale, shift : float
        Of the fit, in depth, disparity or log depth; 1 and 0 without a fit.
    """

    protocol: Protocol
    compared_range: str
    depth_m: NDArray[np.float64]
    target_m: NDArray[np.float32]
    compared: NDArray[np.bool_]
    scale: float
    shift: float


@dataclass(frozen=True)
class Scores:
    """
    Scores of one frame, or their mean over several frames, and the protocol.

    Attributes
    ----------
    protocol : str
        Key of `LABELS`.
    compared_range : str
        See `format_depth_range`.
    values : dict of str to float
        All of `protocol_a.error_metrics` and `EDGE_SCORES`; NaN where the truth does not define
        them.
    """

    protocol: Protocol
    compared_range: str
    values: dict[str, float]

    @property
    def label(self) -> str:
        """Return protocol and depth range, as shown in tables and plots."""
        return describe_protocol(self.protocol, self.compared_range)

    def __getitem__(self, metric: str) -> float:
        """Return the value of a metric."""
        return self.values[metric]


def score(prediction: NDArray[Any], frame: DepthFrame, rules: Rules = Rules(),
          protocol: Protocol = 'A') -> Scores:
    """
    Compute all scores of one prediction, at the size of the truth.

    Parameters
    ----------
    prediction : float [H, W]
        Relative depth ('A', 'B'), relative disparity ('A-disparity'), or metric depth, m
        ('metric'); downscaled by area averaging or upscaled bilinearly to the truth's size.
    frame : DepthFrame
    rules : Rules
        Of the frame's data set.
    protocol : {'A', 'A-disparity', 'B', 'metric'}

    Returns
    -------
    Scores

    Raises
    ------
    InputError
        If no pixel can be compared, or the prediction is not finite at a compared pixel.
    """
    truth = FrameTruth(frame, rules, protocol)
    aligned = truth.align(prediction)
    return Scores(protocol, aligned.compared_range, truth.errors(aligned)
                  | truth.boundary_f1(aligned) | truth.edge_errors(aligned))


class FrameTruth:
    """
    The truth of a frame, with which several predictions are compared.

    Parameters
    ----------
    frame, rules, protocol
        See `score`.

    Attributes
    ----------
    frame : DepthFrame
    target_m : float32 [H, W]
        Truth, m; NaN is unknown and +inf is sky.
    compared : bool [H, W]
        Pixels that the protocol compares.

    Raises
    ------
    InputError
        If the protocol is unknown.
    """

    def __init__(self, frame: DepthFrame, rules: Rules, protocol: Protocol) -> None:
        """Select the pixels to compare."""
        if protocol not in LABELS:
            raise InputError(f'`protocol` must be one of {", ".join(LABELS)}; got {protocol!r}')
        self.frame, self._rules, self._protocol = frame, rules, protocol
        self.target_m, self.compared = (
            select_compared_pixels(frame, rules) if protocol == 'B'
            else (frame.known_depth_m, frame.measured))

    @cached_property
    def _targets_m(self) -> NDArray[np.float32]:
        return self.target_m[self.compared]

    @cached_property
    def _boundaries(self) -> TrueBoundaries:
        return TrueBoundaries(self.target_m)

    @cached_property
    def _edges(self) -> TrueEdges:
        return TrueEdges(self.target_m)

    def align(self, prediction: NDArray[Any], fit: tuple[float, float] | None = None) -> Aligned:
        """
        Align a prediction with the truth.

        Parameters
        ----------
        prediction : float [H, W]
            See `score`.
        fit : (float, float) or None
            Scale and shift of another frame, applied as they are; None fits them to this frame.

        Raises
        ------
        InputError
            As `score` does.
        """
        name, protocol, rules = self.frame.name, self._protocol, self._rules
        target_m, compared = self.target_m, self.compared
        if not compared.any():
            raise InputError(f'{name}: the truth must have a valid pixel for {LABELS[protocol]}; '
                             'got none')
        depth = _resize_to_truth(target_m, prediction,
                                 nearest=protocol == 'B' and rules.b_size is not None)
        if not (np.isfinite(depth) | ~compared).all():
            raise InputError(f'{name}: `prediction` must be finite wherever the truth is valid')
        if protocol == 'B':
            depth_m, scale, shift = align_log_depth(depth, target_m, compared, fit)
        else:
            low_m, high_m = rules.clip_range_m(self.frame)
            depth_m, scale, shift = align(
                depth, target_m,
                compared & _sampled_columns(compared.shape, rules.alignment_max_res),
                alignment=ALIGNMENTS[protocol], min_depth_m=low_m, max_depth_m=high_m, fit=fit)
        return Aligned(protocol, format_depth_range(protocol, rules), depth_m, target_m, compared,
                       scale, shift)

    def errors(self, aligned: Aligned) -> dict[str, float]:
        """Compute `protocol_a.error_metrics` of an aligned prediction."""
        return error_metrics(aligned.depth_m[self.compared], self._targets_m)

    def boundary_f1(self, aligned: Aligned) -> dict[str, float]:
        """Compute the first of `EDGE_SCORES`, see `TrueBoundaries`, of an aligned prediction."""
        return {EDGE_SCORES[0]: self._boundaries.compute_f1(aligned.depth_m)}

    def edge_errors(self, aligned: Aligned) -> dict[str, float]:
        """Compute the others, see `TrueEdges`."""
        return dict(zip(EDGE_SCORES[1:], self._edges.compute_errors(aligned.depth_m)))


class ScoredDepth:
    """
    Scores of a depth by a frame's truth, each computed when it is first asked for.

    Parameters
    ----------
    truth : FrameTruth
    depth : float32 [H, W]
        See `score`.
    covered : bool [H, W] or None
        What of it is published; None is all.

    Attributes
    ----------
    truth, depth
        As given.
    aligned : Aligned or None
        None if the protocol has no pixel to compare.
    """

    def __init__(self, truth: FrameTruth, depth: FloatImage, covered: Mask | None = None) -> None:
        """Align the depth with the truth."""
        self.truth, self.depth, self._covered = truth, depth, covered
        self.aligned = truth.align(depth) if truth.compared.any() else None

    @cached_property
    def errors(self) -> dict[str, float]:
        """
        Return the errors of pixels, by name; empty without `aligned`.

        Those of `protocol_a.error_metrics`; and `published_delta1`, delta1 where pixels without
        published depth count as wrong.
        """
        if self.aligned is None:
            return {}
        errors = self.truth.errors(self.aligned)
        return errors | {'published_delta1': errors['delta1'] if self._covered is None
                         else _published_delta1(self.aligned, self._covered)}

    @cached_property
    def errors_and_f1(self) -> dict[str, float]:
        """Return `errors` and boundary_f1; empty without `aligned`."""
        if self.aligned is None:
            return {}
        return self.errors | self.truth.boundary_f1(self.aligned)

    @cached_property
    def quality(self) -> dict[str, float]:
        """Return `errors` and all `EDGE_SCORES`; empty without `aligned`."""
        if self.aligned is None:
            return {}
        return self.errors_and_f1 | self.truth.edge_errors(self.aligned)


class FrameScorer:
    """
    Score depth by the rules of a data set; a frame that cannot be compared has no scores.

    Parameters
    ----------
    rules : Rules
    protocol : str
        Key of `LABELS`.
    """

    def __init__(self, rules: Rules, protocol: Protocol) -> None:
        """Start without a frame."""
        self._rules, self._protocol = rules, protocol
        # Policies on frames that arrive over time are a frame behind.
        self._truths: deque[FrameTruth] = deque(maxlen=2)

    def score(self, depth: FloatImage, frame: DepthFrame,
              covered: Mask | None = None) -> ScoredDepth:
        """Score depth, float32 [H, W], of which only what is covered is published; see `score`."""
        truth = next((each for each in self._truths if each.frame is frame), None)
        if truth is None:
            truth = FrameTruth(frame, self._rules, self._protocol)
            self._truths.append(truth)
        return ScoredDepth(truth, depth, covered)


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """
    Average the scores of frames; a frame without a value for a metric does not count for it.

    Raises
    ------
    InputError
        If there are no scores, or they differ in protocol or depth range.
    """
    labels = sorted({each.label for each in scores})
    if len(labels) != 1:
        raise InputError('`scores` must all have one protocol and depth range; got '
                         f'{"; ".join(labels) or "none"}')
    columns = {metric: np.array([each[metric] for each in scores]) for metric in scores[0].values}
    return Scores(scores[0].protocol, scores[0].compared_range, {
        metric: float(np.mean(column[np.isfinite(column)])) if np.isfinite(column).any()
        else float('nan') for metric, column in columns.items()})


def _published_delta1(aligned: Aligned, covered: Mask) -> float:
    """Return the share of the compared pixels that are covered and within 25 % of the truth."""
    published = (covered if covered.shape == aligned.target_m.shape
                 else resize_nearest(covered, aligned.target_m.shape))
    depth_m, target_m = aligned.depth_m, aligned.target_m
    right = (depth_m < DELTA1 * target_m) & (target_m < DELTA1 * depth_m)
    return float(np.count_nonzero(right & published & aligned.compared)
                 / np.count_nonzero(aligned.compared))


def _resize_to_truth(target_m: NDArray[Any], prediction: NDArray[Any], *,
                     nearest: bool) -> NDArray[np.float64]:
    height, width = target_m.shape
    if prediction.shape == target_m.shape:
        return prediction.astype(np.float64)
    if nearest:
        return resize_nearest(prediction, (height, width)).astype(np.float64)
    shrinks = height < prediction.shape[0]
    return np.asarray(cv2.resize(prediction.astype(np.float64), (width, height),
                                 interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def _sampled_columns(shape: tuple[int, ...], max_res: int | None) -> NDArray[np.bool_]:
    """
    Select the pixels that a fit at a lower resolution uses, [H, W].

    As in the published code, only columns are subsampled: `torch.nn.Upsample` interprets
    [1, H, W] as a batch of signals of length W.
    """
    width = shape[1]
    factor = 1.0 if max_res is None else float(np.min(max_res / np.array(shape)))
    sampled = np.zeros(shape, bool)
    if factor >= 1:
        return ~sampled
    count = int(np.floor(width * factor))
    sampled[:, (np.arange(count, dtype=np.float32) * np.float32(1 / factor)).astype(int)] = True
    return sampled
