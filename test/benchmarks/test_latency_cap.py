"""Rules of the cap's benchmark: every frame counted once, honest sums."""

from __future__ import annotations

import json
import time

import pytest
import torch

from benchmarks import latency_cap
from benchmarks.latency_cap import make_messages, Outcome, play, PolicyRun, summarize
from benchmarks.synthetic_images import picture
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.types import BatchTiming
from marigold_ros.evaluation.policies.live import DeliveredFrame

SMALL = (144, 192)  # what the engine makes of VGA


@pytest.fixture(scope='module')
def engine():
    return DepthEngine.load('tiny', device='cpu')


def delivered(number=0, age_s=0.0):
    return DeliveredFrame(number, picture(number), time.monotonic() - age_s)


class SlowRun:
    """Takes at least three and a half periods for a frame."""

    def process(self, frame):
        time.sleep(0.035)
        return Outcome(frame.number, frame.received_s, 'published', 0.035)


def test_every_frame_delivered_has_one_fate():
    outcomes = play(SlowRun(), [picture(0)] * 20, 0.01, time.monotonic() + 0.01)
    assert [outcome.number for outcome in outcomes] == list(range(20))
    fates = [outcome.fate for outcome in outcomes]
    assert fates[-1] == 'published'
    assert fates.count('superseded') >= 10
    assert set(fates) == {'published', 'superseded'}
    received = [outcome.received_s for outcome in outcomes]
    assert received == sorted(received)
    assert received[0] >= 0.0


def test_without_a_cap_the_policy_decides_alone(engine):
    run = PolicyRun(engine, StepPolicyConfig('fixed', 1, 3, latency_cap_s=None), [])
    outcome = run.process(delivered(7))
    assert (outcome.number, outcome.fate) == (7, 'published')
    assert (outcome.steps_wanted, outcome.steps_granted, outcome.steps_run) == (3, 3, 3)
    assert outcome.latency_s > 0.0
    assert not outcome.cut


def test_the_cap_cuts_and_what_was_wanted_is_still_known(engine):
    """A cost of 10 s a step under a cap of 35 s with 5 % margin: 3 of 4 steps."""
    seeds = [BatchTiming(SMALL, (4,), 0.0, 40.0, 0.0)]
    run = PolicyRun(engine, StepPolicyConfig('fixed', 1, 4, latency_cap_s=35.0), seeds)
    outcome = run.process(delivered())
    assert (outcome.steps_wanted, outcome.steps_granted, outcome.steps_run) == (4, 3, 3)
    assert outcome.cut


def test_a_frame_that_cannot_be_in_time_is_skipped(engine):
    run = PolicyRun(engine, StepPolicyConfig('fixed', 1, 4, latency_cap_s=1.0, late_frames='skip'),
                    [BatchTiming(SMALL, (1,), 0.1, 0.1, 0.1)])
    outcome = run.process(delivered(age_s=2.0))
    assert (outcome.fate, outcome.latency_s, outcome.steps_run) == ('late', None, 0)
    assert 'age 20' in outcome.reason  # 2 s and a little


def test_messages_are_those_of_the_node(engine):
    """32FC1 at VGA, and 19 200 points of 16 bytes."""
    sizes = [len(data) for data in make_messages(engine.infer(picture(0)), picture(0))]
    assert sizes == [480 * 640 * 4, 120 * 160 * 16]


def an_outcome(received_s, fate, latency_s=None, steps=(0, 0, 0), stopped_by='schedule'):
    """One core is busy with others before 5 s and two after; this process takes half a core."""
    busy_s = received_s + 0.5 * received_s + max(0.0, received_s - 5.0)
    return Outcome(0, received_s, fate, latency_s, *steps, stopped_by,
                   work_s=(busy_s, 0.5 * received_s))


def test_sums_are_those_of_the_frames():
    """By hand: cap 100 ms, load on from 5 to 10 s."""
    outcomes = [
        an_outcome(1.0, 'published', 0.080, (4, 4, 4)),
        an_outcome(2.0, 'published', 0.090, (4, 2, 2)),
        an_outcome(3.0, 'superseded'),
        an_outcome(5.5, 'published', 0.110, (1, 1, 1)),
        an_outcome(6.0, 'late', steps=(4, 0, 0)),
        an_outcome(7.0, 'late', steps=(1, 0, 0)),
        an_outcome(8.0, 'published', 0.095, (4, 4, 2), 'deadline'),
        an_outcome(10.0, 'published', 0.100, (3, 3, 3)),
    ]
    summary = summarize(outcomes, 0.1, 5.0, loaded=True)
    assert summary['frames'] == 8
    assert summary['published'] == 5
    assert summary['latency_ms']['p50'] == pytest.approx(95.0)
    assert summary['latency_ms']['p100'] == pytest.approx(110.0)
    assert summary['over_cap'] == 1
    assert summary['skipped'] == pytest.approx(2 / 8)
    assert summary['superseded'] == pytest.approx(1 / 8)
    assert summary['cut'] == pytest.approx(2 / 5)
    assert summary['mean_steps_free'] == pytest.approx(3.0)
    assert summary['mean_steps_loaded'] == pytest.approx(1.5)
    assert summary['stretches'] == [
        {'from_s': 0.0, 'load': False, 'frames': 3, 'over_cap': 0, 'skipped': 0,
         'other_cores': pytest.approx(1.0)},
        {'from_s': 5.0, 'load': True, 'frames': 4, 'over_cap': 1, 'skipped': 2,
         'other_cores': pytest.approx(2.0)},
        {'from_s': 10.0, 'load': False, 'frames': 1, 'over_cap': 0, 'skipped': 0,
         'other_cores': 0.0}]
    unloaded = summarize(outcomes, 0.1, 5.0, loaded=False)
    assert unloaded['mean_steps_loaded'] is None
    assert not any(stretch['load'] for stretch in unloaded['stretches'])


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
                    '--device', 'cpu', '--threads', '1', '--out', str(tmp_path)])
    report = json.loads((tmp_path / 'cap.json').read_text())
    assert report['cap_s'] > 0.0
    assert report['environment']['torch_threads'] == 1
    frames = {name: len(timeline) for name, timeline in report['timelines'].items()}
    assert frames == {'fixed, no cap, no load': 5, 'cap, no load': 8, 'cap, load': 8,
                      'fixed, no cap, load': 8}
    for name, timeline in report['timelines'].items():
        assert [each['number'] for each in timeline] == list(range(frames[name]))
        assert report['summaries'][name]['frames'] == frames[name]
    assert all(each['steps_run'] in (0, 2) for each in report['timelines']['fixed, no cap, load'])
    text = (tmp_path / 'cap.md').read_text()
    assert all(f'| {name} ' in text for name in report['timelines'])
    assert (tmp_path / 'cap.png').read_bytes().startswith(b'\x89PNG')
