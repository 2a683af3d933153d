"""Plots that can be turned and zoomed: plotly's JavaScript, and its figures of clouds and maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distribution, PackageNotFoundError
from typing import Any

import cv2
import numpy as np

from marigold_ros.evaluation.metrics.obstacle_map import (
    CELL_FOUND,
    CELL_FREE,
    CELL_INVENTED,
    CELL_MISSED,
    CELL_UNKNOWN,
    ObstacleMap,
    SCENE,
)
from marigold_ros.evaluation.report.look import Cloud
from marigold_ros.evaluation.report.pictures import data_uri, encode_picture
from marigold_ros.metric.anchors import choose_evenly

# Of Okabe and Ito, safe for red-green colour blindness.
CELL_COLORS = {CELL_UNKNOWN: '#e4e4e4', CELL_FREE: '#ffffff', CELL_FOUND: '#009e73',
               CELL_MISSED: '#d55e00', CELL_INVENTED: '#cc79a7'}
REFERENCES = {'cloud': 'the reference cloud', 'depth': 'the reference depth',
              'scan': 'the laser scan', 'lidar': 'the lidar'}
PATH_COLOR, BOX_COLOR = '#0072b2', '#333333'
MAP_MARGIN_M = 0.5
MAX_PICTURE_PX, MAX_PATH_POINTS = 1200, 2000
FONT: Mapping[str, Any] = {'family': 'system-ui, sans-serif', 'size': 12, 'color': '#333'}


@dataclass(frozen=True)
class PlotlyBundle:
    """The library as one script, and its licence."""

    script: str
    version: str
    licence: str


def load_plotly() -> PlotlyBundle | None:
    """Read the installed plotly; None where it is missing, or has no script, as from apt."""
    try:
        from plotly.offline import get_plotlyjs
        installed = distribution('plotly')
        licences = [file.read_text(encoding='utf-8') for file in installed.files or ()
                    if file.name.startswith('LICENSE')]
        return PlotlyBundle(get_plotlyjs(), installed.version, '\n'.join(licences))
    except (ImportError, OSError, PackageNotFoundError):
        return None


def cloud_figure(clouds: Mapping[int, Cloud]) -> dict[str, Any]:
    """Return a figure for plotly.js: one trace for each cloud, of which the first is visible."""
    metric = any(cloud.metric for cloud in clouds.values())
    titles = ('right, m', 'ahead, m', 'up, m') if metric else ('right', 'relative depth', 'up')
    traces = [{
        'type': 'scatter3d', 'mode': 'markers', 'visible': index == 0,
        **{axis: [round(each, 3) for each in values.tolist()]
           for axis, values in zip('xyz', cloud.points.T)},
        'hoverinfo': 'x+y+z' if metric else 'skip',
        'marker': {'size': 2, 'color': [f'#{each.tobytes().hex()}' for each in cloud.colors]}}
        for index, cloud in enumerate(clouds.values())]
    axes = {f'{axis}axis': {'title': {'text': title}, 'showbackground': False,
                            'gridcolor': '#dddddd', 'zerolinecolor': '#bbbbbb'}
            for axis, title in zip('xyz', titles)}
    camera = {'eye': {'x': 0.4, 'y': -1.85, 'z': 0.6}, 'center': {'x': 0.12, 'y': 0, 'z': -0.18}}
    return {'data': traces, 'layout': {
        'font': FONT, 'margin': dict.fromkeys('ltrb', 0), 'uirevision': 'camera',
        'showlegend': False,
        'scene': {**axes, 'aspectmode': 'data', 'dragmode': 'orbit', 'camera': camera}}}


def map_figure(obstacle_map: ObstacleMap) -> dict[str, Any]:
    """Return a figure for plotly.js: cells as an image, the boxes of the scene, and the way."""
    image, low_m, high_m = _draw_cells(obstacle_map)
    traces: list[dict[str, Any]] = []
    for name, box in obstacle_map.boxes:
        (x0, y0), (x1, y1) = box[:, :2].tolist()
        seen = obstacle_map.visible[name]
        marked = (f'marked in {obstacle_map.found[name]} of {seen} frames in which it is visible'
                  if seen else 'never visible')
        traces.append({
            'x': [x0, x1, x1, x0, x0], 'y': [y0, y0, y1, y1, y0], 'mode': 'lines',
            'fill': 'toself', 'fillcolor': 'rgba(0,0,0,0)', 'hoveron': 'fills',
            'hoverinfo': 'text', 'text': f'{name}: {marked}',
            'line': {'color': BOX_COLOR, 'width': 1}})
    path_m = obstacle_map.path_m[choose_evenly(len(obstacle_map.path_m), MAX_PATH_POINTS)]
    x, y = path_m.round(3).T.tolist()
    traces.append({'x': x, 'y': y, 'mode': 'lines', 'hoverinfo': 'skip',
                   'line': {'color': PATH_COLOR, 'width': 2}})
    traces.append({'x': x[-1:], 'y': y[-1:], 'mode': 'markers', 'hoverinfo': 'skip',
                   'marker': {'color': PATH_COLOR, 'size': 9}})
    (left, bottom), (right, top) = low_m.tolist(), high_m.tolist()
    axis = {'showgrid': False, 'zeroline': False, 'constrain': 'domain'}
    return {'data': traces, 'layout': {
        'font': FONT, 'margin': {'l': 48, 't': 8, 'r': 8, 'b': 44}, 'dragmode': False,
        'showlegend': False, 'plot_bgcolor': CELL_COLORS[CELL_UNKNOWN],
        'images': [{'source': image, 'xref': 'x', 'yref': 'y', 'x': left, 'y': top,
                    'sizex': right - left, 'sizey': top - bottom, 'sizing': 'stretch',
                    'layer': 'below'}],
        'xaxis': {**axis, 'title': {'text': 'x, m'}, 'range': [left, right]},
        'yaxis': {**axis, 'title': {'text': 'y, m'}, 'range': [bottom, top],
                  'scaleanchor': 'x'}}}


def map_legend(obstacle_map: ObstacleMap) -> list[tuple[str, str]]:
    """Return colour and meaning of the cells and lines of a map."""
    scene = obstacle_map.reference == SCENE
    reference = REFERENCES.get(obstacle_map.reference)
    names = {
        CELL_FOUND: 'found' if scene else f'marked by our cloud and by {reference}',
        CELL_MISSED: 'missed' if scene else f'marked by {reference} alone',
        CELL_INVENTED: 'invented' if scene else 'marked by our cloud alone',
        CELL_FREE: 'free by our cloud', CELL_UNKNOWN: 'unknown'}
    outside = obstacle_map.outside
    return [*((CELL_COLORS[cell], name) for cell, name in names.items()),
            (PATH_COLOR, 'way of the camera, to the point' + (
                f'; {outside} frames are outside the largest map' if outside else ''))]


def _draw_cells(obstacle_map: ObstacleMap) -> tuple[str, np.ndarray, np.ndarray]:
    """Return the known part of a map as a data URI, and its corners (x, y), m."""
    cells, resolution = obstacle_map.cells(), obstacle_map.resolution
    rows, columns = (np.flatnonzero((cells != CELL_UNKNOWN).any(axis=axis)) for axis in (1, 0))
    margin = round(MAP_MARGIN_M / resolution)
    path = np.floor((obstacle_map.path_m - obstacle_map.low_m) / resolution).astype(int)
    first, last = (
        np.array([pick([*columns[[0, -1]], *path[:, 0]]), pick([*rows[[0, -1]], *path[:, 1]])])
        for pick in (min, max)) if len(rows) else (path.min(axis=0), path.max(axis=0))
    first = np.maximum(first - margin, 0)
    last = np.minimum(last + margin, np.array(cells.shape[::-1]) - 1)
    shown = cells[first[1]:last[1] + 1, first[0]:last[0] + 1]
    # A cell that is reduced away must not hide an obstacle: the largest value is shown.
    block = -(-max(shown.shape) // MAX_PICTURE_PX)
    if block > 1:
        shown = np.asarray(cv2.dilate(shown, np.ones((block, block))), np.uint8)[::block, ::block]
    palette = np.array([[int(color[i:i + 2], 16) for i in (1, 3, 5)]
                        for _, color in sorted(CELL_COLORS.items())], np.uint8)
    # Browsers smooth an image that they enlarge.
    enlarge = max(1, MAX_PICTURE_PX // max(shown.shape))
    rgb = np.kron(palette[shown[::-1]], np.ones((enlarge, enlarge, 1), np.uint8))
    low_m = obstacle_map.low_m + first * resolution
    return (data_uri(encode_picture(rgb, '.png'), '.png'), low_m,
            obstacle_map.low_m + (last + 1) * resolution)
