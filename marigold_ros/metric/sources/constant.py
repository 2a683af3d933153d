"""Sources `none` and `fixed`: the same for every camera and time."""

from __future__ import annotations

from marigold_ros.metric.types import MetricScale, ScaleFrame, ScaleReport


class ConstantScale:
    """
    A source that measures nothing.

    Parameters
    ----------
    report : ScaleReport
        Its answer to every frame.
    """

    def __init__(self, report: ScaleReport) -> None:
        self._report = report

    @classmethod
    def none(cls) -> ConstantScale:
        """Source `none`: relative depth only, no metres ever."""
        return cls(ScaleReport('none', None))

    @classmethod
    def fixed(cls, min_depth_m: float, max_depth_m: float) -> ConstantScale:
        """Source `fixed`: the relative depth spread over a range that the user assumes, m."""
        return cls(ScaleReport('assumed', MetricScale(
            scale=max_depth_m - min_depth_m, shift=min_depth_m, confidence=0.0, source='fixed',
            assumed=True)))

    def update(self, frame: ScaleFrame) -> ScaleReport:
        """Answer, whatever the frame."""
        return self._report

    def reset(self) -> None:
        """Do nothing, for nothing was learned."""
