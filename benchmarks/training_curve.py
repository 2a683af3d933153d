"""
How does the error of a checkpoint fall with the views it has seen, and what do more promise?

    python -m benchmarks.training_curve --run runs/places

Reads what a training measured on held-out frames at each of its checkpoints, and fits
error = limit + scale * views ** -exponent, by which losses of networks commonly fall (Hestness et
al. 2017).  The fit says what the same training would reach with more views; it is a promise, not a
measurement.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
import json
from pathlib import Path
import sys

from matplotlib.figure import Figure
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit
import yaml

from benchmarks.timing import format_markdown_table, write_benchmark_report
from marigold_ros.depth.errors import InputError, MarigoldError
from marigold_ros.evaluation.environment import describe_environment

PREFIX, METRIC = 'validation/', 'abs_rel'
# Multiples of the views seen, for which the fit is asked.
MORE = (2, 4, 10)
# A curve with three parameters says nothing with fewer points.
MIN_POINTS = 5


@dataclass(frozen=True)
class Curve:
    """
    Error of one held-out set by views seen.

    Attributes
    ----------
    name : str
        As 'AbsRel on <set>, <steps> step(s)'.
    views, error : float64 [n]
        Views seen by each checkpoint, and its mean AbsRel.
    """

    name: str
    views: NDArray[np.float64]
    error: NDArray[np.float64]

    @cached_property
    def power_law(self) -> tuple[float, float, float] | None:
        """
        Limit, scale and exponent of the error, with views in multiples of those seen.

        None if the curve has fewer than five points after the first, or does not fall.
        """
        # The first is the initial checkpoint, which has seen no view of this training.
        seen, error = self.views[1:], self.error[1:]
        if len(seen) < MIN_POINTS or error[-1] >= error[0]:
            return None
        start = (0.8 * error[-1], 0.2 * error[-1], 0.3)
        fitted, _ = curve_fit(_power_law, seen / seen[-1], error, start,
                              bounds=([0.0, 0.0, 0.05], [error.min(), 1.0, 2.0]))
        limit, scale, exponent = fitted.tolist()
        return limit, scale, exponent

    def promise(self, views: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Extrapolate the error to more views; None without a `power_law`."""
        if self.power_law is None:
            return None
        return _power_law(views / self.views[-1], *self.power_law)


def _power_law(views: NDArray[np.float64], limit: float, scale: float,
               exponent: float) -> NDArray[np.float64]:
    return np.asarray(limit + scale * views ** -exponent)


def read_curves(run: Path) -> list[Curve]:
    """
    Read the curves of a training.

    Parameters
    ----------
    run : Path
        A run folder of `finetune` or `train_vae`.

    Raises
    ------
    InputError
        If the folder is not one, a line of its scalars is torn, or it holds no validation.
    """
    try:
        config = yaml.safe_load((run / 'config.yaml').read_text())
        lines = [json.loads(line) for line in (run / 'scalars.jsonl').read_text().splitlines()]
    except (OSError, json.JSONDecodeError) as err:
        raise InputError(f'`run` must be a run folder with config.yaml and scalars.jsonl, which '
                         f'has one JSON object a line; got {str(run)!r}: {err}') from err
    batch_size = int(config['schedule']['batch_size'])
    points: dict[str, dict[float, float]] = {}
    for line in lines:
        for key, value in line.items():
            if key.startswith(PREFIX) and f'/{METRIC}_' in key:
                # The last value of an iteration counts: an interrupted run repeats some.
                points.setdefault(key.removeprefix(PREFIX), {})[
                    float(line['iteration'] * batch_size)] = value
    if not points:
        raise InputError(f'`run` must hold a validation by {METRIC}; {run} has none')
    return [Curve(_describe(key), np.array(sorted(values)),
                  np.array([values[views] for views in sorted(values)]))
            for key, values in points.items()]


def _describe(key: str) -> str:
    frames, predictor = key.split(f'/{METRIC}_')
    return f'AbsRel on {frames}, {predictor} step(s)'


def make_rows(curves: Sequence[Curve]) -> list[dict[str, object]]:
    """Make one row for each checkpoint of the run, then one for each promise."""
    views = sorted({count for curve in curves for count in curve.views.tolist()})
    measured = [dict(zip(curve.views.tolist(), curve.error.tolist())) for curve in curves]
    rows: list[dict[str, object]] = [
        {'views seen': f'{count:.0f}',
         **{curve.name: _format_error(errors.get(count)) for curve, errors in zip(
             curves, measured)}} for count in views]
    for more in MORE:
        further = np.array([more * views[-1]])
        promised = [curve.promise(further) for curve in curves]
        rows.append({'views seen': f'{further[0]:.0f}, by the fit',
                     **{curve.name: _format_error(None if error is None else error[0])
                        for curve, error in zip(curves, promised)}})
    return rows


def _format_error(error: float | None) -> str:
    return '-' if error is None else f'{error:.3f}'


def draw(curves: Sequence[Curve], path: Path) -> None:
    """Draw the measured errors as dots and their fits as lines."""
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for curve in curves:
        dots, = axes.plot(curve.views / 1000, curve.error, 'o-', label=curve.name)
        further = np.linspace(curve.views[1] if len(curve.views) > 1 else 1.0,
                              curve.views[-1] * MORE[0], 60)
        promised = curve.promise(further)
        if promised is not None:
            axes.plot(further / 1000, promised, '--', color=dots.get_color(), linewidth=0.8)
    axes.set(xlabel='views seen, thousands', ylabel='AbsRel on held-out frames')
    axes.legend(fontsize='small')
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--run', type=Path, required=True, help='run folder of a training')
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, draw and report; the exit code is 0 or 2."""
    options = make_parser().parse_args(arguments)
    try:
        curves = read_curves(options.run)
    except MarigoldError as err:
        print(f'training_curve: {err}', file=sys.stderr)
        return 2
    rows = make_rows(curves)
    write_benchmark_report(options.out, 'training_curve', describe_environment(), {'rows': rows},
                           format_markdown_table(rows))
    draw(curves, options.out / 'training_curve.png')
    return 0


if __name__ == '__main__':
    sys.exit(main())
