"""
Compare a prediction with the truth of a frame, by a protocol and range that its result names.

Protocol A is that of prs-eth/Marigold (see `protocol_a`): scale and shift by least squares in
depth, or in disparity.  Protocol B is that of Marigold V2 (see `protocol_b`): scale and shift by
RANSAC in log depth, pixels on edges left out.  Their numbers cannot be compared, nor can those of
two ranges: mixing them is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.datasets.data_set import Rules
from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.metrics.edges import boundary_f1, edge_errors
from marigold_ros.evaluation.metrics.protocol_a import align, Alignment, error_metrics
from marigold_ros.evaluation.metrics.protocol_b import align_in_log, compared_pixels, nearest_size

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame

Protocol = Literal['A', 'A-disparity', 'B', 'metric']
LABELS: dict[Protocol, str] = {
    'A': 'protocol A (least squares in depth)',
    'A-disparity': 'protocol A (least squares in disparity)',
    'B': 'protocol B (RANSAC in log depth, edges masked)',
    'metric': 'metric (no alignment)'}
ALIGNMENTS: dict[Protocol, Alignment | None] = {
    'A': 'least_square', 'A-disparity': 'least_square_disparity', 'metric': None}


def depth_range(protocol: Protocol, rules: Rules) -> str:
    """Say which depths a protocol compares: '0.1 to 10 m'; '80+ m' is the farthest if farther."""
    if protocol == 'B':
        low_m, high_m, plus = rules.b_min_depth_m, rules.b_max_depth_m, ''
    else:
        low_m, high_m = rules.min_depth_m, rules.max_depth_m
        plus = '+' if rules.reaches_farthest else ''
    low = np.format_float_positional(low_m, trim='-')
    if np.isinf(high_m):
        return f'above {low} m'
    return f'{low} to {np.format_float_positional(high_m, trim="-")}{plus} m'


def describe_protocol(protocol: Protocol, compared_range: str) -> str:
    """Say for a caption what numbers were made by: protocol and range."""
    return f'{LABELS[protocol]}, {compared_range}'


def abs_rel_name(protocol: Protocol, compared_range: str) -> str:
    """Name AbsRel where space is short: 'AbsRel (A, 0.1 to 10 m)'."""
    return f'AbsRel ({protocol}, {compared_range})'


@dataclass(frozen=True, eq=False)
class Aligned:
    """
    A prediction in metres beside the truth.

    Attributes
    ----------
    protocol : str
        Key of `LABELS`.
    compared_range : str
        See `depth_range`.
    depth_m, target_m : float64, float32 [H, W]
        Prediction and truth, m; NaN in the truth is unknown, +inf sky.
    compared : bool [H, W]
        Pixels that the protocol compares.
    scale, shift : float
        Of the fit, in its own space; 1 and 0 without one.
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
    Numbers of one frame or the mean of many, and the protocol that they were made by.

    Attributes
    ----------
    protocol : str
        Key of `LABELS`.
    compared_range : str
        See `depth_range`.
    values : dict of str to float
        All of `protocol_a.error_metrics`; boundary_f1; edge_accuracy_px and edge_completeness_px;
        NaN where the truth cannot tell.
    """

    protocol: Protocol
    compared_range: str
    values: dict[str, float]

    @property
    def label(self) -> str:
        """Say what every table and plot of these numbers says."""
        return describe_protocol(self.protocol, self.compared_range)

    def __getitem__(self, metric: str) -> float:
        """Return one number."""
        return self.values[metric]


def score(prediction: NDArray[Any], frame: DepthFrame, rules: Rules = Rules(),
          protocol: Protocol = 'A') -> Scores:
    """
    Compare one prediction with the truth, at the truth's size.

    Parameters
    ----------
    prediction : float [H, W]
        Affine-invariant depth ('A', 'B'), affine-invariant disparity ('A-disparity'), or depth in
        metres ('metric'); averaged by area where the truth is smaller, bilinear where larger.
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
        If nothing is left to compare, or the prediction is not finite there.
    """
    return score_aligned(align_frame(prediction, frame, rules, protocol))


def align_frame(prediction: NDArray[Any], frame: DepthFrame, rules: Rules = Rules(),
                protocol: Protocol = 'A', *,
                fit: tuple[float, float] | None = None) -> Aligned:
    """
    Bring a prediction into metres.

    Parameters
    ----------
    prediction, frame, rules, protocol
        See `score`.
    fit : (float, float) or None
        Scale and shift of another frame; None fits them to this one.

    Raises
    ------
    InputError
        As `score` does.
    """
    if protocol not in LABELS:
        raise InputError(f'`protocol` must be one of {", ".join(LABELS)}; got {protocol!r}')
    target_m, compared = frame.known_depth_m, frame.measured
    if protocol == 'B':
        target_m, compared = compared_pixels(frame, rules)
    if not compared.any():
        raise InputError(f'{frame.name}: the truth must have a valid pixel for '
                         f'{LABELS[protocol]}; got none')
    size = rules.b_size if protocol == 'B' else None
    depth = _at_size_of(target_m, prediction, nearest=size is not None)
    if not np.isfinite(depth[compared]).all():
        raise InputError(f'{frame.name}: `prediction` must be finite wherever the truth is valid')
    if protocol == 'B':
        depth_m, scale, shift = align_in_log(depth, target_m, compared, fit)
    else:
        low_m, high_m = rules.clip_range_m(frame)
        depth_m, scale, shift = align(
            depth, target_m, compared & _fitted_columns(compared.shape, rules.alignment_max_res),
            alignment=ALIGNMENTS[protocol], min_depth_m=low_m, max_depth_m=high_m, fit=fit)
    return Aligned(protocol, depth_range(protocol, rules), depth_m, target_m, compared, scale,
                   shift)


def score_aligned(aligned: Aligned) -> Scores:
    """Compute every number of one frame."""
    depth_m, target_m, compared = aligned.depth_m, aligned.target_m, aligned.compared
    accuracy_px, completeness_px = edge_errors(depth_m, target_m)
    return Scores(aligned.protocol, aligned.compared_range, {
        **error_metrics(depth_m[compared], target_m[compared]),
        'boundary_f1': boundary_f1(depth_m, target_m),
        'edge_accuracy_px': accuracy_px, 'edge_completeness_px': completeness_px})


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """
    Average frames; a metric's frames without a value do not count.

    Raises
    ------
    InputError
        If there are none, or not all are by one protocol and range.
    """
    labels = sorted({each.label for each in scores})
    if len(labels) != 1:
        raise InputError('`scores` must all be by one protocol and range, for their numbers '
                         f'cannot be compared; got {"; ".join(labels) or "none"}')
    columns = {metric: np.array([each[metric] for each in scores]) for metric in scores[0].values}
    return Scores(scores[0].protocol, scores[0].compared_range, {
        metric: float(np.mean(column[np.isfinite(column)])) if np.isfinite(column).any()
        else float('nan') for metric, column in columns.items()})


def _at_size_of(target_m: NDArray[Any], prediction: NDArray[Any], *,
                nearest: bool) -> NDArray[np.float64]:
    height, width = target_m.shape
    if prediction.shape == target_m.shape:
        return prediction.astype(np.float64)
    if nearest:
        return nearest_size(prediction, (height, width)).astype(np.float64)
    shrinks = height < prediction.shape[0]
    return np.asarray(cv2.resize(prediction.astype(np.float64), (width, height),
                                 interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def _fitted_columns(shape: tuple[int, ...], max_res: int | None) -> NDArray[np.bool_]:
    """
    Tell which pixels a fit at a lower resolution sees, [H, W].

    As published, only columns are thinned out: `torch.nn.Upsample` takes [1, H, W] for a batch of
    signals of length W.
    """
    width = shape[1]
    factor = 1.0 if max_res is None else float(np.min(max_res / np.array(shape)))
    seen = np.zeros(shape, bool)
    if factor >= 1:
        return ~seen
    count = int(np.floor(width * factor))
    seen[:, (np.arange(count, dtype=np.float32) * np.float32(1 / factor)).astype(int)] = True
    return seen
