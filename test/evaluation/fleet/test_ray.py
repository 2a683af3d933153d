"""`evaluate fleet --ray` on two nodes of the loopback address, of which one leaves."""

from __future__ import annotations

import os
from pathlib import Path
import signal
from threading import Thread
import time

from fleet_fixtures import read_numbers, read_states, write_list
import pytest

from marigold_ros.evaluation.evaluate import main

ray = pytest.importorskip('ray', reason='pip install .[fleet]')

NODE = {'num_cpus': 1, 'object_store_memory': 10 ** 8}
TIMEOUT_S = 50


@pytest.fixture
def cluster(monkeypatch):
    """Start a cluster of two nodes with one core each."""
    from ray.cluster_utils import Cluster
    monkeypatch.setenv('RAY_USAGE_STATS_ENABLED', '0')
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, 'include_dashboard': False})
    yield cluster
    cluster.shutdown()


def running_workers():
    """List the workers that are running a task now; Ray names their processes so."""
    return [int(path.parent.name) for path in Path('/proc').glob('[0-9]*/cmdline')
            if b'ray::_run' in read_if_there(path)]


def read_if_there(path):
    """Return the content of a file of a process, which may have ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b''


@pytest.mark.slow
def test_a_killed_worker_and_a_node_that_leaves_change_no_number(cluster, fleet, undisturbed,
                                                                 tmp_path):
    """The numbers are those of one process to the digit."""
    names, out = ('short', 'long'), tmp_path / 'ray'
    whole_bags = write_list(fleet.parent, [{'name': name, 'bag': f'{name}.mcap'}
                                           for name in names], 'whole_bags.yaml')
    second, lost = cluster.add_node(**NODE), []

    def disturb():
        deadline_s = time.monotonic() + TIMEOUT_S
        while not (list(out.rglob('*.pickle')) and running_workers()):
            if time.monotonic() > deadline_s:
                return
            time.sleep(0.05)
        for worker in running_workers()[:1]:
            os.kill(worker, signal.SIGKILL)
            lost.append(worker)
        cluster.remove_node(second, allow_graceful=False)
        lost.append(second)

    disturber = Thread(target=disturb)
    disturber.start()
    assert main(['fleet', str(whole_bags), '--out', str(out), '--ray', cluster.address]) == 0
    disturber.join()
    assert len(lost) == 2
    assert read_states(out) == dict.fromkeys(names, 'complete')
    for name in names:
        assert read_numbers(out / name) == read_numbers(undisturbed / name)


def test_an_address_without_a_cluster_is_an_error(fleet, tmp_path, capsys):
    assert main(['fleet', str(fleet), '--out', str(tmp_path / 'out'), '--ray', 'nowhere']) == 2
    assert '`ray` must be the address of a running Ray cluster' in capsys.readouterr().err
