"""Say in plain sentences what an evaluation found; what lies inside its interval is no finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np

from marigold_ros.evaluation.analysis import Analysis, Clocked, PERCENTILES
from marigold_ros.evaluation.config import fixed_steps
from marigold_ros.evaluation.metrics.protocols import abs_rel_label, describe_protocol
from marigold_ros.evaluation.statistics import ABS_REL, beats, CHANCE, compare, Difference


def give_verdict(analysis: Analysis, about: Mapping[str, Any],
                 baselines: Sequence[str]) -> dict[str, list[str]]:
    """
    Say everything.

    Parameters
    ----------
    analysis : Analysis
    about : mapping
        Keys `protocol`, `compared_range` and `metric` of the summary.
    baselines : sequence of str

    Returns
    -------
    dict of str to list of str
        `sentences`, on accuracy, latency, time saved and metric depth, and `choosing`, on whether
        a policy's choices pay.
    """
    made_by = about['protocol'], about['compared_range']
    judged, abs_rel = analysis.policies[analysis.judged], abs_rel_label(*made_by)
    arrivals = analysis.frames[0].stamp_ns is not None
    sentences = [accuracy(analysis, describe_protocol(*made_by), baselines),
                 latency(judged.clock, arrivals=arrivals)]
    if judged.live is not None:
        sentences.append(latency(judged.live, arrivals=True, live=True))
    sentences.append(saving(analysis, abs_rel))
    if about['metric']:
        sentences += metres(about['metric'])
    return {'sentences': sentences, 'choosing': choosing(analysis, abs_rel)}


def accuracy(analysis: Analysis, protocol: str, baselines: Sequence[str]) -> str:
    """Say how accurate the judged policy is by a protocol, and whether a baseline is better."""
    outcomes = analysis.policies[analysis.judged].outcomes
    low, high = analysis.blocks.interval(outcomes[:, ABS_REL])
    row = analysis.means[analysis.judged]
    text = (f'{analysis.judged}: AbsRel {row["abs_rel"]:.3f}{_interval(low, high, ".3f")}, delta1 '
            f'{row["delta1"]:.3f}; {protocol}, each frame alone')
    for name in baselines:
        theirs = outcomes.copy()
        theirs[:, ABS_REL] = analysis.column([name] * len(analysis.frames), 'abs_rel')
        found = compare(outcomes, theirs, analysis.blocks)['abs_rel']
        text += (f'; {name} has {analysis.blocks.mean(theirs[:, ABS_REL]):.3f}, '
                 f'{_against(found.verdict)}')
    return text + '.'


def latency(clock: Clocked, *, arrivals: bool, live: bool = False) -> str:
    """Say how late depth is, against the cap, and what was dropped."""
    kind = 'Live' if live else 'Simulated' if arrivals else 'One frame at a time, simulated'
    if not clock.processed:
        return f'{kind}: not one of {len(clock.frames)} frames was processed.'
    values = ', '.join(f'p{rank} {value:.0f} ms' for rank, value in zip(
        PERCENTILES, np.percentile(1e3 * np.array(clock.latency_s), PERCENTILES)))
    cap = ('no cap' if clock.cap_s is None else
           f'cap {1e3 * clock.cap_s:.0f} ms, exceeded by {clock.over_cap} of '
           f'{len(clock.processed)} frames')
    return (f'{kind}: latency {values}; {cap}; of {len(clock.frames)} frames '
            f'{clock.count("superseded")} were superseded and {clock.count("late")} skipped as '
            'late.')


def saving(analysis: Analysis, abs_rel: str) -> str:
    """
    Say what the judged policy saves against the slowest fixed one, and what that costs.

    Parameters
    ----------
    analysis : Analysis
    abs_rel : str
        Name of AbsRel with its protocol and range.
    """
    judged, slowest = analysis.judged, analysis.slowest
    if judged == slowest:
        return f'{judged} is the slowest of the policies, so there is nothing to save against.'
    result, row = analysis.policies[judged], analysis.means[judged]
    low, high = analysis.time_saved_interval(judged)
    share = row['total_share']
    ceiling = ('' if math.isnan(share) or judged == analysis.fastest else
               f', {100 * share:.0f} % of what {analysis.fastest} would save')
    found = result.against[slowest]
    return (f'It takes {row["num_inference_steps"]:.2f} steps in the mean and saves '
            f'{_percent(row["total_saved"])}{_interval(low, high, "%")} of the '
            f'time of {slowest}{ceiling}; against it, {abs_rel} {_found(found["abs_rel"])} and '
            f'boundary F1 {_found(found["boundary_f1"])}.')


def metres(metric: Mapping[str, Any]) -> list[str]:
    """Say how often metres were known, how good they are, and what a costmap made of them."""
    known, frames = metric['frames_with_metres'], metric['frames']
    where = metric['source'] + (f' ({metric["reference"]})' if metric['reference'] else '')
    complaint = f'; most often: {metric["complaint"]}' if metric['complaint'] else ''
    if not known:
        return [f'Metric depth from {where}: known in none of {frames} frames{complaint}.']
    low, high = metric['abs_rel_interval']
    sentences = [
        f'Metric depth from {where}: known in {known} of {frames} frames{complaint}; '
        f'{abs_rel_label("metric", metric["range"])} {metric["abs_rel"]:.3f}'
        f'{_interval(low, high, ".3f")}, delta1 {metric["delta1"]:.3f}, without any alignment; '
        f'the scale moves by {100 * metric["jitter"]:.2f} % a frame and by '
        f'{100 * metric["largest_step"]:.2f} % at most.']
    if metric['outages']:
        recovery = ('it has not recovered' if math.isnan(metric['recovery_s']) else
                    f'the scale is back after {metric["recovery_s"]:.1f} s at the latest')
        sentences.append(f'The reference was out {metric["outages"]} times; {recovery}.')
    if 'obstacles' in metric:
        score = {name: 'unknown' if math.isnan(value) else
                 f'{value:.2f} m' if name == 'distance_m' else f'{100 * value:.0f} %'
                 for name, value in metric['obstacles'].items()}
        sentences.append(
            f"In Nav2's obstacle layer {score['recall']} of the obstacles in view are marked, "
            f'{score["precision"]} of the marks are right and {score["floor_free"]} of the floor '
            f'is free; the distance to an obstacle errs by {score["distance_m"]}.')
    return sentences


def choosing(analysis: Analysis, abs_rel: str) -> list[str]:
    """Say of each policy that chooses T whether that pays, at an equal budget; see `saving`."""
    sentences = []
    for name in analysis.policies:
        if fixed_steps(name) or name in ('random', 'oracle'):
            continue
        parts = []
        for other in (CHANCE, analysis.fastest):
            found = analysis.equal_budget[name][other]
            label = other if other == CHANCE else f'{other} raised to it'
            parts.append(f'{"beats" if beats(found) else "does not beat"} {label} ({abs_rel} '
                         f'{_found(found["abs_rel"])}, boundary F1 '
                         f'{_found(found["boundary_f1"])})')
        sentences.append(f'{name} {", and ".join(parts)}.')
    return sentences


def _against(verdict: str) -> str:
    return {'better': 'so this is better', 'worse': 'so this is worse',
            'no difference': 'no difference', 'unknown': 'too few blocks to compare'}[verdict]


def _found(difference: Difference) -> str:
    """Name a difference; inside its interval it is none."""
    if difference.verdict in ('no difference', 'unknown') or math.isnan(difference.relative):
        return difference.verdict
    return f'{_percent(difference.relative, "+")} ({difference.verdict})'


def _percent(value: float, sign: str = '') -> str:
    return f'{100 * value:{sign}.1f} %'


def _interval(low: float, high: float, form: str) -> str:
    """Write an interval behind its value; nothing where there is none."""
    if math.isnan(low):
        return ''
    if form == '%':
        return f' [{100 * low:.1f}, {100 * high:.1f}]'
    return f' [{low:{form}}, {high:{form}}]'
