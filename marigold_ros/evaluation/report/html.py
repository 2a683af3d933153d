"""Write pages of a single file that open offline, such as `report.html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape, Template
from markupsafe import Markup

from marigold_ros.depth.types import RgbImage
from marigold_ros.evaluation.analysis import Analysis
from marigold_ros.evaluation.metrics.protocols import describe_protocol
from marigold_ros.evaluation.report import figures
from marigold_ros.evaluation.report.example_frames import FramePicture
from marigold_ros.evaluation.report.interactive import (
    cloud_figure,
    load_plotly,
    map_figure,
    map_legend,
    REFERENCES,
)
from marigold_ros.evaluation.report.look import FAR_M, NEAR_M, RecordingLook
from marigold_ros.evaluation.report.pictures import (
    color_limits,
    colorize,
    data_uri,
    DEPTH_COLORS,
    encode_picture,
    ERROR_COLORS,
    LARGEST_ERROR,
    scale_bar,
)
from marigold_ros.evaluation.report.tables import (
    all_tables,
    format_interval,
    format_number,
    format_percent,
    summary_abs_rel_label,
)

TEMPLATE = 'report.html.j2'
MAX_PAGE_BYTES = 15_000_000
# A transparent pixel, which shows the grey behind it.
NO_PICTURE = ('data:image/gif;base64,'
              'R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7')


def write_report(path: Path, summary: Mapping[str, Any], analysis: Analysis,
                 examples: Mapping[str, Sequence[FramePicture]], look: RecordingLook) -> None:
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
    look : RecordingLook
        Frames to step through, clouds, and map.
    """
    abs_rel = summary_abs_rel_label(summary)
    write_page(
        path, TEMPLATE, look, summary['data']['frames'],
        summary=summary, primary=summary['verdict']['policy'], abs_rel=abs_rel,
        tiles=_summary_tiles(summary),
        label=describe_protocol(summary['protocol'], summary['compared_range']),
        tables={table.name: table for table in all_tables(summary)},
        figures={name: [Markup(svg) for svg in plots] for name, plots in (
            ('frontier', figures.plot_frontier(analysis, abs_rel)),
            ('complexity', figures.plot_complexity(analysis, abs_rel)),
            ('latency', figures.plot_latency_histogram(analysis)),
            ('timeline', figures.plot_timeline(analysis, abs_rel)))},
        examples={rank: [_picture_panels(each) for each in pictures]
                  for rank, pictures in examples.items()})


def write_page(path: Path, template: str, look: RecordingLook, frame_count: int,
               **context: Any) -> None:
    """
    Write a page with the parts of `look.html.j2`, with fewer frames where it would be too large.

    Parameters
    ----------
    path : Path
    template : str
        Extends page.html.j2.
    look : RecordingLook
        Loses frames that do not fit.
    frame_count : int
        Number of frames of the recording.
    **context : object
        What else the template uses.
    """
    page = load_template(template)
    context['look'] = _look_context(look, frame_count)
    text = page.render(context, frames=_strip_frames(look)).encode()
    while len(text) > MAX_PAGE_BYTES and len(look.frames.items) > 1:
        look.frames.halve()
        text = page.render(context, frames=_strip_frames(look)).encode()
    path.write_bytes(text)


def _look_context(look: RecordingLook, frame_count: int) -> dict[str, Any]:
    """Return what `look.html.j2` uses besides the frames of the strip."""
    plotly = load_plotly() if look.clouds.items or look.obstacle_map else None
    parts: dict[str, Any] = {
        'plotly': plotly and replace(plotly, script=Markup(plotly.script)),
        'frame_count': frame_count, 'near_m': NEAR_M, 'far_m': FAR_M,
        'cloud_names': [f'frame {number}' for number in look.clouds.items],
        'metric_clouds': any(cloud.metric for cloud in look.clouds.items.values())}
    if look.obstacle_map is not None:
        parts |= {'map_legend': map_legend(look.obstacle_map),
                  'map_reference': REFERENCES.get(look.obstacle_map.reference)}
    if plotly is not None and look.clouds.items:
        parts['cloud_figure'] = cloud_figure(look.clouds.items)
    if plotly is not None and look.obstacle_map is not None:
        parts['map_figure'] = map_figure(look.obstacle_map)
    return parts


def _strip_frames(look: RecordingLook) -> dict[str, Any]:
    """Return the frames of the strip; a panel that a frame has not is grey."""
    shown = list(look.frames.items.values())
    panels = list(dict.fromkeys(name for frame in shown for name in frame.panels))
    titles = list(dict.fromkeys(name for frame in shown for name in frame.facts))
    start_ns = min((frame.stamp_ns for frame in shown if frame.stamp_ns is not None), default=0)
    return {'panels': panels, 'titles': titles,
            'most_steps': max([1, *(frame.num_inference_steps for frame in shown)]),
            'shown': [{
                'title': f'Frame {frame.number}' + (
                    '' if frame.stamp_ns is None else
                    f', {1e-9 * (frame.stamp_ns - start_ns):.2f} s'),
                'steps': frame.num_inference_steps,
                'panels': [data_uri(frame.panels[name]) if name in frame.panels else NO_PICTURE
                           for name in panels],
                'facts': [frame.facts.get(name, '') for name in titles]} for frame in shown]}


def load_template(name: str) -> Template:
    """Load a template of this folder; all know the scales of the colours."""
    return Environment(loader=PackageLoader('marigold_ros.evaluation.report', ''),
                       autoescape=select_autoescape(default=True), trim_blocks=True,
                       lstrip_blocks=True).get_template(name, globals={
                           'depth_scale': scale_bar(DEPTH_COLORS),
                           'error_scale': scale_bar(ERROR_COLORS),
                           'largest_error': LARGEST_ERROR})


def _summary_tiles(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the three main numbers of the primary policy, each with its context."""
    primary = summary['policies'][summary['verdict']['policy']]
    stream = primary.get('live') or primary['simulated']
    fastest, slowest = (primary['saved'][summary['engine'][f'{rank}_policy']]
                        for rank in ('fastest', 'slowest'))
    baselines = ', '.join(f'{name} {format_number(values["abs_rel"])}'
                          for name, values in summary['baselines'].items())
    cap_ms = summary['settings']['latency_cap_ms']
    counts = stream['outcomes']
    saved_interval, abs_rel_interval = map(_describe_interval, (
        format_interval((fastest['low'], fastest['high']), '.1f', 100),
        format_interval(primary['abs_rel_interval'], '.3f')))
    return [
        {'title': 'Accuracy', 'value': format_number(primary['metrics']['abs_rel'], '.3f'),
         'unit': summary_abs_rel_label(summary),
         'below': f'{abs_rel_interval}; baselines: {baselines}'},
        {'title': 'Latency', 'value': format_number(stream['latency_p99_ms'], '.0f'),
         'unit': 'ms, p99',
         'below': ('no latency cap' if cap_ms is None else
                   f'above the cap of {cap_ms:.0f} ms: {stream["over_cap"]} of '
                   f'{counts["processed"]} processed frames')
                  + f'; {counts["superseded"]} superseded'},
        {'title': 'Network time saved', 'value': format_percent(fastest['share'], '.0f'),
         'below': f'against {summary["engine"]["fastest_policy"]}; {saved_interval}; '
                  f'{format_percent(slowest["share"], ".0f")} against '
                  f'{summary["engine"]["slowest_policy"]}'}]


def _describe_interval(text: str) -> str:
    return f'95 % confidence interval{text}' if text else 'too few blocks for an interval'


def _picture_panels(picture: FramePicture) -> dict[str, Any]:
    """Return the panels of one frame: image, prediction, truth, error."""
    low, high = color_limits(picture.target_m)
    panels = []
    for name, rgb in draw_panels(picture).items():
        extension = '.jpg' if name == 'image' else '.png'
        panels.append((name, data_uri(encode_picture(rgb, extension), extension)))
    return {'picture': picture, 'low': low, 'high': high, 'panels': panels}


def draw_panels(picture: FramePicture) -> dict[str, RgbImage]:
    """Draw image, prediction, truth and error of a frame, uint8 [h, w, 3] each."""
    limits = color_limits(picture.target_m)
    return {
        'image': picture.rgb,
        'prediction': colorize(picture.depth_m, DEPTH_COLORS, *limits),
        'truth': colorize(picture.target_m, DEPTH_COLORS, *limits),
        'error': colorize(picture.error, ERROR_COLORS, -LARGEST_ERROR, LARGEST_ERROR)}
