"""
Evaluate a checkpoint and its step policies on a bag or a folder, and write one report.

    python -m marigold_ros.evaluation.evaluate bag drive.mcap --image /camera/image_raw \
        --depth /camera/depth/image_rect --out out/evaluate
    python -m marigold_ros.evaluation.evaluate folder frames --out out/evaluate

With `--scale-source` and what that source needs, also the metres are judged that depth_node would
publish, and with `--scene` the obstacles that Nav2 would see.

Writes report.html, summary.json, per_frame.csv, tables.md and latency_table.json.  The last one
holds what frames cost here: it is measured once, and the same command uses it again, so that it
gives the same numbers; remove it, or name another one, to change that.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
import shlex
import sys
from typing import Any

from marigold_ros.data.datasets.data_set import DataSet
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.device import reserve_one_core
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import ConfigError, MarigoldError
from marigold_ros.evaluation.analysis import Analysis, Analyst, Clocked
from marigold_ros.evaluation.config import EvaluationConfig
from marigold_ros.evaluation.environment import environment
from marigold_ros.evaluation.metrics.baselines import predict_ramp, TfliteNetwork
from marigold_ros.evaluation.metrics.metric_depth import MetricDepthEvaluator
from marigold_ros.evaluation.metrics.protocols import align_frame, format_depth_range
from marigold_ros.evaluation.options import (
    make_parser,
    open_references,
    read_config,
    read_data_set,
)
from marigold_ros.evaluation.out_bag import OutBag
from marigold_ros.evaluation.policies.latency import LatencyTable
from marigold_ros.evaluation.policies.live import check_live, LiveRun
from marigold_ros.evaluation.policies.replay import FrameRuns, PolicyReplay
from marigold_ros.evaluation.references import BagReferences
from marigold_ros.evaluation.report.exemplars import Picture
from marigold_ros.evaluation.report.html import write_report
from marigold_ros.evaluation.report.summary import (
    latency_table_summary,
    summarize_evaluation,
    write_per_frame,
    write_summary,
)
from marigold_ros.evaluation.report.tables import all_tables
from marigold_ros.evaluation.runner import Baselines, OnFrame, Run, Session
from marigold_ros.stop_flag import StopFlag

NAME = 'evaluate'
MODULE = 'marigold_ros.evaluation.evaluate'
LATENCY_TABLE = 'latency_table.json'
BAD_INPUT, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Evaluate and write the report.

    Returns
    -------
    int
        0; 2 if the input is bad, also where damage left a partial report; 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = make_parser(NAME, __doc__.splitlines()[1]).parse_args(given)
    try:
        with ExitStack() as stack:
            return evaluate(options, shlex.join(['python', '-m', MODULE, *given]), stack)
    except MarigoldError as err:
        print(f'{NAME}: {err}', file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f'{NAME}: interrupted, nothing is written', file=sys.stderr)
        return INTERRUPTED


def evaluate(options: argparse.Namespace, command: str, stack: ExitStack) -> int:
    """
    Evaluate what the command line asks for; see `main`.

    Parameters
    ----------
    options : argparse.Namespace
        Of `options.make_parser`.
    command : str
        Repeats the evaluation.
    stack : ExitStack
        Closes what stays open meanwhile.

    Raises
    ------
    MarigoldError
        If nothing could be evaluated.
    """
    # 1. Whatever can be wrong without the engine, before it is loaded.
    data_set = read_data_set(options)
    config = read_config(options, data_set)
    _make_folder(options.out)
    baselines = _open_baselines(options.baseline)
    if options.live:
        check_live(config.policies[0])
    metric = open_references(options, stack)
    reserve_one_core()
    engine = DepthEngine.load(config.checkpoint,
                              processing_resolution=config.processing_resolution)
    table, table_file = _latency_table(options, config, engine)

    with StopFlag(terminate_on_second_signal=True) as stop:
        # 2. Every frame with every T, scored; some look at the pictures before they are gone.
        session = Session(engine, data_set, config, table, baselines)
        on_frame: list[OnFrame] = [] if metric is None else [partial(_follow_metres, *metric)]
        with ExitStack() as written:
            if options.out_bag is not None:
                on_frame.append(written.enter_context(
                    _out_bag(options.out_bag, data_set, config, session, table)).add)
            session.run(stop, *on_frame)
        table.save(options.out / LATENCY_TABLE)

        # 3. Policies over these runs: alone, by the clock, and in real time if asked for.
        analysis = Analyst(session.frames, config, table, session.max_inference_steps,
                           mean_of_blocks=data_set.mean_of_blocks).analyse()
        if options.live and not stop.requested:
            _run_live(engine, data_set, config, table, session, analysis, stop)

    # 4. The report.
    about = _about(config, data_set, engine, session, analysis) | {
        'command': command, 'latency_table': latency_table_summary(table, table_file),
        'metric': {}}
    if metric is not None:
        follower, references = metric
        about['metric'] = _metric_summary(options, follower, analysis)
        about['notes'] += references.notes
    summary = summarize_evaluation(analysis, about, list(baselines), session.exemplars.chosen())
    _write(options.out, summary, analysis, session.exemplars.chosen())
    if stop.requested:
        return INTERRUPTED
    return 0 if session.complete else BAD_INPUT


def _open_baselines(tflite: Path | None) -> Baselines:
    """Take the ramp, and a network that was named."""
    network = {} if tflite is None else {tflite.stem: TfliteNetwork(tflite).predict}
    return {'ramp': predict_ramp, **network}


def _make_folder(out: Path) -> None:
    """Find out now whether the report can be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / 'report.html'
        probe.touch()
        if not probe.stat().st_size:
            probe.unlink()
    except OSError as err:
        raise ConfigError(f'`out` must be a folder that can be written; got {str(out)!r}: '
                          f'{err.strerror}') from err


def _latency_table(options: argparse.Namespace, config: EvaluationConfig,
                   engine: DepthEngine) -> tuple[LatencyTable, str]:
    """Take the table that was named, else this folder's own if it still holds, else a new one."""
    if options.latency_table is not None:
        return LatencyTable.load(options.latency_table), str(options.latency_table)
    own = options.out / LATENCY_TABLE
    facts = environment(engine.device)
    machine = {key: str(facts.get(key, ''))
               for key in ('device', 'gpu', 'cpu', 'cores', 'torch', 'torch_threads')}
    machine |= {'dtype': str(engine.dtype), 'checkpoint': config.checkpoint,
                'ensemble_size': str(config.ensemble_size),
                'processing_resolution': str(engine.processing_resolution)}
    if own.is_file():
        table = LatencyTable.load(own)
        if table.machine == machine:
            print(f'{NAME}: costs of {table.measured_utc} from {own}', file=sys.stderr)
            return table, str(own)
    return LatencyTable(machine), str(own)


def _out_bag(path: Path, data_set: DataSet, config: EvaluationConfig, session: Session,
             table: LatencyTable) -> OutBag:
    """Make the bag of what the first policy does by the clock."""
    replay = PolicyReplay(config.policies[0], session.max_inference_steps, config.latency_cap_s)
    return OutBag(path, replay, table, lambda depth, frame: align_frame(
        depth, frame, data_set.rules, config.protocol))


def _follow_metres(follower: MetricDepthEvaluator, references: BagReferences, frame: DepthFrame,
                   runs: Mapping[str, Run], kept: FrameRuns) -> None:
    """Make a frame metric by the run that the judged policy chooses for it."""
    prediction = runs[kept.judged].prediction
    follower.add(frame, prediction.affine_invariant_depth, prediction.confidence,
                 references.at(frame))


def _run_live(engine: DepthEngine, data_set: DataSet, config: EvaluationConfig,
              table: LatencyTable, session: Session, analysis: Analysis, stop: StopFlag) -> None:
    """Play the frames once more, now by the clock on the wall."""
    run = LiveRun(engine, config, session.frames, table, session.max_inference_steps)
    frames = run.run(data_set.frames(), stop)
    if stop.requested:
        session.notes.append(f'the live run was interrupted after {len(frames)} frames')
    judged = analysis.policies[analysis.judged]
    analysis.policies[analysis.judged] = replace(
        judged, live=Clocked(frames, config.latency_cap_s))


def _about(config: EvaluationConfig, data_set: DataSet, engine: DepthEngine, session: Session,
           analysis: Analysis) -> dict[str, Any]:
    """Tell what no result depends on, or all do."""
    frames, cap_s = session.frames, config.latency_cap_s
    settings = {key: value for key, value in asdict(config).items() if key != 'latency_cap_s'}
    return {
        'complete': session.complete, 'notes': list(session.notes),
        'protocol': config.protocol,
        'compared_range': format_depth_range(config.protocol, data_set.rules),
        'settings': {**settings, 'policies': list(config.policies),
                     'latency_cap_ms': None if cap_s is None else 1e3 * cap_s},
        'environment': environment(engine.device),
        'data': {
            'name': data_set.name, 'frames': len(frames), 'frames_offered': data_set.count,
            'frames_without_truth': sum(not any(frame.quality.values()) for frame in frames),
            'blocks': len(set(analysis.blocks.names)), 'block': data_set.block,
            'mean_of_blocks': data_set.mean_of_blocks,
            'simulated_arrivals': frames[0].stamp_ns is not None},
        'engine': {
            'checkpoint': config.checkpoint, 'slowest_policy': analysis.slowest,
            'max_inference_steps': session.max_inference_steps,
            'processing_resolution': engine.processing_resolution,
            'dtype': str(engine.dtype).removeprefix('torch.'), 'device': str(engine.device)},
        'timing': {'wall_s': session.wall_s, 'engine_s': session.engine_s,
                   'engine_share': session.engine_s / max(session.wall_s, 1e-9)}}


def _metric_summary(options: argparse.Namespace, follower: MetricDepthEvaluator,
                    analysis: Analysis) -> dict[str, Any]:
    """Tell where the metres come from, and how good they are."""
    return {'source': options.scale_source, 'reference': options.reference,
            **follower.summary(),
            'abs_rel_interval': list(analysis.blocks.interval(follower.column('abs_rel')))}


def _write(out: Path, summary: dict[str, Any], analysis: Analysis,
           exemplars: Mapping[str, Sequence[Picture]]) -> None:
    """Write all files of the report, and print the verdict."""
    write_summary(out / 'summary.json', summary)
    write_per_frame(out / 'per_frame.csv', analysis)
    # Each table with the command that makes it, for who quotes it.
    (out / 'tables.md').write_text('\n'.join(
        f'## {table.title}\n\n<!-- evaluate: {summary["command"]} -->\n{table.markdown()}\n'
        for table in all_tables(summary)), encoding='utf-8')
    write_report(out / 'report.html', summary, analysis, exemplars)
    for sentence in (*summary['verdict']['sentences'], *summary['verdict']['choosing'],
                     *summary['notes']):
        print(sentence)
    print(f'{"written" if summary["complete"] else "PARTIAL report"}: {out / "report.html"}')


if __name__ == '__main__':
    sys.exit(main())
