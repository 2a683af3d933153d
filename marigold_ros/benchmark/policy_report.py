"""What a comparison of step policies says: as numbers, in words, as tables and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from marigold_ros.benchmark.policy_runs import Runs, SETTINGS
from marigold_ros.evaluation.config import fixed_name
from marigold_ros.evaluation.policies import (beats, Blocks, BOUNDS, compare, DECISIVE, Difference,
                                              oracle, Outcomes, QUALITY, random_alike, STEPS,
                                              summarize)

SHOWN_FIXED = (1, 2, 4)
FASTEST, SLOWEST = (fixed_name(steps) for steps in (SETTINGS.min_inference_steps,
                                                    SETTINGS.max_inference_steps))
LABELS = {'abs_rel': 'AbsRel', 'delta1': 'delta1', 'boundary_f1': 'boundary F1'}
# A checkpoint that draws few borders has a very small F1.
FORMATS = {'abs_rel': '.4f', 'delta1': '.4f', 'boundary_f1': '.2g'}
# Below this, all that F1 counts are a few pixels, and ratios of it are luck.
FEW_BOUNDARIES = 0.05
DPI = 120
MARKERS = 'ovs^D*PX'
RANDOM_AS = 'random as '


@dataclass(frozen=True)
class Comparison:
    """
    One data set's result.

    Attributes
    ----------
    name, block : str
        Of the data set, and what its blocks are.
    frames, blocks : int
        How many.
    policies : dict of str to dict
        By policy, see `summarize`.
    steps : dict of str to list of int
        By adaptive policy: frames that had T = 1 .. Tmax.
    differences : dict of str to dict
        By adaptive policy, then by what it is compared with, then by metric.
    """

    name: str
    block: str
    frames: int
    blocks: int
    policies: dict[str, dict[str, float]]
    steps: dict[str, list[int]]
    differences: dict[str, dict[str, dict[str, Difference]]]


def compare_policies(name: str, block: str, runs: Runs, *, mean_of_blocks: bool) -> Comparison:
    """
    Set every policy beside the fixed T and beside random T of the same histogram.

    Parameters
    ----------
    name, block : str
        Of the data set, and what its blocks are.
    runs : Runs
    mean_of_blocks : bool
        See `Blocks`.

    Returns
    -------
    Comparison
    """
    blocks = Blocks(runs.blocks, mean_of_blocks)
    policies = {fixed_name(steps): runs.by_steps[steps - 1] for steps in SHOWN_FIXED}
    differences, histograms = {}, {}
    for policy, outcomes in runs.adaptive.items():
        alike = random_alike(runs.by_steps, outcomes[:, STEPS])
        policies |= {policy: outcomes, RANDOM_AS + policy: alike}
        differences[policy] = {FASTEST: compare(outcomes, policies[FASTEST], blocks),
                               'random': compare(outcomes, alike, blocks)}
        histograms[policy] = _histogram(outcomes)
    policies['oracle'] = oracle(runs.by_steps)
    return Comparison(name, block, len(runs.blocks), len(set(runs.blocks)),
                      summarize(policies, blocks, fastest=FASTEST, slowest=SLOWEST),
                      histograms, differences)


def verdicts(comparison: Comparison) -> list[str]:
    """
    Say of each adaptive policy, in one sentence, what it beats and whether it meets the target.

    Returns
    -------
    list of str
    """
    return [_verdict(policy, comparison) for policy in comparison.differences]


def markdown(comparison: Comparison) -> str:
    """Lay one data set's result out as tables and sentences."""
    lines = [f'## {comparison.name}: {comparison.frames} frames in {comparison.blocks} blocks '
             f'(each a {comparison.block})', '', *_policy_table(comparison.policies), '',
             f'Relative differences and their 95 % intervals (paired bootstrap, each draw a '
             f'{comparison.block}):', '', *_difference_table(comparison), '']
    f1 = comparison.policies[SLOWEST]['boundary_f1']
    if f1 < FEW_BOUNDARIES:
        lines.append(f'- Boundary F1 of {SLOWEST} is {f1:.2g}: this checkpoint draws hardly any '
                     'border sharp enough to count, so that ratios of it rest on few pixels.')
    return '\n'.join([*lines, *(f'- {sentence}' for sentence in verdicts(comparison))])


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return the result for JSON: NaN becomes None."""
    result: dict[str, Any] = _without_nan(asdict(comparison))
    return {**result, 'verdicts': verdicts(comparison)}


def plot(comparisons: Sequence[Comparison], path: Path) -> None:
    """
    Draw AbsRel and boundary F1 against time, one marker a policy, one column a data set.

    Parameters
    ----------
    comparisons : sequence of Comparison
        At least one.
    path : Path
        PNG to write.
    """
    figure = Figure(figsize=(4.6 * len(comparisons), 7.4), dpi=DPI, layout='constrained')
    axes = figure.subplots(len(DECISIVE), len(comparisons), squeeze=False)
    for column, comparison in enumerate(comparisons):
        axes[0, column].set_title(comparison.name, fontsize=10)
        for row, metric in enumerate(DECISIVE):
            _scatter(axes[row, column], comparison, metric)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=4, fontsize=8)
    figure.savefig(path)


def _histogram(outcomes: Outcomes) -> list[int]:
    return [int((outcomes[:, STEPS] == steps).sum())
            for steps in range(1, SETTINGS.max_inference_steps + 1)]


def _verdict(policy: str, comparison: Comparison) -> str:
    row, against = comparison.policies[policy], comparison.differences[policy]
    parts = []
    for other, differences in against.items():
        word = 'beats' if beats(differences) else 'does not beat'
        found = ' and '.join(f'{differences[metric].verdict} in {LABELS[metric]}'
                             for metric in DECISIVE)
        parts.append(f'{word} {other} ({found})')
    missed = _missed(row)
    target = f'misses the target in {" and ".join(missed)}' if missed else 'meets the target'
    return (f'`{policy}` {", and ".join(parts)}; it {target}, with '
            f'{_percent(row["total_share"])} of the ceiling, AbsRel '
            f'{_percent(row["abs_rel_relative"], "+")} and boundary F1 '
            f'{_percent(row["boundary_f1_relative"], "+")} against {SLOWEST}.')


def _missed(row: Mapping[str, float]) -> list[str]:
    """Name the bounds of the target that a policy does not keep."""
    return [LABELS.get(bound, bound) for bound in BOUNDS if not row[f'meets_{bound}']]


def _policy_table(policies: Mapping[str, Mapping[str, float]]) -> list[str]:
    titles = ['policy', 'mean T', 'ms a frame', 'denoising ms', 'time saved (of ceiling)',
              'denoising saved (of ceiling)',
              *(f'{label} (to {SLOWEST})' for label in LABELS.values()), 'target']
    lines = [f'| {" | ".join(titles)} |', '|---' * len(titles) + '|']
    for name, row in policies.items():
        cells = [name, f'{row["num_inference_steps"]:.2f}', f'{1e3 * row["total_s"]:.1f}',
                 f'{1e3 * row["denoise_s"]:.1f}',
                 *(f'{_percent(row[f"{kind}_saved"])} ({_percent(row[f"{kind}_share"])})'
                   for kind in ('total', 'denoise')),
                 *(f'{row[metric]:{FORMATS[metric]}} ({_percent(row[f"{metric}_relative"], "+")})'
                   for metric in QUALITY),
                 f'missed: {", ".join(_missed(row))}' if _missed(row) else 'met']
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def _difference_table(comparison: Comparison) -> list[str]:
    lines = [f'| policy | against | {" | ".join(LABELS.values())} |',
             '|---' * (2 + len(LABELS)) + '|']
    for policy, against in comparison.differences.items():
        for other, differences in against.items():
            cells = ' | '.join(_in_words(differences[metric]) for metric in QUALITY)
            lines.append(f'| {policy} | {other} | {cells} |')
    return lines


def _in_words(difference: Difference) -> str:
    """Write a difference with its interval, which a reference of 0 leaves without a ratio."""
    if math.isnan(difference.low):
        return difference.verdict
    return (f'{_percent(difference.relative, "+")} [{_percent(difference.low, "+")}, '
            f'{_percent(difference.high, "+")}] {difference.verdict}')


def _percent(value: float, sign: str = '') -> str:
    return 'unknown' if math.isnan(value) else f'{100 * value:{sign}.1f} %'


def _scatter(axis: Any, comparison: Comparison, metric: str) -> None:
    """Draw every policy; a random one has the marker of the one it imitates, hollow."""
    styles = {name: (marker, f'C{number}') for number, (name, marker) in enumerate(zip(
        (name for name in comparison.policies if not name.startswith(RANDOM_AS)), MARKERS))}
    for name, row in comparison.policies.items():
        marker, color = styles[name.removeprefix(RANDOM_AS)]
        axis.plot(1e3 * row['total_s'], row[metric], linestyle='none', marker=marker, color=color,
                  markersize=8, fillstyle='none' if name.startswith(RANDOM_AS) else 'full',
                  label=name)
    axis.set_xlabel('ms a frame')
    axis.set_ylabel(LABELS[metric])
    axis.grid(alpha=0.3)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
