"""Summarize a recording of depth_node: frames, steps, latency and depth error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any, TYPE_CHECKING

import numpy as np

from marigold_ros.data.bags.messages import image_fields, read_stamp_ns
from marigold_ros.data.bags.reader import Bag
from marigold_ros.data.bags.stamp_matching import match_by_stamp
from marigold_ros.data.frames import evenly_spaced_indices
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.evaluation.analysis import PERCENTILES
from marigold_ros.evaluation.metrics.costmap import LayerConfig
from marigold_ros.evaluation.metrics.metric_depth import COMPARED_RANGE, FILTER
from marigold_ros.evaluation.metrics.protocol_a import depth_metrics, vertical_ramp
from marigold_ros.evaluation.metrics.protocols import abs_rel_label, describe_protocol
from marigold_ros.evaluation.report.contact_sheet import draw_contact_sheet, SheetFrame
from marigold_ros.evaluation.report.costmap_picture import draw_costmaps, open_poses
from marigold_ros.messages.depth import unpack_depth
from marigold_ros.messages.image import decode_rgb, DEPTH_FORMATS, read_pixels
from marigold_ros.progress import progress_bar

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage

NODE = 'depth_node'
CAMERA = 'camera'
GROUND_TRUTH = 'depth_gt/image_rect'
SHEET_FRAMES = 7


@dataclass(frozen=True)
class FrameStatus:
    """
    Status of one frame, from ~/status.

    Attributes
    ----------
    stamp_ns : int
        Stamp of the input image.
    processed : bool
        Whether depth was published.
    reason : str
        Why the frame was dropped; '' if it was processed.
    complexity, latency_ms : float
        C, and the time from receipt to publication; NaN if the frame was dropped.
    num_inference_steps : int
        T; 0 if the frame was dropped.
    values : mapping of str to str
        All values of the status, by key.
    """

    stamp_ns: int
    processed: bool
    reason: str
    complexity: float
    latency_ms: float
    num_inference_steps: int
    values: Mapping[str, str]


@dataclass(frozen=True)
class FrameError:
    """
    AbsRel of one frame, in the range of depth that the node publishes by default.

    Attributes
    ----------
    stamp_ns : int
    abs_rel, ramp_abs_rel : float
        By protocol A: of relative depth, and of a vertical ramp on that frame.
    metric_abs_rel : float
        Of metric depth, without alignment; NaN if there is none.
    """

    stamp_ns: int
    abs_rel: float
    ramp_abs_rel: float
    metric_abs_rel: float


@dataclass(frozen=True)
class RecordingSummary:
    """
    Summary of one camera in a recording.

    Attributes
    ----------
    camera : str
    message_counts : mapping of str to int
        Number of messages by topic, for all recorded topics.
    frames : tuple of FrameStatus
        All frames that reached the node, in the order in which they were processed or dropped.
    errors : tuple of FrameError
        Of the processed frames with ground truth.
    latency_cap_ms : float or None
        From /diagnostics.
    last_problem : str
        Last error or warning that the node published in /diagnostics; '' if none.
    """

    camera: str
    message_counts: Mapping[str, int]
    frames: tuple[FrameStatus, ...]
    errors: tuple[FrameError, ...]
    latency_cap_ms: float | None
    last_problem: str

    @property
    def processed(self) -> tuple[FrameStatus, ...]:
        """Return the frames whose depth was published."""
        return tuple(frame for frame in self.frames if frame.processed)

    @property
    def dropped(self) -> Counter[str]:
        """Return the number of dropped frames by reason."""
        return Counter(frame.reason for frame in self.frames if not frame.processed)


def summarize_recording(bag: Bag, camera: str = CAMERA) -> RecordingSummary:
    """
    Summarize one camera of a recording.

    Parameters
    ----------
    bag : Bag
        Contains the node's topics and, for the depth error, true depth with the image stamps on
        `GROUND_TRUTH`.
    camera : str
        Name of the camera, as in the node's parameter `cameras`.

    Returns
    -------
    RecordingSummary
    """
    counts: Counter[str] = Counter()
    for topic in bag.topics:
        counts[topic.name] += topic.message_count
    cap_ms, last_problem = _read_diagnostics(bag, camera, counts)
    return RecordingSummary(
        camera=camera, message_counts=counts, frames=_read_statuses(bag, camera, counts),
        errors=_depth_errors(bag, camera, counts), latency_cap_ms=cap_ms,
        last_problem=last_problem)


def empty_topics(summary: RecordingSummary, expected: Collection[str]) -> dict[str, str]:
    """
    Find the expected topics without messages, and explain why they are empty.

    Returns
    -------
    dict of str to str
        Reason by topic.
    """
    if not summary.frames:
        reason = 'no frame reached the node'
    elif not summary.processed:
        reason = f'every frame was dropped ({_format_counts(summary.dropped)})'
    else:
        reason = 'frames were processed, but nothing was published on this topic'
    if summary.last_problem:
        reason += f'; the node reports: {summary.last_problem}'
    return {topic: reason for topic in expected if not summary.message_counts.get(topic)}


def format_summary(summary: RecordingSummary) -> str:
    """
    Format a summary as text: several lines, without a newline at the end.

    See `describe_recording`.
    """
    return '\n'.join(f'  {name:<10} {text}'
                     for name, text in describe_recording(summary).items())


def describe_recording(summary: RecordingSummary) -> dict[str, str]:
    """Describe frames, steps, latency and depth error, by title."""
    processed = summary.processed
    sent = summary.message_counts.get(f'/{summary.camera}/image_raw')
    rows = {
        'frames in': f'{len(summary.frames)}' + (f' of {sent} sent' if sent else ''),
        'processed': f'{len(processed)}',
        'dropped': f'{sum(summary.dropped.values())}'
                   + (f' ({_format_counts(summary.dropped)})' if summary.dropped else '')}
    if processed:
        steps = Counter(frame.num_inference_steps for frame in processed)
        rows['steps'] = ', '.join(f'T={count}: {steps[count]} frames' for count in sorted(steps))
        if steps[0]:
            rows['steps'] += f'; {steps[0] / len(processed):.0%} of the runs saved'
        rows['latency'] = _format_latency(summary)
    if summary.errors:
        rows['AbsRel'] = (
            f'{np.mean([error.abs_rel for error in summary.errors]):.3f} by '
            f'{describe_protocol("A", COMPARED_RANGE)}, mean of {len(summary.errors)} frames; '
            'baseline (vertical ramp): '
            f'{np.mean([error.ramp_abs_rel for error in summary.errors]):.3f}')
        metric = [error.metric_abs_rel for error in summary.errors
                  if not np.isnan(error.metric_abs_rel)]
        if metric:
            rows['in metres'] = (f'{abs_rel_label("metric", COMPARED_RANGE)} '
                                 f'{np.mean(metric):.3f}, mean of {len(metric)} frames')
    elif processed:
        rows['AbsRel'] = 'unknown: no ground truth has the stamp of a processed frame'
    return rows


def save_contact_sheet(bag: Bag, summary: RecordingSummary, path: Path, *,
                       drive: Path | None = None, layer: LayerConfig | None = None) -> None:
    """
    Draw frames of the recording: image, depth, ground truth and costmap if there are any.

    Parameters
    ----------
    bag : Bag
    summary : RecordingSummary
        Of the same bag.
    path : Path
        PNG to write.
    drive : Path or None
        Bag with the poses of the camera; None: the recording.
    layer : LayerConfig or None
        Of the costmap; None: it is not drawn.

    Raises
    ------
    MarigoldError
        If no processed frame was recorded with its image and depth.
    """
    camera = f'/{summary.camera}'
    errors = {error.stamp_ns: error for error in summary.errors}
    statuses = {frame.stamp_ns: frame for frame in summary.processed
                if not errors or frame.stamp_ns in errors}
    stamps = sorted(statuses)
    chosen = [stamps[index] for index in evenly_spaced_indices(len(stamps), SHEET_FRAMES)]
    topics = [f'{camera}/rgb/image_rect', f'{camera}/depth_relative/image']
    topics += [topic for topic in (f'{camera}/{GROUND_TRUTH}' if errors else '',
                                   f'{camera}/depth/image_rect')
               if summary.message_counts.get(topic)]
    recorded = all(summary.message_counts.get(topic) for topic in topics)
    costmaps = {} if layer is None else draw_costmaps(
        bag, f'{camera}/points', open_poses(bag.path if drive is None else drive), layer,
        frozenset(chosen))
    frames = []
    for stamp, messages in (match_by_stamp(bag, topics, stamps_ns=frozenset(chosen))
                            if recorded else ()):
        images = dict(zip(topics, messages))
        target = images.get(f'{camera}/{GROUND_TRUTH}')
        metric = images.get(f'{camera}/depth/image_rect')
        error = errors.get(stamp)
        frames.append(SheetFrame(
            (stamp - chosen[0]) * 1e-9, decode_rgb(image_fields(messages[0])),
            np.clip(read_relative_depth(messages[1]), 0.0, 1.0),
            None if metric is None else unpack_depth(image_fields(metric)),
            None if target is None else unpack_depth(image_fields(target)),
            costmaps.get(stamp), statuses[stamp].complexity, statuses[stamp].num_inference_steps,
            '' if error is None or np.isnan(error.metric_abs_rel)
            else f'AbsRel {error.metric_abs_rel:.3f}'))
    if not frames:
        raise MarigoldError(f'no frame to draw in {bag.path}: it needs {" and ".join(topics)} '
                            'with the same stamp')
    draw_contact_sheet(frames, path)


def _read_statuses(bag: Bag, camera: str, counts: Mapping[str, int]) -> tuple[FrameStatus, ...]:
    topic = f'/{NODE}/status'
    frames = []
    for message in bag.messages([topic]) if topic in counts else ():
        array = bag.decode(message)
        for status in array.status:
            values = {item.key: item.value for item in status.values}
            if values.get('camera') == camera:
                frames.append(FrameStatus(
                    stamp_ns=read_stamp_ns(array), processed=values['outcome'] == 'processed',
                    reason=values['reason'],
                    complexity=float(values.get('complexity', 'nan')),
                    latency_ms=float(values.get('latency_ms', 'nan')),
                    num_inference_steps=int(values.get('num_inference_steps', 0)),
                    values=values))
    return tuple(frames)


def _read_diagnostics(bag: Bag, camera: str,
                      counts: Mapping[str, int]) -> tuple[float | None, str]:
    """Read the latency cap and the last problems of node and camera from /diagnostics."""
    cap_ms, problems = None, {}
    for message in bag.messages(['/diagnostics']) if '/diagnostics' in counts else ():
        for status in bag.decode(message).status:
            values = {item.key: item.value for item in status.values}
            if status.name == NODE:
                cap = values.get('latency_cap_ms', 'None')
                cap_ms = None if cap == 'None' else float(cap)
                problems[NODE] = '' if status.message == 'active' else status.message
            if status.name == NODE or values.get('camera') == camera:
                problems.update({key: text for key, text in values.items()
                                 if key.startswith('last_')})
    # The same text may occur under several keys.
    return cap_ms, '; '.join(dict.fromkeys(text for text in problems.values() if text))


def _depth_errors(bag: Bag, camera: str, counts: Mapping[str, int]) -> tuple[FrameError, ...]:
    topics = [f'/{camera}/depth_relative/image', f'/{camera}/{GROUND_TRUTH}']
    if not all(counts.get(topic) for topic in topics):
        return ()
    metric = {}
    if counts.get(f'/{camera}/depth/image_rect'):
        metric = {stamp: messages[1] for stamp, messages in match_by_stamp(
            bag, [topics[1], f'/{camera}/depth/image_rect'])}
    errors = []
    for stamp, (prediction, truth) in progress_bar(
            match_by_stamp(bag, topics), 'depth errors', counts[topics[0]], unit='frame'):
        target_m = unpack_depth(image_fields(truth))
        depth = read_relative_depth(prediction)
        valid = np.isfinite(target_m) & np.isfinite(depth)
        abs_rel, ramp_abs_rel = (
            depth_metrics(candidate, target_m, valid, alignment='least_square',
                          min_depth_m=FILTER.min_depth_m,
                          max_depth_m=FILTER.max_depth_m)['abs_rel']
            for candidate in (depth, vertical_ramp(*target_m.shape)))
        errors.append(FrameError(stamp, abs_rel, ramp_abs_rel, _metric_abs_rel(
            metric.get(stamp), target_m)))
    return tuple(errors)


def _metric_abs_rel(message: Any | None, target_m: FloatImage) -> float:
    """Return the AbsRel of metric depth without alignment; NaN if there is none."""
    if message is None:
        return math.nan
    depth_m = unpack_depth(image_fields(message))
    valid = np.isfinite(target_m) & ~np.isnan(depth_m)
    if not valid.any():
        return math.nan
    low_m, high_m = FILTER.min_depth_m, FILTER.max_depth_m
    return float(depth_metrics(np.clip(depth_m, low_m, high_m), target_m, valid, alignment=None,
                               min_depth_m=low_m, max_depth_m=high_m)['abs_rel'])


def read_relative_depth(message: Any) -> FloatImage:
    """Read relative depth, in which 0 is the nearest pixel and not an invalid one."""
    return read_pixels(image_fields(message), DEPTH_FORMATS)


def _format_latency(summary: RecordingSummary) -> str:
    latency_ms = np.array([frame.latency_ms for frame in summary.processed])
    percentiles = ', '.join(f'p{rank} {value:.0f} ms' for rank, value in zip(
        PERCENTILES, np.percentile(latency_ms, PERCENTILES)))
    if summary.latency_cap_ms is None:
        return f'{percentiles}; no cap'
    over_cap = int((latency_ms > summary.latency_cap_ms).sum())
    return f'{percentiles}; cap {summary.latency_cap_ms:.0f} ms, exceeded by {over_cap} frames'


def _format_counts(reasons: Counter[str]) -> str:
    return ', '.join(f'{reason} {count}' for reason, count in reasons.most_common())
