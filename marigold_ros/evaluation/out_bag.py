"""Write the images, predictions, truth and errors of an evaluation to an MCAP bag."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from marigold_ros.data.bags.messages import (
    serialize_cloud,
    serialize_image,
    serialize_status,
    STORE,
)
from marigold_ros.data.bags.writer import BagWriter
from marigold_ros.evaluation.metrics.protocol_a import relative_error
from marigold_ros.evaluation.policies.replay import (
    ArrivalSimulation,
    Replay,
    ReplayedFrame,
)
from marigold_ros.messages.cloud import CloudPacker
from marigold_ros.messages.image import pack_image

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame
    from marigold_ros.depth.types import Mask
    from marigold_ros.evaluation.metrics.protocols import Aligned

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
    publication.  Depth is in m, aligned with the truth by the protocol; NaN where carried depth
    does not cover the image.  A cloud is written if the camera is calibrated.  A dropped frame has
    only image, truth and status.

    Parameters
    ----------
    path : Path
    policy : str
        Its name.
    simulation : ArrivalSimulation
        New, of that policy.

    Raises
    ------
    BagError
        If the folder cannot be created.
    """

    def __init__(self, path: Path, policy: str, simulation: ArrivalSimulation) -> None:
        self._policy, self._simulation = policy, simulation
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
            for replay in self._simulation.finish():
                self._write(replay)
        self._writer.__exit__(exc_type, exc, None)

    def add(self, next_frame: Replay) -> None:
        """Add the next frame, and write the frames whose outcome is known."""
        for replay in self._simulation.add(next_frame.recorded):
            self._write(replay)

    def _write(self, replay: Replay) -> None:
        frame, replayed = replay.recorded.frame, replay.result
        stamp_ns = (frame.stamp_ns if frame.stamp_ns is not None
                    else replayed.frame.number * FOLDER_PERIOD_NS)
        truth = pack_image(frame.known_depth_m, '32FC1')
        messages = {IMAGE: serialize_image(stamp_ns, FRAME_ID, pack_image(frame.rgb, 'rgb8')),
                    TRUTH: serialize_image(stamp_ns, FRAME_ID, truth)}
        for topic, data in messages.items():
            self._writer.write(topic, stamp_ns, data)
        done_ns = stamp_ns
        results = {STATUS: self._status(replayed, stamp_ns)}
        if replay.scored is not None and replay.prediction is not None:
            done_ns += int(1e9 * replayed.latency_s)
            if replay.scored.aligned is not None:
                results |= self._depth_messages(frame, replay.scored.aligned,
                                                replay.prediction.covered, stamp_ns)
        for topic, data in results.items():
            self._writer.write(topic, done_ns, data)

    def _depth_messages(self, frame: DepthFrame, aligned: Aligned, covered: Mask | None,
                        stamp_ns: int) -> dict[str, bytes]:
        depth_m = aligned.depth_m.astype(np.float32)
        if covered is not None:
            size = depth_m.shape[::-1]
            depth_m[cv2.resize(covered.astype(np.uint8), size,
                               interpolation=cv2.INTER_NEAREST) == 0] = np.nan
        error = np.abs(relative_error(depth_m, aligned.target_m))
        messages = {DEPTH: serialize_image(stamp_ns, FRAME_ID, pack_image(depth_m, '32FC1')),
                    ERROR: serialize_image(stamp_ns, FRAME_ID, pack_image(error, '32FC1'))}
        if frame.K is not None and depth_m.shape == frame.rgb.shape[:2]:
            cloud = self._packer.pack(depth_m, frame.K, frame.rgb, stride=POINT_STRIDE)
            messages[POINTS] = serialize_cloud(stamp_ns, FRAME_ID, cloud)
        return messages

    def _status(self, replayed: ReplayedFrame, stamp_ns: int) -> bytes:
        values: dict[str, object] = {
            'policy': self._policy, 'outcome': replayed.outcome, 'step_reason': replayed.reason}
        if replayed.outcome == 'processed':
            values |= {
                'complexity': f'{replayed.complexity:.6g}',
                'num_inference_steps': replayed.num_inference_steps,
                'covered_share': f'{replayed.covered_share:.4f}',
                'age_ms': f'{1e3 * replayed.age_s:.2f}',
                'latency_ms': f'{1e3 * replayed.latency_s:.2f}',
                **{metric: f'{value:.6g}' for metric, value in replayed.quality.items()}}
        return serialize_status(stamp_ns, FRAME_ID, 'evaluate', replayed.outcome, values,
                                ok=replayed.outcome == 'processed')
