"""What leaves the node: the outputs of a frame, packed and published with their camera_info."""

from __future__ import annotations

import array
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TYPE_CHECKING

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
from marigold_ros.ros.conversions import camera_info_message, cloud_message, serialized_image
from marigold_ros.ros.diagnostics import Reporter

if TYPE_CHECKING:
    import numpy as np
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
# Beside `confidence` lies the camera's own camera_info, which this node must not publish into.
INFO_TOPICS = {
    'depth': 'depth/camera_info',
    'depth_relative': 'depth_relative/camera_info',
    'color': 'depth/camera_info',
    'rgb': 'rgb/camera_info',
}

OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY,
               QoSPolicyKind.DURABILITY)


class FramePacker:
    """Pack the outputs of one camera's frames, one frame after the other."""

    def __init__(self) -> None:
        """Keep the cloud's memory from frame to frame."""
        self._cloud = CloudPacker()

    def pack(self, wanted: frozenset[str], rgb: RgbImage, K: NDArray[np.float64],
             prediction: DepthPrediction, scale: MetricScale | None, depth_filter: DepthFilter, *,
             depth_encoding: str = '32FC1', point_stride: int = POINT_STRIDE
             ) -> dict[str, ImageFields | CloudFields]:
        """
        Make the messages' fields of what somebody listens to.

        Parameters
        ----------
        wanted : set of str
            Keys of `TOPICS`; nothing else is computed.
        rgb : uint8 [H, W, 3]
            The image that was processed, rectified.
        K : float64 [3, 3]
            Intrinsics of that image, px.
        prediction : DepthPrediction
            Of that image; NaN where it shows nothing.
        scale : MetricScale or None
            None leaves the metric outputs out.
        depth_filter : DepthFilter
        depth_encoding : {'32FC1', '16UC1'}
        point_stride : int
            Pixels from one point of the cloud to the next, along both axes.

        Returns
        -------
        dict
            Output -> fields; those of `points` are valid until the camera's next frame.
        """
        relative, confidence = prediction.affine_invariant_depth, prediction.confidence  # [H,W]
        makers: dict[str, Callable[[], ImageFields | CloudFields]] = {
            'depth_relative': lambda: pack_image(relative, '32FC1'),
            'color': lambda: pack_image(colorize(relative), 'rgb8'),
            'rgb': lambda: pack_image(rgb, 'rgb8')}
        if confidence is not None:
            makers['confidence'] = lambda: pack_image(confidence, '32FC1')
        if scale is not None and wanted & METRIC_OUTPUTS:
            depth_m = metric_depth(relative, confidence, K, scale, depth_filter)  # [H,W]
            makers['depth'] = lambda: pack_depth(depth_m, depth_encoding)
            makers['points'] = lambda: self._cloud.pack(depth_m, K, rgb, stride=point_stride)
        return {output: make() for output, make in makers.items() if output in wanted}


class CameraOutputs:
    """
    Publishers of one camera, from configure to cleanup.

    Parameters
    ----------
    node : LifecycleNode
    camera : str
    reporter : Reporter
        Is told of subscribers that a publisher's QoS keeps away.
    """

    def __init__(self, node: LifecycleNode, camera: str, reporter: Reporter) -> None:
        """Create every publisher; QoS can be overridden by qos_overrides.<topic>.publisher.*."""
        self._node = node

        def report(topic: str, event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind)
            reporter.event(camera, 'incompatible_qos', f'a subscriber of {camera}/{topic} asks '
                           f'for an incompatible {policy}; it receives nothing')

        def publisher(message_type: type, topic: str) -> LifecyclePublisher:
            qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=2,
                             reliability=ReliabilityPolicy.RELIABLE)
            created: LifecyclePublisher = node.create_lifecycle_publisher(
                message_type, f'{camera}/{topic}', qos,
                event_callbacks=PublisherEventCallbacks(incompatible_qos=partial(report, topic)),
                qos_overriding_options=QoSOverridingOptions(OVERRIDABLE))
            return created

        self._publishers = {
            output: publisher(PointCloud2 if output == 'points' else Image, topic)
            for output, topic in TOPICS.items()}
        # Publishing copies a message, so the next cloud may lie in the same memory: fresh memory
        # of this size costs more than filling it.
        self._cloud_memory = array.array('B')
        self._infos = {topic: publisher(CameraInfo, topic) for topic in set(INFO_TOPICS.values())}

    def wanted(self) -> frozenset[str]:
        """Return the images and clouds that somebody subscribes to."""
        return frozenset(output for output, publisher in self._publishers.items()
                         if publisher.get_subscription_count() > 0)

    def publish(self, header: Header, camera: Camera,
                fields: Mapping[str, ImageFields | CloudFields]) -> None:
        """
        Publish the outputs of one frame, each image behind its camera_info.

        Parameters
        ----------
        header : Header
            The input's.
        camera : Camera
            Of the processed image.
        fields : mapping
            Output -> fields of its message.
        """
        for topic in {INFO_TOPICS[output] for output in fields if output in INFO_TOPICS}:
            if self._infos[topic].get_subscription_count() > 0:
                self._infos[topic].publish(camera_info_message(header, camera))
        for output in TOPICS:  # what a robot steers by first
            content = fields.get(output)
            if content is not None:
                self._publishers[output].publish(
                    cloud_message(header, content, self._cloud_memory)
                    if isinstance(content, CloudFields) else serialized_image(header, content))

    def close(self) -> None:
        """Destroy every publisher."""
        for publisher in (*self._publishers.values(), *self._infos.values()):
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers, self._infos = {}, {}
