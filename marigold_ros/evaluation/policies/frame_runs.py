"""Run a frame with every T that the policies may choose, and keep the few numbers that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
import time
from typing import TYPE_CHECKING

from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.evaluation.config import EvaluationConfig, fixed_name, fixed_steps

if TYPE_CHECKING:
    from marigold_ros.depth.engine import DepthEngine
    from marigold_ros.depth.types import FloatImage, RgbImage

Quality = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Run:
    """
    One inference.

    Attributes
    ----------
    num_inference_steps : int
        Steps run.
    depth : float32 [H, W]
        Affine-invariant.
    engine_s : float
        What it took, on this machine and now.
    """

    num_inference_steps: int
    depth: FloatImage
    engine_s: float


@dataclass(frozen=True, eq=False)
class FrameRuns:
    """
    All that is kept of a frame; the pictures are gone.

    Attributes
    ----------
    number : int
        From 0, in the order of reading.
    name, block, camera : str
        See `frames.DepthFrame`.
    stamp_ns : int or None
        When it was taken; None in a folder.
    size : (int, int)
        Padded, at which it is processed.
    complexity : dict of str to float
        C by each measure.
    steps : dict of str to int
        Steps of each run.
    quality : dict of str to dict of str to float
        Scores of each run, and of each baseline.
    engine_s : float
        Time spent in the engine.
    temporal : dict of str to dict of str to float
        Scores beside the frame before, by policy; empty where frames have no stamps.
    """

    number: int
    name: str
    block: str
    camera: str
    stamp_ns: int | None
    size: tuple[int, int]
    complexity: Mapping[str, float]
    steps: Mapping[str, int]
    quality: Mapping[str, Quality]
    engine_s: float
    temporal: Mapping[str, Quality] = field(default_factory=dict)


class FrameRunner:
    """
    Run frames with every T that the policies may choose.

    Parameters
    ----------
    engine : DepthEngine
    config : EvaluationConfig

    Attributes
    ----------
    max_inference_steps : int
        Tmax: depth_node's default, less where the checkpoint is good for less; the largest of
        the fixed T where nothing else is asked for.
    """

    def __init__(self, engine: DepthEngine, config: EvaluationConfig) -> None:
        self._engine, self._config = engine, config
        fixed = {steps for name in config.policies if (steps := fixed_steps(name))}
        if config.chooses:
            self.max_inference_steps = min(StepPolicyConfig.max_inference_steps,
                                           engine.checkpoint_info.max_useful_steps)
            fixed |= set(range(1, self.max_inference_steps + 1))
        else:
            self.max_inference_steps = max(fixed)
        self._fixed = sorted(fixed)

    @property
    def longest(self) -> int:
        """Give the largest T of all runs."""
        return self._fixed[-1]

    def run(self, rgb: RgbImage) -> dict[str, Run]:
        """
        Run one frame with every T, without a cap.

        Parameters
        ----------
        rgb : uint8 [H, W, 3]

        Returns
        -------
        dict of str to Run
            By the name of the policy that always runs T steps.
        """
        return {fixed_name(steps): self._infer(rgb, steps) for steps in self._fixed}

    def _infer(self, rgb: RgbImage, steps: int) -> Run:
        started_s = time.perf_counter()
        prediction = self._engine.infer(rgb, num_inference_steps=steps,
                                        ensemble_size=self._config.ensemble_size)
        return Run(prediction.num_inference_steps, prediction.affine_invariant_depth,
                   time.perf_counter() - started_s)
