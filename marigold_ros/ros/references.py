"""The subscriptions to one camera's reference depth, and the newest of what arrived."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
import threading
import time

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2

from marigold_ros.depth.errors import MessageError
from marigold_ros.ros.calibration import CalibrationCache
from marigold_ros.ros.camera_input import FollowingSubscription, InputTopics
from marigold_ros.ros.conversions import peek_header
from marigold_ros.ros.diagnostics import Reporter

# A few, so that the one nearest to an image is still there when its turn comes.
REMEMBERED = 8


@dataclass(frozen=True)
class Reference:
    """A message of a reference topic as it came, and when, on the steady clock."""

    message: bytes
    compressed: bool
    stamp_ns: int
    frame_id: str
    content: int  # where it begins behind the header, bytes
    received_s: float


class ReferenceStore:
    """The newest references of one camera; filled by one thread and read by another."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._kept: deque[Reference] = deque(maxlen=REMEMBERED)
        self._stamp_since_s = 0.0

    def put(self, message: bytes, compressed: bool = False) -> None:
        """
        Remember a serialized message; the oldest makes room.

        Raises
        ------
        MessageError
            If it has no header.
        """
        stamp_ns, frame_id, end = peek_header(message)
        now_s = time.monotonic()
        with self._lock:
            if not self._kept or self._kept[-1].stamp_ns != stamp_ns:
                self._stamp_since_s = now_s
            self._kept.append(
                Reference(message, compressed, stamp_ns, frame_id, end, now_s))

    def clear(self) -> None:
        """Forget all, as after a jump back in time."""
        with self._lock:
            self._kept.clear()

    def nearest(self, stamp_ns: int) -> Reference | None:
        """Give the reference nearest in time to an image; of equals the one that came last."""
        with self._lock:
            return min(reversed(self._kept), key=lambda each: abs(each.stamp_ns - stamp_ns),
                       default=None)

    def newest(self) -> Reference | None:
        """Give the reference that came last, whatever its stamp."""
        with self._lock:
            return self._kept[-1] if self._kept else None

    @property
    def stamp_stands_s(self) -> float:
        """For how long messages of one and the same stamp have been arriving, s."""
        with self._lock:
            return self._kept[-1].received_s - self._stamp_since_s if self._kept else 0.0


class ReferenceInput:
    """
    The subscriptions to the reference of one camera, from activate to deactivate.

    Topics are <camera>/scale/depth (or /compressedDepth below it, or /compressed) with a
    camera_info beside it, <camera>/scale/cloud and <camera>/scale/scan; remap them to the
    sensor's own.

    Parameters
    ----------
    node : Node
    camera : str
    source : str
        Of REFERENCES.
    store : ReferenceStore
    calibrations : CalibrationCache
        Gets the camera_infos of a reference depth.
    reporter : Reporter
    """

    def __init__(self, node: Node, camera: str, source: str, store: ReferenceStore,
                 calibrations: CalibrationCache, reporter: Reporter) -> None:
        """Subscribe to what is published now, or to what should be."""
        self._camera, self._store, self._reporter = camera, store, reporter
        self._calibrations = calibrations

        def subscription(message_type: type, topic: str, callback, depth: int
                         ) -> FollowingSubscription:
            return FollowingSubscription(
                node, message_type, topic, callback, depth,
                lambda name, text, count: reporter.event(camera, name, text, count))

        self._always: list[FollowingSubscription] = []
        self._either: list[FollowingSubscription] = []
        if source == 'depth':
            topics = reference_topics(node, camera)
            self._always.append(subscription(CameraInfo, topics.camera_info, self._put_info, 5))
            self._either = [
                subscription(Image, topics.image, self._put, 1),
                subscription(CompressedImage, f'{topics.image}/compressedDepth',
                             self._put_compressed, 1),
                subscription(CompressedImage, topics.compressed, self._put_compressed, 1)]
        else:
            message_type = PointCloud2 if source == 'cloud' else LaserScan
            topic = node.resolve_topic_name(f'{camera}/scale/{source}')
            self._always.append(subscription(message_type, topic, self._put, 1))
        self.follow()

    def follow(self) -> None:
        """Look at the publishers again; to be called now and then while active."""
        for each in self._always:
            each.follow()
        if self._either:
            used = next((each for each in self._either if each.has_publishers()),
                        self._either[0])
            for each in self._either:
                if each is not used:
                    each.close()
            used.follow()

    def close(self) -> None:
        """Unsubscribe from everything."""
        for each in (*self._always, *self._either):
            each.close()

    def _put(self, message: bytes, compressed: bool = False) -> None:
        try:
            self._store.put(message, compressed)
        except MessageError as err:
            self._reporter.event(self._camera, 'bad_reference', str(err))

    def _put_compressed(self, message: bytes) -> None:
        self._put(message, True)

    def _put_info(self, message: bytes) -> None:
        try:
            self._calibrations.put(message)
        except MessageError as err:
            self._reporter.event(self._camera, 'bad_camera_info', str(err))


def reference_topics(node: Node, camera: str) -> InputTopics:
    """Resolve the names of a camera's reference depth and of the camera_info beside it."""
    return InputTopics(node, camera, 'scale/depth', 'scale/camera_info')
