"""The scale of every camera over time, from all scale sources together."""

from __future__ import annotations

from marigold_ros.metric.camera_scale import CameraScale
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.types import MetricScale, ScaleFrame, ScaleReport


class ScaleTracker:
    """
    Measure the scale of each frame, smooth it, hold it, and discard it when it is too old.

    The sources `none` and `fixed` measure nothing and return the same report for every frame.

    Parameters
    ----------
    config : ScaleConfig
    """

    def __init__(self, config: ScaleConfig) -> None:
        """Start without a scale."""
        self._config = config
        self.reset()

    def reset(self) -> None:
        """Discard the scale of every camera."""
        self._cameras: dict[str, CameraScale] = {}

    def discard(self, camera: str) -> None:
        """Discard the scale of one camera."""
        self._cameras.pop(camera, None)

    def update(self, frame: ScaleFrame) -> ScaleReport:
        """
        Update the scale with one frame and return its report.

        Parameters
        ----------
        frame : ScaleFrame
            Frames of one camera must be passed in the order of their stamps.

        Returns
        -------
        ScaleReport
            An invalid reference does not raise; `detail` contains the reason.

        Examples
        --------
        A reference that measured a depth of 3 m * relative + 1 m at every pixel:

        >>> import numpy as np
        >>> from marigold_ros.metric.anchors import Anchors
        >>> relative = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (30, 1))
        >>> rows, columns = (each.ravel() for each in np.mgrid[:30, :40])
        >>> anchors = Anchors(rows, columns, 3 * relative.ravel() + 1)
        >>> K = np.array([[40.0, 0.0, 19.5], [0.0, 40.0, 14.5], [0.0, 0.0, 1.0]])
        >>> frame = ScaleFrame('camera', 0, relative, None, K, {'depth': anchors})
        >>> report = ScaleTracker(ScaleConfig(('depth',))).update(frame)
        >>> scale = report.metric_scale
        >>> print(f'{report.state}: {scale.scale:.2f} m, {scale.shift:.2f} m')
        tracking: 3.00 m, 1.00 m
        """
        if not self._config.is_measured:
            return _unmeasured_report(self._config)
        if frame.camera not in self._cameras:
            self._cameras[frame.camera] = CameraScale(self._config)
        return self._cameras[frame.camera].update(frame)


def _unmeasured_report(config: ScaleConfig) -> ScaleReport:
    """Report no scale for `none`, and the configured range for `fixed`."""
    low_m, high_m = config.min_depth_m, config.max_depth_m
    if config.sources == ('none',) or low_m is None or high_m is None:
        return ScaleReport('none', None)
    return ScaleReport('assumed', MetricScale(
        scale=high_m - low_m, shift=low_m, confidence=0.0, sources=config.sources))
