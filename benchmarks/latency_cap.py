"""
Does the step policy keep the latency cap while other processes take and release the processor?

    python -m benchmarks.latency_cap --threads 1

Frames of mixed complexity come by the clock to the newest-wins place, and go through AdaptiveDepth
to the bytes of depth image and cloud, as in depth_node.  The cap is the p95 of what a frame takes
at Tmax without load, and frames come as often as that allows.  The policy runs with and without
the cap, unloaded and while half of the cores are kept busy every other period.
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
import torch

from benchmarks.latency_cap_load import load_is_on, periodic_load, processor_seconds
from benchmarks.synthetic_images import mixed_pictures, VGA
from benchmarks.timing import markdown_table, write_report
from marigold_ros.depth.adaptive import (
    AdaptiveConfig,
    AdaptiveDepth,
    AdaptivePrediction,
    Frame,
    SkippedFrame,
)
from marigold_ros.depth.config import STEP_POLICIES, StepPolicyConfig
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.step_policy import StepPolicy
from marigold_ros.depth.types import BatchTiming, DepthPrediction, RgbImage, StepRequest
from marigold_ros.evaluation.environment import cores, environment
from marigold_ros.evaluation.policies.live import DeliveredFrame, process_newest
from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.messages.cloud import CloudPacker
from marigold_ros.messages.depth import pack_depth
from marigold_ros.metric.outputs import metric_depth, POINT_STRIDE
from marigold_ros.metric.types import MetricScale

PICTURES = 64
# So many frames show what the engine sustains, and then its unloaded latency.
CALIBRATION_FRAMES = 200
# Between making a load's processes and the first frame.
START_DELAY_S = 1.5
PERCENTILES = (50, 95, 99, 100)
COLORS = {'published': 'tab:blue', 'late': 'tab:red', 'superseded': 'tab:orange'}
CAMERA = 'camera'
# A fixed scale and a VGA camera of 62 degrees.
SCALE = MetricScale(scale=4.0, shift=0.5, confidence=0.0, source='fixed', assumed=True)
K = np.array([[525.0, 0.0, 319.5], [0.0, 525.0, 239.5], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Outcome:
    """
    What became of a frame.

    Attributes
    ----------
    number : int
    received_s : float
        After the first delivery was due.
    fate : {'published', 'late', 'superseded'}
        'late' frames were skipped by the policy.
    latency_s : float or None
        Receipt to publication.
    steps_wanted, steps_granted, steps_run : int
        T without a cap, T as decided, and T as run.
    stopped_by : str
        As `DepthPrediction.stopped_by`; '' if it was not run.
    reason : str
        The decision's own explanation; '' if none was made.
    work_s : (float, float)
        `processor_seconds` at receipt.
    """

    number: int
    received_s: float
    fate: str
    latency_s: float | None = None
    steps_wanted: int = 0
    steps_granted: int = 0
    steps_run: int = 0
    stopped_by: str = ''
    reason: str = ''
    work_s: tuple[float, float] = (0.0, 0.0)

    @property
    def cut(self) -> bool:
        """Whether the cap took steps from a published frame, beforehand or by its deadline."""
        return self.fate == 'published' and (
            self.steps_granted < self.steps_wanted or self.stopped_by == 'deadline')


class PolicyRun:
    """
    A step policy between receipt and the bytes of the messages.

    Parameters
    ----------
    engine : DepthEngine
    config : StepPolicyConfig
    timings : sequence of BatchTiming
        What the engine's warm-up has measured, as the node knows once it is configured.
    """

    def __init__(self, engine: DepthEngine, config: StepPolicyConfig,
                 timings: Sequence[BatchTiming]) -> None:
        self.adaptive = AdaptiveDepth(engine, AdaptiveConfig(config))
        for timing in timings:
            self.adaptive.policy.observe(timing)
        # Sees the same frames and decides as if there were no cap.
        self._without_cap = StepPolicy(replace(config, latency_cap_s=None))

    def process(self, frame: DeliveredFrame) -> Outcome:
        """Decide, infer, make the messages, learn: depth_node's order."""
        result, = self.adaptive.process([
            Frame(CAMERA, frame.rgb, frame.number, frame.received_s)])
        if isinstance(result, AdaptivePrediction):
            make_messages(result, frame.rgb)
        published_s = time.monotonic()
        self.adaptive.observe(published_s)
        choice = result.choice
        wanted = self._without_cap.decide(
            [StepRequest(CAMERA, choice.complexity, choice.age_s)],
            resolution=self.adaptive.engine.padded_size(*frame.rgb.shape[:2]))[0]
        if isinstance(result, SkippedFrame):
            return Outcome(frame.number, frame.received_s, 'late', reason=choice.reason,
                           steps_wanted=wanted.num_inference_steps)
        return Outcome(frame.number, frame.received_s, 'published',
                       published_s - frame.received_s, wanted.num_inference_steps,
                       choice.granted, result.num_inference_steps, result.stopped_by,
                       choice.reason)


def make_messages(prediction: DepthPrediction, rgb: RgbImage) -> list[bytes]:
    """Make what depth_node publishes by default where a scale is known: depth and points."""
    depth_m = metric_depth(prediction.affine_invariant_depth, prediction.confidence, K, SCALE,
                           DepthFilter())
    cloud = CloudPacker().pack(depth_m, K, rgb, stride=POINT_STRIDE)  # [120,160]
    return [pack_depth(depth_m).data.tobytes(), cloud.data.tobytes()]


def play(run: PolicyRun, frames: Sequence[RgbImage], period_s: float,
         start_s: float) -> list[Outcome]:
    """
    Deliver frames by the clock while the policy takes the newest whenever it is free.

    Parameters
    ----------
    run : PolicyRun
    frames : sequence of uint8 [H, W, 3]
    period_s : float
        Time between deliveries.
    start_s : float
        Of the first, on `time.monotonic`.

    Returns
    -------
    list of Outcome
        One per frame, in order.
    """
    work_s: list[tuple[float, float]] = []
    received_s: list[float] = []

    def deliver() -> Iterator[DeliveredFrame]:
        for number, rgb in enumerate(frames):
            time.sleep(max(0.0, start_s + number * period_s - time.monotonic()))
            work_s.append(processor_seconds())
            received_s.append(time.monotonic())
            yield DeliveredFrame(number, rgb, received_s[-1])

    outcomes = process_newest(deliver(), run.process)
    return [replace(outcome or Outcome(number, received, 'superseded'),
                    received_s=received - start_s, work_s=work)
            for number, (outcome, received, work) in enumerate(
                zip(outcomes, received_s, work_s))]


def sustained_period_s(run: PolicyRun, frames: Sequence[RgbImage]) -> float:
    """Measure the p95 of the time that a frame takes, one directly after the other."""
    latencies = [run.process(DeliveredFrame(number, rgb, time.monotonic())).latency_s
                 for number, rgb in enumerate(frames)]
    return float(np.quantile(np.array(latencies, np.float64), 0.95))


def measure(engine: DepthEngine, config: StepPolicyConfig, frames: int,
            load_period_s: float) -> dict[str, Any]:
    """
    Find rate and cap, then run the policy with and without load, and fixed Tmax beside it.

    Parameters
    ----------
    engine : DepthEngine
    config : StepPolicyConfig
        Its cap is replaced by the measured one.
    frames : int
        Of each run.
    load_period_s : float
        The load is off, then on, for so long.

    Returns
    -------
    dict
        For JSON: `summaries` and `timelines` by run, and what the runs have in common.
    """
    # 1. What the node knows once it is configured.
    timings = engine.warm_up([VGA], [1], config.max_inference_steps)
    pictures = mixed_pictures(PICTURES)
    chosen = np.random.default_rng(0).integers(PICTURES, size=max(frames, CALIBRATION_FRAMES))
    mixed = [pictures[number] for number in chosen]

    # 2. What the engine sustains at Tmax: at this rate frames come, and this is the cap.  Waiting
    # for the frame before is not in it, so that the cap is not loosened by a queue.
    fixed = replace(config, policy='fixed', latency_cap_s=None)
    few = mixed[:CALIBRATION_FRAMES]
    cap_s = sustained_period_s(PolicyRun(engine, fixed, []), few)
    print(f'{1.0 / cap_s:.1f} frames/s, cap {1e3 * cap_s:.1f} ms', file=sys.stderr, flush=True)

    # 3. The same frames at the same rate: what the cap does, and what happens without it.
    processes = max(1, cores() // 2)

    def run(settings: StepPolicyConfig, frames: Sequence[RgbImage],
            loaded: bool) -> list[Outcome]:
        policy_run = PolicyRun(engine, settings, timings)
        start_s = time.monotonic() + START_DELAY_S
        with (periodic_load(processes, start_s, load_period_s, start_s + cap_s * len(frames))
              if loaded else nullcontext()):
            return play(policy_run, frames, cap_s, start_s)

    capped = replace(config, latency_cap_s=cap_s)
    runs = {'fixed, no cap, no load': (fixed, few, False),
            'cap, no load': (capped, mixed[:frames], False),
            'cap, load': (capped, mixed[:frames], True),
            'fixed, no cap, load': (fixed, mixed[:frames], True)}
    outcomes = {name: run(*arguments) for name, arguments in runs.items()}
    return {
        'cap_s': cap_s, 'load_period_s': load_period_s, 'load_processes': processes,
        'policy': asdict(capped),
        'summaries': {name: summarize(each, cap_s, load_period_s, loaded=runs[name][2])
                      for name, each in outcomes.items()},
        'timelines': {name: [asdict(outcome) for outcome in each]
                      for name, each in outcomes.items()}}


def summarize(outcomes: Sequence[Outcome], cap_s: float, load_period_s: float,
              *, loaded: bool) -> dict[str, Any]:
    """
    Sum a run up.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Of all frames delivered.
    cap_s : float
    load_period_s : float
        The load is off, then on, for so long.
    loaded : bool
        Whether there was a load at all.

    Returns
    -------
    dict
        Latency percentiles in ms and shares of the frames delivered; mean T without and with
        the load; and per stretch of constant load its frames over the cap and skipped.
    """
    published = [each for each in outcomes if each.latency_s is not None]
    latencies_s = np.array([each.latency_s for each in published], np.float64)
    steps = {on: [each.steps_run for each in published
                  if (loaded and load_is_on(each.received_s, load_period_s)) == on]
             for on in (False, True)}
    return {
        'frames': len(outcomes),
        'published': len(published),
        'latency_ms': {f'p{q}': 1e3 * float(np.percentile(latencies_s, q)) for q in PERCENTILES},
        'over_cap': int((latencies_s > cap_s).sum()),
        'skipped': sum(each.fate == 'late' for each in outcomes) / len(outcomes),
        'superseded': sum(each.fate == 'superseded' for each in outcomes) / len(outcomes),
        'cut': sum(each.cut for each in published) / len(published),
        'mean_steps_free': float(np.mean(steps[False])) if steps[False] else None,
        'mean_steps_loaded': float(np.mean(steps[True])) if steps[True] else None,
        'stretches': count_by_stretch(outcomes, cap_s, load_period_s, loaded),
    }


def count_by_stretch(outcomes: Sequence[Outcome], cap_s: float, period_s: float,
                     loaded: bool) -> list[dict[str, Any]]:
    """
    Count per stretch of constant load, from one change to the next.

    `other_cores` is how many cores all other processes kept busy, the load's among them: where
    it is more than the load, or less, the machine was not what the run's name says.
    """
    table = []
    for number in sorted({int(each.received_s // period_s) for each in outcomes}):
        inside = [each for each in outcomes if int(each.received_s // period_s) == number]
        elapsed_s = inside[-1].received_s - inside[0].received_s
        (busy_s, own_s), (busy_later_s, own_later_s) = inside[0].work_s, inside[-1].work_s
        others_s = (busy_later_s - busy_s) - (own_later_s - own_s)
        table.append({
            'from_s': number * period_s,
            'load': loaded and load_is_on(number * period_s, period_s),
            'frames': len(inside),
            'over_cap': sum(each.latency_s is not None and each.latency_s > cap_s
                            for each in inside),
            'skipped': sum(each.fate == 'late' for each in inside),
            'other_cores': others_s / elapsed_s if elapsed_s else 0.0,
        })
    return table


def markdown(result: Mapping[str, Any]) -> str:
    """Lay the runs out as a table, with late frames per change of load below."""
    rows = []
    for name, summary in result['summaries'].items():
        latency_ms = [f'{ms:.1f}' for ms in summary['latency_ms'].values()]
        steps = ['-' if mean is None else f'{mean:.2f}' for mean in (
            summary['mean_steps_free'], summary['mean_steps_loaded'])]
        rows.append({
            'run': name, **dict(zip(('p50', 'p95', 'p99', 'max ms'), latency_ms)),
            'over cap': f'{summary["over_cap"]} of {summary["published"]}',
            'skipped': f'{summary["skipped"]:.1%}', 'superseded': f'{summary["superseded"]:.1%}',
            'cut by the cap': f'{summary["cut"]:.0%}',
            **dict(zip(('mean T free', 'mean T loaded'), steps))})
    lines = [
        f'{result["checkpoint"]}{", compiled" if result["compile"] else ""}; policy '
        f'{result["policy"]["policy"]}; cap {1e3 * result["cap_s"]:.1f} ms, the unloaded p95 at '
        f'T = {result["policy"]["max_inference_steps"]}; {1.0 / result["cap_s"]:.1f} frames/s; '
        f'load: {result["load_processes"]} busy process(es), off and on every '
        f'{result["load_period_s"]:g} s', '', markdown_table(rows), '',
        'From one change of load to the next: frames over the cap + skipped (cores that other '
        'processes kept busy)', '']
    for name, summary in result['summaries'].items():
        lines.append(f'- {name}: ' + ', '.join(
            f'{"on" if each["load"] else "off"} {each["over_cap"]}+{each["skipped"]} '
            f'({each["other_cores"]:.1f})' for each in summary['stretches']))
    return '\n'.join(lines)


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw latency and T over time, the load shaded, one row per run."""
    figure = Figure(figsize=(12, 3.2 * len(result['timelines'])), layout='constrained')
    axes = figure.subplots(len(result['timelines']), 1, sharex=True, squeeze=False)[:, 0]
    top_ms = 2.5e3 * result['cap_s']
    for axis, (name, timeline) in zip(axes, result['timelines'].items()):
        draw_run(axis, timeline, top_ms)
        axis.axhline(1e3 * result['cap_s'], color='black', linewidth=0.8, label='cap')
        for stretch in result['summaries'][name]['stretches']:
            if stretch['load']:
                axis.axvspan(stretch['from_s'], stretch['from_s'] + result['load_period_s'],
                             color='0.9')
        axis.set(title=name, ylabel='latency, ms', ylim=(0, top_ms))
        axis.legend(loc='upper right', ncols=4, fontsize='small')
    axes[-1].set_xlabel('time of receipt, s (shaded: half of the processor is taken)')
    figure.savefig(path, dpi=100)


def draw_run(axis: Axes, timeline: Sequence[Mapping[str, Any]], top_ms: float) -> None:
    """Draw each frame by its fate, what is above the axis at its edge, and T on a second axis."""
    for fate, color in COLORS.items():
        some = [each for each in timeline if each['fate'] == fate]
        height = [top_ms * 0.98 if each['latency_s'] is None
                  else min(1e3 * each['latency_s'], top_ms * 0.98) for each in some]
        axis.plot([each['received_s'] for each in some], height, '.', color=color,
                  markersize=4, label=f'{fate} ({len(some)})')
    run = [each for each in timeline if each['steps_run']]
    steps = axis.twinx()
    steps.step([each['received_s'] for each in run], [each['steps_run'] for each in run],
               where='post', color='tab:green', alpha=0.5, linewidth=0.8)
    steps.set(ylabel='T (green)', ylim=(0, 12), yticks=range(5))


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--checkpoint', default='tiny', help='embedded name, folder or hub id')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:<index>')
    parser.add_argument('--compile', action='store_true', help='compile the networks')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(),
                        help='of torch on the CPU; fewer than cores leave room for the load')
    parser.add_argument('--frames', type=int, default=600, help='of each run')
    parser.add_argument('--policy', choices=STEP_POLICIES, default='complexity')
    parser.add_argument('--max-inference-steps', type=int, default=4)
    parser.add_argument('--load-period', type=float, default=5.0, metavar='S',
                        help='seconds for which the load is off, then on')
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, draw and report."""
    options = make_parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    facts = environment()
    engine = DepthEngine.load(options.checkpoint, device=options.device, compile=options.compile)
    config = StepPolicyConfig(options.policy, max_inference_steps=options.max_inference_steps,
                              late_frames='skip')
    result = {'checkpoint': options.checkpoint, 'compile': options.compile,
              **measure(engine, config, options.frames, options.load_period)}
    write_report(options.out, 'cap', facts, result, markdown(result))
    draw(result, options.out / 'cap.png')


if __name__ == '__main__':
    main()
