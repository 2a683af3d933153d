"""The scale of every camera in the running node: what it listens to, and what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rclpy.node import Node

from marigold_ros.metric.scale import ScaleFrame, ScaleReport
from marigold_ros.metric.sources.measured import make_scale_source, REFERENCES
from marigold_ros.ros.calibration import Calibration
from marigold_ros.ros.diagnostics import Reporter
from marigold_ros.ros.frame_buffer import ReceivedFrame
from marigold_ros.ros.parameters import Settings
from marigold_ros.ros.references import reference_topics, ReferenceInput
from marigold_ros.ros.scale_inputs import needs_transforms, ReferencePort, scale_inputs
from marigold_ros.ros.transforms import Transforms

if TYPE_CHECKING:
    from marigold_ros.depth.types import DepthPrediction, RgbImage


class Scales:
    """
    Scale source, reference subscriptions and TF; opened and closed by the executor's thread.

    Parameters
    ----------
    node : Node
    settings : Settings
    reporter : Reporter
    """

    def __init__(self, node: Node, settings: Settings, reporter: Reporter) -> None:
        """Listen to nothing yet."""
        self._node, self._settings, self._reporter = node, settings, reporter
        self._source = make_scale_source(settings.scale_config())
        self._ports = {camera: ReferencePort(
            reference_topics(node, camera).looks_rectified or bool(settings.input_rectified))
            for camera in settings.cameras}
        self._inputs: list[ReferenceInput] = []
        self._transforms: Transforms | None = None
        self._opened = ('', False)  # the reference and whether TF is listened to

    # Called from the executor's thread

    def open(self, settings: Settings) -> None:
        """Listen to what these settings need, and to nothing else; go on where that is so."""
        needed = (settings.scale_source if settings.scale_source in REFERENCES else '',
                  needs_transforms(settings))
        if needed == self._opened:
            return
        self.close()
        self._opened = needed
        if needs_transforms(settings):
            self._transforms = Transforms(self._node)
        if settings.scale_source in REFERENCES:
            for camera, port in self._ports.items():
                self._inputs.append(ReferenceInput(
                    self._node, camera, settings.scale_source, port.store, port.calibrations,
                    self._reporter))

    def follow(self) -> None:
        """Look at the publishers again; to be called now and then while active."""
        for each in self._inputs:
            each.follow()

    def close(self) -> None:
        """Listen to nothing; does nothing the second time."""
        for each in self._inputs:
            each.close()
        self._inputs, self._opened = [], ('', False)
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None

    # Called in the worker's thread

    def apply(self, settings: Settings) -> None:
        """Use other settings; a source whose settings change starts afresh."""
        before, self._settings = self._settings, settings
        if settings.scale_config() != before.scale_config():
            self._source = make_scale_source(settings.scale_config())
            self.reset()

    def reset(self) -> None:
        """Forget what earlier frames and references taught."""
        self._source.reset()
        for port in self._ports.values():
            port.reset()

    def find(self, frame: ReceivedFrame, rgb: RgbImage, calibration: Calibration,
             prediction: DepthPrediction) -> ScaleReport:
        """Measure or look up the scale of one frame, and report what is wrong with it."""
        if calibration.problem:  # which has been reported
            report = ScaleReport('none', None)
            self._reporter.scale(frame.camera, report)
            return report
        inputs = scale_inputs(self._ports[frame.camera], frame, rgb, calibration, self._settings,
                              self._transforms)
        report = self._source.update(ScaleFrame(
            frame.camera, frame.stamp_ns,
            calibration.masked(prediction.affine_invariant_depth), prediction.confidence,
            calibration.camera.K, *inputs))
        self._reporter.scale(frame.camera, report)
        return report
