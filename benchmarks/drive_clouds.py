"""The clouds that the node would publish along a recorded drive, for every scale source."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from benchmarks.drive import DriveFrame
from marigold_ros.depth.types import FloatImage
from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.messages.cloud import CloudPacker, unpack_cloud
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.outputs import metric_depth, POINT_STRIDE
from marigold_ros.metric.tracker import ScaleTracker
from marigold_ros.metric.types import MetricScale, ScaleFrame

TRUTH = 'truth'
SOURCES = (TRUTH, 'depth', 'cloud', 'ground_plane', 'scan', 'fixed')
# What config/demo.yaml assumes.
ASSUMED_M = (0.5, 4.5)
# What the node does by default.
FILTER = DepthFilter()


def make_clouds(frames: Sequence[DriveFrame], sources: Collection[str], *,
                stride: int = POINT_STRIDE) -> Iterator[dict[str, FloatImage | None]]:
    """
    Make each frame's clouds as the node does, one for every scale source.

    Parameters
    ----------
    frames : sequence of DriveFrame
        In the order of time.
    sources : collection of str
        Of `SOURCES`; `truth` has the true depth in the prediction's place.
    stride : int
        Parameter point_stride.

    Yields
    ------
    dict
        Source -> float32 [h, w, 3], m, optical frame; None while the source knows no metres.
    """
    scales = {source: ScaleTracker(_config(source, frames[0])) for source in sources
              if source != TRUTH}
    packer = CloudPacker()
    for frame in frames:
        clouds: dict[str, FloatImage | None] = {}
        for source in sources:
            if source == TRUTH:
                relative, confidence, metric = true_prediction(frame.depth_m)
            else:
                relative, confidence = frame.relative, frame.confidence
                found = scales[source].update(ScaleFrame(
                    'camera', frame.stamp_ns, relative, confidence, frame.K,
                    frame.anchors.get(source))).metric
                if found is None:
                    clouds[source] = None
                    continue
                metric = found
            depth_m = metric_depth(relative, confidence, frame.K, metric, FILTER)
            # The message, read as a consumer reads it; its colours are nobody's concern here.
            clouds[source] = unpack_cloud(packer.pack(
                depth_m, frame.K, np.zeros((*depth_m.shape, 3), np.uint8), stride=stride))[0]
        yield clouds


def true_prediction(depth_m: FloatImage) -> tuple[FloatImage, None, MetricScale]:
    """
    Say of the true depth what a perfect model and a perfect scale would.

    Returns
    -------
    affine_invariant_depth : float32 [H, W]
    confidence : None
    scale : MetricScale
    """
    low, high = float(np.nanmin(depth_m)), float(np.nanmax(depth_m))
    relative = (depth_m - np.float32(low)) / np.float32(high - low)
    return relative, None, MetricScale(high - low, low, 1.0, TRUTH, False)


def _config(source: str, frame: DriveFrame) -> ScaleConfig:
    low_m, high_m = ASSUMED_M
    pitch, roll = np.degrees(frame.tilt)
    return ScaleConfig(source, low_m, high_m, camera_height_m=frame.height_m,
                       camera_pitch_deg=float(pitch), camera_roll_deg=float(roll))
