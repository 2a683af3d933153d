"""Random numbers of an iteration, so that a resumed training needs no state of a generator."""

from __future__ import annotations

import numpy as np
import torch


def generator_for(*numbers: int) -> torch.Generator:
    """
    Make the generator that belongs to some numbers: seed, iteration and batch.

    Parameters
    ----------
    *numbers : int
        Not negative.

    Returns
    -------
    torch.Generator
        On the CPU, so that a seed means the same on every device.
    """
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
