"""Log levels: only events on which the user should act are warnings."""

from __future__ import annotations

import pytest

from marigold_ros.metric.types import MetricScale, ScaleReport
from marigold_ros.ros.diagnostics import Reporter

METRIC = MetricScale(scale=3.0, shift=1.0, confidence=1.0, sources=('depth',))


class LoggedNode:
    """The part of a node that a Reporter needs, with a log in memory."""

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
    ('holding', METRIC, 'WARN'), ('expired', None, 'WARN'), ('rejected', METRIC, 'WARN')])
def test_a_scale_state_that_needs_action_is_a_warning(node, state, metric, level):
    Reporter(node).report_scale('front', ScaleReport(state, metric))
    text = 'metric depth = 3 m * relative depth + 1 m' if metric else 'the scale is unknown'
    assert node.lines == [(level, f'front: scale_{state}: {text}')]


def test_a_rejected_reference_is_a_warning(node):
    Reporter(node).report_scale('front', ScaleReport('rejected', None, detail='the clock stopped'))
    assert ('WARN', 'front: scale_rejections: the clock stopped') in node.lines


def test_an_event_that_is_reported_once_is_logged_once_for_each_subject(node):
    reporter = Reporter(node)
    for subject in ('base', 'arm', 'base', 'arm'):
        reporter.report_once('front', 'ignored_transforms', subject, f'{subject} is ignored')
    assert node.lines == [('WARN', 'front: ignored_transforms: base is ignored'),
                          ('WARN', 'front: ignored_transforms: arm is ignored')]
    assert reporter._counters['front']['ignored_transforms'] == 4


def test_a_state_is_logged_when_it_changes_and_events_are_throttled(node):
    reporter = Reporter(node)
    for _ in range(3):
        reporter.report_scale('front', ScaleReport('tracking', METRIC))
        reporter.report_event('front', 'no_calibration', 'no camera_info')
    assert [text.split(':')[1] for _, text in node.lines] == [' scale_tracking', ' no_calibration']
