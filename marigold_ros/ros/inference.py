"""The engine as the node uses it: loaded by settings, with steps chosen and latents remembered."""

from __future__ import annotations

from typing import Mapping, Sequence

from marigold_ros.depth.step_policy import LatencyModel, StepPolicy
from marigold_ros.depth.types import (
    BatchTiming,
    DepthPrediction,
    RgbImage,
    StepDecision,
    StepRequest,
)
from marigold_ros.depth.warm_start import LastLatents
from marigold_ros.ros.diagnostics import Reporter
from marigold_ros.ros.frame_buffer import ReceivedFrame
from marigold_ros.ros.parameters import Settings

WARM_UP_SIZE = (480, 640)


class Inference:
    """
    Choose steps, infer, and learn what it cost; used by one thread only.

    Parameters
    ----------
    settings : Settings
    seeds : mapping
        Camera -> seed of its fixed noise.
    reporter : Reporter
        Is told when the device runs out of memory.

    Raises
    ------
    CheckpointError, ConfigError
        As `DepthEngine.load`.
    """

    def __init__(self, settings: Settings, seeds: Mapping[str, int], reporter: Reporter) -> None:
        """Load the engine and warm it up."""
        # Imported here, for it takes seconds in which the node should be there already.
        from marigold_ros.depth.device import leave_a_core
        from marigold_ros.depth.engine import DepthEngine

        leave_a_core()
        config = settings.engine_config()
        self.engine = DepthEngine.load(
            config.checkpoint, device=config.device, dtype=config.dtype,
            processing_resolution=config.processing_resolution, compile=config.compile)
        self._settings, self._seeds, self._reporter = settings, seeds, reporter
        self._last_latents = LastLatents()
        self._policy = StepPolicy(
            settings.step_policy_config(self.engine.checkpoint_info.max_useful_steps))
        timings = self.engine.warm_up(
            [WARM_UP_SIZE], range(1, len(seeds) + 1), self._policy.config.max_inference_steps,
            ensemble_size=settings.ensemble_size)
        for timing in timings:
            self._policy.observe(timing)

    def apply(self, settings: Settings) -> None:
        """Change what the settings change, and keep what was learned about the rest."""
        before, self._settings = self._settings, settings
        useful = self.engine.checkpoint_info.max_useful_steps
        self._policy.config = settings.step_policy_config(useful)
        if not settings.warm_start:
            self._last_latents.forget()
        if settings.complexity_measure != before.complexity_measure:
            self._policy.reset()
        if settings.ensemble_size != before.ensemble_size:
            self._policy.latency = LatencyModel()

    def reset(self) -> None:
        """Forget what earlier frames taught."""
        self._policy.reset()
        self._last_latents.forget()

    def decide(self, requests: Sequence[StepRequest],
               size: tuple[int, int]) -> list[StepDecision]:
        """Choose the steps of frames of one padded size; 0 where a frame is to be skipped."""
        return self._policy.decide(requests, resolution=size)

    def infer(self, size: tuple[int, int], frames: Sequence[tuple[ReceivedFrame, RgbImage]],
              decisions: Sequence[StepDecision], requests: Sequence[StepRequest]
              ) -> tuple[list[DepthPrediction], list[str]]:
        """
        Infer a batch, each camera from its own noise or, if warm, its last latent.

        Parameters
        ----------
        size : (int, int)
            Padded height and width of all frames.
        frames : sequence of (ReceivedFrame, uint8 [H, W, 3])
        decisions : sequence of StepDecision
            Of these frames, each of at least one step.
        requests : sequence of StepRequest
            From which the batch's deadline follows.

        Returns
        -------
        predictions : list of DepthPrediction
        reasons : list of str
            Why each frame had as many steps as it had.
        """
        settings, policy, decisions = self._settings, self._policy, list(decisions)

        def look(i: int, signal: float) -> int:
            decisions[i] = policy.look(frames[i][0].camera, decisions[i], signal)
            return decisions[i].num_inference_steps

        limits = dict(self.engine.batch_limits)
        predictions = self.engine.infer_batch(
            [rgb for _, rgb in frames],
            [decision.num_inference_steps for decision in decisions],
            seed=[self._seeds[frame.camera] for frame, _ in frames],
            ensemble_size=settings.ensemble_size,
            deadline_s=policy.deadline_s(requests, resolution=size),
            x0_tolerance=settings.x0_tolerance if policy.config.policy == 'convergence' else None,
            first_look=look if policy.config.policy == 'first_look' else None,
            warm_start=[self._last_latents.find(
                frame.camera, frame.received_s, size, settings.ensemble_size,
                settings.max_age_s) for frame, _ in frames])
        if settings.warm_start and self.engine.checkpoint_info.max_useful_steps > 1:
            for (frame, _), prediction in zip(frames, predictions):
                self._last_latents.remember(frame.camera, frame.received_s, size,
                                            prediction.latent)
        if self.engine.batch_limits != limits:
            self._reporter.event(frames[0][0].camera, 'out_of_memory',
                                 'the device ran out of memory; images at once from now on, by '
                                 f'padded size: {self.engine.batch_limits}')
        return predictions, [_step_reason(decision, prediction)
                             for decision, prediction in zip(decisions, predictions)]

    def observe(self, size: tuple[int, int], predictions: Sequence[DepthPrediction],
                elapsed_s: float) -> None:
        """Learn what a batch cost, from the decision to the publication."""
        self._policy.observe(BatchTiming.of(
            size, [prediction.num_inference_steps for prediction in predictions],
            predictions[0].timing, elapsed_s=elapsed_s))


def _step_reason(decision: StepDecision, prediction: DepthPrediction) -> str:
    """Say why a frame had its steps: the decision, and what ended them before."""
    if prediction.stopped_by == 'schedule':
        return decision.reason
    return (f'{decision.reason}; stopped after {prediction.num_inference_steps} by the '
            f'{prediction.stopped_by}')
