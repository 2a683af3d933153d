"""
Start depth_node with an engine that is slow, and fails or hangs now and then, like a bad device.

    python -m benchmarks.slowed_node --run-s 0.3 --fail-every 50 --ros-args -p ...

The networks sleep after they have run, as if a GPU were busy; all else is the node's.  Options
also set how the node shares the CPU.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
import itertools
import os
import sys
import time
from typing import Any

import cv2

from marigold_ros.depth import engine
from marigold_ros.depth.device import cpu_thread_count
from marigold_ros.depth.types import DepthPrediction
from marigold_ros.ros import worker
from marigold_ros.ros.main import main as run_node


def slow_down(run_s: float, fail_every: int, hang_every: int, hang_s: float) -> None:
    """
    Replace the engine that depth_node loads.

    Parameters
    ----------
    run_s : float
        Least time of a run, s.
    fail_every, hang_every : int
        Every n-th run fails or hangs; 0: none.
    hang_s : float
        How long it hangs, s.
    """
    runs = itertools.count(1)  # over the whole process, for a lifecycle cycle loads anew

    class SlowedEngine(engine.DepthEngine):
        """Slow once it is warmed up."""

        is_warm = False

        def prepare_in_background(self) -> None:
            super().prepare_in_background()
            self.is_warm = True

        def infer_batch(self, *args: Any, **kwargs: Any) -> list[DepthPrediction]:
            started_s = time.monotonic()
            predictions = super().infer_batch(*args, **kwargs)
            if not self.is_warm:
                return predictions
            number = next(runs)
            least_s = hang_s if is_due(number, hang_every) else run_s
            slept_s = max(0.0, started_s + least_s - time.monotonic())
            time.sleep(slept_s)
            if is_due(number, fail_every):
                raise OSError('simulated fault of the device')
            return [add_denoising_time(each, slept_s) for each in predictions]

    engine.DepthEngine = SlowedEngine  # type: ignore[misc]


def is_due(number: int, every: int) -> bool:
    """Check whether a run, counted from 1, is one of every `every`; 0: none is."""
    return every > 0 and number % every == 0


def add_denoising_time(prediction: DepthPrediction, seconds: float) -> DepthPrediction:
    """Let the stages of a run tell how long it took."""
    timing = prediction.timing
    return replace(prediction, timing=replace(timing, denoise_s=timing.denoise_s + seconds))


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line; the rest of it is the node's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--run-s', type=float, default=0.3, help='least time of a run')
    parser.add_argument('--fail-every', type=int, default=0, metavar='N')
    parser.add_argument('--hang-every', type=int, default=0, metavar='N')
    parser.add_argument('--hang-s', type=float, default=4.0)
    parser.add_argument('--niceness', type=int, default=worker.NETWORKS_NICENESS,
                        help='of the thread of the networks')
    parser.add_argument('--network-threads', type=int, default=cpu_thread_count())
    parser.add_argument('--opencv-threads', type=int, default=cv2.getNumThreads())
    return parser


def main() -> int:
    """Run the node."""
    options, rest = make_parser().parse_known_args()
    worker.NETWORKS_NICENESS = options.niceness
    os.environ['OMP_NUM_THREADS'] = str(options.network_threads)
    cv2.setNumThreads(options.opencv_threads)
    slow_down(options.run_s, options.fail_every, options.hang_every, options.hang_s)
    return run_node([sys.argv[0], *rest])


if __name__ == '__main__':
    sys.exit(main())
