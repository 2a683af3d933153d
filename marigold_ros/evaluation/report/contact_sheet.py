"""Contact sheet of a recording: image, depth and ground truth of several frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TYPE_CHECKING

from matplotlib.figure import Figure
import numpy as np

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage, RgbImage

FRAME_WIDTH_IN = 2.2
DPI = 110
# Percentiles of the depth that the colour scale covers, so that outliers do not stretch it.
COLOR_PERCENTILES = (1.0, 99.0)
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
    depth : float32 [H, W]
        Aligned depth, m, if there is a ground truth, else relative depth; NaN where unknown.
    target_m : float32 [H, W] or None
        True depth, m; NaN where unknown.
    complexity : float
        C.
    num_inference_steps : int
        T.
    error : str
        Formatted AbsRel with protocol and range; empty if unknown.
    """

    time_s: float
    rgb: RgbImage
    depth: FloatImage
    target_m: FloatImage | None
    complexity: float
    num_inference_steps: int
    error: str


def draw_contact_sheet(frames: Sequence[SheetFrame], path: Path) -> None:
    """
    Draw one column per frame and write a PNG.

    The rows are image, depth and, if available, ground truth with the same colour scale.

    Parameters
    ----------
    frames : sequence of SheetFrame
        At least one; either all or none with a ground truth.
    path : Path
    """
    truths = [frame.target_m for frame in frames if frame.target_m is not None]
    low, high = np.nanpercentile(np.stack(truths or [frame.depth for frame in frames]),
                                 COLOR_PERCENTILES)
    rows = 3 if truths else 2
    height_in = FRAME_WIDTH_IN * frames[0].rgb.shape[0] / frames[0].rgb.shape[1]
    figure = Figure(figsize=(FRAME_WIDTH_IN * len(frames) + 1.2, (height_in + 0.2) * rows + 0.5),
                    dpi=DPI, layout='constrained')
    axes = figure.subplots(rows, len(frames), squeeze=False)
    for column, frame in enumerate(frames):
        _label(axes[:, column], frame)
        axes[0, column].imshow(frame.rgb)
        for row, depth in enumerate([frame.depth, *truths[column:column + 1]], 1):
            image = axes[row, column].imshow(depth, cmap=NEAR_IS_RED, vmin=low, vmax=high,
                                             interpolation='nearest')
    names = ['image', 'depth, least squares' if truths else 'relative depth', 'ground truth']
    for axis, name in zip(axes[:, 0], names):
        axis.set_ylabel(name, fontsize=9)
    figure.colorbar(image, ax=axes[1:, :], label='m' if truths else '0 near, 1 far',
                    fraction=0.02, pad=0.01)
    figure.savefig(path)


def _label(axes: Any, frame: SheetFrame) -> None:
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_facecolor(UNKNOWN_GREY)
    axes[0].set_title(f'{frame.time_s:.1f} s   C = {frame.complexity:.3g}, '
                      f'T = {frame.num_inference_steps}', fontsize=9)
    axes[1].set_title(frame.error, fontsize=8, pad=2)
