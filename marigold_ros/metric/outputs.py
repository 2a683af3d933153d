"""From a prediction to the fields of the messages that somebody listens to."""

from __future__ import annotations

from typing import Callable

import numpy as np

from marigold_ros.depth.types import DepthPrediction, RgbImage
from marigold_ros.messages.cloud import CloudFields, CloudPacker
from marigold_ros.messages.depth import colorize, pack_depth
from marigold_ros.messages.image import ImageFields, pack_image
from marigold_ros.metric.scale import MetricScale
from marigold_ros.ros.calibration import Calibration
from marigold_ros.ros.parameters import Settings


def make_fields(wanted: frozenset[str], rgb: RgbImage, calibration: Calibration,
                prediction: DepthPrediction, scale: MetricScale | None,
                settings: Settings, packer: CloudPacker) -> dict[str, ImageFields | CloudFields]:
    """
    Make the outputs of one frame.

    Parameters
    ----------
    wanted : set of str
        Keys of `outputs.TOPICS`; nothing else is computed.
    rgb : uint8 [H, W, 3]
        The image that was processed, rectified.
    calibration : Calibration
        Of that image.
    prediction : DepthPrediction
    scale : MetricScale or None
        None leaves the metric outputs out.
    settings : Settings
    packer : CloudPacker
        Of this camera.

    Returns
    -------
    dict
        Output -> fields of its message; those of `points` are valid until the camera's next frame.
    """
    relative = calibration.masked(prediction.affine_invariant_depth)  # [H,W]
    confidence = prediction.confidence  # [H,W]
    if calibration.rectifier is not None and confidence is not None and (
            'confidence' in wanted or settings.confidence_min > 0.0):
        confidence = np.where(calibration.rectifier.valid, confidence, np.float32(0))
    makers: dict[str, Callable[[], ImageFields | CloudFields]] = {
        'depth_relative': lambda: pack_image(relative, '32FC1'),
        'color': lambda: pack_image(colorize(relative), 'rgb8'),
        'rgb': lambda: pack_image(rgb, 'rgb8'),
    }
    if confidence is not None:
        makers['confidence'] = lambda: pack_image(confidence, '32FC1')
    if scale is not None:
        depth_m = settings.depth_filter().apply(
            scale.to_metres(relative), calibration.camera.K,
            affine_invariant_depth=relative, confidence=confidence)  # [H,W]
        makers['depth'] = lambda: pack_depth(
            depth_m, min_depth_m=settings.min_depth_m, max_depth_m=settings.max_depth_m,
            encoding=settings.depth_encoding)
        makers['points'] = lambda: packer.pack(
            depth_m, calibration.camera.K, rgb, stride=settings.point_stride)
    return {output: make() for output, make in makers.items() if output in wanted}
