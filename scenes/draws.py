"""Draw one of several things at random."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

Rng = np.random.Generator
T = TypeVar('T')


def pick(rng: Rng, things: Sequence[T]) -> T:
    """
    Draw one of `things`, all with the same probability.

    Returns
    -------
    One of `things`
    """
    return things[int(rng.integers(len(things)))]


def pick_by_share(rng: Rng, shares: Mapping[T, float]) -> T:
    """
    Draw a key of `shares`, whose values are probabilities that add up to 1.

    Returns
    -------
    A key of `shares`
    """
    return list(shares)[int(rng.choice(len(shares), p=list(shares.values())))]
