"""Length of a training and the learning rate along it."""

from __future__ import annotations

import math
import time

from marigold_ros.training.config import ScheduleConfig


def learning_rate(config: ScheduleConfig, iteration: int, progress: float) -> float:
    """
    Say the learning rate of one iteration.

    Parameters
    ----------
    config : ScheduleConfig
        Highest rate, warm-up and decay.
    iteration : int
        Iterations done so far.
    progress : float
        Share of the training that is over, in [0, 1].

    Returns
    -------
    float
        Linear from 0 over the warm-up, times the decay from 1 to `final_ratio`.
    """
    warmup = min(1.0, (iteration + 1) / max(1, config.warmup_iterations))
    if config.decay == 'exponential':
        decay = math.exp(math.log(config.final_ratio) * progress)
    else:
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        decay = config.final_ratio + (1 - config.final_ratio) * cosine
    return config.learning_rate * warmup * decay


class Progress:
    """
    Counts iterations and minutes of a training, over interruptions.

    Parameters
    ----------
    config : ScheduleConfig
        The two limits.
    iteration : int
        Iterations done by earlier runs.
    spent_minutes : float
        Minutes spent by earlier runs.
    """

    def __init__(
        self, config: ScheduleConfig, iteration: int = 0, spent_minutes: float = 0.0,
    ) -> None:
        self._config = config
        self.iteration = iteration
        self._earlier_minutes = spent_minutes
        self._start_s = time.monotonic()

    @property
    def minutes(self) -> float:
        """Minutes of training so far."""
        return self._earlier_minutes + (time.monotonic() - self._start_s) / 60

    @property
    def fraction(self) -> float:
        """Share that is over: the larger of iterations and minutes, at most 1."""
        return min(1.0, max(self.iteration / self._config.max_iterations,
                            self.minutes / self._config.max_minutes))

    @property
    def finished(self) -> bool:
        """True once either limit is reached."""
        return self.fraction >= 1.0
