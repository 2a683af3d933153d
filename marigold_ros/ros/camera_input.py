"""What one camera sends: its images, each to be the newest frame, and its camera_infos."""

from __future__ import annotations

from collections.abc import Callable
import time

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from marigold_ros.depth.errors import MessageError
from marigold_ros.messages.header import peek_header
from marigold_ros.ros.calibration import CalibrationCache
from marigold_ros.ros.diagnostics import Reporter
from marigold_ros.ros.frame_buffer import ReceivedFrame
from marigold_ros.ros.subscriptions import (
    follow_first_published,
    FollowingSubscription,
    InputTopics,
)


class CameraInput:
    """
    Everything that one camera sends, from activate to deactivate.

    Parameters
    ----------
    node : Node
    camera : str
    transport : {'auto', 'raw', 'compressed'}
    calibrations : CalibrationCache
        Gets the camera_infos.
    on_frame : callable
        Gets the images.
    reporter : Reporter
    """

    def __init__(self, node: Node, camera: str, transport: str, calibrations: CalibrationCache,
                 on_frame: Callable[[ReceivedFrame], None], reporter: Reporter) -> None:
        """Subscribe to what is published now, or to the raw image if nothing is yet."""
        self._camera, self._on_frame, self._reporter = camera, on_frame, reporter
        self._calibrations = calibrations
        topics = InputTopics(node, camera)
        # The executor serves subscriptions in this order: the camera_info before its image.
        self._info = FollowingSubscription(
            node, camera, CameraInfo, topics.camera_info, self._receive_info, 5, reporter)
        raw = FollowingSubscription(
            node, camera, Image, topics.image, self._receive_raw, 1, reporter)
        compressed = FollowingSubscription(
            node, camera, CompressedImage, topics.compressed, self._receive_compressed, 1,
            reporter)
        by_transport = {'auto': [raw, compressed], 'raw': [raw], 'compressed': [compressed]}
        self._images = by_transport['compressed' if topics.only_compressed else transport]
        self.follow()

    def follow(self) -> None:
        """Look at the publishers again; to be called now and then while active."""
        self._info.follow()
        follow_first_published(self._images)

    def close(self) -> None:
        """Unsubscribe from everything."""
        for subscription in (self._info, *self._images):
            subscription.close()

    def _receive_info(self, message: bytes) -> None:
        try:
            self._calibrations.put(message)
        except MessageError as err:
            self._reporter.event(self._camera, 'bad_camera_info', str(err))

    def _receive_raw(self, message: bytes) -> None:
        self._receive_image(message, False)

    def _receive_compressed(self, message: bytes) -> None:
        self._receive_image(message, True)

    def _receive_image(self, message: bytes, compressed: bool) -> None:
        received_s = time.monotonic()
        try:
            stamp_ns, frame_id, _ = peek_header(message)
        except MessageError as err:
            self._reporter.event(self._camera, 'headless_image', str(err))
            return
        self._on_frame(ReceivedFrame(self._camera, message, compressed, stamp_ns, frame_id,
                                     received_s))
