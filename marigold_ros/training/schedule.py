"""The learning rate along a training."""

from __future__ import annotations

import math

from marigold_ros.training.config import ScheduleConfig


def learning_rate(config: ScheduleConfig, iteration: int) -> float:
    """
    Say the learning rate of one iteration.

    Parameters
    ----------
    config : ScheduleConfig
        Highest rate, warm-up and decay.
    iteration : int
        Iterations done so far.

    Returns
    -------
    float
        Linear from 0 over the warm-up, then from the highest rate down to `final_ratio` of it at
        `decay_iterations`, then constant (prs-eth/Marigold, `IterExponential`).
    """
    if iteration < config.warmup_iterations:
        return config.learning_rate * iteration / config.warmup_iterations
    length = config.decay_iterations - config.warmup_iterations
    progress = min(1.0, (iteration - config.warmup_iterations) / length)
    if config.decay == 'exponential':
        factor = math.exp(math.log(config.final_ratio) * progress)
    else:
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        factor = config.final_ratio + (1 - config.final_ratio) * cosine
    return config.learning_rate * factor
