"""
Remake every published table: run its command and write its Markdown to docs/results/<name>.md.

    python -m benchmarks.results                      # or: make results
    python -m benchmarks.results latency_cap node     # or: make results ONLY="latency_cap node"

A name selects all tables that begin with it.  docs/results.md includes the written files.
Rendered frames are made once, into out/frames.  Tables that need real RGB-D frames (RGBD=<folder
with frames.json>), a recording of a hand-held RGB-D camera (HANDHELD=<bag with the topics of the
sample drive>), another node (PEER=<its options of benchmarks.node>), the second drive (`make
drive2`) or a GPU are left out where there is none; BASELINE=<TFLite network> adds that network to
the evaluations.
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

from benchmarks.timing import format_report_header
from marigold_ros.evaluation.environment import describe_commit, describe_environment

# Reports and figures of the commands, and the published tables.
OUT, PUBLISHED = Path('out/results'), Path('docs/results')
FRAMES = {'heldout': 'scenes.bulk --out out/frames/heldout --count 512 --seed 900',
          'policies': 'scenes.bulk --out out/frames/policies --count 256 --seed 7100'}
EVALUATE = 'marigold_ros.evaluation.evaluate'
TOPICS = '--image /camera/image_raw --depth /camera/depth_gt/image_rect'
LIDAR = '--scale-sources cloud,ground_plane --reference cloud=/lidar/points --camera-height-m 0.35'
DRIVE2 = Path('out/drive2')
TRAINING = Path('runs/places')


@dataclass(frozen=True)
class PublishedTable:
    """
    A published table, or several tables of one command.

    Attributes
    ----------
    name : str
    command : str
        Module and arguments; {out} is replaced by the output folder of the table, {RGBD},
        {HANDHELD} and {PEER} by the variables, {baseline} by the option `--baseline` if its
        variable is set.
    report : str
        File in {out} that holds the Markdown; '' if the command prints it.
    needs_gpu : bool
    """

    name: str
    command: str
    report: str = ''
    needs_gpu: bool = False


TABLES = (
    PublishedTable('engine_speed',
                   'benchmarks.engine_speed --device cpu --compile --out {out}'),
    PublishedTable('engine_startup', 'benchmarks.engine_startup --device cpu --out {out}'),
    PublishedTable('engine_new_size', 'benchmarks.engine_new_size --out {out}'),
    PublishedTable('carrying', 'benchmarks.carrying --out {out}'),
    PublishedTable('carrying_limits', 'benchmarks.carrying_limits --out {out}'),
    PublishedTable('engine_layers', 'benchmarks.engine_layers --device cpu --out {out}'),
    PublishedTable('engine_ladder',
                   'benchmarks.engine_ladder --device cpu --compile --out {out}'),
    *(PublishedTable(f'engine_{name}_sd2_{vae}',
                     f'benchmarks.engine_{name} --architecture sd2 --vae {vae} --compile {more}'
                     '--out {out}', needs_gpu=True)
      for vae in ('kl', 'tiny') for name, more in (
          ('speed', ''), ('startup', '--rounds 1 '), ('layers', ''), ('ladder', ''))),
    PublishedTable('resolution', 'benchmarks.resolution --out {out}'),
    PublishedTable('upsampling', 'benchmarks.upsampling --out {out}'),
    PublishedTable('upsampling_real', 'benchmarks.upsampling --folder {RGBD} --out {out}'),
    PublishedTable('latency_cap', 'benchmarks.latency_cap --out {out}'),
    PublishedTable('node', 'benchmarks.node --out {out}'),
    PublishedTable('node_memory', 'benchmarks.node memory --out {out}'),
    PublishedTable('node_peer', 'benchmarks.node other_node {PEER} --out {out}'),
    PublishedTable('shared_cpu', 'benchmarks.shared_cpu --out {out}'),
    PublishedTable('soak', 'benchmarks.soak --minutes 60 --out {out}'),
    PublishedTable('cloud_packing', 'benchmarks.cloud_packing --out {out}'),
    PublishedTable('flying_pixels', 'benchmarks.flying_pixels --out {out}'),
    PublishedTable('metric_sources', 'benchmarks.metric_sources --out {out}'),
    PublishedTable('metric_sources_drive2', f'benchmarks.metric_sources --bag {DRIVE2}/parlour '
                   f'--scene {DRIVE2}/scene.json --sources ground_plane cloud,ground_plane '
                   'motion,ground_plane --brief --out {out}'),
    PublishedTable('motion_anchors', 'benchmarks.motion_anchors'),
    PublishedTable('motion_anchors_hour', 'benchmarks.motion_anchors --minutes 60'),
    PublishedTable('anchor_fit', 'benchmarks.anchor_fit --folder {RGBD}'),
    PublishedTable('anchor_field', 'benchmarks.anchor_field --folder {RGBD}'),
    PublishedTable('confidence_ranking_rendered',
                   'benchmarks.confidence_ranking --frames out/frames/policies --out {out}'),
    PublishedTable('confidence_ranking_real',
                   'benchmarks.confidence_ranking --folder {RGBD} --out {out}'),
    PublishedTable('evaluate_real', f'{EVALUATE} folder {{RGBD}} {{baseline}} --out {{out}}',
                   'tables.md'),
    PublishedTable('evaluate_drive', f'{EVALUATE} bag sample/living_room {TOPICS} {LIDAR} '
                   '--scene sample/scene.json {baseline} --out {out}', 'tables.md'),
    PublishedTable('evaluate_drive2', f'{EVALUATE} bag {DRIVE2}/parlour {TOPICS} {LIDAR} '
                   f'--scene {DRIVE2}/scene.json --out {{out}}', 'tables.md'),
    PublishedTable('evaluate_handheld', f'{EVALUATE} bag {{HANDHELD}} {TOPICS} --out {{out}}',
                   'tables.md'),
    PublishedTable('carried_metres', 'benchmarks.carried_metres'),
    PublishedTable('drive_events', f'benchmarks.drive_events --drive {DRIVE2}'),
    PublishedTable('evaluate_rendered', f'{EVALUATE} shards out/frames/policies --out {{out}}',
                   'tables.md'),
    PublishedTable('bag_reading',
                   'benchmarks.bag_reading --bag out/long_bag --minutes 2 --out {out}'),
    PublishedTable('evaluate_rate', 'benchmarks.evaluate_rate --out {out}'),
    PublishedTable('fleet', 'benchmarks.fleet --out {out}'),
    PublishedTable('heldout_frames',
                   'benchmarks.heldout_frames --frames out/frames/heldout --out {out}'),
    PublishedTable('heldout_frames_hard',
                   'benchmarks.heldout_frames --frames out/frames/heldout --hard --out {out}'),
    PublishedTable('training_curve', f'benchmarks.training_curve --run {TRAINING} --out {{out}}'),
)


def select_tables(names: Sequence[str]) -> list[PublishedTable]:
    """
    Return the tables that the names select; all tables if there are no names.

    Raises
    ------
    ValueError
        If a name selects no table.
    """
    unknown = [name for name in names if not any(is_selected_by(table, name) for table in TABLES)]
    if unknown:
        raise ValueError(f'no table is called {", ".join(unknown)}; there are '
                         + ', '.join(table.name for table in TABLES))
    return [table for table in TABLES
            if not names or any(is_selected_by(table, name) for name in names)]


def is_selected_by(table: PublishedTable, name: str) -> bool:
    """Check whether a name, which may be the first words of several, selects this table."""
    return f'{table.name}_'.startswith(f'{name}_')


def find_missing(table: PublishedTable, variables: Mapping[str, str]) -> str:
    """Return what a table needs and is not available; '' if it can be made."""
    if table.needs_gpu and not torch.cuda.is_available():
        return 'needs an NVIDIA GPU'
    if '{RGBD}' in table.command and not variables.get('RGBD'):
        return 'needs real RGB-D frames: set RGBD=<folder with frames.json>'
    if '{HANDHELD}' in table.command and not variables.get('HANDHELD'):
        return 'needs a bag from a hand-held RGB-D camera: set HANDHELD=<bag>'
    if '{PEER}' in table.command and not variables.get('PEER'):
        return 'needs another node: set PEER to its options of benchmarks.node'
    if str(DRIVE2) in table.command and not DRIVE2.is_dir():
        return 'needs the second drive: run `make drive2`'
    if str(TRAINING) in table.command and not TRAINING.is_dir():
        return 'needs a training: run it with config/finetune_tiny_places.yaml'
    return ''


def command_words(table: PublishedTable, variables: Mapping[str, str]) -> list[str]:
    """Return module and arguments of a table's command."""
    baseline = variables.get('BASELINE', '')
    return shlex.split(table.command.format(
        out=shlex.quote(str(OUT / table.name)), RGBD=shlex.quote(variables.get('RGBD', '')),
        HANDHELD=shlex.quote(variables.get('HANDHELD', '')), PEER=variables.get('PEER', ''),
        baseline=f'--baseline {shlex.quote(baseline)}' if baseline else ''))


def make_table(table: PublishedTable, variables: Mapping[str, str], commit_id: str) -> bool:
    """
    Run a table's command and publish its Markdown.

    Parameters
    ----------
    table : PublishedTable
    variables : mapping
        With `RGBD` and `BASELINE`, where they are set.
    commit_id : str
        Commit of the code, found before a published table has changed the working tree.

    Returns
    -------
    bool
        Whether the command succeeded.
    """
    for name in re.findall(r'out/frames/(\w+)', table.command):
        if not run_module(shlex.split(FRAMES[name]))[0]:
            return False
    # Neither the report nor the latency table of an earlier run may be taken for this one's.
    shutil.rmtree(OUT / table.name, ignore_errors=True)
    facts = describe_environment(torch.device('cuda' if table.needs_gpu else 'cpu'))
    words = command_words(table, variables)
    succeeded, text = run_module(words)
    report = OUT / table.name / table.report
    if table.report and report.is_file():
        text = report.read_text()
    if succeeded and text.strip():
        PUBLISHED.mkdir(parents=True, exist_ok=True)
        header = format_report_header(shlex.join(['python', '-m', *words]),
                                      {**facts, 'commit': commit_id})
        (PUBLISHED / f'{table.name}.md').write_text(
            f'*`make results ONLY={table.name}`*: {header}\n\n{text.strip()}\n',
            encoding='utf-8')
    return succeeded


def run_module(words: Sequence[str]) -> tuple[bool, str]:
    """Run `python -m` with these words; return whether it succeeded, and what it printed."""
    print(f'\n== python -m {shlex.join(words)}', file=sys.stderr, flush=True)
    process = subprocess.run([sys.executable, '-m', *words], stdout=subprocess.PIPE, text=True,
                             check=False)
    return process.returncode == 0, process.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Remake tables; return 0 unless one failed or a name selects none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('names', nargs='*', metavar='NAME', help='of tables; all by default')
    try:
        tables = select_tables(parser.parse_args(arguments).names)
    except ValueError as err:
        parser.error(str(err))
    outcomes: list[str] = []
    commit_id = describe_commit()
    for table in tables:
        if missing := find_missing(table, os.environ):
            outcomes.append(f'left out  {table.name}: {missing}')
        elif make_table(table, os.environ, commit_id):
            outcomes.append(f'written   {PUBLISHED / table.name}.md')
        else:
            outcomes.append(f'FAILED    {table.name}')
    print('\n'.join(outcomes))
    return int(any(line.startswith('FAILED') for line in outcomes))


if __name__ == '__main__':
    sys.exit(main())
