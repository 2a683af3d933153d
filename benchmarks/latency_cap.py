"""
Do frames that wait for their run keep the latency cap while other processes load the CPU?

    python -m benchmarks.latency_cap
    OMP_NUM_THREADS=2 python -m benchmarks.latency_cap

Frames of mixed complexity arrive at a fixed rate in a queue that keeps only the newest.  All show
different scenes, so that no depth can be carried and each waits for its run.  They are processed
by AdaptiveDepth and packed as depth image and cloud, as in depth_node.  The cap is the
p95 of the time per frame at Tmax without load; it is also the period of the frames.  The policy
runs with and without the cap, unloaded and with half of the cores busy in every other period.
On a CPU the networks use the threads of the node: OMP_NUM_THREADS, or one less than there are
cores.  `benchmarks.node` has the node itself beside a busy core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
import sys
import time
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

from benchmarks.latency_cap_load import cpu_times_s, load_is_on, periodic_load
from benchmarks.synthetic_images import make_mixed_complexity_images, VGA
from benchmarks.timing import format_markdown_table, write_benchmark_report
from marigold_ros.depth.adaptive import (
    AdaptiveConfig,
    AdaptiveDepth,
    Frame,
)
from marigold_ros.depth.config import STEP_POLICIES, StepPolicyConfig
from marigold_ros.depth.device import cpu_thread_count, reserve_one_core
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.step_policy import StepPolicy
from marigold_ros.depth.types import BatchTiming, DepthPrediction, RgbImage, StepRequest
from marigold_ros.evaluation.environment import count_cores, describe_environment
from marigold_ros.evaluation.policies.live import DeliveredFrame, process_newest
from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.messages.cloud import CloudPacker
from marigold_ros.messages.depth import pack_depth
from marigold_ros.metric.outputs import metric_depth, POINT_STRIDE
from marigold_ros.metric.types import MetricScale

IMAGE_COUNT = 64
# Frames for measuring the sustained rate and the unloaded latency.
CALIBRATION_FRAMES = 200
# Between starting the load and the first frame.
START_DELAY_S = 1.5
PERCENTILES = (50, 95, 99, 100)
COLORS = {'processed': 'tab:blue', 'superseded': 'tab:orange'}
CAMERA = 'camera'
# A fixed scale and a VGA camera of 62 degrees.
SCALE = MetricScale(scale=4.0, shift=0.5, confidence=0.0, sources=('fixed',))
K = np.array([[525.0, 0.0, 319.5], [0.0, 525.0, 239.5], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class FrameResult:
    """
    Outcome, latency and steps of a frame.

    Attributes
    ----------
    number : int
    received_s : float
        Time since the first delivery was due.
    outcome : {'processed', 'superseded'}
    latency_s : float or None
        Receipt to publication; None if superseded.
    steps_without_cap, steps_decided, steps_run : int
        T that the policy would choose without a cap, T as decided, T as run.
    stopped_by : str
        As `DepthPrediction.stopped_by`; '' if the frame was not processed.
    reason : str
        Reason of the decision; '' if there was none.
    work_s : (float, float)
        `cpu_times_s` at receipt.
    """

    number: int
    received_s: float
    outcome: str
    latency_s: float | None = None
    steps_without_cap: int = 0
    steps_decided: int = 0
    steps_run: int = 0
    stopped_by: str = ''
    reason: str = ''
    work_s: tuple[float, float] = (0.0, 0.0)

    @property
    def reduced(self) -> bool:
        """Check whether the cap reduced the steps of this frame, in advance or while running."""
        return self.outcome == 'processed' and (
            self.steps_decided < self.steps_without_cap or self.stopped_by == 'deadline')


class PolicyRun:
    """
    Process frames from receipt to packed messages with a step policy.

    Parameters
    ----------
    engine : DepthEngine
    config : StepPolicyConfig
    timings : sequence of BatchTiming
        Measurements of the engine's warm-up, which the node makes at configure.
    """

    def __init__(self, engine: DepthEngine, config: StepPolicyConfig,
                 timings: Sequence[BatchTiming]) -> None:
        # The measure by which the images differ.
        self.adaptive = AdaptiveDepth(engine, AdaptiveConfig(config, 'gradient_energy'))
        for timing in timings:
            self.adaptive.policy.observe(timing)
        # Decides for the same frames without a cap.
        self._without_cap = StepPolicy(replace(config, latency_cap_s=None))

    def process(self, frame: DeliveredFrame) -> FrameResult:
        """Decide, infer, pack the messages, update the policy, in depth_node's order."""
        for newest in ([Frame(CAMERA, frame.rgb, frame.number, frame.received_s)], []):
            for _, result in self.adaptive.advance(newest):
                pack_messages(result, frame.rgb)
                published_s = time.monotonic()
            self.adaptive.wait()
        decision = result.decision
        without_cap = self._without_cap.decide(
            [StepRequest(CAMERA, decision.complexity, decision.age_s)],
            padded_size=self.adaptive.engine.padded_size(*frame.rgb.shape[:2]))[0]
        return FrameResult(frame.number, frame.received_s, 'processed',
                           published_s - frame.received_s, without_cap.num_inference_steps,
                           decision.decided_steps, result.num_inference_steps, result.stopped_by,
                           decision.reason)


def pack_messages(prediction: DepthPrediction, rgb: RgbImage) -> list[bytes]:
    """Pack depth image and cloud, which depth_node publishes by default if the scale is known."""
    depth_m = metric_depth(prediction.affine_invariant_depth, prediction.confidence, K, SCALE,
                           DepthFilter())
    cloud = CloudPacker().pack(depth_m, K, rgb, stride=POINT_STRIDE)  # [120,160]
    return [pack_depth(depth_m).data.tobytes(), cloud.data.tobytes()]


def deliver_by_clock(run: PolicyRun, frames: Sequence[RgbImage], period_s: float,
                     start_s: float) -> list[FrameResult]:
    """
    Deliver frames at a fixed rate; the policy processes the newest whenever it is free.

    Parameters
    ----------
    run : PolicyRun
    frames : sequence of uint8 [H, W, 3]
    period_s : float
        Time between deliveries.
    start_s : float
        Time of the first delivery, on `time.monotonic`.

    Returns
    -------
    list of FrameResult
        One per frame, in order of delivery.
    """
    work_s: list[tuple[float, float]] = []
    received_s: list[float] = []

    def deliver() -> Iterator[DeliveredFrame]:
        for number, rgb in enumerate(frames):
            time.sleep(max(0.0, start_s + number * period_s - time.monotonic()))
            work_s.append(cpu_times_s())
            received_s.append(time.monotonic())
            yield DeliveredFrame(number, rgb, received_s[-1])

    frame_results = process_newest(deliver(), run.process)
    return [replace(frame_result or FrameResult(number, received, 'superseded'),
                    received_s=received - start_s, work_s=work)
            for number, (frame_result, received, work) in enumerate(
                zip(frame_results, received_s, work_s))]


def measure_sustained_period_s(run: PolicyRun, frames: Sequence[RgbImage]) -> float:
    """Measure the p95 of the time per frame when frames are processed back to back, s."""
    latencies = [run.process(DeliveredFrame(number, rgb, time.monotonic())).latency_s
                 for number, rgb in enumerate(frames)]
    return float(np.quantile(np.array(latencies, np.float64), 0.95))


def measure(engine: DepthEngine, config: StepPolicyConfig, frames: int,
            load_period_s: float) -> dict[str, Any]:
    """
    Measure rate and cap, then run the policy and fixed Tmax with and without load.

    Parameters
    ----------
    engine : DepthEngine
    config : StepPolicyConfig
        Its cap is replaced by the measured one.
    frames : int
        Frames per run.
    load_period_s : float
        Time for which the load is off, then on.

    Returns
    -------
    dict
        For JSON: `summaries` and `timelines` by run, and the common settings.
    """
    # 1. Measure batch times as the node does at configure.
    timings = engine.warm_up([VGA], [1], config.max_inference_steps)
    images = make_mixed_complexity_images(IMAGE_COUNT)
    chosen = np.random.default_rng(0).integers(IMAGE_COUNT, size=max(frames, CALIBRATION_FRAMES))
    mixed = [images[number] for number in chosen]

    # 2. Measure the sustained period at Tmax, which becomes period and cap.  It does not include
    # waiting for the frame before, which would loosen the cap.
    fixed = replace(config, policy='fixed', latency_cap_s=None)
    few = mixed[:CALIBRATION_FRAMES]
    cap_s = measure_sustained_period_s(PolicyRun(engine, fixed, []), few)
    print(f'{1.0 / cap_s:.1f} frames/s, cap {1e3 * cap_s:.1f} ms', file=sys.stderr, flush=True)

    # 3. Run the same frames at the same rate with and without the cap.
    processes = max(1, count_cores() // 2)

    def run(settings: StepPolicyConfig, frames: Sequence[RgbImage],
            loaded: bool) -> list[FrameResult]:
        policy_run = PolicyRun(engine, settings, timings)
        start_s = time.monotonic() + START_DELAY_S
        with (periodic_load(processes, start_s, load_period_s, start_s + cap_s * len(frames))
              if loaded else nullcontext()):
            return deliver_by_clock(policy_run, frames, cap_s, start_s)

    capped = replace(config, latency_cap_s=cap_s)
    runs = {'fixed, no cap, no load': (fixed, few, False),
            'cap, no load': (capped, mixed[:frames], False),
            'cap, load': (capped, mixed[:frames], True),
            'fixed, no cap, load': (fixed, mixed[:frames], True)}
    frame_results = {name: run(*arguments) for name, arguments in runs.items()}
    return {
        'cap_s': cap_s, 'load_period_s': load_period_s, 'load_processes': processes,
        'policy': asdict(capped),
        'summaries': {name: summarize(each, cap_s, load_period_s, loaded=runs[name][2])
                      for name, each in frame_results.items()},
        'timelines': {name: [asdict(frame_result) for frame_result in each]
                      for name, each in frame_results.items()}}


def summarize(frame_results: Sequence[FrameResult], cap_s: float, load_period_s: float,
              *, loaded: bool) -> dict[str, Any]:
    """
    Summarize a run.

    Parameters
    ----------
    frame_results : sequence of FrameResult
        All frames delivered.
    cap_s : float
    load_period_s : float
        Time for which the load is off, then on.
    loaded : bool
        Whether there was a load.

    Returns
    -------
    dict
        Latency percentiles in ms; shares of the frames delivered; mean T without and with load;
        frames over the cap, per interval of constant load.
    """
    processed = [each for each in frame_results if each.latency_s is not None]
    latencies_s = np.array([each.latency_s for each in processed], np.float64)
    steps = {on: [each.steps_run for each in processed
                  if (loaded and load_is_on(each.received_s, load_period_s)) == on]
             for on in (False, True)}
    return {
        'frames': len(frame_results),
        'processed': len(processed),
        'latency_ms': {f'p{q}': 1e3 * float(np.percentile(latencies_s, q)) for q in PERCENTILES},
        'over_cap': int((latencies_s > cap_s).sum()),
        'superseded': (sum(each.outcome == 'superseded' for each in frame_results)
                       / len(frame_results)),
        'reduced': sum(each.reduced for each in processed) / len(processed),
        'mean_steps_unloaded': float(np.mean(steps[False])) if steps[False] else None,
        'mean_steps_loaded': float(np.mean(steps[True])) if steps[True] else None,
        'intervals': count_by_interval(frame_results, cap_s, load_period_s, loaded),
    }


def count_by_interval(frame_results: Sequence[FrameResult], cap_s: float, period_s: float,
                      loaded: bool) -> list[dict[str, Any]]:
    """
    Count frames over the cap per interval of constant load.

    `other_cores` is the number of cores that all other processes kept busy, including the load.
    If it differs from the load, something else disturbed the run.
    """
    table = []
    for number in sorted({int(each.received_s // period_s) for each in frame_results}):
        inside = [each for each in frame_results if int(each.received_s // period_s) == number]
        elapsed_s = inside[-1].received_s - inside[0].received_s
        (busy_s, own_s), (busy_later_s, own_later_s) = inside[0].work_s, inside[-1].work_s
        others_s = (busy_later_s - busy_s) - (own_later_s - own_s)
        table.append({
            'from_s': number * period_s,
            'load': loaded and load_is_on(number * period_s, period_s),
            'frames': len(inside),
            'over_cap': sum(each.latency_s is not None and each.latency_s > cap_s
                            for each in inside),
            'other_cores': others_s / elapsed_s if elapsed_s else 0.0,
        })
    return table


def format_markdown(result: Mapping[str, Any]) -> str:
    """Format the runs as a Markdown table, and the late frames per interval as a list."""
    rows = []
    for name, summary in result['summaries'].items():
        latency_ms = [f'{ms:.1f}' for ms in summary['latency_ms'].values()]
        steps = ['-' if mean is None else f'{mean:.2f}' for mean in (
            summary['mean_steps_unloaded'], summary['mean_steps_loaded'])]
        rows.append({
            'run': name, **dict(zip(('p50', 'p95', 'p99', 'max ms'), latency_ms)),
            'over cap': f'{summary["over_cap"]} of {summary["processed"]}',
            'superseded': f'{summary["superseded"]:.1%}',
            'reduced by the cap': f'{summary["reduced"]:.0%}',
            **dict(zip(('mean T unloaded', 'mean T loaded'), steps))})
    lines = [
        f'{result["checkpoint"]} ({result["executor"]}, {result["threads"]} thread(s)); policy '
        f'{result["policy"]["policy"]}; cap {1e3 * result["cap_s"]:.1f} ms, the unloaded p95 at '
        f'T = {result["policy"]["max_inference_steps"]}; {1.0 / result["cap_s"]:.1f} frames/s; '
        f'load: {result["load_processes"]} busy process(es), off and on every '
        f'{result["load_period_s"]:g} s', '', format_markdown_table(rows), '',
        'By interval of constant load: frames over the cap (cores that other '
        'processes kept busy)', '']
    for name, summary in result['summaries'].items():
        lines.append(f'- {name}: ' + ', '.join(
            f'{"on" if each["load"] else "off"} {each["over_cap"]} '
            f'({each["other_cores"]:.1f})' for each in summary['intervals']))
    return '\n'.join(lines)


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Plot latency and T over time with the load shaded, one panel per run."""
    figure = Figure(figsize=(12, 3.2 * len(result['timelines'])), layout='constrained')
    axes = figure.subplots(len(result['timelines']), 1, sharex=True, squeeze=False)[:, 0]
    top_ms = 2.5e3 * result['cap_s']
    for axis, (name, timeline) in zip(axes, result['timelines'].items()):
        draw_run(axis, timeline, top_ms)
        axis.axhline(1e3 * result['cap_s'], color='black', linewidth=0.8, label='cap')
        for interval in result['summaries'][name]['intervals']:
            if interval['load']:
                axis.axvspan(interval['from_s'], interval['from_s'] + result['load_period_s'],
                             color='0.9')
        axis.set(title=name, ylabel='latency, ms', ylim=(0, top_ms))
        axis.legend(loc='upper right', ncols=4, fontsize='small')
    axes[-1].set_xlabel('time of receipt, s (shaded: half of the cores are busy)')
    figure.savefig(path, dpi=100)


def draw_run(axis: Axes, timeline: Sequence[Mapping[str, Any]], top_ms: float) -> None:
    """Plot latency by outcome, clipped to the axis, and T on a second axis."""
    for outcome, color in COLORS.items():
        frames = [each for each in timeline if each['outcome'] == outcome]
        height = [top_ms * 0.98 if each['latency_s'] is None
                  else min(1e3 * each['latency_s'], top_ms * 0.98) for each in frames]
        axis.plot([each['received_s'] for each in frames], height, '.', color=color,
                  markersize=4, label=f'{outcome} ({len(frames)})')
    run = [each for each in timeline if each['steps_run']]
    steps = axis.twinx()
    steps.step([each['received_s'] for each in run], [each['steps_run'] for each in run],
               where='post', color='tab:green', alpha=0.5, linewidth=0.8)
    steps.set(ylabel='T (green)', ylim=(0, 12), yticks=range(5))


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--checkpoint', default='tiny', help='embedded name, folder or hub id')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:<index>')
    parser.add_argument('--compile', action='store_true', help='compile the networks')
    parser.add_argument('--frames', type=int, default=600, help='frames per run')
    parser.add_argument('--policy', choices=STEP_POLICIES, default='complexity')
    parser.add_argument('--max-inference-steps', type=int, default=4)
    parser.add_argument('--load-period', type=float, default=5.0, metavar='S',
                        help='seconds for which the load is off, then on')
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, plot and write the report."""
    options = make_parser().parse_args(arguments)
    reserve_one_core()
    facts = describe_environment()
    engine = DepthEngine.load(options.checkpoint, device=options.device, compile=options.compile)
    config = StepPolicyConfig(options.policy, 1, options.max_inference_steps)
    result = {'checkpoint': options.checkpoint, 'executor': engine.executor_name,
              'threads': cpu_thread_count(),
              **measure(engine, config, options.frames, options.load_period)}
    write_benchmark_report(options.out, 'latency_cap', facts, result, format_markdown(result))
    draw(result, options.out / 'latency_cap.png')


if __name__ == '__main__':
    main()
