"""Names of what is compiled, for the cache."""

from __future__ import annotations

import hashlib
from weakref import WeakKeyDictionary

import diffusers
import torch

_hashes: WeakKeyDictionary[torch.nn.Module, str] = WeakKeyDictionary()


def hash_stage(stage: torch.nn.Module) -> str:
    """Hash a stage, its weights and the versions of its packages; weights are read once."""
    if stage not in _hashes:
        weights = hashlib.blake2b()
        for tensor in stage.state_dict().values():
            weights.update(tensor.contiguous(memory_format=torch.contiguous_format)
                           .flatten().view(torch.uint8).numpy())
        _hashes[stage] = hash_facts(weights.hexdigest(), repr(stage), torch.__version__,
                                    diffusers.__version__)
    return _hashes[stage]


def hash_facts(*facts: object) -> str:
    """Hash the representations of objects."""
    return hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()
