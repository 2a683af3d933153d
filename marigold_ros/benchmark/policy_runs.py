"""Run every policy on the frames of a data set, as a live camera would, and take the times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
import random
import time
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from marigold_ros.depth.complexity import MEASURES
from marigold_ros.depth.config import require, StepPolicyConfig
from marigold_ros.depth.step_policy import StepPolicy
from marigold_ros.depth.types import StepDecision, StepRequest
from marigold_ros.evaluation.config import ADAPTIVE_POLICIES, COMPLEXITY_POLICIES, fixed_name
from marigold_ros.evaluation.live import infer_as_decided
from marigold_ros.evaluation.policies import Outcomes, QUALITY, TOTAL_S
from marigold_ros.evaluation.protocols import score

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame
    from marigold_ros.depth.engine import DepthEngine
    from marigold_ros.depth.types import DepthPrediction

Returned = TypeVar('Returned')

# The node's defaults without a cap: what a policy wants is judged, not what a machine allows.
SETTINGS = StepPolicyConfig(latency_cap_s=None)
# Of the runs of a frame the faster one counts: the machine may stall for a second in the other.
ROUNDS = 2


@dataclass(frozen=True, eq=False)
class Runs:
    """
    Outcomes of all frames, in their order.

    Attributes
    ----------
    by_steps : float64 [Tmax, F, len(OUTCOME)]
        Of T = 1 .. Tmax.
    adaptive : dict of str to float64 [F, len(OUTCOME)]
        Of each policy that chooses T by itself; its time includes the choice.
    blocks : tuple of str
        Block of each frame.
    """

    by_steps: NDArray[np.float64]
    adaptive: dict[str, Outcomes]
    blocks: tuple[str, ...]


def run_policies(engine: DepthEngine, frames: Iterable[DepthFrame], seed: int = 0) -> Runs:
    """
    Run an engine on frames one by one, with every T and every policy.

    Each policy sees the frames in their order and once, so that it knows of a camera no more than
    it would live.  The policies that look into the denoising, and every T, are runs of their own,
    in a new random order for every frame, and `ROUNDS` times; those that look at the image alone
    take the run of the T they chose.

    Parameters
    ----------
    engine : DepthEngine
    frames : iterable of DepthFrame
        At least one.
    seed : int
        Of the order of the runs; it moves the times and nothing else.

    Returns
    -------
    Runs

    Raises
    ------
    ConfigError
        If the checkpoint is good for fewer than Tmax steps: there is nothing to choose.
    InputError
        If nothing was measured in a frame, or the checkpoint's schedules share no first step.
    """
    useful = engine.checkpoint_info.max_useful_steps
    require(useful >= SETTINGS.max_inference_steps, 'checkpoint',
            f'good for at least {SETTINGS.max_inference_steps} steps', engine.checkpoint_info.name)
    runner = _Runner(engine, seed)
    rows, blocks = [], []
    for frame in tqdm(frames, unit='frame'):
        rows.append(runner.run(frame))
        blocks.append(frame.block)
    outcomes = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return Runs(by_steps=np.stack([outcomes[fixed_name(steps)] for steps in _all_steps()]),
                adaptive={name: outcomes[name] for name in ADAPTIVE_POLICIES},
                blocks=tuple(blocks))


def _all_steps() -> range:
    return range(SETTINGS.min_inference_steps, SETTINGS.max_inference_steps + 1)


class _Runner:
    """The policies with what they have learned so far."""

    def __init__(self, engine: DepthEngine, seed: int) -> None:
        self._engine = engine
        self._policies = {name: StepPolicy(replace(SETTINGS, policy=name.partition('-')[0]))
                          for name in ADAPTIVE_POLICIES}
        self._shuffle = random.Random(seed).shuffle
        self._warm: set[tuple[int, ...]] = set()

    def run(self, frame: DepthFrame) -> dict[str, NDArray[np.float64]]:
        """Return the outcome of each fixed T and each policy on one frame."""
        self._warm_up(frame)
        calls: dict[str, Callable[[DepthFrame], DepthPrediction]] = {
            fixed_name(steps): partial(self._fixed, steps) for steps in _all_steps()}
        calls |= {name: partial(self._looking, name) for name in ADAPTIVE_POLICIES
                  if name not in COMPLEXITY_POLICIES}
        timed: defaultdict[str, list[tuple[DepthPrediction, float]]] = defaultdict(list)
        choices: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        order, known = list(calls), self._policies
        for _ in range(ROUNDS):
            self._policies = deepcopy(known)  # a policy must not learn a frame twice
            self._shuffle(order)
            for name in order:
                timed[name].append(_timed(calls[name], frame))
            for name in COMPLEXITY_POLICIES:
                choices[name].append(_timed(partial(self._steps_by_complexity, name), frame))
        outcomes = {name: _outcome(*_faster(timed[name]), frame) for name in calls}
        for name, chosen in choices.items():
            steps, seconds = _faster(chosen)
            outcomes[name] = outcomes[fixed_name(steps)].copy()
            outcomes[name][TOTAL_S] += seconds
        return outcomes

    def _warm_up(self, frame: DepthFrame) -> None:
        """Let nothing be allocated inside the first timed run of a size."""
        size = frame.rgb.shape[:2]
        if size not in self._warm:
            self._engine.warm_up([size], [1], SETTINGS.max_inference_steps)
            self._warm.add(size)

    def _fixed(self, num_inference_steps: int, frame: DepthFrame) -> DepthPrediction:
        return self._engine.infer(frame.rgb, num_inference_steps=num_inference_steps)

    def _looking(self, name: str, frame: DepthFrame) -> DepthPrediction:
        """Run a policy that decides while it denoises."""
        request, granted = self._decide(name, frame)
        return infer_as_decided(self._engine, self._policies[name], frame.rgb, request, granted)[0]

    def _steps_by_complexity(self, name: str, frame: DepthFrame) -> int:
        complexity = MEASURES[COMPLEXITY_POLICIES[name]](frame.rgb)
        return self._decide(name, frame, complexity)[1].num_inference_steps

    def _decide(self, name: str, frame: DepthFrame,
                complexity: float = 0.0) -> tuple[StepRequest, StepDecision]:
        request = StepRequest(frame.set_name, complexity, age_s=0.0)
        decision, = self._policies[name].decide(
            [request], resolution=self._engine.processing_size(*frame.rgb.shape[:2]))
        return request, decision


def _timed(call: Callable[[DepthFrame], Returned], frame: DepthFrame) -> tuple[Returned, float]:
    """Call, and return what it returned and its seconds; depth comes back in main memory."""
    started_s = time.perf_counter()
    returned = call(frame)
    return returned, time.perf_counter() - started_s


def _faster(runs: list[tuple[Returned, float]]) -> tuple[Returned, float]:
    """Return the run of the least seconds; all of them have returned the same."""
    return min(runs, key=lambda run: run[1])


def _outcome(prediction: DepthPrediction, total_s: float,
             frame: DepthFrame) -> NDArray[np.float64]:
    """Return one row, as `OUTCOME` names it."""
    quality = score(prediction.affine_invariant_depth, frame)
    return np.array([prediction.num_inference_steps, total_s, prediction.timing.denoise_s,
                     *(quality[metric] for metric in QUALITY)])
