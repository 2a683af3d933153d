"""Rules of the log: healthy is INFO, and only what a user should act on is a warning."""

from __future__ import annotations

import pytest

from marigold_ros.metric.types import MetricScale, ScaleReport
from marigold_ros.ros.diagnostics import Reporter

METRIC = MetricScale(scale=3.0, shift=1.0, confidence=1.0, source='depth', assumed=False)


class LoggedNode:
    """As much of a node as a Reporter needs, with a log that can be read."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def get_logger(self):
        return self

    def info(self, text: str) -> None:
        self.lines.append(('INFO', text))

    def warning(self, text: str) -> None:
        self.lines.append(('WARN', text))

    def create_publisher(self, *args):
        return None


@pytest.fixture
def node() -> LoggedNode:
    return LoggedNode()


@pytest.mark.parametrize('state, metric, level', [
    ('tracking', METRIC, 'INFO'), ('assumed', METRIC, 'INFO'), ('waiting', None, 'INFO'),
    ('holding', METRIC, 'WARN'), ('expired', None, 'WARN'), ('refused', METRIC, 'WARN')])
def test_a_scale_is_a_warning_where_it_is_not_healthy(node, state, metric, level):
    Reporter(node).scale('front', ScaleReport(state, metric))
    text = 'depth is 3 m x relative + 1 m' if metric else 'no metres'
    assert node.lines == [(level, f'front: scale_{state}: {text}')]


def test_what_is_wrong_with_a_reference_is_a_warning(node):
    Reporter(node).scale('front', ScaleReport('refused', None, detail='its clock stands still'))
    assert ('WARN', 'front: scale_refusals: its clock stands still') in node.lines


def test_a_state_is_logged_at_a_change_and_events_are_throttled(node):
    reporter = Reporter(node)
    for _ in range(3):
        reporter.scale('front', ScaleReport('tracking', METRIC))
        reporter.event('front', 'no_calibration', 'no camera_info')
    assert [text.split(':')[1] for _, text in node.lines] == [' scale_tracking', ' no_calibration']
