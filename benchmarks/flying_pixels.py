"""
How many flying pixels does the cloud filter remove, and how many valid ones does it lose?

    python -m benchmarks.flying_pixels

The true depth of the sample drive is blurred by a Gaussian, as a network smooths edges.  A pixel
is flying if its depth changes by more than 5 %.  The table shows the removed share of the flying
pixels and the lost share of all others, means over the frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.timing import format_markdown_table, write_benchmark_report
from marigold_ros.data.datasets.bag import bag_data_set, SAMPLE_TOPICS
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.environment import describe_environment
from marigold_ros.geometry.filters import find_flying_pixels

ANGLES_DEG = (2.0, 3.0, 5.0)
# Standard deviations of the Gaussian blur.
EDGES_PX = (1.0, 2.0, 4.0)
MIN_DEPTH_CHANGE = 0.05
# Depth of the sky beyond the windows.
SKY_M = 12.0


def removed_shares(frame: DepthFrame, edge_px: float, angle_deg: float) -> tuple[float, float]:
    """Return the share of flying pixels removed, and of all other pixels lost."""
    if frame.K is None:
        raise InputError(f'`K` must be known; {frame.name} has none')
    depth_m = np.where(np.isfinite(frame.known_depth_m), frame.known_depth_m, np.float32(SKY_M))
    soft_m = np.asarray(cv2.GaussianBlur(depth_m, (0, 0), edge_px), np.float32)
    flying = np.abs(soft_m / depth_m - 1) > MIN_DEPTH_CHANGE
    removed = find_flying_pixels(soft_m, frame.K, angle_deg)
    return float(removed[flying].mean()), float(removed[~flying].mean())


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--bag', type=Path, default=Path('sample/living_room'))
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the report."""
    options = make_parser().parse_args(arguments)
    frames = list(bag_data_set(options.bag, SAMPLE_TOPICS).frames())
    rows = []
    for angle_deg in ANGLES_DEG:
        shares = np.mean([[removed_shares(frame, edge_px, angle_deg) for edge_px in EDGES_PX]
                          for frame in frames], axis=0)  # [edges, (removed, lost)]
        rows.append({
            'min_surface_angle_deg': f'{angle_deg:g}',
            **{f'edges of {edge_px:g} px': f'{removed:.0%}'
               for edge_px, (removed, _) in zip(EDGES_PX, shares)},
            'lost, at most': f'{shares[:, 1].max():.2%}'})
    write_benchmark_report(options.out, 'flying_pixels', describe_environment(), {'rows': rows},
                           format_markdown_table(rows))


if __name__ == '__main__':
    main()
