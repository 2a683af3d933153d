"""
Evaluate a checkpoint and its step policies on a bag or a folder, and write one report.

    python -m marigold_ros.evaluation.evaluate bag drive.mcap --image /camera/image_raw \
        --depth /camera/depth/image_rect --out out/evaluate
    python -m marigold_ros.evaluation.evaluate folder frames --out out/evaluate

Writes report.html, summary.json, per_frame.csv, tables.md and latency_table.json.  The last one
holds what frames cost here: it is measured once, and the same command uses it again, so that it
gives the same numbers; remove it, or name another one, to change that.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
import shlex
import sys
from typing import Any

from marigold_ros.data.bags.bag_frames import BagTopics
from marigold_ros.data.datasets.bag import bag_data_set
from marigold_ros.data.datasets.data_set import DataSet
from marigold_ros.data.datasets.published import PUBLISHED_SETS
from marigold_ros.data.datasets.rgbd_folder import folder_data_set
from marigold_ros.data.shards import shards_data_set
from marigold_ros.depth.config import EngineConfig
from marigold_ros.depth.device import leave_a_core
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import ConfigError, MarigoldError
from marigold_ros.evaluation.analysis import Analysis, Analyst, Clocked
from marigold_ros.evaluation.config import DEFAULT_POLICIES, EvaluationConfig, PROTOCOLS
from marigold_ros.evaluation.environment import environment
from marigold_ros.evaluation.metrics.baselines import Baseline, Ramp, TfliteNetwork
from marigold_ros.evaluation.metrics.protocols import (
    abs_rel_name,
    align_frame,
    depth_range,
    describe_protocol,
)
from marigold_ros.evaluation.out_bag import OutBag
from marigold_ros.evaluation.policies.frame_runs import FrameRunner
from marigold_ros.evaluation.policies.latency import LatencyTable
from marigold_ros.evaluation.policies.live import check_live, LiveRun
from marigold_ros.evaluation.policies.replay import PolicyReplay
from marigold_ros.evaluation.report.html import write_report
from marigold_ros.evaluation.report.summary import (
    latency_table_summary,
    summarize_evaluation,
    write_per_frame,
    write_summary,
)
from marigold_ros.evaluation.report.tables import all_tables
from marigold_ros.evaluation.report.verdict import accuracy, choosing, latency, saving
from marigold_ros.evaluation.runner import run_session, Session
from marigold_ros.stop_flag import StopFlag

NAME = 'evaluate'
MODULE = 'marigold_ros.evaluation.evaluate'
LATENCY_TABLE = 'latency_table.json'
BAD_INPUT, INTERRUPTED = 2, 130


@dataclass(frozen=True)
class Job:
    """
    One evaluation.

    Attributes
    ----------
    data_set : DataSet
    config : EvaluationConfig
    out : Path
        Folder of the report.
    out_bag : Path or None
        Bag to write.
    latency_table : Path or None
        Costs to use instead of this machine's.
    baseline : Path or None
        TFLite network beside the ramp.
    live : bool
        Whether the first policy also runs in real time.
    command : str
        Repeats it.
    """

    data_set: DataSet
    config: EvaluationConfig
    out: Path
    out_bag: Path | None = None
    latency_table: Path | None = None
    baseline: Path | None = None
    live: bool = False
    command: str = ''


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Evaluate and write the report.

    Returns
    -------
    int
        0; 2 if the input is bad, also where damage left a partial report; 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = make_parser().parse_args(given)
    try:
        return evaluate(_job(options, shlex.join(['python', '-m', MODULE, *given])))
    except MarigoldError as err:
        print(f'{NAME}: {err}', file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f'{NAME}: interrupted, nothing is written', file=sys.stderr)
        return INTERRUPTED


def evaluate(job: Job) -> int:
    """
    Run a job; see `main`.

    Raises
    ------
    MarigoldError
        If nothing could be evaluated.
    """
    # 1. Whatever can be wrong without the engine, before it is loaded.
    _make_folder(job.out)
    baselines: list[Baseline] = [Ramp()]
    if job.baseline is not None:
        baselines.append(TfliteNetwork(job.baseline))
    if job.live:
        check_live(job.config.policies[0])
    leave_a_core()
    engine = DepthEngine.load(job.config.checkpoint,
                              processing_resolution=job.config.processing_resolution)
    table, table_file = _latency_table(job, engine)

    with StopFlag(second_signal_ends=True) as stop:
        # 2. Every frame with every T, scored; the pictures go into the bag, if any.
        session = _session(job, engine, table, baselines, stop)
        table.save(job.out / LATENCY_TABLE)

        # 3. Policies over these runs: alone, by the clock, and in real time if asked for.
        analysis = Analyst(session.frames, job.config, table, session.max_inference_steps,
                           mean_of_blocks=job.data_set.mean_of_blocks).analyse()
        if job.live and not stop.requested:
            _run_live(job, engine, table, session, analysis, stop)

    # 4. The report.
    names = [baseline.name for baseline in baselines]
    about = _about(job, engine, table, table_file, session, analysis)
    summary = summarize_evaluation(analysis, about, names, session.exemplars.chosen(),
                                   _verdict(job, analysis, names))
    write_summary(job.out / 'summary.json', summary)
    write_per_frame(job.out / 'per_frame.csv', analysis)
    _write_tables(job.out / 'tables.md', summary)
    write_report(job.out / 'report.html', summary, analysis, session.exemplars.chosen())
    for sentence in (*summary['verdict']['sentences'], *summary['verdict']['choosing'],
                     *session.notes):
        print(sentence)
    print(f'{"written" if session.complete else "PARTIAL report"}: {job.out / "report.html"}')
    if stop.requested:
        return INTERRUPTED
    return 0 if session.complete else BAD_INPUT


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__.splitlines()[1])
    sources = parser.add_subparsers(dest='source', required=True, metavar='SOURCE')
    bag = sources.add_parser('bag', help='ROS 2 or ROS 1 bag with images and their depth')
    bag.add_argument('--image', required=True, metavar='TOPIC', help='raw or compressed images')
    bag.add_argument('--depth', required=True, metavar='TOPIC', help='true depth, registered')
    bag.add_argument('--camera-info', metavar='TOPIC', help="default: the image's sibling")
    for name, text in (('folder', 'RGB-D folder with frames.json'),
                       ('shards', 'folder of rendered shards')):
        sources.add_parser(name, help=text)
    for name, published_set in PUBLISHED_SETS.items():
        published = sources.add_parser(
            name, help=f"{published_set.title} as Marigold's evaluation has it")
        published.add_argument('--file-list', type=Path, required=True, metavar='TXT',
                               help=f"Marigold's data_split/{published_set.file_list}")
    for source in sources.choices.values():
        source.add_argument('path', type=Path)
        _add_common(source)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    default = EvaluationConfig()
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='for the report')
    parser.add_argument('--checkpoint', default=default.checkpoint,
                        help='embedded name, folder or hub id (default: %(default)s)')
    parser.add_argument('--policies', default=','.join(DEFAULT_POLICIES), metavar='A,B,...',
                        help='the first is judged (default: %(default)s)')
    parser.add_argument('--ensemble-size', type=int, default=default.ensemble_size)
    parser.add_argument('--processing-resolution', type=int, metavar='PX', help='longest edge')
    parser.add_argument('--latency-cap-ms', type=float, metavar='MS',
                        default=1e3 * (default.latency_cap_s or 0.0),
                        help='0 is no cap (default: %(default)g)')
    parser.add_argument('--protocol', choices=PROTOCOLS, default=default.protocol)
    parser.add_argument('--max-frames', type=int, metavar='N', help='only the first N')
    parser.add_argument('--baseline', type=Path, metavar='TFLITE', help='compare with a network')
    parser.add_argument('--latency-table', type=Path, metavar='JSON',
                        help='what frames cost, as an evaluation has written it')
    parser.add_argument('--live', action='store_true',
                        help='also play the bag in real time through the first policy')
    parser.add_argument('--out-bag', type=Path, metavar='BAG', help='MCAP to write')


def _job(options: argparse.Namespace, command: str) -> Job:
    config = EvaluationConfig(
        policies=tuple(options.policies.split(',')), checkpoint=options.checkpoint,
        ensemble_size=options.ensemble_size,
        processing_resolution=options.processing_resolution,
        latency_cap_s=1e-3 * options.latency_cap_ms if options.latency_cap_ms else None,
        protocol=options.protocol, max_frames=options.max_frames)
    data_set = _data_set(options)
    if config.processing_resolution is None:
        config = replace(config, processing_resolution=data_set.rules.processing_resolution)
    EngineConfig(config.checkpoint, processing_resolution=config.processing_resolution)
    return Job(data_set, config, options.out, options.out_bag, options.latency_table,
               options.baseline, options.live, command)


def _data_set(options: argparse.Namespace) -> DataSet:
    if options.source == 'bag':
        return bag_data_set(options.path, BagTopics(options.image, options.depth,
                                                    options.camera_info))
    if options.source in PUBLISHED_SETS:
        return PUBLISHED_SETS[options.source].data_set(options.path, options.file_list)
    make: dict[str, Callable[[Path], DataSet]] = {
        'folder': folder_data_set, 'shards': shards_data_set}
    return make[options.source](options.path)


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


def _latency_table(job: Job, engine: DepthEngine) -> tuple[LatencyTable, str]:
    """Take the table that was named, else this folder's own if it still holds, else a new one."""
    if job.latency_table is not None:
        return LatencyTable.load(job.latency_table), str(job.latency_table)
    own = job.out / LATENCY_TABLE
    facts = environment(engine.device)
    machine = {key: str(facts.get(key, ''))
               for key in ('device', 'gpu', 'cpu', 'cores', 'torch', 'torch_threads')}
    machine |= {'dtype': str(engine.dtype), 'checkpoint': job.config.checkpoint,
                'ensemble_size': str(job.config.ensemble_size),
                'processing_resolution': str(engine.processing_resolution)}
    if own.is_file():
        table = LatencyTable.load(own)
        if table.machine == machine:
            print(f'{NAME}: costs of {table.measured_utc} from {own}', file=sys.stderr)
            return table, str(own)
    return LatencyTable(machine), str(own)


def _session(job: Job, engine: DepthEngine, table: LatencyTable, baselines: Sequence[Baseline],
             stop: StopFlag) -> Session:
    with ExitStack() as stack:
        if job.out_bag is None:
            return run_session(engine, job.data_set, job.config, table, baselines, stop)
        replay = PolicyReplay(job.config.policies[0],
                              FrameRunner(engine, job.config).max_inference_steps,
                              job.config.latency_cap_s)
        out_bag = stack.enter_context(OutBag(
            job.out_bag, replay, table,
            lambda depth, frame: align_frame(depth, frame, job.data_set.rules,
                                             job.config.protocol)))
        return run_session(engine, job.data_set, job.config, table, baselines, stop,
                           out_bag.add)


def _run_live(job: Job, engine: DepthEngine, table: LatencyTable, session: Session,
              analysis: Analysis, stop: StopFlag) -> None:
    """Play the frames once more, now by the clock on the wall."""
    run = LiveRun(engine, job.config, session.frames, table, session.max_inference_steps)
    frames = run.run(job.data_set.frames(), stop)
    if stop.requested:
        session.notes.append(f'the live run was interrupted after {len(frames)} frames')
    judged = analysis.policies[analysis.judged]
    analysis.policies[analysis.judged] = replace(
        judged, live=Clocked(frames, job.config.latency_cap_s))


def _about(job: Job, engine: DepthEngine, table: LatencyTable, table_file: str, session: Session,
           analysis: Analysis) -> dict[str, Any]:
    """Tell what no result depends on, or all do."""
    frames, config = session.frames, job.config
    settings = {key: value for key, value in asdict(config).items() if key != 'latency_cap_s'}
    cap_s = config.latency_cap_s
    return {
        'complete': session.complete, 'notes': list(session.notes), 'command': job.command,
        'protocol': config.protocol,
        'compared_range': depth_range(config.protocol, job.data_set.rules),
        'settings': {**settings, 'policies': list(config.policies),
                     'latency_cap_ms': None if cap_s is None else 1e3 * cap_s},
        'environment': environment(engine.device),
        'data': {
            'name': job.data_set.name, 'frames': len(frames),
            'frames_offered': job.data_set.count,
            'frames_without_truth': sum(not any(frame.quality.values()) for frame in frames),
            'blocks': len(set(analysis.blocks.names)), 'block': job.data_set.block,
            'mean_of_blocks': job.data_set.mean_of_blocks,
            'simulated_arrivals': frames[0].stamp_ns is not None},
        'engine': {
            'checkpoint': config.checkpoint, 'slowest_policy': analysis.slowest,
            'max_inference_steps': session.max_inference_steps,
            'processing_resolution': engine.processing_resolution,
            'dtype': str(engine.dtype).removeprefix('torch.'), 'device': str(engine.device)},
        'timing': {'wall_s': session.wall_s, 'engine_s': session.engine_s,
                   'engine_share': session.engine_s / max(session.wall_s, 1e-9)},
        'latency_table': latency_table_summary(table, table_file)}


def _verdict(job: Job, analysis: Analysis, baselines: Sequence[str]) -> dict[str, list[str]]:
    judged = analysis.policies[analysis.judged]
    arrivals = analysis.frames[0].stamp_ns is not None
    live = ([] if judged.live is None else
            [latency(judged.live, arrivals=True, live=True)])
    made_by = job.config.protocol, depth_range(job.config.protocol, job.data_set.rules)
    abs_rel = abs_rel_name(*made_by)
    return {'sentences': [accuracy(analysis, describe_protocol(*made_by), baselines),
                          latency(judged.clock, arrivals=arrivals), *live,
                          saving(analysis, abs_rel)],
            'choosing': choosing(analysis, abs_rel)}


def _write_tables(path: Path, summary: dict[str, Any]) -> None:
    """Write the tables for who quotes them, each with the command that makes it."""
    parts = [f'## {table.title}\n\n<!-- evaluate: {summary["command"]} -->\n{table.markdown()}\n'
             for table in all_tables(summary)]
    path.write_text('\n'.join(parts), encoding='utf-8')


if __name__ == '__main__':
    sys.exit(main())
