"""The list of a fleet: options of `evaluate`, and all problems at once."""

from __future__ import annotations

from fleet_fixtures import FRAMES, write_fleet, write_list
from published_fixtures import write_layout
import pytest

from marigold_ros.depth.errors import ConfigError
from marigold_ros.evaluation.evaluate import main
from marigold_ros.evaluation.fleet.fleet_list import read_fleet_list


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Write a list with a short and a long bag."""
    return write_fleet(tmp_path_factory.mktemp('list') / 'fleet', FRAMES).parent


def test_all_problems_are_named_before_any_work_starts(folder, tmp_path, capsys):
    path = write_list(folder, [
        {'name': 'gone', 'bag': 'missing'},
        {'name': 'twice', 'bag': 'short.mcap', 'image': '/wrong', 'depth': '/also_wrong'},
        {'name': 'twice', 'bag': 'short.mcap', 'protocol': 'C', 'max_frames': 'few',
         'colour': 'red'},
        {'name': 'b/c', 'bag': 'short.mcap', 'policies': ['best'], 'checkpoint': 'nowhere',
         'latency_table': 'no.json'},
        {'name': 'two', 'bag': 'short.mcap', 'folder': '.'},
        {'name': 'live', 'bag': 'short.mcap', 'live': True},
        {'name': 'sources', 'bag': 'short.mcap', 'scale_sources': 'cloud', 'scene': 'no.json'},
        7], chunk_s=-1, chunks=3, defaults={'image': '/image', 'depth': '/depth', 'polices': 'x'})
    out = tmp_path / 'out'
    assert main(['fleet', str(path), '--out', str(out)]) == 2
    error = capsys.readouterr().err
    for text in (
            'chunk_s: Input should be greater than 0, got -1', 'chunks: Extra inputs are not',
            'defaults: unknown key `polices`',
            f'recordings[0] (gone): cannot open bag {folder}/missing: it does not exist',
            'recordings[1] (twice): no topic /wrong', 'no topic /also_wrong',
            'recordings[2] (twice): unknown key `colour`', "invalid choice: 'C'",
            "argument --max-frames: invalid int value: 'few'", '2 recordings are named',
            "got 'b/c'", "got 'best'", "got 'nowhere'", f"got '{folder}/no.json'",
            '(two): exactly one of bag, folder, shards, nyu, kitti, eth3d, scannet, diode',
            '(live): unknown key `live`', '(sources): `scene` must be a file',
            'recordings[7] must map keys to values; got 7'):
        assert text in error, text
    assert not out.exists()


@pytest.mark.parametrize(('text', 'rule'), [
    ('- a', 'must map keys to values; got list'), ('a: [', 'must be a readable YAML file'),
    ('recordings: []', 'at least 1 item')])
def test_what_is_no_list_is_rejected(text, rule, tmp_path):
    (tmp_path / 'list.yaml').write_text(text)
    with pytest.raises(ConfigError, match=rule):
        read_fleet_list(tmp_path / 'list.yaml', tmp_path)


def test_a_missing_list_is_an_error_of_one_line(tmp_path, capsys):
    assert main(['fleet', str(tmp_path / 'no.yaml'), '--out', str(tmp_path / 'out')]) == 2
    assert 'the list must be a readable YAML file' in capsys.readouterr().err


def test_a_recording_overrides_defaults_as_on_the_command_line(folder, tmp_path):
    path = write_list(folder, [
        {'name': 'one', 'bag': 'short.mcap', 'tags': {'robot': 3, 'site': 'hall'},
         'input_rectified': True, 'policies': 'fixed-2', 'refine_rotation': False},
        {'name': 'two', 'bag': 'long.mcap', 'max_frames': 3},
        {'name': 'three', 'bag': 'long.mcap'}])
    one, two, three = read_fleet_list(path, tmp_path)
    assert one.tags == {'robot': '3', 'site': 'hall'}
    assert (one.options.policies, three.options.policies) == ('fixed-2', 'novelty,fixed-1')
    assert one.options.input_rectified == 'true' and not one.options.refine_rotation
    assert one.options.path == folder / 'short.mcap' and one.folder == tmp_path / 'one'
    assert one.options.checkpoint == str(folder / 'checkpoint')
    assert f'bag {folder}/short.mcap --checkpoint={folder}/checkpoint' in one.command
    assert [each.parts for each in (one, two, three)] == [1, 1, 3]
    assert [each.frames for each in (one, two, three)] == [5, 3, 30]


def test_single_frames_are_divided_by_their_number(folder, tmp_path):
    """Topics among the defaults are not meant for a published set, and are no error."""
    path, files = write_layout('scannet', tmp_path / 'set')
    files.write_text(3 * files.read_text())
    recording, = read_fleet_list(write_list(folder, [
        {'name': 'scannet', 'scannet': str(path), 'file_list': str(files)}], chunk_frames=2),
        tmp_path)
    assert (recording.parts, recording.frames) == (2, 3)
