"""Tasks of a fleet in this process: what fails belongs to its recording, and what is measured."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
import fcntl
import json
import pickle
import shutil

from fleet_fixtures import HEIGHT, read_states, WIDTH, write_fleet, write_list
import pytest

from marigold_ros.data.frames import Part
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.evaluation.evaluate import main
from marigold_ros.evaluation.fleet import command
from marigold_ros.evaluation.fleet.fleet_list import read_fleet_list
from marigold_ros.evaluation.fleet.local_pool import free_memory_bytes
from marigold_ros.evaluation.fleet.store import RecordingStore
from marigold_ros.evaluation.fleet.tasks import Failure, MeasureTask, PartTask
from marigold_ros.evaluation.policies import latency
from marigold_ros.evaluation.policies.latency import FrameCost, LatencyTable

SIZE = HEIGHT, WIDTH
COST = FrameCost(0.005, 0.02, 0.03, 0.015, 0.004, 0.001, 0.002)


class Pool:
    """Run tasks at once, on copies, in this process; those of a recording may kill a worker."""

    workers = 2

    def __init__(self, deadly):
        self.deadly, self.tasks = deadly, []

    def submit(self, task):
        future, name = Future(), task.options.path.stem
        self.tasks.append((name, type(task).__name__))
        if name == self.deadly:
            future.set_exception(BrokenProcessPool())
            return future
        try:
            result = pickle.loads(pickle.dumps(task))(lambda done: None)
        except Exception as err:
            result = Failure(str(err))
        future.set_result(result)
        return future

    def progress(self, future):
        return 0

    def limit_memory(self, task_bytes):
        assert task_bytes > 10 ** 7

    def close(self):
        pass


@pytest.fixture(scope='module')
def fleet(tmp_path_factory):
    """Write a list of a short bag and one of two parts."""
    return write_fleet(tmp_path_factory.mktemp('tasks') / 'fleet', {'short': 3, 'long': 20},
                       chunk_s=1.0, lead_in_s=0.3)


@pytest.fixture
def spy(monkeypatch):
    """Record the steps of every inference."""
    steps, infer_batch = [], DepthEngine.infer_batch

    def infer(self, rgb, num_inference_steps, **options):
        steps.extend(num_inference_steps)
        return infer_batch(self, rgb, num_inference_steps, **options)

    monkeypatch.setattr(DepthEngine, 'infer_batch', infer)
    return steps


def test_a_first_frame_that_cannot_be_run_costs_only_its_own_recording(tmp_path, monkeypatch):
    """A checkpoint without weights, and a worker that dies, ended the whole fleet."""
    folder, out, pool = tmp_path / 'fleet', tmp_path / 'out', Pool('deadly')
    path = write_fleet(folder, {'weightless': 20, 'deadly': 20, 'short': 3})
    (folder / 'empty').mkdir()
    shutil.copy(folder / 'checkpoint' / 'model_index.json', folder / 'empty')
    write_list(folder, [{'name': 'weightless', 'bag': 'weightless.mcap', 'checkpoint': 'empty'},
                        *({'name': name, 'bag': f'{name}.mcap'} for name in ('deadly', 'short'))])
    monkeypatch.setattr(command, '_open_pool', lambda address, runs: pool)
    assert main(['fleet', str(path), '--out', str(out)]) == 2
    assert read_states(out) == {'weightless': 'failed', 'deadly': 'failed', 'short': 'complete'}
    details = {each['name']: each['detail'] for each in json.loads(
        (out / 'summary.json').read_text())['recordings']}
    assert 'cannot be run: cannot load the checkpoint' in details['weightless']
    assert 'cannot be run: its worker died' in details['deadly']
    assert {kind for name, kind in pool.tasks if name != 'short'} == {'MeasureTask'}


def test_memory_is_measured_also_where_the_table_is_complete(fleet, tmp_path, spy):
    recording = read_fleet_list(fleet, tmp_path)[0]
    table = LatencyTable.load(recording.options.latency_table)
    measured = MeasureTask(recording.options, table, frozenset())(print)
    assert (measured.size, spy) == (SIZE, [4])  # the most steps of `novelty`
    assert MeasureTask(recording.options, table, frozenset([SIZE]))(print).size == SIZE
    assert spy == [4]


def test_a_part_returns_the_sizes_it_measured_and_does_not_count_its_lead_in(fleet, tmp_path,
                                                                             monkeypatch):
    monkeypatch.setattr(latency, 'SAMPLES', 1)
    recording, counted = read_fleet_list(fleet, tmp_path)[1], []
    part = Part(1, recording.parts, recording.lead_in_s)
    result = PartTask(recording.options, part, LatencyTable({}))(counted.append)
    assert list(result.table.samples) == [SIZE]
    assert result.table.machine['requested_device'] == 'auto'
    assert max(counted) == len(part.split(recording.frames)) < len(counted)


def test_the_first_measurement_of_a_size_stays(fleet, tmp_path):
    recordings = read_fleet_list(fleet, tmp_path)
    recordings[0].options.latency_table = None
    shared = command.SharedTable(tmp_path / 'table.json', recordings)
    slow = FrameCost(*[9.0] * 7)
    shared.add(LatencyTable({'cpu': 'a'}, {SIZE: [COST]}))
    shared.add(LatencyTable({'cpu': 'b'}, {SIZE: [slow], (8, 8): [slow]}))
    kept = LatencyTable.load(tmp_path / 'table.json')
    assert kept.machine == {'cpu': 'a'} and kept.samples == {SIZE: [COST], (8, 8): [slow]}
    assert kept.measured_utc == shared.identity


def test_a_report_replaces_the_pictures_of_an_earlier_one(fleet, tmp_path):
    store = RecordingStore(read_fleet_list(fleet, tmp_path)[0], 'table')
    for numbers in ((1, 2), (1,)):
        store.save_report({f'worst_second_{number}.jpg': b'' for number in numbers}, '',
                          is_final=False)
    assert [path.name for path in store.folder.glob('*.jpg')] == ['worst_second_1.jpg']


def test_a_folder_in_use_is_left_alone(fleet, tmp_path, capsys):
    with (tmp_path / command.LOCK).open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main(['fleet', str(fleet), '--out', str(tmp_path)]) == 2
    assert '`out` must be a folder that no running evaluation' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [command.LOCK]


def test_a_fleet_is_not_compared_with_itself(fleet, tmp_path, capsys):
    """The baseline was read after it had been overwritten."""
    assert main(['fleet', str(fleet), '--out', str(tmp_path), '--baseline',
                 str(tmp_path / '..' / tmp_path.name)]) == 2
    assert '`baseline` must be another folder than `out`' in capsys.readouterr().err


def test_files_that_a_container_has_read_are_free_memory(tmp_path):
    for name, text in (('memory.max', '1000'), ('memory.current', '900'),
                       ('memory.stat', 'anon 100\ninactive_file 750')):
        (tmp_path / name).write_text(text + '\n')
    assert free_memory_bytes(tmp_path) == 850
    (tmp_path / 'memory.max').write_text('max\n')
    assert free_memory_bytes(tmp_path) > 1000
