"""
Show the latency cap: frames by the clock while another process takes and releases the processor.

    python -m benchmarks.cap --frames 600

The cap is the unloaded p95 of the latency at Tmax, and frames come as often as that allows.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
import time
from typing import Any, Sequence

import numpy as np
import torch

from benchmarks.cap_load import periodic_load
from benchmarks.cap_report import CAPPED_UNDER_LOAD, draw, judge, markdown, summarize
from benchmarks.cap_run import drive, Outcome, Walk
from benchmarks.pictures import mixed_pictures, VGA
from benchmarks.timing import write_report
from marigold_ros.depth.config import STEP_POLICIES, StepPolicyConfig
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.types import BatchTiming, RgbImage
from marigold_ros.evaluation.environment import cores, environment
from marigold_ros.evaluation.policies.live import Delivered

PICTURES = 64
# So many frames show what the engine sustains, and then its unloaded latency.
CALIBRATION_FRAMES = 200
# Between making a load's processes and the first frame.
START_DELAY_S = 1.5


@dataclass(frozen=True)
class Scenario:
    """
    What every run has in common.

    Attributes
    ----------
    frames : list of uint8 [480, 640, 3]
    period_s : float
        Time between two frames.
    load_period_s : float
        The load is off, then on, for so long.
    load_processes : int
    """

    frames: list[RgbImage]
    period_s: float
    load_period_s: float
    load_processes: int


def sustained_period_s(engine: DepthEngine, config: StepPolicyConfig,
                       frames: Sequence[RgbImage]) -> float:
    """Measure the p95 of the time that a frame takes at Tmax, one directly after the other."""
    walk = Walk(engine, config, [])
    latencies = []
    for number, rgb in enumerate(frames):
        received_s = time.monotonic()
        outcome = walk.process(Delivered(number, rgb, received_s), received_s)
        latencies.append(outcome.latency_s)
    return float(np.quantile(np.array(latencies, np.float64), 0.95))


def run(engine: DepthEngine, config: StepPolicyConfig, seeds: Sequence[BatchTiming],
        scenario: Scenario, *, loaded: bool) -> list[Outcome]:
    """Drive all frames through a new policy, with or without the load."""
    walk = Walk(engine, config, seeds)
    start_s = time.monotonic() + START_DELAY_S
    end_s = start_s + scenario.period_s * len(scenario.frames)
    load = (periodic_load(scenario.load_processes, start_s, scenario.load_period_s, end_s)
            if loaded else nullcontext())
    with load:
        return drive(walk, scenario.frames, scenario.period_s, start_s)


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

    Returns
    -------
    dict
        For JSON; see `cap_report`.
    """
    # 1. What the node knows once it is configured.
    seeds = engine.warm_up([VGA], [1], config.max_inference_steps)
    pictures = mixed_pictures(PICTURES)
    chosen = np.random.default_rng(0).integers(PICTURES, size=max(frames, CALIBRATION_FRAMES))
    mixed = [pictures[number] for number in chosen]

    # 2. What the engine sustains at Tmax: at this rate frames come, and this is the cap.  Waiting
    # for the frame before is not in it, so that the cap is not loosened by a queue.
    fixed = replace(config, policy='fixed', latency_cap_s=None)
    few = mixed[:CALIBRATION_FRAMES]
    cap_s = period_s = sustained_period_s(engine, fixed, few)
    scenario = Scenario(few, period_s, load_period_s, max(1, cores() // 2))
    unloaded = run(engine, fixed, seeds, scenario, loaded=False)
    print(f'{1.0 / period_s:.1f} frames/s, cap {1e3 * cap_s:.1f} ms', flush=True)

    # 3. The same frames at the same rate: what the cap does, and what happens without it.
    scenario = replace(scenario, frames=mixed[:frames])
    capped = replace(config, latency_cap_s=cap_s)
    under_load = {CAPPED_UNDER_LOAD: capped, 'fixed, no cap, load': fixed}
    runs = {'fixed, no cap, no load': unloaded,
            'cap, no load': run(engine, capped, seeds, scenario, loaded=False),
            **{name: run(engine, settings, seeds, scenario, loaded=True)
               for name, settings in under_load.items()}}
    return {
        'cap_s': cap_s, 'period_s': period_s, 'load_period_s': load_period_s,
        'load_processes': scenario.load_processes, 'policy': asdict(capped),
        'summaries': {name: summarize(outcomes, cap_s, load_period_s, loaded=name in under_load)
                      for name, outcomes in runs.items()},
        'timelines': {name: [asdict(outcome) for outcome in outcomes]
                      for name, outcomes in runs.items()}}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, write JSON, Markdown and the plot."""
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
    parser.add_argument('--out', type=Path, default=Path('out/benchmark'))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    facts = environment()
    engine = DepthEngine.load(options.checkpoint, device=options.device, compile=options.compile)
    config = StepPolicyConfig(options.policy, max_inference_steps=options.max_inference_steps,
                              late_frames='skip')
    result = measure(engine, config, options.frames, options.load_period)
    result = {'environment': facts, 'checkpoint': options.checkpoint, 'compile': options.compile,
              'targets': judge(result), **result}
    text = markdown(result)
    print(text)
    write_report(options.out, 'bench_cap', result, text)
    draw(result, options.out / 'bench_cap.png')


if __name__ == '__main__':
    main()
