"""
Remake every published table: its command runs, and its Markdown goes to out/results/<name>.md.

    python -m benchmarks.results                      # or: make results
    python -m benchmarks.results latency_cap node     # or: make results ONLY="latency_cap node"

A name stands for all that begin with it.  Beside each table in README and model card a comment
says which name remakes it.  Rendered frames are made once, into out/frames.  What needs real RGB-D
frames (RGBD=<folder with frames.json>) or a GPU is left out where there is none, and says so;
BASELINE=<TFLite network> adds FastDepth's rows to the evaluations.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys

import torch

from benchmarks.timing import report_header
from marigold_ros.evaluation.environment import environment

OUT = Path('out/results')
FRAMES = {'heldout': 'scenes.bulk --out out/frames/heldout --count 512 --seed 900',
          'policies': 'scenes.bulk --out out/frames/policies --count 256 --seed 7100'}
EVALUATE = 'marigold_ros.evaluation.evaluate'
DRIVE = ('bag sample/living_room --image /camera/image_raw '
         '--depth /camera/depth_gt/image_rect')


@dataclass(frozen=True)
class Table:
    """
    A published table, or several that one command makes.

    Attributes
    ----------
    name : str
    section : str
        Heading under which it stands, in the README or in the model card.
    command : str
        Module and arguments; {out} is a folder of its own, {RGBD} a variable that must be set,
        {baseline} the option where its variable is set.
    report : str
        File in {out} that holds the Markdown; '' if it is printed.
    needs_gpu : bool
    """

    name: str
    section: str
    command: str
    report: str = ''
    needs_gpu: bool = False


TABLES = (
    Table('engine_speed', 'Speed beside diffusers',
          'benchmarks.engine_speed --processing-resolution 128 320 --compile --out {out}'),
    *(Table(f'engine_speed_sd2_{vae}', 'Speed beside diffusers',
            f'benchmarks.engine_speed --architecture sd2 --vae {vae} --compile --steps 1 4 '
            '--batch-sizes 1 8 --out {out}', needs_gpu=True) for vae in ('kl', 'tiny')),
    Table('latency_cap', 'The cap under load', 'benchmarks.latency_cap --threads 1 --out {out}'),
    Table('node', 'The node from outside', 'benchmarks.node --out {out}'),
    Table('node_memory', 'The node from outside', 'benchmarks.node memory --out {out}'),
    Table('soak', 'The node from outside', 'benchmarks.soak --minutes 20 --out {out}'),
    Table('cloud_packing', 'Clouds', 'benchmarks.cloud_packing --out {out}'),
    Table('flying_pixels', 'Clouds', 'benchmarks.flying_pixels --out {out}'),
    Table('scale_sources', 'Scale', 'benchmarks.scale_sources'),
    Table('anchor_fit', 'Scale', 'benchmarks.anchor_fit --folder {RGBD}'),
    Table('confidence_ranking_rendered', 'Confidence',
          'benchmarks.confidence_ranking --frames out/frames/policies --out {out}'),
    Table('confidence_ranking_real', 'Confidence',
          'benchmarks.confidence_ranking --folder {RGBD} --out {out}'),
    Table('evaluate_real', 'Beside FastDepth and the ramp',
          f'{EVALUATE} folder {{RGBD}} {{baseline}} --out {{out}}', 'tables.md'),
    Table('evaluate_drive', 'Policies side by side',
          f'{EVALUATE} {DRIVE} {{baseline}} --out {{out}}', 'tables.md'),
    Table('evaluate_rendered', 'Policies side by side',
          f'{EVALUATE} shards out/frames/policies --out {{out}}', 'tables.md'),
    Table('bag_reading', 'Protocols and formats',
          'benchmarks.bag_reading --bag out/long_bag --minutes 2 --out {out}'),
    *(Table(f'resolution_{size_px}_{name}', 'Limits',
            f'{EVALUATE} {source} --policies fixed-1 --processing-resolution {size_px} '
            '--out {out}', 'tables.md')
      for size_px in (96, 128, 160, 192)
      for name, source in (('drive', DRIVE), ('rendered', 'shards out/frames/policies'))),
    Table('heldout_frames', 'Figures',
          'benchmarks.heldout_frames --frames out/frames/heldout --out {out}'),
    Table('heldout_frames_hard', 'Figures',
          'benchmarks.heldout_frames --frames out/frames/heldout --hard --out {out}'),
)


def select_tables(names: Sequence[str]) -> list[Table]:
    """
    Return the tables of the names given, all if there are none.

    Raises
    ------
    ValueError
        If a name stands for no table.
    """
    unknown = [name for name in names if not any(stands_for(name, table) for table in TABLES)]
    if unknown:
        raise ValueError(f'no table is called {", ".join(unknown)}; there are '
                         + ', '.join(table.name for table in TABLES))
    return [table for table in TABLES
            if not names or any(stands_for(name, table) for name in names)]


def stands_for(name: str, table: Table) -> bool:
    """Say whether a name, which may be the first words of several, means this table."""
    return f'{table.name}_'.startswith(f'{name}_')


def find_missing(table: Table, variables: Mapping[str, str]) -> str:
    """Say what a table needs and is not at hand; '' if it can be made."""
    if table.needs_gpu and not torch.cuda.is_available():
        return 'needs an NVIDIA GPU'
    if '{RGBD}' in table.command and not variables.get('RGBD'):
        return 'needs real RGB-D frames: set RGBD=<folder with frames.json>'
    return ''


def command_words(table: Table, variables: Mapping[str, str]) -> list[str]:
    """Fill a command in: module and arguments."""
    baseline = variables.get('BASELINE', '')
    return shlex.split(table.command.format(
        out=shlex.quote(str(OUT / table.name)), RGBD=shlex.quote(variables.get('RGBD', '')),
        baseline=f'--baseline {shlex.quote(baseline)}' if baseline else ''))


def make_table(table: Table, variables: Mapping[str, str]) -> bool:
    """Run a table's command and keep its Markdown; returns whether it succeeded."""
    for name in re.findall(r'out/frames/(\w+)', table.command):
        if not run_module(shlex.split(FRAMES[name]))[0]:
            return False
    # What an earlier run has left must not pass for this one's: its report, its latency table.
    shutil.rmtree(OUT / table.name, ignore_errors=True)
    facts = environment(torch.device('cuda' if table.needs_gpu else 'cpu'))
    words = command_words(table, variables)
    succeeded, text = run_module(words)
    report = OUT / table.name / table.report
    if table.report and report.is_file():
        text = report.read_text()
    if text.strip():
        OUT.mkdir(parents=True, exist_ok=True)
        command = shlex.join(['python', '-m', *words])
        (OUT / f'{table.name}.md').write_text(
            f'# {table.section}: {table.name}\n\n{report_header(command, facts)}\n\n'
            f'{text.strip()}\n', encoding='utf-8')
    return succeeded


def run_module(words: Sequence[str]) -> tuple[bool, str]:
    """Run `python -m` with these words; returns whether it succeeded, and what it printed."""
    print(f'\n== python -m {shlex.join(words)}', file=sys.stderr, flush=True)
    process = subprocess.run([sys.executable, '-m', *words], stdout=subprocess.PIPE, text=True,
                             check=False)
    return process.returncode == 0, process.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Remake tables; 0 unless one failed or none has that name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('names', nargs='*', metavar='NAME', help='of tables; all by default')
    try:
        tables = select_tables(parser.parse_args(arguments).names)
    except ValueError as err:
        parser.error(str(err))
    done: list[str] = []
    for table in tables:
        if missing := find_missing(table, os.environ):
            done.append(f'left out  {table.name}: {missing}')
        elif make_table(table, os.environ):
            done.append(f'written   {OUT / table.name}.md')
        else:
            done.append(f'FAILED    {table.name}')
    print('\n'.join(done))
    return int(any(line.startswith('FAILED') for line in done))


if __name__ == '__main__':
    sys.exit(main())
