"""What the check of a list finds, and what it leaves to others."""

from __future__ import annotations

import json
from pathlib import Path

from fleet_fixtures import write_fleet, write_list
import pytest
import torch

from marigold_ros.depth.errors import ConfigError
from marigold_ros.evaluation.fleet.fleet_list import read_fleet_list
from marigold_ros.evaluation.fleet.store import fingerprint

CLONE = Path(__file__).parents[3]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Write a list with a bag."""
    return write_fleet(tmp_path_factory.mktemp('checks') / 'fleet', {'short': 3}).parent


def read(folder, *recordings, on_cluster=False, **settings):
    """Read a list of these recordings, which are of the bag unless they name another."""
    entries = [{'name': f'r{number}', **({'bag': 'short.mcap'} if set(each).isdisjoint(
        ('bag', 'bagg', 'shards')) else {}), **each} for number, each in enumerate(recordings)]
    return read_fleet_list(write_list(folder, entries, **settings), folder / 'out',
                           on_cluster=on_cluster)


def problems_of(folder, *recordings, **settings):
    """Return the text that rejects a list."""
    with pytest.raises(ConfigError) as caught:
        read(folder, *recordings, **settings)
    return str(caught.value)


def test_a_folder_without_a_model_is_no_checkpoint(folder):
    (folder / 'empty').mkdir(exist_ok=True)
    assert 'must hold the file model_index.json' in problems_of(folder, {'checkpoint': 'empty'})


def test_a_device_must_exist_where_the_workers_are(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    text = problems_of(folder, {'device': 'cuda:0'}, {'device': 'cuda:7'}, {'device': 'gpu'})
    assert '2 problem(s)' in text
    assert 'recordings[1] (r1): `device` must be cpu, auto or one of the 1 CUDA' in text
    assert "got 'gpu'" in text


def test_on_a_cluster_a_gpu_has_no_number_and_need_not_be_here(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    assert read(folder, {'device': 'cuda'}, {'device': 'auto'}, on_cluster=True)
    assert "cuda without a number with `ray`, which gives each task a GPU; got 'cuda:1'" in (
        problems_of(folder, {'device': 'cuda:1'}, on_cluster=True))


@pytest.mark.parametrize('broken', ['frames_00000.json', 'depth_m_00000.npy', 'shards.json'])
def test_shards_that_cannot_be_read_are_named(broken, folder, tmp_path):
    """JSON, arrays and the description were errors of their own, which ended the check."""
    (tmp_path / 'rgb_00000.npy').touch()
    (tmp_path / broken).write_text('{')
    assert f'recordings[0] (r0): {tmp_path}' in problems_of(folder, {'shards': str(tmp_path)})


def test_a_missing_bag_is_named_also_without_topics(folder):
    text = problems_of(folder, {'bag': 'missing'}, defaults={})
    assert 'required: --image, --depth' in text
    assert f'bag {folder}/missing does not exist' in text


def test_a_misspelt_kind_is_an_unknown_key(folder):
    text = problems_of(folder, {'bagg': 'short.mcap', 'image': '/image'})
    assert 'exactly one of bag, folder' in text and 'unknown key `bagg`' in text
    assert 'unknown key `image`' not in text


@pytest.mark.parametrize('text', ['chunk_s: 5\nrecordings: []\nchunk_s: 9\n',
                                  'recordings:\n  - {name: a, chunk_s: 1, chunk_s: 2}\n'])
def test_a_key_that_is_given_twice_is_rejected(text, tmp_path):
    (tmp_path / 'list.yaml').write_text(text)
    with pytest.raises(ConfigError, match='given twice: chunk_s'):
        read_fleet_list(tmp_path / 'list.yaml', tmp_path)


def test_anchors_may_be_merged_and_overridden(folder, tmp_path):
    entry = json.dumps({'name': 'a', 'bag': str(folder / 'short.mcap'), 'image': '/image',
                        'depth': '/depth', 'checkpoint': str(folder / 'checkpoint')})
    (tmp_path / 'list.yaml').write_text(
        f'recordings:\n  - &first {entry}\n  - {{<<: *first, name: b}}\n')
    assert [each.name for each in read_fleet_list(tmp_path / 'list.yaml', tmp_path)] == ['a', 'b']


def test_the_working_directory_decides_about_nothing_unused(folder, tmp_path, monkeypatch):
    """The default costmap is that of the working directory, or none."""
    found = []
    for place in (CLONE, tmp_path):
        monkeypatch.chdir(place)
        recording, = read(folder, {})
        found.append(fingerprint(recording, 'table'))
    assert found[0] == found[1]
