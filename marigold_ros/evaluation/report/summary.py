"""
Write the results of an evaluation: `summary.json`, whose keys `SCHEMA` describes, `per_frame.csv`.

`python -m marigold_ros.evaluation.report.summary` prints the keys of `summary.json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import csv
from dataclasses import asdict
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_ros.evaluation.analysis import (
    Analysis,
    metric_column,
    PERCENTILES,
    PolicyResult,
    StreamResult,
)
from marigold_ros.evaluation.metrics.protocols import EDGE_SCORES
from marigold_ros.evaluation.policies.latency import FrameCost, LatencyTable
from marigold_ros.evaluation.policies.replay import OUTCOMES, Quality, ReplayedFrame
from marigold_ros.evaluation.report.example_frames import FramePicture
from marigold_ros.evaluation.report.verdict import make_verdict
from marigold_ros.evaluation.statistics import (
    ABS_REL,
    beats,
    DECISIVE,
    Difference,
    mean_results,
    QUALITY,
)

STAGES = ('complexity', 'carry', 'preprocess', 'encode', 'denoise', 'decode', 'postprocess')
# First columns of per_frame.csv; stages and metrics follow.
FRAME_COLUMNS = ('frame', 'name', 'block', 'stamp_ns', 'policy', 'outcome', 'complexity',
                 'num_inference_steps', 'steps_without_cap', 'covered_share', 'age_ms',
                 'latency_ms', 'reason')
# Its last columns: without latency cap, so that no time of a machine changes them.
UNCAPPED_METRICS = (*DECISIVE, 'metric_abs_rel')

SCHEMA_VERSION = 5
STREAM_SCHEMA = {
    'outcomes.<outcome>': 'int: frames processed, or superseded by a newer frame',
    'latency_p50_ms': 'number or null: from arrival to depth, of the processed frames',
    'latency_p95_ms': 'number or null',
    'latency_p99_ms': 'number or null',
    'latency_max_ms': 'number or null',
    'age_p95_ms': 'number or null: from arrival to the start of processing',
    'over_cap': 'int: processed frames whose latency exceeds the cap',
    'mean_steps': 'number or null: mean T of the processed frames',
    'scored': 'int: processed frames with scores; in a live run there may be no time for some',
    'metrics.<metric>': 'number or null: mean over these frames; without the scores of edges',
}
# `against` compares with a fixed T at its own cost, `against_blind` with what the same time buys
# without a look at the frames: fixed T, or runs on every N-th frame, mixed at random.
DIFFERENCE_SCHEMA = {
    'beats': 'bool: better in AbsRel, published delta1 or boundary F1, worse in none',
    '<metric>.relative': 'number or null: relative difference of the means',
    '<metric>.low': 'number or null: lower end of its 95 % confidence interval',
    '<metric>.high': 'number or null: upper end',
    '<metric>.verdict': 'string: better, worse, no difference, or unknown with fewer than two '
                        'blocks',
}
# Of the costmap that a reference sensor marks itself, alone or with our cloud; only with a scene.
SENSOR_SCHEMA = {
    'recall': 'number or null: as in obstacles, within the range of the sensor',
    'cell_recall': 'number or null',
    'precision': 'number or null',
    'floor_free': 'number or null',
    'distance_m': 'number or null: of our cloud; null alone',
    'found.<obstacle>.found': 'int',
    'found.<obstacle>.visible': 'int',
}
# Of the primary policy and the fastest fixed one.
METRIC_DEPTH_SCHEMA = {
    'frames': 'int: frames evaluated, without latency cap',
    'frames_with_metric_depth': 'int: frames with metric depth',
    'share_with_metric_depth': 'number: share of frames with metric depth',
    'abs_rel': 'number or null: mean over the frames with metric depth, without alignment, over '
               'the published pixels and those that carried depth does not cover, where it is '
               'that of neighbours; depth is clipped to the range',
    'abs_rel_interval[]': 'number or null: lower and upper end, 95 %',
    'rmse': 'number or null: m',
    'delta1': 'number or null',
    'tae': 'number or null: temporal alignment error of the metric depth; needs poses',
    'published_share': 'number or null: share of the measured pixels that is published',
    'floor_error': 'number or null: relative error of the camera height that the floor pixels '
                   'imply; null if TF has no pose of the camera on the robot',
    'jitter': 'number or null: mean relative change, between frames, of the median ratio of '
              'metric depth to the truth',
    'largest_step': 'number or null: the largest of these changes',
    'outages': 'int: gaps between two fits that are longer than scale.hold_s',
    'recovery_s': 'number or null: longest time from the first fit after an outage until the '
                  'scale is within 2 % of that fit; null without outages, or if it never is',
    'states.<state>': 'int: frames by the state of the scale, as in /diagnostics',
    'most_frequent_problem': 'string or null: most frequent problem of the scale',
    'obstacles.frames': 'int: frames with a pose; only with a scene',
    'obstacles.clouds': 'int: of these, frames with metric depth',
    'obstacles.recall': 'number or null: share of the visible obstacles that are marked',
    'obstacles.cell_recall': 'number or null: share of the cells in which visible points of '
                             'obstacles lie that are marked',
    'obstacles.precision': 'number or null: share of the marked cells in an obstacle or wall',
    'obstacles.floor_free': 'number or null: share of the visible floor cells that are free',
    'obstacles.distance_m': 'number or null: mean error of the distance to an obstacle',
    'obstacles.found.<obstacle>.found': 'int: frames in which it is marked',
    'obstacles.found.<obstacle>.visible': 'int: frames in which it is visible',
    **{f'sensors.<source>.{costmap}.{key}': text
       for costmap in ('alone', 'with_cloud') for key, text in SENSOR_SCHEMA.items()},
    'source_states.<source>.<state>': 'int: frames by the state of each scale source, as in '
                                      '~/status',
}
# Every leaf of the file: dots between keys, <...> for names, [] for the items of a list.
SCHEMA = {
    'schema_version': 'int: changes when keys change',
    'complete': 'bool: false after Ctrl-C, or if the input was damaged',
    'notes[]': 'string: what is missing, and why',
    'command': 'string: command line that repeats the evaluation',
    'protocol': 'string: A (least squares in depth) or B (RANSAC in log depth, edges masked)',
    'compared_range': 'string: depths that are compared and clipped to; 80+ m: up to 80 m or '
                      'the farthest measurement of a frame',
    'settings.<name>': 'any: see EvaluationConfig',
    'environment.<name>': 'any: machine, versions, commit',
    'data.name': 'string',
    'data.frames': 'int: frames evaluated',
    'data.frames_offered': 'int or null: upper bound of the frames in the data set',
    'data.frames_without_truth': 'int: evaluated frames without a pixel to compare',
    'data.blocks': 'int: groups of frames that the bootstrap resamples',
    'data.block': 'string: what a block is',
    'data.mean_of_blocks': 'bool: true if means weight blocks equally, false if frames',
    'data.simulated_arrivals': 'bool: true if frames have stamps, which define their arrival',
    'engine.checkpoint': 'string',
    'engine.fastest_policy': 'string: the fixed policy with the fewest steps',
    'engine.slowest_policy': 'string: the fixed policy with Tmax',
    'engine.max_inference_steps': 'int: Tmax',
    'engine.processing_resolution': 'int: px',
    'engine.dtype': 'string',
    'engine.device': 'string',
    'engine.executor': 'string: how the networks are run',
    'timing.wall_s': 'number: of the evaluation without measuring the latency table',
    'timing.engine_s': 'number: time inside the engine',
    'timing.engine_share': 'number: engine_s / wall_s',
    'latency_table.file': 'string: path of the latency table',
    'latency_table.measured_utc': 'string',
    'latency_table.sizes.<size>.samples': 'int: number of measured frames',
    'latency_table.sizes.<size>.<stage>_ms': 'number: median',
    'verdict.policy': 'string: the primary policy, the first of the policies',
    'verdict.sentences[]': 'string: accuracy, latency, time saved, metric depth',
    'verdict.comparisons[]': 'string: each policy against what its time buys blindly',
    'policies.<policy>.mean_steps': 'number: mean T without cap',
    'policies.<policy>.steps.<T>': 'int: frames with this T, without cap; 0 if depth is carried',
    'policies.<policy>.frame_ms': 'number: mean time per frame by the latency table, without cap',
    'policies.<policy>.network_ms': 'number: mean time of the networks per frame',
    'policies.<policy>.saved.<fixed>.share': 'number: share of the network time of a fixed policy '
                                             'that is saved',
    'policies.<policy>.saved.<fixed>.low': 'number or null: lower end of its 95 % interval',
    'policies.<policy>.saved.<fixed>.high': 'number or null: upper end',
    'policies.<policy>.covered_share': 'number: mean share of the image that the depth covers',
    'policies.<policy>.metrics.<metric>': 'number or null: mean without cap; where carried depth '
                                          'does not cover the image it is that of neighbours',
    'policies.<policy>.temporal.<metric>': 'number or null: see TemporalEvaluator.add; only for '
                                           'the primary, the fastest and the slowest policy, in '
                                           'a bag',
    'policies.<policy>.abs_rel_interval[]': 'number or null: lower and upper end, 95 %',
    **{f'policies.<policy>.against.<other>.{key}': text
       for key, text in DIFFERENCE_SCHEMA.items()},
    **{f'policies.<policy>.against_blind.{key}': text for key, text in DIFFERENCE_SCHEMA.items()},
    **{f'policies.<policy>.{kind}.{key}': text for kind in ('simulated', 'live')
       for key, text in STREAM_SCHEMA.items()},
    'blind[].policy': 'string: policy that does not look at the frames, the fastest first',
    'blind[].frame_ms': 'number: mean time per frame',
    'blind[].abs_rel': 'number or null',
    'blind[].boundary_f1': 'number or null',
    'baselines.<name>.<metric>': 'number or null: mean',
    # Only with scale sources.
    'metric.sources[]': 'string: as in the parameter scale.sources of depth_node',
    'metric.references.<source>': 'string: topic of the source',
    'metric.range': 'string: depths that are compared, those that depth_node publishes',
    **{f'metric.policies.<policy>.{key}': text
       for key, text in METRIC_DEPTH_SCHEMA.items()},
    'sets.<name>.frames': 'int: frames of one set of a folder',
    'sets.<name>.abs_rel.<policy>': 'number or null: mean, by policy or baseline',
    'sets.<name>.delta1.<policy>': 'number or null: mean, by policy or baseline',
    'examples.<name>[].frame': 'int: number of a frame shown as best, median or worst',
    'examples.<name>[].name': 'string',
    'examples.<name>[].abs_rel': 'number',
    'worst_seconds[].name': 'string: the block; of a frame without stamp, its number',
    'worst_seconds[].abs_rel': 'number: mean of the primary policy without cap',
    'worst_seconds[].frames': 'int: frames in this second that have an AbsRel',
    'worst_seconds[].frame': 'int: number of its worst frame, which the picture shows',
    'worst_seconds[].frame_abs_rel': 'number',
    'worst_seconds[].num_inference_steps': 'int: T of this frame',
    'worst_seconds[].depth_colors_m[]': 'number: depth of the nearest and the farthest colour',
    'worst_seconds[].picture': 'string: JPEG in this folder: image and prediction above truth and '
                               'signed error',
}


def summarize_evaluation(analysis: Analysis, context: Mapping[str, Any], baselines: Sequence[str],
                         examples: Mapping[str, Sequence[FramePicture]]) -> dict[str, Any]:
    """
    Combine all results in one dictionary for JSON.

    Parameters
    ----------
    analysis : Analysis
    context : mapping
        The keys of the schema that do not depend on the analysis, ready for JSON.
    baselines : sequence of str
    examples : mapping of str to sequence of FramePicture

    Returns
    -------
    dict
        With the keys of `SCHEMA`; NaN becomes None.
    """
    metrics, blocks = metric_names(analysis), analysis.blocks
    result: dict[str, Any] = without_nan({
        'schema_version': SCHEMA_VERSION,
        **context,
        'verdict': {'policy': analysis.primary, **make_verdict(analysis, context, baselines)},
        'policies': {name: _summarize_policy(analysis, result, metrics)
                     for name, result in analysis.policies.items()},
        'blind': [_blind_point(analysis, name) for name in analysis.blind],
        'baselines': {name: {metric: blocks.mean(analysis.baseline_column(name, metric))
                             for metric in metrics} for name in baselines},
        'sets': _summarize_sets(analysis, baselines) if analysis.blocks.mean_of_blocks else {},
        'examples': {rank: [{'frame': each.number, 'name': each.name, 'abs_rel': each.abs_rel}
                            for each in pictures] for rank, pictures in examples.items()}})
    return result


def metric_names(analysis: Analysis) -> list[str]:
    """List the names of all metrics, in order of appearance; those of `QUALITY` without truth."""
    return list(dict.fromkeys(metric for frame in analysis.frames
                              for quality in frame.quality.values() for metric in quality)
                ) or list(QUALITY)


def _summarize_policy(analysis: Analysis, result: PolicyResult,
                      metrics: Sequence[str]) -> dict[str, Any]:
    means, blocks = result.means, analysis.blocks
    row: dict[str, Any] = {
        'mean_steps': means['num_inference_steps'],
        'steps': _count_steps(result),
        'frame_ms': 1e3 * means['total_s'], 'network_ms': 1e3 * means['network_s'],
        'saved': {other: dict(zip(('share', 'low', 'high'), saved))
                  for other, saved in result.saved.items()},
        'covered_share': float(np.mean([each.covered_share for each in result.frames])),
        'metrics': _mean_quality(analysis, [each.quality for each in result.frames], metrics),
        'temporal': _mean_temporal(analysis, result),
        'abs_rel_interval': list(blocks.bootstrap_interval(result.frame_results[:, ABS_REL])),
        'against': {other: _summarize_differences(differences)
                    for other, differences in result.against.items()},
        'against_blind': _summarize_differences(result.against_blind),
        'simulated': _summarize_stream(analysis, result.simulated, metrics)}
    if result.live is not None:
        row['live'] = _summarize_stream(analysis, result.live, metrics)
    return row


def _mean_quality(analysis: Analysis, qualities: Sequence[Quality],
                  metrics: Sequence[str]) -> dict[str, float]:
    return {metric: analysis.blocks.mean(metric_column(qualities, metric)) for metric in metrics}


def _mean_temporal(analysis: Analysis, result: PolicyResult) -> dict[str, float]:
    """Average the temporal scores of a policy, if it has any."""
    scores = [each.temporal for each in result.frames]
    return _mean_quality(analysis, scores,
                         list(dict.fromkeys(metric for each in scores for metric in each)))


def _summarize_differences(differences: Mapping[str, Difference]) -> dict[str, Any]:
    if not differences:
        return {}
    return {'beats': beats(differences), **{
        metric: asdict(difference) for metric, difference in differences.items()}}


def _count_steps(result: PolicyResult) -> dict[str, int]:
    counts = Counter(each.num_inference_steps for each in result.frames)
    return {str(steps): counts[steps] for steps in sorted(counts)}


def _blind_point(analysis: Analysis, name: str) -> dict[str, Any]:
    means = mean_results(analysis.blind[name], analysis.blocks)
    return {'policy': name, 'frame_ms': 1e3 * means['total_s'],
            **{metric: means[metric] for metric in ('abs_rel', 'boundary_f1')}}


def _summarize_stream(analysis: Analysis, stream: StreamResult,
                      metrics: Sequence[str]) -> dict[str, Any]:
    latency_ms = 1e3 * np.array(stream.latency_s or [math.nan])
    ages_ms = 1e3 * np.array([each.age_s for each in stream.processed] or [math.nan])
    steps = [float(each.num_inference_steps) for each in stream.processed] or [math.nan]
    quality_by_number = {each.frame.number: each.quality for each in stream.processed}
    qualities = [quality_by_number.get(frame.number, {}) for frame in analysis.frames]
    return {
        'outcomes': {outcome: stream.count(outcome) for outcome in OUTCOMES},
        **{f'latency_p{rank}_ms': float(value)
           for rank, value in zip(PERCENTILES, np.percentile(latency_ms, PERCENTILES))},
        'latency_max_ms': float(latency_ms.max()),
        'age_p95_ms': float(np.percentile(ages_ms, 95)),
        'over_cap': stream.over_cap, 'mean_steps': float(np.mean(steps)),
        'scored': sum(map(bool, qualities)),
        'metrics': _mean_quality(analysis, qualities, [
            each for each in metrics if each not in EDGE_SCORES])}


def _summarize_sets(analysis: Analysis, baselines: Sequence[str]) -> dict[str, Any]:
    """Average AbsRel and delta1 of each set of a folder."""
    names = np.array(analysis.blocks.names)
    columns = {metric: {
        **{name: analysis.baseline_column(name, metric) for name in baselines},
        **{name: metric_column([each.quality for each in result.frames], metric)
           for name, result in analysis.policies.items()}} for metric in ('abs_rel', 'delta1')}
    return {str(block): {
        'frames': int((names == block).sum()),
        **{metric: {name: _finite_mean(values[names == block])
                    for name, values in by_name.items()}
           for metric, by_name in columns.items()}}
        for block in dict.fromkeys(analysis.blocks.names)}


def _finite_mean(values: Any) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan


def latency_table_summary(table: LatencyTable, file: str) -> dict[str, Any]:
    """Return the median of each stage of a latency table, by size."""
    sizes = {}
    for size, samples in sorted(table.samples.items()):
        typical = asdict(table.median(size))
        sizes[f'{size[0]}x{size[1]}'] = {
            'samples': len(samples),
            **{f'{stage.removesuffix("_s")}_ms': 1e3 * value for stage, value in typical.items()}}
    return {'file': file, 'measured_utc': table.measured_utc, 'sizes': sizes}


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write a summary as strict JSON."""
    path.write_text(json.dumps(summary, indent=1, allow_nan=False) + '\n', encoding='utf-8')


def write_per_frame(path: Path, analysis: Analysis,
                    metric_abs_rel: Mapping[str, NDArray[np.float64]]) -> None:
    """
    Write one CSV row per frame and policy, from the simulation of frame arrivals.

    The columns are `FRAME_COLUMNS`, the time of each stage in ms, the metrics of the published
    depth, and `UNCAPPED_METRICS` with the suffix _without_cap.  `steps_without_cap` is T without
    latency cap.  Values that do not apply are empty.

    Parameters
    ----------
    path : Path
    analysis : Analysis
    metric_abs_rel : mapping of str to float64 [F]
        AbsRel of metric depth of each frame, by policy; only of some policies.
    """
    metrics = metric_names(analysis)
    columns = [*FRAME_COLUMNS, *(f'{stage}_ms' for stage in STAGES), *metrics,
               *(f'{metric}_without_cap' for metric in UNCAPPED_METRICS)]
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for name, result in analysis.policies.items():
            in_metres = metric_abs_rel.get(name, itertools.repeat(math.nan))
            for replayed, without_cap, error in zip(result.simulated.frames, result.frames,
                                                    in_metres):
                quality = {**without_cap.quality, 'metric_abs_rel': error}
                writer.writerow({
                    'policy': name, 'steps_without_cap': without_cap.num_inference_steps,
                    **_frame_row(replayed, metrics),
                    **{f'{metric}_without_cap': _format_or_none(quality.get(metric, math.nan),
                                                                '.6g')
                       for metric in UNCAPPED_METRICS}})


def _frame_row(replayed: ReplayedFrame, metrics: Sequence[str]) -> dict[str, Any]:
    frame, steps = replayed.frame, replayed.num_inference_steps
    row = {
        'frame': frame.number, 'name': frame.name, 'block': frame.block,
        'stamp_ns': frame.stamp_ns, 'outcome': replayed.outcome,
        'complexity': _format_or_none(replayed.complexity, '.6g'),
        'num_inference_steps': steps if replayed.outcome == 'processed' else None,
        'covered_share': _format_or_none(replayed.covered_share, '.4f'),
        'age_ms': _format_or_none(1e3 * replayed.age_s, '.3f'),
        'latency_ms': _format_or_none(1e3 * replayed.latency_s, '.3f'), 'reason': replayed.reason,
        **{metric: _format_or_none(replayed.quality.get(metric, math.nan), '.6g')
           for metric in metrics}}
    if replayed.cost is not None:
        row |= {f'{stage}_ms': _format_or_none(1e3 * seconds, '.3f')
                for stage, seconds in stage_seconds(replayed.cost, steps).items()}
    return row


def stage_seconds(cost: FrameCost, num_inference_steps: int) -> dict[str, float]:
    """Return the time of each stage that a frame with T steps went through, s."""
    networks = asdict(cost.timing(num_inference_steps)) if num_inference_steps else {}
    return {'complexity': cost.complexity_s, 'carry': cost.carry_s,
            **{stage.removesuffix('_s'): seconds for stage, seconds in networks.items()}}


def _format_or_none(value: float, form: str) -> str | None:
    return None if math.isnan(value) else f'{value:{form}}'


def without_nan(value: Any) -> Any:
    """Replace every NaN by None, as JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def print_schema(schema: Mapping[str, str]) -> None:
    """Print every key of a summary with its type and meaning."""
    for key, text in schema.items():
        print(f'{key}\n    {text}')


if __name__ == '__main__':
    print_schema(SCHEMA)
