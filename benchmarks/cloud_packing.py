"""
How long does a coloured cloud message take, compared with sensor_msgs_py's packing?

    python -m benchmarks.cloud_packing

One thread; medians of interleaved calls, each after an inference of the embedded checkpoint, so
that caches and allocator are in the state they have in the node.  The whole conversion goes from
float32 relative depth to a serialized PointCloud2 with a 16-byte point per pixel and all filters
(range, sky, confidence, flying pixels), as in the node with point_stride 1; "fresh memory" is the
same without reusing the memory of the last cloud.  Packing alone converts arrays of x, y, z and
colour to a message, as `create_cloud` of sensor_msgs_py does.

Needs ROS for the messages.  Where sensor_msgs_py is not installed, add the folder of that name in
a clone of ros2/common_interfaces to PYTHONPATH.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
import importlib
from pathlib import Path
import time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import torch

from benchmarks.synthetic_images import make_synthetic_image
from benchmarks.timing import (
    format_markdown_table,
    quartiles_ms,
    speedup,
    time_interleaved,
    write_benchmark_report,
)
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.types import FloatImage, RgbImage
from marigold_ros.evaluation.environment import describe_environment
from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.messages.cloud import CloudPacker
from marigold_ros.metric.outputs import metric_depth
from marigold_ros.metric.types import MetricScale

PACKING, BASELINE = 'packing of marigold_ros alone', 'packing of sensor_msgs_py alone'
WHOLE = 'filter, unproject, colour, message'
FILTERS = DepthFilter(0.1, 20.0, max_relative_depth=0.98, confidence_min=0.1,
                      min_surface_angle_deg=2.0)
BOXES = 40


def make_synthetic_depth(height: int, width: int, seed: int = 0) -> tuple[FloatImage, FloatImage]:
    """
    Make relative depth and confidence of a floor with boxes and soft edges.

    Returns
    -------
    affine_invariant_depth, confidence : float32 [height, width]
        In [0, 1].
    """
    rng = np.random.default_rng(seed)
    depth = np.repeat(np.linspace(1.0, 0.1, height, dtype=np.float32)[:, None], width, axis=1)
    for _ in range(BOXES):
        top, left = rng.integers(height), rng.integers(width)
        depth[top:top + height // 8, left:left + width // 10] = rng.uniform(0.05, 0.9)
    soft = np.asarray(cv2.GaussianBlur(depth, (0, 0), 1.5), np.float32)
    return soft, rng.random((height, width), np.float32)


def list_calls(height: int, width: int) -> dict[str, Callable[[], Any]]:
    """
    Return the calls to time.

    Parameters
    ----------
    height, width : int
        Size of the depth image, px.

    Returns
    -------
    dict
        Name -> call; includes sensor_msgs_py if it can be imported.
    """
    messages: Any = importlib.import_module('marigold_ros.ros.conversions')
    header = messages.make_header(0, 'camera_optical_frame')
    relative, confidence = make_synthetic_depth(height, width)
    scale = MetricScale(scale=8.0, shift=0.3, confidence=1.0, sources=('fixed',))
    depth_m = scale.to_metric_depth(relative)
    rgb = make_synthetic_image(0, 40)
    rgb = np.asarray(cv2.resize(rgb, (width, height)), np.uint8)
    K = np.array([[0.7 * width, 0, width / 2], [0, 0.7 * width, height / 2], [0, 0, 1]])

    def filtered() -> FloatImage:
        return metric_depth(relative, confidence, K, scale, FILTERS)

    packer = CloudPacker()
    fields = replace(CloudPacker().pack(depth_m, K, rgb), memory=None)
    calls: dict[str, Callable[[], Any]] = {
        WHOLE: lambda: messages.serialize_cloud(header, packer.pack(filtered(), K, rgb)),
        'the same in fresh memory':
            lambda: messages.serialize_cloud(header, CloudPacker().pack(filtered(), K, rgb)),
        'filters alone': filtered,
        PACKING: lambda: messages.serialize_cloud(header, fields)}
    try:
        point_cloud2: Any = importlib.import_module('sensor_msgs_py.point_cloud2')
    except ImportError:
        pass
    else:
        described = messages.describe_cloud(header, fields).fields
        table = fields.data.view(np.float32).reshape(-1, 4)
        calls[BASELINE] = lambda: point_cloud2.create_cloud(header, described, table, 16)
    return calls


def time_after_inference(engine: DepthEngine, rgb: RgbImage, call: Callable[[], Any]
                         ) -> Callable[[], float]:
    """Return a function that runs an inference, then the call, and returns the call's time, s."""
    def timed() -> float:
        engine.infer(rgb, num_inference_steps=1)
        started_s = time.perf_counter()
        call()  # the message is freed at once, as in the node after publishing
        return time.perf_counter() - started_s
    return timed


def format_markdown(seconds: Mapping[str, NDArray[np.float64]]) -> str:
    """Format the times and the comparison of the packings as Markdown."""
    rows = []
    for name, measured in seconds.items():
        figures = quartiles_ms(measured)
        rows.append({'': name, 'median, ms': f'{figures["median_ms"]:.2f}',
                     'quartiles, ms': f'{figures["q25_ms"]:.2f} to {figures["q75_ms"]:.2f}'})
    if BASELINE not in seconds:
        note = 'sensor_msgs_py is not installed: no comparison.'
    else:
        ratio = speedup(seconds[BASELINE], seconds[PACKING])
        note = (f'Packing alone: {ratio["ratio"]:.2f} times as fast as sensor_msgs_py '
                f'({ratio["low"]:.2f} to {ratio["high"]:.2f}).')
    return f'{format_markdown_table(rows)}\n\n{note}'


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--size', type=int, nargs=2, default=(640, 480),
                        metavar=('WIDTH', 'HEIGHT'), help='of the depth image, px')
    parser.add_argument('--rounds', type=int, default=100)
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the report."""
    options = make_parser().parse_args(arguments)
    facts = describe_environment()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    width, height = options.size
    engine, rgb = DepthEngine.load('tiny'), make_synthetic_image(0)
    runs = time_interleaved({name: time_after_inference(engine, rgb, call)
                             for name, call in list_calls(height, width).items()},
                            rounds=options.rounds, warm_up=5)
    seconds = {name: np.array(run.returned) for name, run in runs.items()}
    write_benchmark_report(options.out, 'cloud_packing', facts, {
        'size': [width, height],
        'runs': {name: quartiles_ms(measured) for name, measured in seconds.items()}},
        format_markdown(seconds))


if __name__ == '__main__':
    main()
