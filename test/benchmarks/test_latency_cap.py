"""The latency-cap benchmark: every frame has one outcome, and sums are right."""

from __future__ import annotations

import json
import time

import pytest
import torch

from benchmarks import latency_cap
from benchmarks.latency_cap import (
    deliver_by_clock,
    FrameResult,
    pack_messages,
    PolicyRun,
    summarize,
)
from benchmarks.synthetic_images import make_mixed_complexity_images, make_synthetic_image
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.device import cpu_thread_count
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.types import BatchTiming
from marigold_ros.evaluation.policies.live import DeliveredFrame

SMALL = (144, 192)  # what the engine makes of VGA


@pytest.fixture(scope='module')
def engine():
    return DepthEngine.load('tiny', device='cpu')


def delivered(number=0, age_s=0.0):
    return DeliveredFrame(number, make_synthetic_image(number), time.monotonic() - age_s)


class SlowRun:
    """Take at least three and a half periods for a frame."""

    def process(self, frame):
        time.sleep(0.035)
        return FrameResult(frame.number, frame.received_s, 'processed', 0.035)


def test_the_images_differ_enough_for_the_policy_to_choose_more_than_one_step(engine):
    """Else the cap has nothing to limit."""
    run = PolicyRun(engine, StepPolicyConfig('complexity', latency_cap_s=None), [])
    images = make_mixed_complexity_images(12)
    steps = [run.process(DeliveredFrame(number, images[number % 12], time.monotonic())).steps_run
             for number in range(24)]
    assert max(steps) > 2 > min(steps)


def test_every_frame_delivered_has_one_outcome():
    results = deliver_by_clock(SlowRun(), [make_synthetic_image(0)] * 20, 0.01,
                               time.monotonic() + 0.01)
    assert [each.number for each in results] == list(range(20))
    outcomes = [each.outcome for each in results]
    assert outcomes[-1] == 'processed'
    assert outcomes.count('superseded') >= 10
    assert set(outcomes) == {'processed', 'superseded'}
    received = [each.received_s for each in results]
    assert received == sorted(received)
    assert received[0] >= 0.0


def test_without_a_cap_the_policy_decides_alone(engine):
    run = PolicyRun(engine, StepPolicyConfig('fixed', 1, 3, latency_cap_s=None), [])
    result = run.process(delivered(7))
    assert (result.number, result.outcome) == (7, 'processed')
    assert (result.steps_without_cap, result.steps_decided, result.steps_run) == (3, 3, 3)
    assert result.latency_s > 0.0
    assert not result.reduced


def test_the_cap_reduces_the_steps_and_those_without_cap_are_known(engine):
    """A cost of 10 s a step under a cap of 35 s with 5 % margin: 3 of 4 steps."""
    seeds = [BatchTiming(SMALL, (4,), 0.0, 40.0, 0.0)]
    run = PolicyRun(engine, StepPolicyConfig('fixed', 1, 4, latency_cap_s=35.0), seeds)
    result = run.process(delivered())
    assert (result.steps_without_cap, result.steps_decided, result.steps_run) == (4, 3, 3)
    assert result.reduced


def test_a_frame_that_cannot_be_in_time_is_late(engine):
    run = PolicyRun(engine, StepPolicyConfig('fixed', 1, 4, latency_cap_s=1.0),
                    [BatchTiming(SMALL, (1,), 0.1, 0.1, 0.1)])
    result = run.process(delivered(age_s=2.0))
    assert (result.outcome, result.steps_decided, result.steps_run) == ('processed', 1, 1)
    assert 2.0 <= result.latency_s < 3.0
    assert result.reason.startswith('late, run with 1') and 'age 20' in result.reason


def test_messages_are_those_of_the_node(engine):
    """32FC1 at VGA, and 19 200 points of 16 bytes."""
    rgb = make_synthetic_image(0)
    sizes = [len(data) for data in pack_messages(engine.infer(rgb), rgb)]
    assert sizes == [480 * 640 * 4, 120 * 160 * 16]


def a_result(received_s, outcome, latency_s=None, steps=(0, 0, 0), stopped_by='schedule'):
    """One core is busy with others before 5 s and two after; this process takes half a core."""
    busy_s = received_s + 0.5 * received_s + max(0.0, received_s - 5.0)
    return FrameResult(0, received_s, outcome, latency_s, *steps, stopped_by,
                       work_s=(busy_s, 0.5 * received_s))


def test_sums_are_those_of_the_frames():
    """By hand: cap 100 ms, load on from 5 to 10 s."""
    results = [
        a_result(1.0, 'processed', 0.080, (4, 4, 4)),
        a_result(2.0, 'processed', 0.090, (4, 2, 2)),
        a_result(3.0, 'superseded'),
        a_result(5.5, 'processed', 0.110, (1, 1, 1)),
        a_result(6.0, 'processed', 0.080, (4, 1, 1)),
        a_result(7.0, 'processed', 0.080, (1, 1, 1)),
        a_result(8.0, 'processed', 0.095, (4, 4, 2), 'deadline'),
        a_result(10.0, 'processed', 0.100, (3, 3, 3)),
    ]
    summary = summarize(results, 0.1, 5.0, loaded=True)
    assert summary['frames'] == 8
    assert summary['processed'] == 7
    assert summary['latency_ms']['p50'] == pytest.approx(90.0)
    assert summary['latency_ms']['p100'] == pytest.approx(110.0)
    assert summary['over_cap'] == 1
    assert summary['superseded'] == pytest.approx(1 / 8)
    assert summary['reduced'] == pytest.approx(3 / 7)
    assert summary['mean_steps_unloaded'] == pytest.approx(3.0)
    assert summary['mean_steps_loaded'] == pytest.approx(1.25)
    assert summary['intervals'] == [
        {'from_s': 0.0, 'load': False, 'frames': 3, 'over_cap': 0,
         'other_cores': pytest.approx(1.0)},
        {'from_s': 5.0, 'load': True, 'frames': 4, 'over_cap': 1,
         'other_cores': pytest.approx(2.0)},
        {'from_s': 10.0, 'load': False, 'frames': 1, 'over_cap': 0,
         'other_cores': 0.0}]
    unloaded = summarize(results, 0.1, 5.0, loaded=False)
    assert unloaded['mean_steps_loaded'] is None
    assert not any(interval['load'] for interval in unloaded['intervals'])


@pytest.fixture
def threads():
    """Torch's number of threads, which the program changes."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures('threads')
def test_whole_run_writes_table_timeline_and_plot(tmp_path, monkeypatch):
    monkeypatch.setattr(latency_cap, 'CALIBRATION_FRAMES', 5)
    monkeypatch.setattr(latency_cap, 'START_DELAY_S', 0.05)
    latency_cap.main(['--frames', '8', '--load-period', '0.1', '--max-inference-steps', '2',
                      '--device', 'cpu', '--out', str(tmp_path)])
    report = json.loads((tmp_path / 'latency_cap.json').read_text())
    assert report['cap_s'] > 0.0
    assert report['executor'] == 'torch'
    assert report['environment']['torch_threads'] == report['threads'] == cpu_thread_count()
    frames = {name: len(timeline) for name, timeline in report['timelines'].items()}
    assert frames == {'fixed, no cap, no load': 5, 'cap, no load': 8, 'cap, load': 8,
                      'fixed, no cap, load': 8}
    for name, timeline in report['timelines'].items():
        assert [each['number'] for each in timeline] == list(range(frames[name]))
        assert report['summaries'][name]['frames'] == frames[name]
    assert all(each['steps_run'] in (0, 2) for each in report['timelines']['fixed, no cap, load'])
    text = (tmp_path / 'latency_cap.md').read_text()
    assert all(f'| {name} ' in text for name in report['timelines'])
    assert (tmp_path / 'latency_cap.png').read_bytes().startswith(b'\x89PNG')
