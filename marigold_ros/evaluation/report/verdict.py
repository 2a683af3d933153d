"""Summarize an evaluation in sentences; a difference within its interval is no difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np

from marigold_ros.evaluation.analysis import Analysis, PERCENTILES, StreamResult
from marigold_ros.evaluation.config import OFFLINE_POLICIES
from marigold_ros.evaluation.metrics.protocols import abs_rel_label, describe_protocol
from marigold_ros.evaluation.report.tables import format_number, format_percent
from marigold_ros.evaluation.statistics import (
    ABS_REL,
    beats,
    compare_policies,
    DECISIVE,
    Difference,
)


def make_verdict(analysis: Analysis, context: Mapping[str, Any],
                 baselines: Sequence[str]) -> dict[str, list[str]]:
    """
    Return the sentences of the verdict.

    Parameters
    ----------
    analysis : Analysis
    context : mapping
        Keys `protocol`, `compared_range` and `metric` of the summary.
    baselines : sequence of str

    Returns
    -------
    dict of str to list of str
        `sentences`, on accuracy, latency, time saved and metric depth of the primary policy, and
        `comparisons`, on whether each policy that chooses T is better than what the same time
        buys without a look at the frames.
    """
    protocol, compared_range = context['protocol'], context['compared_range']
    primary = analysis.policies[analysis.primary]
    abs_rel = abs_rel_label(protocol, compared_range)
    arrivals = analysis.frames[0].stamp_ns is not None
    sentences = [
        describe_accuracy(analysis, describe_protocol(protocol, compared_range), baselines),
        describe_latency(primary.simulated, arrivals=arrivals)]
    if primary.live is not None:
        sentences.append(describe_latency(primary.live, arrivals=True, live=True))
    sentences.append(describe_saving(analysis, abs_rel))
    if context['metric']:
        sentences += describe_metric_depth(context['metric'])
    return {'sentences': sentences, 'comparisons': describe_choices(analysis, abs_rel)}


def describe_accuracy(analysis: Analysis, protocol: str, baselines: Sequence[str]) -> str:
    """Describe the accuracy of the primary policy and compare it with the baselines."""
    frame_results = analysis.policies[analysis.primary].frame_results
    interval = analysis.blocks.bootstrap_interval(frame_results[:, ABS_REL])
    row = analysis.policies[analysis.primary].means
    text = (f'{analysis.primary}: AbsRel {format_number(row["abs_rel"], ".3f", interval)}, '
            f'delta1 {row["delta1"]:.3f} ({protocol}); one frame after the other, without '
            'latency cap.')
    for name in baselines:
        baseline = frame_results.copy()
        baseline[:, ABS_REL] = analysis.baseline_column(name, 'abs_rel')
        verdict = compare_policies(frame_results, baseline, analysis.blocks)['abs_rel'].verdict
        text += (f' Baseline {name}: {analysis.blocks.mean(baseline[:, ABS_REL]):.3f} '
                 f'({_phrase_verdict(verdict)}).')
    return text


def describe_latency(stream: StreamResult, *, arrivals: bool, live: bool = False) -> str:
    """Describe latency, latency cap and dropped frames."""
    kind = ('Live run' if live else 'Simulated frame arrivals' if arrivals else
            'One frame at a time, simulated')
    if not stream.processed:
        return f'{kind}: none of {len(stream.frames)} frames was processed.'
    values = ', '.join(f'p{rank} {value:.0f} ms' for rank, value in zip(
        PERCENTILES, np.percentile(1e3 * np.array(stream.latency_s), PERCENTILES)))
    cap = ('no latency cap' if stream.cap_s is None else
           f'{stream.over_cap} of {len(stream.processed)} processed frames exceed the cap of '
           f'{1e3 * stream.cap_s:.0f} ms')
    return (f'{kind}: latency {values}; {cap}; of {len(stream.frames)} frames, '
            f'{stream.count("superseded")} were superseded by a newer frame.')


def describe_saving(analysis: Analysis, abs_rel: str) -> str:
    """
    Describe the time that the primary policy saves, and the difference in quality.

    Parameters
    ----------
    analysis : Analysis
    abs_rel : str
        Label of AbsRel with protocol and range.
    """
    primary, result = analysis.primary, analysis.policies[analysis.primary]
    steps = [each.num_inference_steps for each in result.frames]
    covered = np.mean([each.covered_share for each in result.frames])
    text = f'{primary} runs the networks in {sum(map(bool, steps))} of {len(steps)} frames'
    if 0 in steps:
        text += f'; depth covers {format_percent(float(covered))} of the images'
    for other, differences in result.against.items():
        share, *interval = result.saved[other]
        text += (f'. Against {other} it saves {format_percent(share, ".1f", interval)} of the '
                 'network time; '
                 f'{_format_differences(differences, abs_rel)}')
    return text + '.'


def describe_metric_depth(metric: Mapping[str, Any]) -> list[str]:
    """Describe the metric depth of the primary policy, and the obstacles in the costmap."""
    primary, *others = metric['policies']
    row = metric['policies'][primary]
    available, frames = row['frames_with_metric_depth'], row['frames']
    source = ' and '.join(
        each + (f' ({metric["references"][each]})' if each in metric['references'] else '')
        for each in metric['sources'])
    problem = row['most_frequent_problem']
    problem = f'; most frequent problem: {problem}' if problem else ''
    if not available:
        return [f'Metric depth from {source}: available in none of {frames} frames{problem}.']
    compared = ''.join(f' ({other}: {metric["policies"][other]["abs_rel"]:.3f})'
                       for other in others)
    sentences = [
        f'Metric depth from {source}: available in {available} of {frames} frames{problem}; '
        f'{abs_rel_label("metric", metric["range"])} '
        f'{format_number(row["abs_rel"], ".3f", row["abs_rel_interval"])}{compared}, '
        f'delta1 {row["delta1"]:.3f}, without alignment to the truth; the scale changes by '
        f'{format_percent(row["jitter"], ".2f")} per frame on average and by '
        f'{format_percent(row["largest_step"], ".2f")} at most.']
    if row['outages']:
        recovery = ('the scale has not recovered' if math.isnan(row['recovery_s']) else
                    f'the longest recovery of the scale took {row["recovery_s"]:.1f} s')
        sentences.append(f'The reference was missing for longer than scale.hold_s '
                         f'{row["outages"]} times; {recovery}.')
    if 'obstacles' in row:
        score = {name: 'unknown' if math.isnan(value) else
                 f'{value:.2f} m' if name == 'distance_m' else format_percent(value, '.0f')
                 for name, value in row['obstacles'].items() if name != 'found'}
        sentences.append(
            f"In Nav2's obstacle layer, {score['recall']} of the visible obstacles are marked, "
            f'{score["precision"]} of the marked cells lie in an obstacle or a wall, and '
            f'{score["floor_free"]} of the visible floor is free; mean error of the distance to '
            f'an obstacle: {score["distance_m"]}.')
    return sentences


def describe_choices(analysis: Analysis, abs_rel: str) -> list[str]:
    """Compare each policy that chooses T with what its time buys blindly; `describe_saving`."""
    sentences = []
    for name, result in analysis.policies.items():
        if not result.against_blind or name in OFFLINE_POLICIES:
            continue
        difference = result.against_blind
        sentences.append(
            f'{name} is {"better" if beats(difference) else "not better"} than what the same time '
            f'buys without a look at the frames ({_format_differences(difference, abs_rel)}).')
    return sentences


def _phrase_verdict(verdict: str) -> str:
    return {'better': 'the policy is better', 'worse': 'the policy is worse',
            'no difference': 'no difference', 'unknown': 'too few blocks to compare'}[verdict]


def _format_differences(differences: Mapping[str, Difference], abs_rel: str) -> str:
    labels = {'abs_rel': abs_rel, 'published_delta1': 'published delta1',
              'boundary_f1': 'boundary F1'}
    return ', '.join(f'{labels[metric]} {_format_difference(differences[metric])}'
                     for metric in DECISIVE)


def _format_difference(difference: Difference) -> str:
    """Format a relative difference and its verdict."""
    if difference.verdict == 'unknown':
        return 'unknown (too few blocks)'
    if difference.verdict == 'no difference' or math.isnan(difference.relative):
        return difference.verdict
    return f'{format_percent(difference.relative, "+.1f")} ({difference.verdict})'
