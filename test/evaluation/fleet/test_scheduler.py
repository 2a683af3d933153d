"""Jobs of a fleet: what fails is tried again, and the rest goes on."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

from marigold_ros.evaluation.fleet.scheduler import ATTEMPTS, Job, run_jobs
from marigold_ros.evaluation.fleet.tasks import Failure, PartResult, Report
from marigold_ros.evaluation.policies.latency import LatencyTable
from marigold_ros.stop_flag import StopFlag

TABLE = LatencyTable({})
PART = PartResult(b'', '', TABLE)


class Script:
    """A pool whose tasks are names; each has a list of results, or a death."""

    workers = 2

    def __init__(self, **results):
        self.results, self.started = results, []

    def submit(self, name):
        future = Future()
        result = self.results[name].pop(0)
        self.started.append(name)
        if result == 'death':
            future.set_exception(BrokenProcessPool())
        elif isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
        return future

    def progress(self, future):
        return 0


def run(pool, following=()):
    """Run a job for each result of the pool that is not of a following job."""
    finished = {}

    def job(name):
        def finish(result):
            finished[name] = result
            return [job(each) for each in following if name == 'first']
        return Job(name, lambda: name, finish)

    run_jobs([job(name) for name in pool.results if name not in following], pool,
             StopFlag(signals=()))
    return finished


def test_a_worker_that_dies_costs_only_an_attempt_of_its_own_task():
    pool = Script(a=[PART], b=['death', 'death', PART], c=[PART])
    assert run(pool) == {'a': PART, 'b': PART, 'c': PART}
    assert Counter(pool.started) == {'a': 1, 'b': 3, 'c': 1}


def test_after_all_attempts_a_failure_is_told_and_the_rest_is_done():
    failure = Failure('no such bag')
    pool = Script(a=['death'] * ATTEMPTS, b=[failure] * ATTEMPTS, c=[PART])
    finished = run(pool)
    assert 'died' in finished['a'].problem
    assert finished['b'] is failure and finished['c'] is PART


def test_only_a_dead_worker_is_said_to_lack_memory():
    missing = ModuleNotFoundError("No module named 'rosbags'")
    wrapped = RuntimeError('a traceback of many lines')
    wrapped.cause = missing  # as Ray does
    pool = Script(a=['death'] * ATTEMPTS, b=[missing] * ATTEMPTS, c=[wrapped] * ATTEMPTS)
    finished = run(pool)
    assert finished['a'].problem == 'its worker died, maybe for lack of memory'
    for name in 'bc':
        assert finished[name].problem == "ModuleNotFoundError: No module named 'rosbags'"


def test_no_more_jobs_run_at_once_than_asked_for():
    pool, started = Script(a=[PART], b=[PART]), []
    run_jobs([Job(name, lambda name=name: name, lambda result: started.append(len(pool.started))
                  or []) for name in 'ab'], pool, StopFlag(signals=()), 1)
    assert started == [1, 2]


def test_a_damaged_part_is_read_again_and_then_kept():
    damaged = PartResult(b'half', 'is damaged', TABLE)
    pool = Script(a=[damaged, PART], b=[damaged] * ATTEMPTS)
    assert run(pool) == {'a': PART, 'b': damaged}


def test_a_report_on_a_damaged_bag_is_made_once_and_before_other_recordings():
    partial = Report({}, 'is damaged')
    pool = Script(first=[PART], second=[PART], third=[PART], report=[partial])
    pool.workers = 1
    assert run(pool, ['report'])['report'] is partial
    assert pool.started == ['first', 'report', 'second', 'third']


def test_after_a_signal_nothing_is_started():
    stop = StopFlag(signals=())
    stop.requested = True
    pool = Script(a=[PART])
    run_jobs([Job('a', lambda: 'a', lambda result: [])], pool, stop)
    assert not pool.started
