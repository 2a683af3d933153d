"""Write `report.html`: one file without scripts that opens anywhere, offline."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup
from matplotlib import colormaps
import numpy as np
from numpy.typing import NDArray

from marigold_ros.evaluation.analysis import Analysis
from marigold_ros.evaluation.metrics.protocols import describe_protocol
from marigold_ros.evaluation.report import figures
from marigold_ros.evaluation.report.exemplars import Picture
from marigold_ros.evaluation.report.tables import all_tables, summary_abs_rel_label

TEMPLATE = 'report.html.j2'
# Perceptually even, and readable without telling red from green.
DEPTH_COLORS, ERROR_COLORS = 'viridis_r', 'PuOr_r'
UNKNOWN_GRAY = 0.85
# The nearest and farthest hundredth of the pixels do not stretch the colours of the rest.
COLOR_PERCENTILES = (1.0, 99.0)
LARGEST_ERROR = 0.5
JPEG_QUALITY = 85


def write_report(path: Path, summary: Mapping[str, Any], analysis: Analysis,
                 exemplars: Mapping[str, Sequence[Picture]]) -> None:
    """
    Write the report.

    Parameters
    ----------
    path : Path
    summary : mapping
        As `summary.summarize_evaluation` makes it; every number of the text comes from it.
    analysis : Analysis
        What the plots are drawn from.
    exemplars : mapping of str to sequence of Picture
    """
    abs_rel = summary_abs_rel_label(summary)
    environment = Environment(loader=PackageLoader('marigold_ros.evaluation.report', ''),
                              autoescape=select_autoescape(default=True), trim_blocks=True,
                              lstrip_blocks=True)
    text = environment.get_template(TEMPLATE).render(
        summary=summary, abs_rel=abs_rel, tiles=_tiles(summary),
        label=describe_protocol(summary['protocol'], summary['compared_range']),
        tables={table.name: table for table in all_tables(summary)},
        figures={name: [Markup(svg) for svg in plots] for name, plots in (
            ('frontier', figures.frontier(analysis, abs_rel)),
            ('complexity', figures.complexity(analysis, abs_rel)),
            ('latency', figures.latency_histogram(analysis)),
            ('timeline', figures.timeline(analysis, abs_rel)))},
        exemplars={rank: [_panels(each) for each in pictures]
                   for rank, pictures in exemplars.items()},
        depth_scale=_scale_bar(DEPTH_COLORS), error_scale=_scale_bar(ERROR_COLORS),
        largest_error=LARGEST_ERROR)
    path.write_text(text, encoding='utf-8')


def _tiles(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Boil the verdict down to three numbers, each with what it must be compared with."""
    judged = summary['policies'][summary['verdict']['policy']]
    clock = judged.get('live') or judged['clock']
    slowest = summary['engine']['slowest_policy']
    others = ', '.join(f'{name} {_number(values["abs_rel"])}'
                       for name, values in summary['baselines'].items())
    cap_ms = summary['settings']['latency_cap_ms']
    fates = clock['fates']
    dropped = fates['superseded'] + fates['late']
    return [
        {'title': 'Accuracy', 'value': _number(judged['metrics']['abs_rel']),
         'unit': summary_abs_rel_label(summary),
         'below': f'{_interval(judged["abs_rel_interval"], 1, ".3f")}; {others}'},
        {'title': 'Latency', 'value': _number(clock['latency_p99_ms'], '.0f'), 'unit': 'ms, p99',
         'below': ('no cap' if cap_ms is None else
                   f'cap {cap_ms:.0f} ms: {clock["over_cap"]} of {fates["processed"]} over it')
         + f'; {dropped} dropped'},
        {'title': 'Time saved', 'value': f'{100 * judged["time_saved"]:.0f}', 'unit': '%',
         'below': f'{_interval(judged["time_saved_interval"], 100, ".1f")} against {slowest}'}]


def _number(value: float | None, form: str = '.3f') -> str:
    return 'unknown' if value is None else f'{value:{form}}'


def _interval(bounds: Sequence[float | None], factor: float, form: str) -> str:
    low, high = bounds
    if low is None or high is None:
        return 'too few blocks for an interval'
    return f'95 % within {factor * low:{form}} to {factor * high:{form}}'


def _panels(picture: Picture) -> dict[str, Any]:
    """Make the pictures of one frame: image, prediction, truth, error."""
    known = picture.truth_m[np.isfinite(picture.truth_m)]
    low, high = (float(each) for each in np.percentile(known, COLOR_PERCENTILES))
    return {
        'picture': picture, 'low': low, 'high': high,
        'panels': [
            ('image', _uri('.jpg', picture.rgb)),
            ('prediction', _uri('.png', _colored(picture.depth_m, DEPTH_COLORS, low, high))),
            ('truth', _uri('.png', _colored(picture.truth_m, DEPTH_COLORS, low, high))),
            ('error', _uri('.png', _colored(picture.error, ERROR_COLORS, -LARGEST_ERROR,
                                            LARGEST_ERROR)))]}


def _colored(values: NDArray[Any], colors: str, low: float, high: float) -> NDArray[np.uint8]:
    """Return uint8 [h, w, 3]; NaN is grey, and +inf (sky) as far as can be."""
    unit = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    rgb = colormaps[colors](np.nan_to_num(unit))[..., :3]
    rgb[np.isnan(values)] = UNKNOWN_GRAY
    return np.asarray(np.round(255 * rgb), np.uint8)


def _scale_bar(colors: str) -> str:
    """Draw the colours from low to high."""
    return _uri('.png', _colored(np.linspace(0, 1, 160)[None], colors, 0, 1))


def _uri(extension: str, rgb: NDArray[np.uint8]) -> str:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if extension == '.jpg' else []
    stream = cv2.imencode(extension, np.ascontiguousarray(rgb[..., ::-1]), quality)[1]
    kind = {'.jpg': 'jpeg', '.png': 'png'}[extension]
    return f'data:image/{kind};base64,{base64.b64encode(stream.tobytes()).decode()}'
