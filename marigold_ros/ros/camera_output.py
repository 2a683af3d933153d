"""The outputs of a frame: packed into message fields and published with their camera_info."""

from __future__ import annotations

from collections import defaultdict
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

from marigold_ros.depth.types import DepthPrediction, FloatImage, RgbImage
from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.messages.cloud import CloudFields, CloudPacker
from marigold_ros.messages.depth import colorize, pack_depth
from marigold_ros.messages.image import ImageFields, pack_image
from marigold_ros.messages.memory import MessageMemory
from marigold_ros.metric.outputs import (
    depth_sigma,
    metric_confidence,
    metric_depth,
    PointFilter,
    select_points,
)
from marigold_ros.metric.types import MetricScale
from marigold_ros.ros.conversions import make_camera_info, serialize_cloud, serialize_image
from marigold_ros.ros.diagnostics import Reporter
from marigold_ros.ros.rclpy_workarounds import publish_serialized

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from std_msgs.msg import Header

    from marigold_ros.geometry.camera import Camera

# Output -> topic below the camera's name.
TOPICS = {
    'depth': 'depth/image_rect',
    'points': 'points',
    'sigma': 'depth/sigma',
    'depth_relative': 'depth_relative/image',
    'color': 'depth/image_color',
    'confidence': 'confidence',
    'rgb': 'rgb/image_rect',
}
METRIC_OUTPUTS = frozenset({'depth', 'points', 'sigma'})
RELATIVE_OUTPUTS = frozenset({'depth_relative', 'color'})
# The camera_info topic beside `confidence` is the camera's own, so that of `rgb` is published.
INFO_TOPICS = {
    'depth': 'depth/camera_info',
    'sigma': 'depth/camera_info',
    'depth_relative': 'depth_relative/camera_info',
    'color': 'depth/camera_info',
    'confidence': 'rgb/camera_info',
    'rgb': 'rgb/camera_info',
}

OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY,
               QoSPolicyKind.DURABILITY)


class FramePacker:
    """Pack the outputs of one camera's frames in memory that is reused."""

    def __init__(self) -> None:
        """Allocate nothing yet."""
        self._cloud = CloudPacker()
        self._memories: defaultdict[str, MessageMemory] = defaultdict(MessageMemory)

    def pack(self, outputs: frozenset[str], rgb: RgbImage, K: NDArray[np.float64],
             prediction: DepthPrediction, scale: MetricScale | None, depth_filter: DepthFilter,
             point_filter: PointFilter, *, depth_encoding: str = '32FC1') -> dict[
                 str, ImageFields | CloudFields]:
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
        point_filter : PointFilter
        depth_encoding : {'32FC1', '16UC1'}

        Returns
        -------
        dict
            Output -> fields; valid until the camera's next frame.
        """
        relative = prediction.affine_invariant_depth  # [H,W]
        if prediction.covered is not None and outputs & RELATIVE_OUTPUTS:
            # It keeps the range of its run.
            relative = np.clip(relative, 0.0, 1.0, out=self._floats('depth_relative', relative))
        packers: dict[str, Callable[[], ImageFields | CloudFields]] = {
            'depth_relative': lambda: self._pack_copy('depth_relative', relative, '32FC1'),
            'color': lambda: self._pack_color(relative),
            'rgb': lambda: self._pack_copy('rgb', rgb, 'rgb8')}
        confidence = prediction.confidence
        if 'confidence' in outputs or depth_filter.confidence_min or point_filter.confidence_min:
            confidence = metric_confidence(confidence, scale, relative.shape)  # [H,W]
        if confidence is not None:
            packers['confidence'] = partial(self._pack_copy, 'confidence', confidence, '32FC1')
        if scale is not None and outputs & METRIC_OUTPUTS:
            depth_m = metric_depth(
                prediction.affine_invariant_depth, confidence, K, scale, depth_filter,
                covered=prediction.covered, out=self._floats('depth', relative))  # [H,W]
            packers['depth'] = lambda: pack_depth(depth_m, depth_encoding, self._memories['depth'])
            packers['points'] = lambda: self._cloud.pack(
                select_points(depth_m, confidence, K, point_filter), point_filter.intrinsics(K),
                rgb[::point_filter.stride, ::point_filter.stride])
            if (field := scale.field) is not None:
                packers['sigma'] = lambda: self._pack_copy('sigma', depth_sigma(
                    depth_m, field, self._floats('sigma', depth_m)), '32FC1')
        return {output: pack() for output, pack in packers.items() if output in outputs}

    def _floats(self, output: str, like: FloatImage) -> FloatImage:
        return self._memories[output].array(like.shape, np.float32)

    def _pack_color(self, relative: FloatImage) -> ImageFields:
        memory = self._memories['color']
        colors = colorize(relative, memory.array((*relative.shape, 3), np.uint8))
        return pack_image(colors, 'rgb8', memory)

    def _pack_copy(self, output: str, image: NDArray[Any], encoding: str) -> ImageFields:
        """Pack an image that is kept, or already in the memory of its output."""
        memory = self._memories[output]
        copied = memory.array(image.shape, image.dtype)
        if not np.may_share_memory(copied, image):
            np.copyto(copied, image)
        return pack_image(copied, encoding, memory)


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
                publish_serialized(
                    self._publishers[output], serialize_cloud(header, content)
                    if isinstance(content, CloudFields) else serialize_image(header, content))

    def close(self) -> None:
        """Destroy every publisher."""
        for publisher in (*self._publishers.values(), *self._infos.values()):
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers, self._infos = {}, {}
