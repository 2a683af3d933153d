"""Write `summary.json`, whose keys `summary_schema` explains, and `per_frame.csv`."""

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
from marigold_ros.evaluation.policies.frame_runs import FrameRuns
from marigold_ros.evaluation.policies.latency import FrameCost, LatencyTable
from marigold_ros.evaluation.policies.replay import FATES, Replayed
from marigold_ros.evaluation.report.exemplars import Picture
from marigold_ros.evaluation.report.summary_schema import SCHEMA_VERSION
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


def summarize_evaluation(analysis: Analysis, about: Mapping[str, Any], baselines: Sequence[str],
                         exemplars: Mapping[str, Sequence[Picture]],
                         verdict: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """
    Put all results into one dictionary for JSON.

    Parameters
    ----------
    analysis : Analysis
    about : mapping
        The keys of the schema that no result depends on, ready for JSON.
    baselines : sequence of str
    exemplars : mapping of str to sequence of Picture
    verdict : mapping of str to sequence of str
        Its sentences, by what they are about.

    Returns
    -------
    dict
        As `summary_schema.SCHEMA`; NaN is None.
    """
    metrics = metric_names(analysis.frames)
    result: dict[str, Any] = without_nan({
        'schema_version': SCHEMA_VERSION,
        **about,
        'verdict': {'policy': analysis.judged, **verdict},
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
