"""Run stages eagerly with torch: the fallback on every device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from marigold_ros.depth.executors.base import Executor


class TorchExecutor(Executor):
    """Run stages as they are."""

    name = 'torch'

    def _run(self, name: str, *inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        return self._run_eagerly(name, *inputs)
