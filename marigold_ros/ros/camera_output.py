"""The outputs of a frame: packed into message fields and published with their camera_info."""

from __future__ import annotations

import array
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TYPE_CHECKING

import numpy as np
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import (
    HistoryPolicy,
    qos_policy_name_from_kind,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from marigold_ros.depth.types import DepthPrediction, RgbImage
from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.messages.cloud import CloudFields, CloudPacker
from marigold_ros.messages.depth import colorize, pack_depth
from marigold_ros.messages.image import ImageFields, pack_image
from marigold_ros.metric.outputs import metric_depth, POINT_STRIDE
from marigold_ros.metric.types import MetricScale
from marigold_ros.ros.conversions import make_camera_info, make_cloud, serialize_image
from marigold_ros.ros.diagnostics import Reporter

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from std_msgs.msg import Header

    from marigold_ros.geometry.camera import Camera

# Output -> topic below the camera's name.
TOPICS = {
    'depth': 'depth/image_rect',
    'points': 'points',
    'depth_relative': 'depth_relative/image',
    'color': 'depth/image_color',
    'confidence': 'confidence',
    'rgb': 'rgb/image_rect',
}
METRIC_OUTPUTS = frozenset({'depth', 'points'})
# The camera_info topic beside `confidence` is the camera's own, so that of `rgb` is published.
INFO_TOPICS = {
    'depth': 'depth/camera_info',
    'depth_relative': 'depth_relative/camera_info',
    'color': 'depth/camera_info',
    'confidence': 'rgb/camera_info',
    'rgb': 'rgb/camera_info',
}

OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY,
               QoSPolicyKind.DURABILITY)


class FramePacker:
    """Pack the outputs of one camera's frames; the memory of the cloud is reused."""

    def __init__(self) -> None:
        """Allocate nothing yet."""
        self._cloud = CloudPacker()

    def pack(self, outputs: frozenset[str], rgb: RgbImage, K: NDArray[np.float64],
             prediction: DepthPrediction, scale: MetricScale | None, depth_filter: DepthFilter, *,
             depth_encoding: str = '32FC1', point_stride: int = POINT_STRIDE
             ) -> dict[str, ImageFields | CloudFields]:
        """
        Compute the fields of the messages of the requested outputs.

        Parameters
        ----------
        outputs : set of str
            Keys of `TOPICS`; nothing else is computed.
        rgb : uint8 [H, W, 3]
            The processed image, rectified.
        K : float64 [3, 3]
            Intrinsics of that image, px.
        prediction : DepthPrediction
            Prediction of that image; NaN unknown.
        scale : MetricScale or None
            Without a scale there are no metric outputs.
        depth_filter : DepthFilter
        depth_encoding : {'32FC1', '16UC1'}
        point_stride : int
            Distance between the pixels that become points of the cloud, along both axes, px.

        Returns
        -------
        dict
            Output -> fields; those of `points` are valid until the camera's next frame.
        """
        relative, confidence = prediction.affine_invariant_depth, prediction.confidence  # [H,W]
        if prediction.covered is not None:
            relative = np.clip(relative, 0.0, 1.0)  # it keeps the range of its run
        packers: dict[str, Callable[[], ImageFields | CloudFields]] = {
            'depth_relative': lambda: pack_image(relative, '32FC1'),
            'color': lambda: pack_image(colorize(relative), 'rgb8'),
            'rgb': lambda: pack_image(rgb, 'rgb8')}
        if confidence is not None:
            packers['confidence'] = lambda: pack_image(confidence, '32FC1')
        if scale is not None and outputs & METRIC_OUTPUTS:
            depth_m = metric_depth(prediction.affine_invariant_depth, confidence, K, scale,
                                   depth_filter, covered=prediction.covered)  # [H,W]
            packers['depth'] = lambda: pack_depth(depth_m, depth_encoding)
            packers['points'] = lambda: self._cloud.pack(depth_m, K, rgb, stride=point_stride)
        return {output: pack() for output, pack in packers.items() if output in outputs}


class CameraOutputs:
    """
    Publishers of one camera, from configure to cleanup.

    Parameters
    ----------
    node : LifecycleNode
    camera : str
    reporter : Reporter
        Counts subscribers of incompatible QoS.
    """

    def __init__(self, node: LifecycleNode, camera: str, reporter: Reporter) -> None:
        """Create every publisher; parameters qos_overrides.<topic>.publisher.* set its QoS."""
        self._node = node

        def report_incompatible_qos(topic: str, event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind)
            reporter.report_event(
                camera, 'incompatible_qos', f'a subscriber of {camera}/{topic} requests an '
                f'incompatible {policy}; it receives nothing')

        def create_publisher(message_type: type, topic: str) -> LifecyclePublisher:
            qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=2,
                             reliability=ReliabilityPolicy.RELIABLE)
            created: LifecyclePublisher = node.create_lifecycle_publisher(
                message_type, f'{camera}/{topic}', qos,
                event_callbacks=PublisherEventCallbacks(
                    incompatible_qos=partial(report_incompatible_qos, topic)),
                qos_overriding_options=QoSOverridingOptions(OVERRIDABLE))
            return created

        self._publishers = {
            output: create_publisher(PointCloud2 if output == 'points' else Image, topic)
            for output, topic in TOPICS.items()}
        # Publishing copies a message, so the next cloud can use the same memory; allocating memory
        # of this size takes longer than filling it.
        self._cloud_memory = array.array('B')
        self._infos = {topic: create_publisher(CameraInfo, topic)
                       for topic in set(INFO_TOPICS.values())}

    def subscribed(self) -> frozenset[str]:
        """Return the outputs that have a subscriber."""
        return frozenset(output for output, publisher in self._publishers.items()
                         if publisher.get_subscription_count() > 0)

    def publish(self, header: Header, camera: Camera,
                fields: Mapping[str, ImageFields | CloudFields]) -> None:
        """
        Publish the outputs of one frame, each camera_info before its image.

        Parameters
        ----------
        header : Header
            Header of the input image.
        camera : Camera
            Camera of the processed image.
        fields : mapping
            Output -> fields of its message.
        """
        for topic in {INFO_TOPICS[output] for output in fields if output in INFO_TOPICS}:
            if self._infos[topic].get_subscription_count() > 0:
                self._infos[topic].publish(make_camera_info(header, camera))
        for output in TOPICS:  # metric depth first, because a robot navigates by it
            content = fields.get(output)
            if content is not None:
                self._publishers[output].publish(
                    make_cloud(header, content, self._cloud_memory)
                    if isinstance(content, CloudFields) else serialize_image(header, content))

    def close(self) -> None:
        """Destroy every publisher."""
        for publisher in (*self._publishers.values(), *self._infos.values()):
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers, self._infos = {}, {}
