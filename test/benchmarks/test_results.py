"""`make results`: every command starts, every published table has one, failures are reported."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
import re
import sys

import pytest

from benchmarks import results
from benchmarks.results import (
    command_words,
    find_missing,
    FRAMES,
    PublishedTable,
    select_tables,
    TABLES,
)

ROOT = Path(__file__).parents[2]
PAGE, PUBLISHED = ROOT / 'docs' / 'results.md', ROOT / 'docs' / 'results'
VARIABLES = {'RGBD': 'real frames', 'BASELINE': 'fast depth.tflite',
             'PEER': "--command 'other node' --node /other --output /depth:Image"}


class Parsed(Exception):
    """The command line has been accepted."""


@pytest.mark.parametrize('words', [
    *(command_words(table, VARIABLES) for table in TABLES),
    *(command.split() for command in FRAMES.values())], ids=' '.join)
def test_every_command_is_accepted_by_its_parser(words, monkeypatch):
    original = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser, args=None, namespace=None):
        original(parser, args, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_and_stop)
    monkeypatch.setattr(sys, 'argv', words)
    with pytest.raises(Parsed):
        import_module(words[0]).main()


def test_every_table_is_published_or_named_as_not_measured():
    text, _, missing = PAGE.read_text().partition('## Not measured')
    published = re.findall(r'```{include} results/(\w+).md', text)
    assert sorted(published) == sorted(path.stem for path in PUBLISHED.glob('*.md'))
    assert sorted([*published, *re.findall(r'^\| `(\w+)`', missing, re.MULTILINE)]) == sorted(
        table.name for table in TABLES)


def test_no_number_of_the_page_is_typed_by_hand():
    """Measurements stand in the included files; the last section lists names of tables."""
    assert '|' not in PAGE.read_text().partition('## Not measured')[0]


@pytest.mark.parametrize('path', sorted(PUBLISHED.glob('*.md')), ids=lambda path: path.stem)
def test_a_published_table_names_its_command_and_its_commit(path):
    head = path.read_text().partition('\n|')[0]
    assert head.startswith(f'*`make results ONLY={path.stem}`*: `python -m ')
    assert re.search(r'^Commit [0-9a-f]{7,40}, 20', head, re.MULTILINE), head


def test_a_name_selects_all_tables_that_begin_with_it():
    names = [table.name for table in select_tables(['node', 'latency_cap'])]
    assert names == ['latency_cap', 'node', 'node_memory', 'node_peer']
    assert select_tables([]) == list(TABLES)
    with pytest.raises(ValueError, match='no table is called nod; there are engine_speed'):
        select_tables(['nod'])


def test_an_unknown_name_is_an_error_that_lists_all(capsys):
    with pytest.raises(SystemExit):
        results.main(['nonsense'])
    assert 'no table is called nonsense; there are engine_speed, ' in capsys.readouterr().err


def test_what_is_not_at_hand_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    sd2, real, training = select_tables(['engine_speed_sd2_kl', 'anchor_fit', 'training_curve'])
    assert 'RGBD=' in find_missing(real, {})
    assert find_missing(real, VARIABLES) == ''
    assert 'GPU' in find_missing(sd2, {})
    assert 'needs a training' in find_missing(training, {})


def test_variables_fill_the_command_in():
    table = PublishedTable('x', 'module {RGBD} {baseline} --out {out}')
    assert command_words(table, VARIABLES) == [
        'module', 'real frames', '--baseline', 'fast depth.tflite', '--out', 'out/results/x']
    assert command_words(table, {'RGBD': 'a'}) == ['module', 'a', '--out', 'out/results/x']


@pytest.fixture
def a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('RGBD', raising=False)
    return tmp_path / 'docs' / 'results'


def test_the_rest_goes_on_after_a_failure(a_folder, monkeypatch, capsys):
    monkeypatch.setattr(results, 'TABLES', (
        PublishedTable('bad', 'benchmarks.no_such_module'),
        PublishedTable('real', 'timeit {RGBD}'),
        PublishedTable('good', 'timeit -n 1 -r 1 pass')))
    assert results.main([]) == 1
    assert capsys.readouterr().out.splitlines() == [
        'FAILED    bad', 'left out  real: needs real RGB-D frames: set RGBD=<folder with '
        'frames.json>', 'written   docs/results/good.md']
    text = (a_folder / 'good.md').read_text()
    assert text.startswith('*`make results ONLY=good`*: `python -m timeit -n 1 -r 1 pass`\n\n'
                           'Commit ')
    assert '1 loop, best of 1' in text
    assert not (a_folder / 'bad.md').exists()


def test_the_report_is_what_the_command_has_written_now(a_folder, monkeypatch):
    """Not what it prints, nor what an earlier run has left."""
    def write(words):
        assert not report.exists()
        report.parent.mkdir()
        report.write_text('| a |\n')
        return True, 'progress'

    report = results.OUT / 'report' / 'tables.md'
    monkeypatch.setattr(results, 'TABLES', (
        PublishedTable('report', 'x --out {out}', 'tables.md'),))
    monkeypatch.setattr(results, 'run_module', write)
    report.parent.mkdir(parents=True)
    report.write_text('| of an earlier run |\n')
    assert results.main(['report']) == 0
    assert (a_folder / 'report.md').read_text().endswith('\n\n| a |\n')


def test_frames_are_rendered_first_and_their_failure_is_one(a_folder, monkeypatch, capsys):
    ran = []

    def fail(words):
        ran.append(words[0])
        return False, ''

    monkeypatch.setattr(results, 'run_module', fail)
    assert results.main(['heldout_frames_hard']) == 1
    assert ran == ['scenes.bulk']
    assert capsys.readouterr().out == 'FAILED    heldout_frames_hard\n'
