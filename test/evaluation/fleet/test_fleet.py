"""`evaluate fleet` on this machine: numbers, damage, deaths, and going on after a stop."""

from __future__ import annotations

from concurrent.futures import Future
import csv
import fcntl
import json
import multiprocessing
import os
from pathlib import Path
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
from threading import Thread
import time
from types import SimpleNamespace

from fleet_fixtures import FRAMES, RATE_HZ, read_numbers, read_states, write_list
from published_fixtures import SIZES, write_layout
import pytest

from marigold_ros.evaluation.evaluate import main
from marigold_ros.evaluation.fleet import command, local_pool
from marigold_ros.evaluation.fleet.fleet_list import read_fleet_list
from marigold_ros.evaluation.fleet.store import RecordingStore

TIMEOUT_S = 100
# Titles of the jobs that evaluate the bags.
PARTS = {'short': ['short'], 'long': ['long 1/3', 'long 2/3', 'long 3/3'], 'torn': ['torn']}
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def everything(fleet, tmp_path_factory):
    """Write a list of the bags and of all published sets."""
    folder = tmp_path_factory.mktemp('published')
    entries = [{'name': name, 'bag': f'{name}.mcap'} for name in PARTS]
    for name in SIZES:
        path, file_list = write_layout(name, folder / name)
        entries.append({'name': f'{name}-row', name: str(path), 'file_list': str(file_list),
                        'policies': 'fixed-1', 'processing_resolution': 64})
    return write_list(fleet.parent, entries, 'everything.yaml')


@pytest.fixture(scope='module')
def starts(everything, tmp_path_factory):
    """
    Evaluate everything in three starts, into `out`; return what they show.

    The first ends by Ctrl-C on a terminal, the second is killed, and the third loses a worker.
    """
    seen = SimpleNamespace(out=tmp_path_factory.mktemp('starts') / 'out')
    seen.shown, seen.ctrl_c_code = start_and_interrupt(everything, seen.out)
    seen.done_before_ctrl_c = finished_parts(seen.out)
    seen.errors, seen.orphans = start_and_kill(everything, seen.out)
    seen.done_before_death = finished_parts(seen.out)
    seen.titles, seen.worker_code = finish_with_a_killed_worker(everything, seen.out)
    return seen


@pytest.fixture(scope='module')
def evaluated(starts):
    """Return the folder."""
    return starts.out


def start_and_interrupt(fleet, out):
    """Start the command on a terminal, and press Ctrl-C after a part; return output and code."""
    outside, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack('4H', 40, 100, 0, 0))
    process = start(fleet, out, stderr=inside)
    os.close(inside)
    shown = []
    reader = Thread(target=lambda: shown.append(read_terminal(outside)))
    reader.start()
    wait_for(lambda: 'long 1/3' in finished_parts(out))
    process.send_signal(signal.SIGINT)
    code = process.wait(TIMEOUT_S)
    reader.join()
    return shown[0], code


def start_and_kill(fleet, out):
    """Kill the command after one more part; return its stderr and the workers that outlive it."""
    before = finished_parts(out)
    process = start(fleet, out, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: finished_parts(out) - before)
    workers = children_of(process.pid)
    process.kill()
    _, errors = process.communicate()
    deadline_s = time.monotonic() + TIMEOUT_S
    while workers and time.monotonic() < deadline_s:
        time.sleep(0.02)
        workers = [pid for pid in workers if Path(f'/proc/{pid}').exists()]
    return errors, workers


def finish_with_a_killed_worker(fleet, out):
    """Finish in this process; return the titles of its jobs and the exit code of a worker."""
    titles, killed, run_jobs = [], [], command.run_jobs

    def kill_a_worker(workers):
        """Kill the last one, when each has been given a part."""
        wait_for(lambda: len(multiprocessing.active_children()) == workers)
        killed.append(max(multiprocessing.active_children(), key=lambda child: child.pid))
        os.kill(killed[0].pid, signal.SIGKILL)

    def run_jobs_and_kill(jobs, pool, *rest):
        titles.extend(job.title for job in jobs)
        if not titles[-1].endswith(': measuring'):
            Thread(target=kill_a_worker, args=[pool.workers], daemon=True).start()
        run_jobs(jobs, pool, *rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(command, 'run_jobs', run_jobs_and_kill)
        assert main(['fleet', str(fleet), '--out', str(out)]) == 2
    return titles, killed[0].exitcode


def start(fleet, out, **options):
    """Start the command as a process of its own; on one core, as each worker takes seconds."""
    core = min(os.sched_getaffinity(0))
    return subprocess.Popen([sys.executable, '-m', 'marigold_ros.evaluation.evaluate', 'fleet',
                             str(fleet), '--out', str(out)],
                            preexec_fn=lambda: os.sched_setaffinity(0, [core]), **options)


def finished_parts(out):
    """Return the titles of the jobs whose results are kept."""
    kept = {PARTS[path.parents[1].name][int(path.name.partition('-')[0])]
            for name in PARTS for path in out.glob(f'{name}/parts/*.pickle')}
    return kept.union(*(titles for name, titles in PARTS.items()
                        if (out / name / 'parts' / 'done.json').is_file()))


def wait_for(condition):
    """Wait until a condition is true, and return it."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (value := condition()):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return value


def read_terminal(file):
    """Return all that a terminal has shown until its process ended."""
    shown = b''
    while True:
        try:
            shown += os.read(file, 65536)
        except OSError:  # the other side has closed
            return shown.decode()


def children_of(pid):
    """List the processes that a process has started."""
    return [int(text) for text in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def test_ctrl_c_stops_the_bars_of_a_terminal(starts):
    assert starts.ctrl_c_code == 130
    assert 'The same command continues' in starts.shown and 'leaked' not in starts.shown
    assert 'fleet:' in starts.shown and 'short:' in starts.shown and 'long 1/3:' in starts.shown
    assert 'frame/s' in starts.shown or 's/frame' in starts.shown


def test_workers_end_with_a_command_that_dies_without_a_terminal(starts):
    assert starts.orphans == []
    assert 'fleet:' not in starts.errors


def test_what_was_finished_before_a_stop_is_not_run_again(starts):
    assert set() < starts.done_before_ctrl_c < starts.done_before_death
    bags = {title for titles in PARTS.values() for title in titles}
    assert bags.intersection(starts.titles) == bags - starts.done_before_death


def test_no_stop_and_no_death_changes_a_number(starts, undisturbed):
    assert starts.worker_code == -signal.SIGKILL
    for name in PARTS:
        assert read_numbers(starts.out / name) == read_numbers(undisturbed / name)


def test_a_short_recording_has_the_numbers_of_evaluate_to_the_digit(evaluated, fleet, tmp_path):
    recording = read_fleet_list(fleet, tmp_path)[0]
    assert main([*recording.arguments, '--out', str(tmp_path / 'alone')]) == 0
    assert read_numbers(evaluated / 'short') == read_numbers(tmp_path / 'alone')
    for name in ('per_frame.csv', 'report.html', 'tables.md', 'latency_table.json'):
        assert (evaluated / 'short' / name).is_file()
    assert ((evaluated / 'short' / 'per_frame.csv').read_text()
            == (tmp_path / 'alone' / 'per_frame.csv').read_text())


def test_every_frame_of_a_long_recording_is_counted_once(evaluated):
    with (evaluated / 'long' / 'per_frame.csv').open() as file:
        rows = [row for row in csv.DictReader(file) if row['policy'] == 'novelty']
    assert [int(row['frame']) for row in rows] == list(range(FRAMES['long']))
    stamps_ns = [int(row['stamp_ns']) for row in rows]
    assert stamps_ns == sorted(set(stamps_ns))
    assert [row['block'] for row in rows] == [
        f'second {number // RATE_HZ}' for number in range(FRAMES['long'])]
    assert read_numbers(evaluated / 'long')['data']['frames'] == FRAMES['long']


def test_depth_is_carried_into_a_part_from_what_leads_in(evaluated):
    """Else the first frame of each part would have to run."""
    with (evaluated / 'long' / 'per_frame.csv').open() as file:
        reasons = [row['reason'] for row in csv.DictReader(file) if row['policy'] == 'novelty']
    assert 'nothing to carry' in reasons[0]
    assert 'nothing to carry' not in ' '.join(reasons[1:])


def test_a_torn_bag_is_partial_and_the_others_are_complete(evaluated):
    assert read_states(evaluated) == {'short': 'complete', 'long': 'complete', 'torn': 'partial',
                                      **{f'{name}-row': 'complete' for name in SIZES}}
    content = json.loads((evaluated / 'summary.json').read_text())
    assert 'truncated' in content['recordings'][2]['detail']
    assert content['recordings'][2]['folder'] == 'torn'
    assert not read_numbers(evaluated / 'torn')['complete']


def test_one_command_fills_the_table_of_the_published_sets(evaluated):
    for name in SIZES:
        summary = read_numbers(evaluated / f'{name}-row')
        assert summary['complete'] and summary['data']['frames'] == 1
        assert summary['policies']['fixed-1']['metrics']['abs_rel'] > 0
    table = json.loads((evaluated / 'latency_table.json').read_text())
    assert len(table['sizes']) >= 2  # one table for all: that of the bags, and what it lacked


def test_a_second_start_runs_nothing_again(evaluated, everything, monkeypatch, capsys):
    titles = []
    monkeypatch.setattr(command, 'run_jobs', lambda jobs, *rest: titles.extend(jobs))
    before = {path: path.stat().st_mtime_ns for path in evaluated.glob('*/*')}
    assert main(['fleet', str(everything), '--out', str(evaluated)]) == 2
    assert not titles and '8 of 8 recordings are finished already' in capsys.readouterr().err
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


def test_only_what_has_changed_is_run_again(fleet, tmp_path):
    """A tag decides about no number; an option and a file do."""
    folder, out = tmp_path / 'fleet', tmp_path / 'out'
    shutil.copytree(fleet.parent, folder)
    path = write_list(folder, [{'name': name, 'bag': f'{name}.mcap'}
                               for name in ('short', 'long')])
    recordings = read_fleet_list(path, out)
    for recording in recordings:
        RecordingStore(recording, 'table').save_report({}, '', is_final=True)

    def left(recordings, table='table'):
        return [each.name for each in recordings
                if RecordingStore(each, table).problem_of_report() is None]

    assert left(recordings) == []
    assert left(recordings, 'other table') == ['short', 'long']
    write_list(folder, [{'name': 'short', 'bag': 'short.mcap', 'tags': {'site': 'hall'}},
                        {'name': 'long', 'bag': 'long.mcap', 'protocol': 'B'}])
    assert left(read_fleet_list(path, out)) == ['long']
    os.utime(folder / 'short.mcap')
    assert left(read_fleet_list(path, out)) == ['short', 'long']


def test_the_pool_uses_as_many_workers_as_fit_into_memory(monkeypatch):
    monkeypatch.setattr(local_pool, 'free_memory_bytes', lambda: 10_000)
    pool = local_pool.LocalPool(8)
    pool.limit_memory(2_000)
    assert pool.workers == 3
    pool.limit_memory(50_000)
    assert pool.workers == 1
    pool.close()


def test_workers_that_do_not_fit_into_memory_end(monkeypatch):
    class Worker:
        def __init__(self, parent):
            self.done, self.executor, self.imported = SimpleNamespace(), self, Future()
            self.imported.set_result(None)
            workers.append(self)

        def submit(self, *task):
            return Future()

        def shutdown(self):
            workers.remove(self)

    workers = []
    monkeypatch.setattr(local_pool, '_Worker', Worker)
    monkeypatch.setattr(local_pool, 'free_memory_bytes', lambda: 10_000)
    pool = local_pool.LocalPool(8)
    pool.submit('measure')
    assert len(workers) == 8  # side by side, before the first task
    pool.limit_memory(2_000)
    assert len(workers) == 3  # one of them runs
    pool.close()
    assert not workers


def test_ray_and_baseline_are_checked_before_any_work(fleet, tmp_path, monkeypatch, capsys):
    out = str(tmp_path / 'out')
    assert main(['fleet', str(fleet), '--out', out, '--baseline', str(tmp_path)]) == 2
    assert f'`baseline` must have a readable file {tmp_path}/summary' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
    monkeypatch.setitem(sys.modules, 'ray', None)
    monkeypatch.delitem(sys.modules, 'marigold_ros.evaluation.fleet.ray_pool', raising=False)
    assert main(['fleet', str(fleet), '--out', out, '--ray', 'auto']) == 2
    assert "pip install 'marigold_ros[fleet]'" in capsys.readouterr().err
