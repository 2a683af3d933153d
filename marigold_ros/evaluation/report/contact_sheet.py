"""One picture of a session: image, depth and ground truth of frames spread over it."""

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
# The nearest and farthest hundredth of the pixels do not stretch the colours of the rest.
COLOR_PERCENTILES = (1.0, 99.0)
NEAR_IS_RED = 'turbo_r'
UNKNOWN_GRAY = '0.6'


@dataclass(frozen=True, eq=False)
class SheetFrame:
    """
    One column of the sheet.

    Attributes
    ----------
    time_s : float
        Since the first frame.
    rgb : uint8 [H, W, 3]
    depth : float32 [H, W]
        In metres where there is a ground truth, else affine-invariant; NaN where unknown.
    gt_depth_m : float32 [H, W] or None
        NaN where unknown.
    complexity : float
        C.
    num_inference_steps : int
        T.
    error : str
        AbsRel in words, with its protocol and range; empty if it is unknown.
    """

    time_s: float
    rgb: RgbImage
    depth: FloatImage
    gt_depth_m: FloatImage | None
    complexity: float
    num_inference_steps: int
    error: str


def draw_contact_sheet(frames: Sequence[SheetFrame], path: Path) -> None:
    """
    Draw one column per frame and write a PNG.

    Rows are the image, the depth and, if the frames have one, the ground truth, which then shares
    its colour bar with the depth.

    Parameters
    ----------
    frames : sequence of SheetFrame
        At least one; all with a ground truth or none.
    path : Path
    """
    truths = [frame.gt_depth_m for frame in frames if frame.gt_depth_m is not None]
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
        axis.set_facecolor(UNKNOWN_GRAY)
    axes[0].set_title(f'{frame.time_s:.1f} s   C = {frame.complexity:.3g}, '
                      f'T = {frame.num_inference_steps}', fontsize=9)
    axes[1].set_title(frame.error, fontsize=8, pad=2)
