"""
What an evaluation leaves in numbers: `summary.json`, whose keys are in `SCHEMA`, `per_frame.csv`.

`python -m marigold_ros.evaluation.report.summary` prints the keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import csv
from dataclasses import asdict
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from marigold_ros.evaluation.analysis import Analysis, Clocked, PERCENTILES, PolicyResult
from marigold_ros.evaluation.config import COMPLEXITY_POLICIES
from marigold_ros.evaluation.policies.latency import FrameCost, LatencyTable
from marigold_ros.evaluation.policies.replay import FATES, FrameRuns, Replayed
from marigold_ros.evaluation.report.exemplars import Picture
from marigold_ros.evaluation.report.verdict import give_verdict
from marigold_ros.evaluation.statistics import (
    ABS_REL,
    beats,
    BOUNDARY_F1,
    Difference,
    Outcomes,
    STEPS,
    TOTAL_S,
)

STAGES = ('choose', 'preprocess', 'encode', 'denoise', 'decode', 'postprocess')
# What makes a row of per_frame.csv, before the stages and the metrics.
FRAME_COLUMNS = ('frame', 'name', 'block', 'stamp_ns', 'policy', 'fate', 'complexity',
                 'num_inference_steps', 'steps_alone', 'age_ms', 'latency_ms', 'reason')

SCHEMA_VERSION = 2
CLOCK_SCHEMA = {
    'fates.<fate>': 'int: frames processed, superseded by a newer one, or skipped as late',
    'latency_p50_ms': 'number or null: from arrival to depth, processed frames',
    'latency_p95_ms': 'number or null',
    'latency_p99_ms': 'number or null',
    'latency_max_ms': 'number or null',
    'age_p95_ms': 'number or null: from arrival to the decision',
    'over_cap': 'int: processed frames whose latency is above the cap',
    'mean_steps': 'number or null: T of the processed frames',
    'metrics.<metric>': 'number or null: mean over the processed frames',
}
# `against` is a fixed T with its own budget; `equal_budget` is chance, or another policy, where
# the cheaper of two spends what it saves on Tmax for frames chosen by a coin.
DIFFERENCE_SCHEMA = {
    'beats': 'bool: better in AbsRel or boundary F1, worse in neither',
    '<metric>.relative': 'number or null: difference of the means',
    '<metric>.low': 'number or null: of its 95 % interval',
    '<metric>.high': 'number or null',
    '<metric>.verdict': 'string: better, worse, no difference, or unknown with fewer than two '
                        'blocks',
}
# Only with a scale source.
METRIC_SCHEMA = {
    'source': 'string: where metres come from, as the parameter scale.source of depth_node',
    'reference': 'string or null: topic of the reference',
    'range': 'string: depths that are compared, those that depth_node publishes',
    'frames': 'int: by the run that the judged policy chooses for each frame alone',
    'frames_with_metres': 'int',
    'share_with_metres': 'number',
    'abs_rel': 'number or null: mean over the frames with metres, without any alignment, over '
               'the published pixels; what is beyond the range counts as its end',
    'abs_rel_interval[]': 'number or null: low and high, 95 %',
    'rmse': 'number or null: m',
    'delta1': 'number or null',
    'published_share': 'number or null: of the measured pixels',
    'floor_error': "number or null: of the camera's height above its floor pixels, relative; "
                   'where TF knows the mount',
    'jitter': 'number or null: mean relative change of the depth of affine-invariant 0.5 from '
              'frame to frame',
    'largest_step': 'number or null: the largest of these changes',
    'outages': 'int: times without a fit for longer than scale.hold_s, in between',
    'recovery_s': 'number or null: longest, from the first fit after an outage until the scale is '
                  'within 2 % of what that fit says; null without one, or if it never was',
    'states.<state>': 'int: frames by the state of the scale, as in /diagnostics',
    'complaint': 'string or null: what the scale most often complained of',
    'obstacles.frames': 'int: with a pose; only with a scene',
    'obstacles.clouds': 'int: of them, those with metres',
    'obstacles.recall': 'number or null: share of the obstacles in view that are marked',
    'obstacles.precision': 'number or null: share of the marks that lie in an obstacle or wall',
    'obstacles.floor_free': "number or null: share of the seen floor's cells that are free",
    'obstacles.distance_m': 'number or null: error of the distance to the nearest point of an '
                            'obstacle',
}
# Every leaf of the file: dots between keys, <...> for names, [] for the items of a list.
SCHEMA = {
    'schema_version': 'int: changes whenever this table does',
    'complete': 'bool: false after Ctrl-C, or where the input was damaged',
    'notes[]': 'string: what was left out or lost, and why',
    'command': 'string: repeats the evaluation',
    'protocol': 'string: A (least squares in depth) or B (RANSAC in log depth, edges masked)',
    'compared_range': 'string: depths that are compared and clipped to; 80+ m: or to the '
                      'farthest measurement of a frame',
    'settings.<name>': 'any: what was asked for; see EvaluationConfig',
    'environment.<name>': 'any: machine, versions, commit',
    'data.name': 'string',
    'data.frames': 'int: evaluated',
    'data.frames_offered': 'int or null: in the data set, at most',
    'data.frames_without_truth': 'int: evaluated, but nothing in them could be compared',
    'data.blocks': 'int: groups of frames that the bootstrap draws',
    'data.block': 'string: what a block is',
    'data.mean_of_blocks': 'bool: whether blocks or frames count the same in a mean',
    'data.simulated_arrivals': 'bool: whether frames have stamps and so arrive by the clock',
    'engine.checkpoint': 'string',
    'engine.slowest_policy': 'string: the fixed policy against which time is saved',
    'engine.max_inference_steps': 'int: Tmax',
    'engine.processing_resolution': 'int: px',
    'engine.dtype': 'string',
    'engine.device': 'string',
    'timing.wall_s': 'number: of the evaluation itself, without the latency table',
    'timing.engine_s': 'number: part of it inside the engine',
    'timing.engine_share': 'number: engine_s / wall_s',
    'latency_table.file': 'string: where the costs come from',
    'latency_table.measured_utc': 'string',
    'latency_table.sizes.<size>.samples': 'int: measured',
    'latency_table.sizes.<size>.<stage>_ms': 'number: median',
    'verdict.policy': 'string: the one judged, the first of the policies',
    'verdict.sentences[]': 'string: accuracy, latency, time saved, metric depth',
    'verdict.choosing[]': 'string: whether the choices of each policy beat chance',
    'policies.<policy>.mean_steps': 'number: T, each frame alone, without cap',
    'policies.<policy>.steps.<T>': 'int: frames with this T, alone',
    'policies.<policy>.frame_ms': 'number: time of a frame by the latency table, alone',
    'policies.<policy>.denoise_ms': 'number',
    'policies.<policy>.time_saved': 'number: share of the time of the slowest fixed policy',
    'policies.<policy>.time_saved_interval[]': 'number or null: low and high, 95 %',
    'policies.<policy>.share_of_ceiling': 'number or null: of what the fastest would save',
    'policies.<policy>.metrics.<metric>': 'number or null: mean, each frame alone',
    'policies.<policy>.temporal.<metric>': 'number or null: see temporal.TemporalScores; only of '
                                           'the judged and the slowest policy, in a bag',
    'policies.<policy>.abs_rel_interval[]': 'number or null: low and high, 95 %',
    'policies.<policy>.curve[].max_inference_steps': 'int: Tmax of this point of the frontier',
    'policies.<policy>.curve[].mean_steps': 'number',
    'policies.<policy>.curve[].frame_ms': 'number',
    'policies.<policy>.curve[].abs_rel': 'number or null',
    'policies.<policy>.curve[].boundary_f1': 'number or null',
    **{f'policies.<policy>.{kind}.<other>.{key}': text for kind in ('against', 'equal_budget')
       for key, text in DIFFERENCE_SCHEMA.items()},
    **{f'policies.<policy>.{kind}.{key}': text for kind in ('clock', 'live')
       for key, text in CLOCK_SCHEMA.items()},
    'baselines.<name>.<metric>': 'number or null: mean',
    **{f'metric.{key}': text for key, text in METRIC_SCHEMA.items()},
    'sets.<name>.frames': 'int: of one block of a folder',
    'sets.<name>.abs_rel.<policy>': 'number or null: mean, by policy or baseline',
    'sets.<name>.delta1.<policy>': 'number or null',
    'exemplars.<name>[].frame': 'int: number of a frame shown as best, median or worst',
    'exemplars.<name>[].name': 'string',
    'exemplars.<name>[].abs_rel': 'number',
}


def summarize_evaluation(analysis: Analysis, about: Mapping[str, Any], baselines: Sequence[str],
                         exemplars: Mapping[str, Sequence[Picture]]) -> dict[str, Any]:
    """
    Put all results into one dictionary for JSON.

    Parameters
    ----------
    analysis : Analysis
    about : mapping
        The keys of the schema that no result depends on, ready for JSON.
    baselines : sequence of str
    exemplars : mapping of str to sequence of Picture

    Returns
    -------
    dict
        As `SCHEMA`; NaN is None.
    """
    metrics = metric_names(analysis.frames)
    result: dict[str, Any] = without_nan({
        'schema_version': SCHEMA_VERSION,
        **about,
        'verdict': {'policy': analysis.judged, **give_verdict(analysis, about, baselines)},
        'policies': {name: _policy(analysis, name, result, metrics)
                     for name, result in analysis.policies.items()},
        'baselines': {name: {metric: analysis.mean([name] * len(analysis.frames), metric)
                             for metric in metrics} for name in baselines},
        'sets': _sets(analysis, baselines) if analysis.blocks.mean_of_blocks else {},
        'exemplars': {rank: [{'frame': each.number, 'name': each.name, 'abs_rel': each.abs_rel}
                             for each in pictures] for rank, pictures in exemplars.items()}})
    return result


def metric_names(frames: Sequence[FrameRuns]) -> list[str]:
    """Name what was scored, in its order."""
    return list(dict.fromkeys(metric for frame in frames for quality in frame.quality.values()
                              for metric in quality))


def _policy(analysis: Analysis, name: str, result: PolicyResult,
            metrics: Sequence[str]) -> dict[str, Any]:
    runs = [choice.run for choice in result.choices]
    means, blocks = analysis.means[name], analysis.blocks
    row: dict[str, Any] = {
        'mean_steps': means['num_inference_steps'],
        'steps': _histogram(result),
        'frame_ms': 1e3 * means['total_s'], 'denoise_ms': 1e3 * means['denoise_s'],
        'time_saved': means['total_saved'],
        'time_saved_interval': list(analysis.time_saved_interval(name)),
        'share_of_ceiling': means['total_share'],
        # The expectation of random draws is known for the decisive metrics only.
        'metrics': ({metric: means[metric] for metric in ('abs_rel', 'delta1', 'boundary_f1')}
                    if name == 'random' else
                    {metric: analysis.mean(runs, metric) for metric in metrics}),
        'abs_rel_interval': list(blocks.interval(result.outcomes[:, ABS_REL])),
        'curve': [_point(analysis, outcomes, t_max)
                  for t_max, outcomes in enumerate(result.curve, 1)],
        'against': _differences(result.against),
        'equal_budget': _differences(analysis.equal_budget.get(name, {})),
        'temporal': _temporal(analysis, name),
        'clock': _clock(analysis, result.clock, metrics)}
    if len(result.curve) == 1:
        row['curve'][0]['max_inference_steps'] = int(result.outcomes[0, STEPS])
    if result.live is not None:
        row['live'] = _clock(analysis, result.live, metrics)
    return row


def _temporal(analysis: Analysis, name: str) -> dict[str, float]:
    """Average what was judged beside the frame before, if it was for this policy."""
    scores = [frame.temporal.get(name, {}) for frame in analysis.frames]
    return {metric: analysis.blocks.mean(np.array([each.get(metric, math.nan) for each in scores]))
            for metric in dict.fromkeys(metric for each in scores for metric in each)}


def _differences(found: Mapping[str, Mapping[str, Difference]]) -> dict[str, Any]:
    return {other: {'beats': beats(differences), **{
        metric: asdict(difference) for metric, difference in differences.items()}}
        for other, differences in found.items()}


def _histogram(result: PolicyResult) -> dict[str, int]:
    counts = Counter(choice.num_inference_steps for choice in result.choices)
    return {str(steps): counts[steps] for steps in sorted(counts)}


def _point(analysis: Analysis, outcomes: Outcomes, t_max: int) -> dict[str, float]:
    return {'max_inference_steps': t_max, 'mean_steps': float(outcomes[:, STEPS].mean()),
            'frame_ms': 1e3 * float(outcomes[:, TOTAL_S].mean()),
            'abs_rel': analysis.blocks.mean(outcomes[:, ABS_REL]),
            'boundary_f1': analysis.blocks.mean(outcomes[:, BOUNDARY_F1])}


def _clock(analysis: Analysis, clock: Clocked, metrics: Sequence[str]) -> dict[str, Any]:
    latency_ms = 1e3 * np.array(clock.latency_s or [math.nan])
    ages_ms = 1e3 * np.array([each.age_s for each in clock.processed] or [math.nan])
    steps = [float(each.num_inference_steps) for each in clock.processed] or [math.nan]
    runs = {each.frame.number: each.run for each in clock.processed}
    run_of = [runs.get(frame.number, '') for frame in analysis.frames]
    return {
        'fates': {fate: clock.count(fate) for fate in FATES},
        **{f'latency_p{rank}_ms': float(value)
           for rank, value in zip(PERCENTILES, np.percentile(latency_ms, PERCENTILES))},
        'latency_max_ms': float(latency_ms.max()),
        'age_p95_ms': float(np.percentile(ages_ms, 95)),
        'over_cap': clock.over_cap, 'mean_steps': float(np.mean(steps)),
        'metrics': {metric: analysis.mean(run_of, metric) for metric in metrics}}


def _sets(analysis: Analysis, baselines: Sequence[str]) -> dict[str, Any]:
    """Average each set of a folder for itself."""
    names = np.array(analysis.blocks.names)
    runs = {name: [name] * len(names) for name in baselines}
    runs |= {name: [choice.run for choice in result.choices]
             for name, result in analysis.policies.items() if name != 'random'}
    columns = {metric: {name: analysis.column(run_of, metric) for name, run_of in runs.items()}
               for metric in ('abs_rel', 'delta1')}
    return {str(block): {
        'frames': int((names == block).sum()),
        **{metric: {name: _mean(values[names == block]) for name, values in by_name.items()}
           for metric, by_name in columns.items()}}
        for block in dict.fromkeys(analysis.blocks.names)}


def _mean(values: Any) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan


def latency_table_summary(table: LatencyTable, file: str) -> dict[str, Any]:
    """Describe a latency table: the medians of its stages."""
    sizes = {}
    for size, samples in sorted(table.samples.items()):
        typical = asdict(table.typical(size))
        sizes[f'{size[0]}x{size[1]}'] = {
            'samples': len(samples),
            **{f'{stage.removesuffix("_s")}_ms': 1e3 * value for stage, value in typical.items()}}
    return {'file': file, 'measured_utc': table.measured_utc, 'sizes': sizes}


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write strictly valid JSON."""
    path.write_text(json.dumps(summary, indent=1, allow_nan=False) + '\n', encoding='utf-8')


def write_per_frame(path: Path, analysis: Analysis) -> None:
    """
    Write one row per frame and policy, as the clock had it.

    Columns are `FRAME_COLUMNS`, milliseconds of each stage, and the metrics of what was published;
    `steps_alone` is T without cap and clock.  What does not apply is empty.
    """
    metrics = metric_names(analysis.frames)
    columns = [*FRAME_COLUMNS, *(f'{stage}_ms' for stage in STAGES), *metrics]
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for name, result in analysis.policies.items():
            for replayed, choice in zip(result.clock.frames, result.choices):
                writer.writerow(_row(name, replayed, choice.num_inference_steps, metrics))


def _row(policy: str, replayed: Replayed, steps_alone: int,
         metrics: Sequence[str]) -> dict[str, Any]:
    frame = replayed.frame
    processed = replayed.fate == 'processed'
    quality = frame.quality.get(replayed.run, {})
    row = {
        'frame': frame.number, 'name': frame.name, 'block': frame.block,
        'stamp_ns': frame.stamp_ns, 'policy': policy, 'fate': replayed.fate,
        'complexity': _text(_complexity(policy, frame), '.6g'),
        'num_inference_steps': replayed.num_inference_steps if processed else None,
        'steps_alone': steps_alone, 'age_ms': _text(1e3 * replayed.age_s, '.3f'),
        'latency_ms': _text(1e3 * replayed.latency_s, '.3f'), 'reason': replayed.reason,
        **{metric: _text(quality.get(metric, math.nan), '.6g') for metric in metrics}}
    if replayed.cost is not None:
        row |= {f'{stage}_ms': _text(1e3 * seconds, '.3f') for stage, seconds in
                stage_seconds(replayed.cost, replayed.num_inference_steps).items()}
    return row


def stage_seconds(cost: FrameCost, num_inference_steps: int) -> dict[str, float]:
    """Split what a frame costs by stage."""
    return {stage: num_inference_steps * cost.step_s if stage == 'denoise'
            else float(getattr(cost, f'{stage}_s')) for stage in STAGES}


def _complexity(policy: str, frame: FrameRuns) -> float:
    """Return the C by which a policy decides; gradient energy where it needs none."""
    return frame.complexity[COMPLEXITY_POLICIES.get(policy, 'gradient_energy')]


def _text(value: float, form: str) -> str | None:
    return None if math.isnan(value) else f'{value:{form}}'


def without_nan(value: Any) -> Any:
    """Replace every NaN by None, which JSON knows."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def main() -> None:
    """Print every key with its type and meaning."""
    for key, text in SCHEMA.items():
        print(f'{key}\n    {text}')


if __name__ == '__main__':
    main()
