"""Write the images, predictions, truth and errors of an evaluation to an MCAP bag."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from marigold_ros.data.bags.messages import (
    serialize_cloud,
    serialize_image,
    serialize_status,
    STORE,
)
from marigold_ros.data.bags.writer import BagWriter
from marigold_ros.evaluation.policies.latency import LatencyTable
from marigold_ros.evaluation.policies.replay import (
    ArrivalSimulation,
    EvaluatedFrame,
    PolicyReplay,
    ReplayedFrame,
)
from marigold_ros.messages.cloud import CloudPacker
from marigold_ros.messages.image import pack_image

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame
    from marigold_ros.depth.types import FloatImage
    from marigold_ros.evaluation.metrics.protocols import Aligned
    from marigold_ros.evaluation.runner import InferenceRun

FRAME_ID = 'camera_optical_frame'
IMAGE, TRUTH = '/camera/rgb/image_rect', '/camera/depth_gt/image_rect'
DEPTH, ERROR, POINTS = '/camera/depth/image_rect', '/camera/depth_error', '/camera/points'
STATUS = '/evaluate/status'
TOPICS = {IMAGE: 'sensor_msgs/msg/Image', DEPTH: 'sensor_msgs/msg/Image',
          TRUTH: 'sensor_msgs/msg/Image', ERROR: 'sensor_msgs/msg/Image',
          POINTS: 'sensor_msgs/msg/PointCloud2', STATUS: 'diagnostic_msgs/msg/DiagnosticArray'}
POINT_STRIDE = 4
# Frames of a folder have no stamps; in the bag they are 1 s apart.
FOLDER_PERIOD_NS = 10 ** 9


class ResultBagWriter:
    """
    Write the frames as one policy processes them in the simulation; use as a context manager.

    Image and truth are logged at the stamp of the image, the results at their simulated
    publication.  Depth is in m, aligned with the truth by the protocol.  A cloud is written if the
    camera is calibrated.  A dropped frame has only image, truth and status.

    Parameters
    ----------
    path : Path
    replay : PolicyReplay
    table : LatencyTable
    align : callable
        Aligns the depth of a run with the truth of its frame.

    Raises
    ------
    BagError
        If the folder cannot be created.
    """

    def __init__(self, path: Path, replay: PolicyReplay, table: LatencyTable,
                 align: Callable[[FloatImage, DepthFrame], Aligned]) -> None:
        self._name = replay.name
        self._align = align
        self._simulation = ArrivalSimulation(replay, table)
        # At most one frame waits for its outcome.
        self._waiting: dict[int, tuple[DepthFrame, Mapping[str, InferenceRun]]] = {}
        self._packer = CloudPacker()
        self._writer = BagWriter(path, overwrite=True)

    def __enter__(self) -> ResultBagWriter:
        self._writer.__enter__()
        for name, msgtype in TOPICS.items():
            self._writer.add_topic(name, msgtype, typestore=STORE)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: object) -> None:
        if exc is None:
            for replayed in self._simulation.finish():
                self._write(replayed)
        self._writer.__exit__(exc_type, exc, None)

    def add(self, frame: DepthFrame, runs: Mapping[str, InferenceRun],
            evaluated: EvaluatedFrame) -> None:
        """Add the next frame, and write the frames whose outcome is known."""
        self._waiting[evaluated.number] = frame, runs
        for replayed in self._simulation.add(evaluated):
            self._write(replayed)

    def _write(self, replayed: ReplayedFrame) -> None:
        frame, runs = self._waiting.pop(replayed.frame.number)
        stamp_ns = (frame.stamp_ns if frame.stamp_ns is not None
                    else replayed.frame.number * FOLDER_PERIOD_NS)
        truth = pack_image(frame.known_depth_m, '32FC1')
        messages = {IMAGE: serialize_image(stamp_ns, FRAME_ID, pack_image(frame.rgb, 'rgb8')),
                    TRUTH: serialize_image(stamp_ns, FRAME_ID, truth)}
        for topic, data in messages.items():
            self._writer.write(topic, stamp_ns, data)
        done_ns = stamp_ns
        results = {STATUS: self._status(replayed, stamp_ns)}
        if replayed.outcome == 'processed':
            done_ns += int(1e9 * replayed.latency_s)
            results |= self._depth_messages(
                frame, runs[replayed.run].prediction.affine_invariant_depth, stamp_ns)
        for topic, data in results.items():
            self._writer.write(topic, done_ns, data)

    def _depth_messages(self, frame: DepthFrame, depth: FloatImage,
                        stamp_ns: int) -> dict[str, bytes]:
        aligned = self._align(depth, frame)
        depth_m = aligned.depth_m.astype(np.float32)
        with np.errstate(invalid='ignore'):
            error = np.where(np.isfinite(aligned.target_m),
                             np.abs(depth_m / aligned.target_m - 1), np.float32(np.nan))
        messages = {DEPTH: serialize_image(stamp_ns, FRAME_ID, pack_image(depth_m, '32FC1')),
                    ERROR: serialize_image(stamp_ns, FRAME_ID, pack_image(error, '32FC1'))}
        if frame.K is not None and depth_m.shape == frame.rgb.shape[:2]:
            cloud = self._packer.pack(depth_m, frame.K, frame.rgb, stride=POINT_STRIDE)
            messages[POINTS] = serialize_cloud(stamp_ns, FRAME_ID, cloud)
        return messages

    def _status(self, replayed: ReplayedFrame, stamp_ns: int) -> bytes:
        frame = replayed.frame
        values: dict[str, object] = {
            'policy': self._name, 'outcome': replayed.outcome, 'step_reason': replayed.reason,
            **{f'complexity_{name}': f'{value:.6g}' for name, value in frame.complexity.items()}}
        if replayed.outcome == 'processed':
            values |= {
                'num_inference_steps': replayed.num_inference_steps,
                'age_ms': f'{1e3 * replayed.age_s:.2f}',
                'latency_ms': f'{1e3 * replayed.latency_s:.2f}',
                **{metric: f'{value:.6g}' for metric, value in
                   frame.quality[replayed.run].items()}}
        return serialize_status(stamp_ns, FRAME_ID, 'evaluate', replayed.outcome, values,
                                ok=replayed.outcome == 'processed')
