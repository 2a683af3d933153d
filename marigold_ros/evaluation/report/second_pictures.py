"""Store the worst seconds of a recording as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marigold_ros.depth.types import RgbImage
from marigold_ros.evaluation.report.example_frames import FramePicture
from marigold_ros.evaluation.report.html import draw_panels
from marigold_ros.evaluation.report.pictures import color_limits, encode_picture
from marigold_ros.evaluation.report.worst_seconds import Second

FILE = 'worst_second_{}.jpg'
# A page embeds many.
LARGEST_BYTES = 60_000
JPEG_QUALITIES = range(85, 0, -12)
GAP_PX = 4


def write_worst_seconds(out: Path, seconds: Sequence[Second]) -> list[dict[str, Any]]:
    """
    Write a JPEG of each second: image and prediction above truth and error.

    Parameters
    ----------
    out : Path
        Folder of the report; pictures of an earlier one are replaced.
    seconds : sequence of Second
        The worst first.

    Returns
    -------
    list of dict
        `worst_seconds` of summary.json.
    """
    for earlier in out.glob(FILE.format('*')):
        earlier.unlink()
    rows: list[dict[str, Any]] = []
    for second in seconds:
        picture = second.picture
        assert picture is not None    # of one of the worst
        path = out / FILE.format(len(rows) + 1)
        path.write_bytes(encode_jpeg(draw_mosaic(picture)))
        rows.append({
            'name': picture.block if second.name == picture.block else f'frame {picture.number}',
            'abs_rel': second.abs_rel, 'frames': len(second.errors), 'frame': picture.number,
            'frame_abs_rel': picture.abs_rel, 'num_inference_steps': picture.num_inference_steps,
            'depth_colors_m': list(color_limits(picture.target_m)), 'picture': path.name})
    return rows


def draw_mosaic(picture: FramePicture) -> RgbImage:
    """Draw image, prediction, truth and error in two rows, uint8 [2 h + gap, 2 w + gap, 3]."""
    panels = list(draw_panels(picture).values())
    height, width = panels[0].shape[:2]
    mosaic = np.full((2 * height + GAP_PX, 2 * width + GAP_PX, 3), 255, np.uint8)
    for number, panel in enumerate(panels):
        top, left = (number // 2) * (height + GAP_PX), (number % 2) * (width + GAP_PX)
        mosaic[top:top + height, left:left + width] = panel
    return mosaic


def encode_jpeg(rgb: RgbImage) -> bytes:
    """Encode an image with the best quality that `LARGEST_BYTES` allow, or else the lowest."""
    for quality in JPEG_QUALITIES:
        jpeg = encode_picture(rgb, quality=quality)
        if len(jpeg) <= LARGEST_BYTES:
            break
    return jpeg
