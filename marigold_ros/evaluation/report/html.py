"""Write `report.html`, a single file without scripts that opens offline."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, PackageLoader, select_autoescape, Template
from markupsafe import Markup
from matplotlib import colormaps
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.types import RgbImage
from marigold_ros.evaluation.analysis import Analysis
from marigold_ros.evaluation.metrics.protocols import describe_protocol
from marigold_ros.evaluation.report import figures
from marigold_ros.evaluation.report.example_frames import FramePicture
from marigold_ros.evaluation.report.tables import all_tables, summary_abs_rel_label

TEMPLATE = 'report.html.j2'
# Perceptually uniform and safe for red-green colour blindness.
DEPTH_COLORS, ERROR_COLORS = 'viridis_r', 'PuOr_r'
UNKNOWN_GREY = 0.85
# Percentiles of the depth that the colour scale covers, so that outliers do not stretch it.
COLOR_PERCENTILES = (1.0, 99.0)
LARGEST_ERROR = 0.5
JPEG_QUALITY = 85


def write_report(path: Path, summary: Mapping[str, Any], analysis: Analysis,
                 examples: Mapping[str, Sequence[FramePicture]]) -> None:
    """
    Write the report.

    Parameters
    ----------
    path : Path
    summary : mapping
        From `summary.summarize_evaluation`; source of all numbers in text and tables.
    analysis : Analysis
        Source of the plots.
    examples : mapping of str to sequence of FramePicture
        Frames to show by 'best', 'median' and 'worst'.
    """
    abs_rel = summary_abs_rel_label(summary)
    text = load_template(TEMPLATE).render(
        summary=summary, abs_rel=abs_rel, tiles=_summary_tiles(summary),
        label=describe_protocol(summary['protocol'], summary['compared_range']),
        tables={table.name: table for table in all_tables(summary)},
        figures={name: [Markup(svg) for svg in plots] for name, plots in (
            ('frontier', figures.plot_frontier(analysis, abs_rel)),
            ('complexity', figures.plot_complexity(analysis, abs_rel)),
            ('latency', figures.plot_latency_histogram(analysis)),
            ('timeline', figures.plot_timeline(analysis, abs_rel)))},
        examples={rank: [_picture_panels(each) for each in pictures]
                  for rank, pictures in examples.items()},
        depth_scale=scale_bar(DEPTH_COLORS), error_scale=scale_bar(ERROR_COLORS),
        largest_error=LARGEST_ERROR)
    path.write_text(text, encoding='utf-8')


def load_template(name: str) -> Template:
    """Load a template of this folder."""
    return Environment(loader=PackageLoader('marigold_ros.evaluation.report', ''),
                       autoescape=select_autoescape(default=True), trim_blocks=True,
                       lstrip_blocks=True).get_template(name)


def _summary_tiles(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the three main numbers of the primary policy, each with its context."""
    primary = summary['policies'][summary['verdict']['policy']]
    stream = primary.get('live') or primary['simulated']
    fastest, slowest = (primary['saved'][summary['engine'][f'{rank}_policy']]
                        for rank in ('fastest', 'slowest'))
    baselines = ', '.join(f'{name} {_format_number(values["abs_rel"])}'
                          for name, values in summary['baselines'].items())
    cap_ms = summary['settings']['latency_cap_ms']
    counts = stream['outcomes']
    interval = _format_interval((fastest['low'], fastest['high']), 100, '.1f')
    return [
        {'title': 'Accuracy', 'value': _format_number(primary['metrics']['abs_rel']),
         'unit': summary_abs_rel_label(summary),
         'below': f'{_format_interval(primary["abs_rel_interval"], 1, ".3f")}; baselines: '
                  f'{baselines}'},
        {'title': 'Latency', 'value': _format_number(stream['latency_p99_ms'], '.0f'),
         'unit': 'ms, p99',
         'below': ('no latency cap' if cap_ms is None else
                   f'above the cap of {cap_ms:.0f} ms: {stream["over_cap"]} of '
                   f'{counts["processed"]} processed frames')
                  + f'; {counts["superseded"]} superseded'},
        {'title': 'Network time saved', 'value': f'{100 * fastest["share"]:.0f}', 'unit': '%',
         'below': f'against {summary["engine"]["fastest_policy"]}; {interval}; '
                  f'{100 * slowest["share"]:.0f} % against '
                  f'{summary["engine"]["slowest_policy"]}'}]


def _format_number(value: float | None, form: str = '.3f') -> str:
    return 'unknown' if value is None else f'{value:{form}}'


def _format_interval(bounds: Sequence[float | None], factor: float, form: str) -> str:
    low, high = bounds
    if low is None or high is None:
        return 'too few blocks for a confidence interval'
    return f'95 % confidence interval {factor * low:{form}} to {factor * high:{form}}'


def _picture_panels(picture: FramePicture) -> dict[str, Any]:
    """Return the panels of one frame: image, prediction, truth, error."""
    low, high = depth_limits_m(picture)
    return {
        'picture': picture, 'low': low, 'high': high,
        'panels': [(name, _data_uri('.jpg' if name == 'image' else '.png', rgb))
                   for name, rgb in draw_panels(picture).items()]}


def depth_limits_m(picture: FramePicture) -> tuple[float, float]:
    """Return the depths, m, between which the colours of a frame's depth change."""
    known = picture.target_m[np.isfinite(picture.target_m)]
    low, high = np.percentile(known, COLOR_PERCENTILES)
    return float(low), float(high)


def draw_panels(picture: FramePicture) -> dict[str, RgbImage]:
    """Draw image, prediction, truth and error of a frame, uint8 [h, w, 3] each."""
    low, high = depth_limits_m(picture)
    return {
        'image': picture.rgb,
        'prediction': _color(picture.depth_m, DEPTH_COLORS, low, high),
        'truth': _color(picture.target_m, DEPTH_COLORS, low, high),
        'error': _color(picture.error, ERROR_COLORS, -LARGEST_ERROR, LARGEST_ERROR)}


def _color(values: NDArray[Any], colors: str, low: float, high: float) -> RgbImage:
    """Colour values [h, w]; NaN is grey, +inf (sky) the farthest colour."""
    unit = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    rgb = colormaps[colors](np.nan_to_num(unit))[..., :3]
    rgb[np.isnan(values)] = UNKNOWN_GREY
    return np.asarray(np.round(255 * rgb), np.uint8)


def scale_bar(colors: str) -> str:
    """Encode a colour scale from low to high as a PNG."""
    return _data_uri('.png', _color(np.linspace(0, 1, 160)[None], colors, 0, 1))


def _data_uri(extension: str, rgb: RgbImage) -> str:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if extension == '.jpg' else []
    stream = cv2.imencode(extension, np.ascontiguousarray(rgb[..., ::-1]), quality)[1]
    kind = {'.jpg': 'jpeg', '.png': 'png'}[extension]
    return f'data:image/{kind};base64,{base64.b64encode(stream.tobytes()).decode()}'
