"""`make results`: every command starts, every published table has one, failures are told."""

from __future__ import annotations

import argparse
from collections import defaultdict
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
    select_tables,
    stands_for,
    Table,
    TABLES,
)

ROOT = Path(__file__).parents[2]
README, MODEL_CARD = ROOT / 'README.md', ROOT / 'marigold_ros' / 'models' / 'tiny' / 'README.md'
# Where tables hold measurements; the others describe.
MEASURED = ('Beside FastDepth and the ramp', 'Policies side by side', 'Measured', 'Limits',
            'Figures')
COMMENT = re.compile(r'<!-- make results ONLY=(\w+) -->')
VARIABLES = {'RGBD': 'real frames', 'BASELINE': 'fast depth.tflite'}


class Parsed(Exception):
    """The command line has been accepted."""


def sections():
    """Return heading and text of each section; one below Measured is part of it."""
    parts = re.split(r'^(##+) (.*)$', README.read_text() + '\n' + MODEL_CARD.read_text(),
                     flags=re.MULTILINE)
    above = ''
    for marks, heading, text in zip(parts[1::3], parts[2::3], parts[3::3]):
        above = heading if marks == '##' else above
        yield heading, above, text


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


def test_every_table_of_measurements_names_its_command():
    for heading, above, text in sections():
        if heading in MEASURED or above in MEASURED:
            lines = [line.strip() for line in text.splitlines()]
            for line, before in zip(lines[1:], lines):
                if line.startswith('|') and not before.startswith('|'):
                    assert COMMENT.fullmatch(before), line


def test_names_in_the_documents_are_those_of_the_list():
    named = defaultdict(list)
    for heading, _, text in sections():
        named[heading] += COMMENT.findall(text)
    for name in (name for names in named.values() for name in names):
        assert select_tables([name])
    for table in TABLES:
        assert any(stands_for(name, table) for name in named[table.section]), table.name


def test_a_name_stands_for_all_that_begin_with_it():
    names = [table.name for table in select_tables(['node', 'latency_cap'])]
    assert names == ['latency_cap', 'node', 'node_memory']
    assert select_tables([]) == list(TABLES)
    with pytest.raises(ValueError, match='no table is called nod; there are engine_speed'):
        select_tables(['nod'])


def test_an_unknown_name_is_an_error_that_lists_all(capsys):
    with pytest.raises(SystemExit):
        results.main(['nonsense'])
    assert 'no table is called nonsense; there are engine_speed, ' in capsys.readouterr().err


def test_what_is_not_at_hand_is_named(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    real, sd2 = select_tables(['anchor_fit']) + select_tables(['engine_speed_sd2_kl'])
    assert 'RGBD=' in find_missing(real, {})
    assert find_missing(real, VARIABLES) == ''
    assert 'GPU' in find_missing(sd2, {})


def test_variables_fill_the_command_in():
    table = Table('x', '', 'module {RGBD} {baseline} --out {out}')
    assert command_words(table, VARIABLES) == [
        'module', 'real frames', '--baseline', 'fast depth.tflite', '--out', 'out/results/x']
    assert command_words(table, {'RGBD': 'a'}) == ['module', 'a', '--out', 'out/results/x']


@pytest.fixture
def a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('RGBD', raising=False)
    return tmp_path / 'out' / 'results'


def test_the_rest_goes_on_after_a_failure(a_folder, monkeypatch, capsys):
    monkeypatch.setattr(results, 'TABLES', (
        Table('bad', 'A', 'benchmarks.no_such_module'), Table('real', 'B', 'timeit {RGBD}'),
        Table('good', 'C', 'timeit -n 1 -r 1 pass')))
    assert results.main([]) == 1
    assert capsys.readouterr().out.splitlines() == [
        'FAILED    bad', 'left out  real: needs real RGB-D frames: set RGBD=<folder with '
        'frames.json>', 'written   out/results/good.md']
    text = (a_folder / 'good.md').read_text()
    assert text.startswith('# C: good\n\n`python -m timeit -n 1 -r 1 pass`\n\nCommit ')
    assert '1 loop, best of 1' in text
    assert not (a_folder / 'bad.md').exists()


def test_the_report_is_what_the_command_has_written_now(a_folder, monkeypatch):
    """Not what it prints, nor what an earlier run has left."""
    def write(words):
        assert not (a_folder / 'report').exists()
        (a_folder / 'report').mkdir()
        (a_folder / 'report' / 'tables.md').write_text('| a |\n')
        return True, 'progress'

    monkeypatch.setattr(results, 'TABLES', (Table('report', 'A', 'x --out {out}', 'tables.md'),))
    monkeypatch.setattr(results, 'run_module', write)
    (a_folder / 'report').mkdir(parents=True)
    (a_folder / 'report' / 'tables.md').write_text('| of an earlier run |\n')
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
