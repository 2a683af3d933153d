"""Write what an evaluation saw and made as an MCAP bag: pictures beside their truth and error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from marigold_ros.data.bags.messages import (
    cloud_message,
    image_message,
    status_message,
    STORE,
)
from marigold_ros.data.bags.writer import BagWriter
from marigold_ros.evaluation.policies.latency import LatencyTable
from marigold_ros.evaluation.policies.replay import (
    ArrivalClock,
    FrameRuns,
    PolicyReplay,
    Replayed,
)
from marigold_ros.messages.cloud import CloudPacker
from marigold_ros.messages.image import pack_image

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame
    from marigold_ros.depth.types import FloatImage
    from marigold_ros.evaluation.metrics.protocols import Aligned
    from marigold_ros.evaluation.runner import Run

FRAME_ID = 'camera_optical_frame'
IMAGE, TRUTH = '/camera/rgb/image_rect', '/camera/depth_gt/image_rect'
DEPTH, ERROR, POINTS = '/camera/depth/image_rect', '/camera/depth_error', '/camera/points'
STATUS = '/evaluate/status'
TOPICS = {IMAGE: 'sensor_msgs/msg/Image', DEPTH: 'sensor_msgs/msg/Image',
          TRUTH: 'sensor_msgs/msg/Image', ERROR: 'sensor_msgs/msg/Image',
          POINTS: 'sensor_msgs/msg/PointCloud2', STATUS: 'diagnostic_msgs/msg/DiagnosticArray'}
POINT_STRIDE = 4
# Frames of a folder have no stamps; they come one by one in the bag.
FOLDER_PERIOD_NS = 10 ** 9


class OutBag:
    """
    Writes frames as one policy has them by the clock; use it as a context manager.

    Image and truth have the image's log time, what was made of them that of its publication.
    Depth is in metres, after the protocol's alignment with the truth; a cloud is there where the
    camera is calibrated; a dropped frame has a status alone.

    Parameters
    ----------
    path : Path
    replay : PolicyReplay
    table : LatencyTable
    aligned : callable
        Brings the depth of a run into metres.

    Raises
    ------
    BagError
        If the folder cannot be made.
    """

    def __init__(self, path: Path, replay: PolicyReplay, table: LatencyTable,
                 aligned: Callable[[FloatImage, DepthFrame], Aligned]) -> None:
        self._name = replay.name
        self._aligned = aligned
        self._clock = ArrivalClock(replay, table)
        # At most one frame waits for its fate.
        self._waiting: dict[int, tuple[DepthFrame, Mapping[str, Run]]] = {}
        self._packer = CloudPacker()
        self._writer = BagWriter(path, overwrite=True)

    def __enter__(self) -> OutBag:
        self._writer.__enter__()
        for name, msgtype in TOPICS.items():
            self._writer.add_topic(name, msgtype, typestore=STORE)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: object) -> None:
        if exc is None:
            for replayed in self._clock.end():
                self._write(replayed)
        self._writer.__exit__(exc_type, exc, None)

    def add(self, frame: DepthFrame, runs: Mapping[str, Run], kept: FrameRuns) -> None:
        """Take the next frame."""
        self._waiting[kept.number] = frame, runs
        for replayed in self._clock.arrive(kept):
            self._write(replayed)

    def _write(self, replayed: Replayed) -> None:
        frame, runs = self._waiting.pop(replayed.frame.number)
        stamp_ns = (frame.stamp_ns if frame.stamp_ns is not None
                    else replayed.frame.number * FOLDER_PERIOD_NS)
        truth = pack_image(frame.known_depth_m, '32FC1')
        messages = {IMAGE: image_message(stamp_ns, FRAME_ID, pack_image(frame.rgb, 'rgb8')),
                    TRUTH: image_message(stamp_ns, FRAME_ID, truth)}
        for topic, data in messages.items():
            self._writer.write(topic, stamp_ns, data)
        done_ns = stamp_ns
        made = {STATUS: self._status(replayed, stamp_ns)}
        if replayed.fate == 'processed':
            done_ns += int(1e9 * replayed.latency_s)
            made |= self._pictures(
                frame, runs[replayed.run].prediction.affine_invariant_depth, stamp_ns)
        for topic, data in made.items():
            self._writer.write(topic, done_ns, data)

    def _pictures(self, frame: DepthFrame, depth: FloatImage, stamp_ns: int) -> dict[str, bytes]:
        aligned = self._aligned(depth, frame)
        depth_m = aligned.depth_m.astype(np.float32)
        with np.errstate(invalid='ignore'):
            error = np.where(np.isfinite(aligned.target_m),
                             np.abs(depth_m / aligned.target_m - 1), np.float32(np.nan))
        made = {DEPTH: image_message(stamp_ns, FRAME_ID, pack_image(depth_m, '32FC1')),
                ERROR: image_message(stamp_ns, FRAME_ID, pack_image(error, '32FC1'))}
        if frame.K is not None and depth_m.shape == frame.rgb.shape[:2]:
            cloud = self._packer.pack(depth_m, frame.K, frame.rgb, stride=POINT_STRIDE)
            made[POINTS] = cloud_message(stamp_ns, FRAME_ID, cloud)
        return made

    def _status(self, replayed: Replayed, stamp_ns: int) -> bytes:
        frame = replayed.frame
        values: dict[str, object] = {
            'policy': self._name, 'fate': replayed.fate, 'step_reason': replayed.reason,
            **{f'complexity_{name}': f'{value:.6g}' for name, value in frame.complexity.items()}}
        if replayed.fate == 'processed':
            values |= {
                'num_inference_steps': replayed.num_inference_steps,
                'age_ms': f'{1e3 * replayed.age_s:.2f}',
                'latency_ms': f'{1e3 * replayed.latency_s:.2f}',
                **{metric: f'{value:.6g}' for metric, value in
                   frame.quality[replayed.run].items()}}
        return status_message(stamp_ns, FRAME_ID, 'evaluate', replayed.fate, values,
                              ok=replayed.fate == 'processed')
