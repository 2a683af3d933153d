"""Contact sheet of a recording: image, depth, ground truth and costmap of several frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TYPE_CHECKING

from matplotlib.figure import Figure

from marigold_ros.evaluation.report.pictures import color_limits

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage, RgbImage

FRAME_WIDTH_IN = 2.2
DPI = 110
NEAR_IS_RED = 'turbo_r'
UNKNOWN_GREY = '0.6'


@dataclass(frozen=True, eq=False)
class SheetFrame:
    """
    One column of the sheet.

    Attributes
    ----------
    time_s : float
        Time since the first frame.
    rgb : uint8 [H, W, 3]
    relative_depth : float32 [H, W]
        In [0, 1]; NaN where unknown.
    depth_m, target_m : float32 [H, W] or None
        Metric and true depth, m; NaN where unknown.
    costmap : uint8 [h, w, 3] or None
        From above.
    complexity : float
        C.
    num_inference_steps : int
        T.
    error : str
        Formatted error of metric depth; empty if unknown.
    """

    time_s: float
    rgb: RgbImage
    relative_depth: FloatImage
    depth_m: FloatImage | None
    target_m: FloatImage | None
    costmap: RgbImage | None
    complexity: float
    num_inference_steps: int
    error: str


def draw_contact_sheet(frames: Sequence[SheetFrame], path: Path) -> None:
    """
    Draw one column per frame and write a PNG.

    The rows are image, relative depth and, where a frame has them, metric depth and ground truth
    with the same colour scale, and the costmap.

    Parameters
    ----------
    frames : sequence of SheetFrame
        At least one.
    path : Path
    """
    metric = [each for frame in frames for each in (frame.target_m, frame.depth_m)
              if each is not None]
    # The truth of a frame comes first.
    low, high = color_limits(metric[0]) if metric else (0.0, 1.0)
    rows: dict[str, Callable[[SheetFrame], Any]] = {
        'image': lambda frame: frame.rgb, 'relative depth': lambda frame: frame.relative_depth,
        'metric depth': lambda frame: frame.depth_m, 'ground truth': lambda frame: frame.target_m,
        'costmap': lambda frame: frame.costmap}
    rows = {name: find for name, find in rows.items()
            if any(find(frame) is not None for frame in frames)}
    height_in = FRAME_WIDTH_IN * frames[0].rgb.shape[0] / frames[0].rgb.shape[1]
    heights = [FRAME_WIDTH_IN if name == 'costmap' else height_in for name in rows]
    figure = Figure(figsize=(FRAME_WIDTH_IN * len(frames) + 1.2, sum(heights) + 0.5), dpi=DPI,
                    layout='constrained')
    axes = figure.subplots(len(rows), len(frames), squeeze=False, height_ratios=heights)
    for (name, find), line in zip(rows.items(), axes):
        limits = (0.0, 1.0) if name == 'relative depth' else (low, high)
        for axis, frame in zip(line, frames):
            axis.set(xticks=[], yticks=[], facecolor=UNKNOWN_GREY)
            if (image := find(frame)) is not None:
                shown = axis.imshow(image, cmap=NEAR_IS_RED, vmin=limits[0], vmax=limits[1],
                                    interpolation='nearest')
        line[0].set_ylabel(name, fontsize=9)
        if name in ('relative depth', 'ground truth'):
            figure.colorbar(shown, ax=line, fraction=0.02, pad=0.01,
                            label='m' if name == 'ground truth' else '0 near, 1 far')
    for axis, frame in zip(axes[0], frames):
        axis.set_title(f'{frame.time_s:.1f} s   C = {frame.complexity:.3g}, '
                       f'T = {frame.num_inference_steps}', fontsize=9)
    for axis, frame in zip(axes[min(2, len(axes) - 1)], frames):
        axis.set_title(frame.error, fontsize=8, pad=2)
    figure.savefig(path)
