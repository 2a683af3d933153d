"""
Evaluate a checkpoint and its step policies on a bag or a folder, and write one report.

    python -m marigold_ros.evaluation.evaluate bag drive.mcap --image /camera/image_raw \
        --depth /camera/depth/image_rect --out out/evaluate
    python -m marigold_ros.evaluation.evaluate folder frames --out out/evaluate
    python -m marigold_ros.evaluation.evaluate fleet recordings.yaml --out out/fleet

`--scale-sources` and their settings also evaluate the metric depth that depth_node would publish,
and `--scene` the obstacles in Nav2's costmap.

The command writes report.html, summary.json, per_frame.csv, tables.md, latency_table.json and
pictures of the worst seconds.
latency_table.json contains the measured costs of a frame on this machine.  It is measured once and
reused by the next evaluation with the same settings, which therefore gives the same numbers.  To
measure again, remove the file; to use another table, pass `--latency-table`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
import shlex
import sys
from typing import Any

from marigold_ros.data.datasets.data_set import DataSet
from marigold_ros.data.frames import Part, WHOLE
from marigold_ros.depth.device import reserve_one_core
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import ConfigError, InputError, MarigoldError
from marigold_ros.evaluation.analysis import analyse, Analysis, StreamResult
from marigold_ros.evaluation.config import EvaluationConfig
from marigold_ros.evaluation.environment import describe_environment
from marigold_ros.evaluation.look import add_metric, add_replay, add_stream
from marigold_ros.evaluation.metrics.baselines import predict_ramp, TfliteNetwork
from marigold_ros.evaluation.metrics.metric_depth import COMPARED_RANGE, MetricDepthEvaluator
from marigold_ros.evaluation.metrics.protocols import format_depth_range
from marigold_ros.evaluation.options import (
    make_parser,
    MetricSetup,
    open_references,
    read_config,
    read_data_set,
)
from marigold_ros.evaluation.out_bag import ResultBagWriter
from marigold_ros.evaluation.policies.latency import LatencyTable
from marigold_ros.evaluation.policies.live import check_live_policy, LiveRun
from marigold_ros.evaluation.policies.replay import PolicyReplay, Replay
from marigold_ros.evaluation.report.html import write_report
from marigold_ros.evaluation.report.look import RecordingLook
from marigold_ros.evaluation.report.second_pictures import write_worst_seconds
from marigold_ros.evaluation.report.summary import (
    latency_table_summary,
    summarize_evaluation,
    write_per_frame,
    write_summary,
)
from marigold_ros.evaluation.report.tables import all_tables
from marigold_ros.evaluation.runner import (
    Baselines,
    EvaluationSession,
    FrameCallback,
    SessionResult,
)
from marigold_ros.memory import keep_freed_memory
from marigold_ros.metric.types import measured_scale
from marigold_ros.progress import progress_bar
from marigold_ros.stop_flag import StopFlag

NAME = 'evaluate'
MODULE = 'marigold_ros.evaluation.evaluate'
LATENCY_TABLE = 'latency_table.json'
BAD_INPUT, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the evaluation and write the report.

    Returns
    -------
    int
        0 on success; 2 on invalid input, also if damaged input left a partial report; 130 after
        Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = make_parser(NAME, __doc__.splitlines()[1]).parse_args(given)
    try:
        if options.data_set == 'fleet':
            # Imported here, as it imports this module.
            from marigold_ros.evaluation.fleet.command import run_fleet
            return run_fleet(options)
        with ExitStack() as stack:
            return evaluate(options, shlex.join(['python', '-m', MODULE, *given]), stack)
    except MarigoldError as err:
        print(f'{NAME}: {err}', file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f'{NAME}: interrupted before the first frame, no report written', file=sys.stderr)
        return INTERRUPTED


@dataclass(frozen=True)
class Inputs:
    """
    What is evaluated, opened and validated.

    Attributes
    ----------
    data_set : DataSet
    config : EvaluationConfig
    baselines : mapping of str to callable
        By name.
    metric : MetricSetup or None
    """

    data_set: DataSet
    config: EvaluationConfig
    baselines: Baselines
    metric: MetricSetup | None


@dataclass
class Evaluation:
    """
    All that is found while frames are read; it can be pickled.

    Attributes
    ----------
    session : SessionResult
    metric : dict of str to MetricDepthEvaluator
        By policy; empty without scale sources.
    look : RecordingLook
        What the report shows.
    notes : list of str
        On the references of metric depth.
    engine, environment : dict
        Facts for the summary.
    """

    session: SessionResult
    metric: dict[str, MetricDepthEvaluator] = field(default_factory=dict)
    look: RecordingLook = field(default_factory=RecordingLook)
    notes: list[str] = field(default_factory=list)
    engine: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)


def open_inputs(options: argparse.Namespace, stack: ExitStack, part: Part = WHOLE) -> Inputs:
    """
    Open and validate all input of an evaluation that does not need the engine.

    Parameters
    ----------
    options : argparse.Namespace
        From `options.make_parser`.
    stack : ExitStack
        Closes the open files.
    part : Part
        Of the recording.

    Raises
    ------
    MarigoldError
        If an option, a file or a topic is missing or invalid.
    """
    data_set = read_data_set(options, part)
    return Inputs(data_set, read_config(options, data_set), open_baselines(options.baseline),
                  open_references(options, stack, part))


def run_session(inputs: Inputs, engine: DepthEngine, table: LatencyTable, stop: StopFlag,
                out_bag: Path | None = None,
                on_frame: Sequence[FrameCallback] = ()) -> tuple[EvaluationSession, Evaluation]:
    """
    Run every frame with every T, and replay the policies on the runs.

    Parameters
    ----------
    inputs : Inputs
    engine : DepthEngine
    table : LatencyTable
        Missing sizes are measured when they first occur.
    stop : StopFlag
        Ends the evaluation after the current frame.
    out_bag : Path or None
        Bag to write.
    on_frame : sequence of callable
        Called with every frame.

    Raises
    ------
    MarigoldError
        If no frame could be evaluated.
    """
    session = EvaluationSession(engine, inputs.data_set, inputs.config, table, inputs.baselines)
    evaluators, look = _run_session(session, inputs.config.policies[0], out_bag, inputs.metric,
                                    stop, on_frame)
    return session, Evaluation(
        session.result, evaluators, look,
        [] if inputs.metric is None else inputs.metric.references.notes,
        {'processing_resolution': engine.processing_resolution,
         'dtype': str(engine.dtype).removeprefix('torch.'), 'device': str(engine.device),
         'executor': engine.executor_name}, describe_environment(engine.device))


def evaluate(options: argparse.Namespace, command: str, stack: ExitStack) -> int:
    """
    Run the evaluation of a parsed command line; see `main`.

    Parameters
    ----------
    options : argparse.Namespace
        From `options.make_parser`.
    command : str
        Command line that repeats the evaluation, for the report.
    stack : ExitStack
        Closes the open files.

    Raises
    ------
    MarigoldError
        If nothing could be evaluated.
    """
    # 1. Validate all input that does not need the engine before it is loaded.
    inputs = open_inputs(options, stack)
    config = inputs.config
    create_output_folder(options.out)
    if options.live:
        check_live_policy(config.policies[0])
    reserve_one_core()
    keep_freed_memory()
    engine = DepthEngine.load(config.checkpoint, device=options.device,
                              processing_resolution=config.processing_resolution)
    table, table_file = _latency_table(options, config, engine)

    with StopFlag(terminate_on_second_signal=True) as stop:
        # 2. Run every frame with every T, and replay the policies on the runs.
        session, evaluation = run_session(inputs, engine, table, stop, options.out_bag)
        table.save(options.out / LATENCY_TABLE)

        # 3. Compare the policies, and run the primary one live if requested.
        analysis = analyse(session.result, config.latency_cap_s,
                           mean_of_blocks=inputs.data_set.mean_of_blocks)
        if options.live and not stop.requested:
            _run_live(engine, inputs.data_set, config, table, session, analysis, stop)

    # 4. Write the report.
    write_evaluation(options, inputs, evaluation, analysis, {
        'command': command, 'latency_table': latency_table_summary(table, table_file)})
    if stop.requested:
        return INTERRUPTED
    return 0 if session.result.complete else BAD_INPUT


def write_evaluation(options: argparse.Namespace, inputs: Inputs, evaluation: Evaluation,
                     analysis: Analysis, origin: Mapping[str, Any]) -> None:
    """
    Write all files of the report, and print the verdict.

    Parameters
    ----------
    options : argparse.Namespace
    inputs : Inputs
        Of the whole recording.
    evaluation : Evaluation
    analysis : Analysis
        Of its session.
    origin : mapping
        `command` and `latency_table` of the summary.
    """
    session, look, out = evaluation.session, evaluation.look, options.out
    with progress_bar(desc='report', total=3, unit='step') as bar:
        context = _describe_evaluation(inputs, evaluation, analysis) | {
            **origin, 'metric': {},
            'worst_seconds': write_worst_seconds(out, session.examples.worst_seconds.select())}
        if inputs.metric is not None:
            context['metric'] = _summarize_metric_depth(options, evaluation.metric, analysis)
            context['notes'] += evaluation.notes
        examples = session.examples.select()
        summary = summarize_evaluation(analysis, context, list(inputs.baselines), examples)
        write_summary(out / 'summary.json', summary)
        _write_tables(out / 'tables.md', summary)
        bar.update()
        write_per_frame(out / 'per_frame.csv', analysis, {
            name: evaluator.column('abs_rel') for name, evaluator in evaluation.metric.items()})
        bar.update()
        add_stream(look, session.simulated[analysis.primary], inputs.config.latency_cap_s)
        write_report(out / 'report.html', summary, analysis, examples, look)
        bar.update()
    for sentence in (*summary['verdict']['sentences'], *summary['verdict']['comparisons'],
                     *summary['notes']):
        print(sentence)
    print(f'{"written" if summary["complete"] else "PARTIAL report"}: {out / "report.html"}')


def open_baselines(tflite: Path | None) -> Baselines:
    """Return the vertical ramp and, if given, a TFLite network, by name."""
    network = {} if tflite is None else {tflite.stem: TfliteNetwork(tflite).predict}
    return {'ramp': predict_ramp, **network}


def create_output_folder(out: Path) -> None:
    """Create the folder for the report and check that it is writable."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / 'report.html'
        probe.touch()
        if not probe.stat().st_size:
            probe.unlink()
    except OSError as err:
        raise ConfigError(f'`out` must be a writable folder; got {str(out)!r}: '
                          f'{err.strerror}') from err


def _latency_table(options: argparse.Namespace, config: EvaluationConfig,
                   engine: DepthEngine) -> tuple[LatencyTable, str]:
    """Load the given table, else a matching one in the output folder, else create a new one."""
    if options.latency_table is not None:
        return LatencyTable.load(options.latency_table), str(options.latency_table)
    own = options.out / LATENCY_TABLE
    machine = describe_machine(config, engine)
    if own.is_file():
        try:
            table = LatencyTable.load(own)
        except InputError as err:  # of another version
            print(f'{NAME}: measuring again: {err}', file=sys.stderr)
        else:
            if table.machine == machine:
                print(f'{NAME}: reusing the latency table {own}, measured {table.measured_utc}',
                      file=sys.stderr)
                return table, str(own)
    return LatencyTable(machine), str(own)


def describe_machine(config: EvaluationConfig, engine: DepthEngine) -> dict[str, str]:
    """Return what the costs of a frame depend on besides its size."""
    facts = describe_environment(engine.device)
    return {**{key: str(facts.get(key, ''))
               for key in ('device', 'gpu', 'cpu', 'cores', 'torch', 'torch_threads')},
            'dtype': str(engine.dtype), 'executor': engine.executor_name,
            'checkpoint': config.checkpoint, 'ensemble_size': str(config.ensemble_size),
            'processing_resolution': str(engine.processing_resolution)}


def _run_session(session: EvaluationSession, primary: str, out_bag: Path | None,
                 metric: MetricSetup | None, stop: StopFlag, callbacks: Sequence[FrameCallback]
                 ) -> tuple[dict[str, MetricDepthEvaluator], RecordingLook]:
    """Run a session and what follows its frames: metric depth, and what the report shows."""
    evaluators: dict[str, MetricDepthEvaluator] = {}
    look = RecordingLook()
    on_frame: list[FrameCallback] = [*callbacks, partial(add_replay, look)]
    if metric is not None:
        replays = {name: session.make_replay(name) for name in (primary, session.result.fastest)}
        evaluators = {name: metric.make_evaluator() for name in replays}
        on_frame = [*callbacks, partial(_evaluate_metric_depth, replays, evaluators, metric, look)]
    with ExitStack() as open_outputs:
        if out_bag is not None:
            on_frame.append(open_outputs.enter_context(ResultBagWriter(
                out_bag, primary, session.make_simulation(primary))).add)
        session.run(stop, *on_frame)
    for evaluator in evaluators.values():
        evaluator.published = None  # whoever pickles this needs no images
    if metric is not None:
        look.obstacle_map = (evaluators[primary].obstacle_map() if metric.reference_map is None
                             else metric.reference_map.map())
    return evaluators, look


def _evaluate_metric_depth(replays: Mapping[str, PolicyReplay],
                           evaluators: Mapping[str, MetricDepthEvaluator], metric: MetricSetup,
                           look: RecordingLook, without_metres: Replay) -> None:
    """
    Score the metric depth of a frame by each policy, and tell the policy its scale.

    Then carried depth moves in three dimensions; in the replays of relative depth it does not.
    The first policy is shown.
    """
    recorded = without_metres.recorded
    reference = metric.references.lookup(recorded.frame)
    predictions = []
    for name, evaluator in evaluators.items():
        prediction, _ = replays[name].predict(recorded)
        predictions.append(prediction)
        scale = evaluator.add(recorded.frame, prediction, reference, prediction.gauge_change,
                              prediction.flow)
        replays[name].set_scale(recorded.evaluated.camera, measured_scale(scale))
    primary = next(iter(evaluators.values()))
    add_metric(look, recorded, predictions[0], primary)
    pose = recorded.frame.world_from_camera
    if metric.reference_map is not None and pose is not None:
        metric.reference_map.add(
            primary.published and primary.published.points,
            reference.anchors.get(metric.reference_map.reference), reference.K, pose,
            is_lead_in=recorded.frame.is_lead_in)


def _run_live(engine: DepthEngine, data_set: DataSet, config: EvaluationConfig,
              table: LatencyTable, session: EvaluationSession, analysis: Analysis,
              stop: StopFlag) -> None:
    """Run the primary policy on the frames in real time, and add the result to the analysis."""
    run = LiveRun(engine, config, session.result.frames, table,
                  session.result.max_inference_steps, session.scorer)
    frames = run.run(data_set.frames(), stop)
    if stop.requested:
        session.result.notes.append(f'the live run was interrupted after {len(frames)} frames')
    analysis.policies[analysis.primary] = replace(
        analysis.policies[analysis.primary], live=StreamResult(frames, config.latency_cap_s))


def _describe_evaluation(inputs: Inputs, evaluation: Evaluation,
                         analysis: Analysis) -> dict[str, Any]:
    """Return settings, environment, data, engine and timing for the summary."""
    data_set, config, session = inputs.data_set, inputs.config, evaluation.session
    frames, cap_s = session.frames, config.latency_cap_s
    settings = {key: value for key, value in asdict(config).items() if key != 'latency_cap_s'}
    return {
        'complete': session.complete, 'notes': list(session.notes),
        'protocol': config.protocol,
        'compared_range': format_depth_range(config.protocol, data_set.rules),
        'settings': {**settings, 'policies': list(config.policies),
                     'latency_cap_ms': None if cap_s is None else 1e3 * cap_s},
        'environment': evaluation.environment,
        'data': {
            'name': data_set.name, 'frames': len(frames), 'frames_offered': data_set.count,
            'frames_without_truth': sum(not any(frame.quality.values()) for frame in frames),
            'blocks': len(set(analysis.blocks.names)), 'block': data_set.block_kind,
            'mean_of_blocks': data_set.mean_of_blocks,
            'simulated_arrivals': frames[0].stamp_ns is not None},
        'engine': {
            'checkpoint': config.checkpoint, 'fastest_policy': analysis.fastest,
            'slowest_policy': analysis.slowest,
            'max_inference_steps': session.max_inference_steps, **evaluation.engine},
        'timing': {'wall_s': session.wall_s, 'engine_s': session.engine_s,
                   'engine_share': session.engine_s / max(session.wall_s, 1e-9)}}


def _summarize_metric_depth(options: argparse.Namespace,
                            evaluators: Mapping[str, MetricDepthEvaluator],
                            analysis: Analysis) -> dict[str, Any]:
    """Return scale sources and accuracy of the metric depth for the summary."""
    return {'sources': options.scale_sources.split(','), 'references': dict(options.reference),
            'range': COMPARED_RANGE, 'policies': {name: {
                **evaluator.summary(), 'abs_rel_interval': list(
                    analysis.blocks.bootstrap_interval(evaluator.column('abs_rel')))}
                for name, evaluator in evaluators.items()}}


def _write_tables(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the tables as Markdown, each preceded by the command that reproduces it."""
    path.write_text('\n'.join(
        f'## {table.title}\n\n<!-- evaluate: {summary["command"]} -->\n{table.markdown()}\n'
        for table in all_tables(summary)), encoding='utf-8')


if __name__ == '__main__':
    sys.exit(main())
