"""Subscriptions to the images and camera_infos of one camera."""

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
    InputTopics,
    match_first_published,
    QosMatchingSubscription,
)


class CameraInput:
    """
    Subscriptions to one camera, from activate to deactivate.

    Parameters
    ----------
    node : Node
    camera : str
    transport : {'auto', 'raw', 'compressed'}
    calibrations : CalibrationCache
        Stores the camera_infos.
    on_frame : callable
        Called with each image, a ReceivedFrame.
    reporter : Reporter
    """

    def __init__(self, node: Node, camera: str, transport: str, calibrations: CalibrationCache,
                 on_frame: Callable[[ReceivedFrame], None], reporter: Reporter) -> None:
        """Subscribe to the image topic that has a publisher, or to the raw image if none has."""
        self._camera, self._on_frame, self._reporter = camera, on_frame, reporter
        self._calibrations = calibrations
        topics = InputTopics(node, camera)
        # The executor calls subscriptions in the order of their creation, so that a camera_info
        # is stored before its image is received.
        self._info = QosMatchingSubscription(
            node, camera, CameraInfo, topics.camera_info, self._receive_info, 5, reporter)
        raw = QosMatchingSubscription(
            node, camera, Image, topics.image, self._receive_raw, 1, reporter)
        compressed = QosMatchingSubscription(
            node, camera, CompressedImage, topics.compressed, self._receive_compressed, 1,
            reporter)
        by_transport = {'auto': [raw, compressed], 'raw': [raw], 'compressed': [compressed]}
        self._images = by_transport['compressed' if topics.only_compressed else transport]
        self.match_publishers()

    def match_publishers(self) -> None:
        """Match topics and QoS to the publishers; must be called periodically while active."""
        self._info.match_publishers()
        match_first_published(self._images)

    def close(self) -> None:
        """Unsubscribe from everything."""
        for subscription in (self._info, *self._images):
            subscription.close()

    def _receive_info(self, message: bytes) -> None:
        try:
            self._calibrations.put(message)
        except MessageError as err:
            self._reporter.report_event(self._camera, 'bad_camera_info', str(err))

    def _receive_raw(self, message: bytes) -> None:
        self._receive_image(message, False)

    def _receive_compressed(self, message: bytes) -> None:
        self._receive_image(message, True)

    def _receive_image(self, message: bytes, compressed: bool) -> None:
        received_s = time.monotonic()
        try:
            stamp_ns, frame_id, _ = peek_header(message)
        except MessageError as err:
            self._reporter.report_event(self._camera, 'image_without_header', str(err))
            return
        self._on_frame(ReceivedFrame(self._camera, message, compressed, stamp_ns, frame_id,
                                     received_s))
