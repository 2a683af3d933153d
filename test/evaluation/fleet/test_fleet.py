"""`evaluate fleet` on this machine: numbers, damage, deaths, and going on after a stop."""

from __future__ import annotations

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

from fleet_fixtures import read_numbers, read_states, write_fleet, write_list
from published_fixtures import SIZES, write_layout
import pytest

from marigold_ros.evaluation.evaluate import main
from marigold_ros.evaluation.fleet import command, local_pool
from marigold_ros.evaluation.fleet.fleet_list import read_fleet_list
from marigold_ros.evaluation.fleet.store import RecordingStore

TIMEOUT_S = 100
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def fleet(tmp_path_factory):
    """Write a list of a short bag, one of three parts, and one that ends in the middle."""
    path = write_fleet(tmp_path_factory.mktemp('fleet') / 'fleet',
                       {'short': 6, 'long': 40, 'torn': 20})
    torn = path.parent / 'torn.mcap'
    os.truncate(torn, torn.stat().st_size // 2)
    return path


@pytest.fixture(scope='module')
def evaluated(fleet, tmp_path_factory):
    """Evaluate the fleet while one of its workers is killed; return the folder."""
    out = tmp_path_factory.mktemp('fleet') / 'out'
    killed = []

    def kill_a_worker():
        killed.append(wait_for(multiprocessing.active_children)[0])
        os.kill(killed[0].pid, signal.SIGKILL)

    killer = Thread(target=kill_a_worker, daemon=True)
    killer.start()
    assert main(['fleet', str(fleet), '--out', str(out)]) == 2
    killer.join(1)
    assert killed[0].exitcode == -signal.SIGKILL
    return out


def wait_for(condition):
    """Wait until a condition is true, and return it."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (value := condition()):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return value


def jobs_of(monkeypatch):
    """Record the titles of the jobs that are started."""
    titles = []

    def run_jobs(jobs, *arguments):
        titles.extend(job.title for job in jobs)

    monkeypatch.setattr(command, 'run_jobs', run_jobs)
    return titles


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
    assert [int(row['frame']) for row in rows] == list(range(40))
    stamps_ns = [int(row['stamp_ns']) for row in rows]
    assert stamps_ns == sorted(set(stamps_ns))
    assert [row['block'] for row in rows] == [f'second {number // 10}' for number in range(40)]
    assert read_numbers(evaluated / 'long')['data']['frames'] == 40


def test_depth_is_carried_into_a_part_from_what_leads_in(evaluated):
    """Else the first frame of each part would have to run."""
    with (evaluated / 'long' / 'per_frame.csv').open() as file:
        reasons = [row['reason'] for row in csv.DictReader(file) if row['policy'] == 'novelty']
    assert 'nothing to carry' in reasons[0]
    assert 'nothing to carry' not in ' '.join(reasons[1:30])  # then the box jumps back


def test_a_torn_bag_is_partial_and_the_others_are_complete(evaluated):
    assert read_states(evaluated) == {'short': 'complete', 'long': 'complete', 'torn': 'partial'}
    content = json.loads((evaluated / 'summary.json').read_text())
    assert 'truncated' in content['recordings'][2]['detail']
    assert content['recordings'][2]['folder'] == 'torn'
    assert not read_numbers(evaluated / 'torn')['complete']


def test_a_second_start_runs_nothing_again(evaluated, fleet, monkeypatch, capsys):
    titles = jobs_of(monkeypatch)
    before = {path: path.stat().st_mtime_ns for path in evaluated.glob('*/*')}
    assert main(['fleet', str(fleet), '--out', str(evaluated)]) == 2
    assert not titles and '3 of 3 recordings are finished already' in capsys.readouterr().err
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


def test_only_what_has_changed_is_run_again(evaluated, fleet, monkeypatch, tmp_path):
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


def start(fleet, out, **options):
    """Start the command as a process of its own."""
    return subprocess.Popen([sys.executable, '-m', 'marigold_ros.evaluation.evaluate', 'fleet',
                             str(fleet), '--out', str(out)], **options)


def read_terminal(file):
    """Return all that a terminal has shown until its process ended."""
    shown = b''
    while True:
        try:
            shown += os.read(file, 65536)
        except OSError:  # the other side has closed
            return shown.decode()


def test_a_fleet_goes_on_after_ctrl_c_and_after_its_death(evaluated, fleet, tmp_path,
                                                          monkeypatch, capsys):
    """The first start is on a terminal, the second is not."""
    out = tmp_path / 'out'
    outside, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack('4H', 40, 100, 0, 0))
    process = start(fleet, out, stderr=inside)
    os.close(inside)
    reader_shows = []
    reader = Thread(target=lambda: reader_shows.append(read_terminal(outside)))
    reader.start()
    parts = wait_for(lambda: set(out.rglob('*.pickle')) or list(out.rglob('done.json')))
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 130
    reader.join()
    shown, = reader_shows
    assert 'The same command continues' in shown and 'leaked' not in shown
    assert 'fleet:' in shown and 'short:' in shown and 'long 1/3:' in shown
    assert 'frame/s' in shown or 's/frame' in shown

    done = len(list(out.rglob('*.pickle'))) + 3 * len(list(out.rglob('done.json')))
    process = start(fleet, out, stderr=subprocess.PIPE, text=True)
    children = wait_for(lambda: children_of(process.pid))
    wait_for(lambda: process.poll() is not None or len(list(out.rglob('*.pickle')))
             + 3 * len(list(out.rglob('done.json'))) > done)
    process.kill()
    assert 'fleet:' not in process.stderr.read()
    wait_for(lambda: not any(Path(f'/proc/{child}').exists() for child in children))

    kept = set(out.rglob('*.pickle'))
    assert parts and kept | set(out.rglob('done.json'))
    titles = []
    run_jobs = command.run_jobs
    monkeypatch.setattr(command, 'run_jobs', lambda jobs, *rest: run_jobs(
        [titles.append(job.title) or job for job in jobs], *rest))
    assert main(['fleet', str(fleet), '--out', str(out)]) == 2
    for path in kept:
        assert f'{path.parents[1].name} {int(path.name.split("-")[0]) + 1}/3' not in titles
    for name in ('short', 'long', 'torn'):
        assert read_numbers(out / name) == read_numbers(evaluated / name)


def children_of(pid):
    """List the processes that a process has started."""
    return [int(text) for text in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def test_one_command_fills_the_table_of_the_published_sets(fleet, tmp_path):
    entries = []
    for name in SIZES:
        path, file_list = write_layout(name, tmp_path / name)
        entries.append({'name': f'{name}-row', name: str(path), 'file_list': str(file_list)})
    path = write_list(fleet.parent, entries, defaults={
        'checkpoint': 'checkpoint', 'policies': 'fixed-1', 'processing_resolution': 64})
    assert main(['fleet', str(path), '--out', str(tmp_path / 'out')]) == 0
    for name in SIZES:
        summary = read_numbers(tmp_path / 'out' / f'{name}-row')
        assert summary['complete'] and summary['data']['frames'] == 1
        assert summary['policies']['fixed-1']['metrics']['abs_rel'] > 0
    table = json.loads((tmp_path / 'out' / 'latency_table.json').read_text())
    assert len(table['sizes']) >= 2  # one table for all


def test_the_pool_uses_as_many_workers_as_fit_into_memory(monkeypatch):
    monkeypatch.setattr(local_pool, 'free_memory_bytes', lambda: 10_000)
    pool = local_pool.LocalPool(8)
    pool.limit_memory(2_000)
    assert pool.workers == 3
    pool.limit_memory(50_000)
    assert pool.workers == 1
    pool.close()


def test_ray_and_baseline_are_checked_before_any_work(fleet, tmp_path, monkeypatch, capsys):
    out = str(tmp_path / 'out')
    assert main(['fleet', str(fleet), '--out', out, '--baseline', str(tmp_path)]) == 2
    assert f'`baseline` must have a readable file {tmp_path}/summary' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
    monkeypatch.setitem(sys.modules, 'ray', None)
    monkeypatch.delitem(sys.modules, 'marigold_ros.evaluation.fleet.ray_pool', raising=False)
    assert main(['fleet', str(fleet), '--out', out, '--ray', 'auto']) == 2
    assert "pip install 'marigold_ros[fleet]'" in capsys.readouterr().err
