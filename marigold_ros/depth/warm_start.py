"""What each camera's last frame ended with, for the next one to start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _LastFrame:
    received_s: float
    size: tuple[int, int]
    latent: torch.Tensor


class LastLatents:
    """Remember the latents of each camera's last frame; empty where warm starts are off."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._frames: dict[str, _LastFrame] = {}

    def remember(self, camera: str, received_s: float, size: tuple[int, int],
                 latent: torch.Tensor) -> None:
        """Keep [E, C, h, w] of a frame processed at the padded size (PPH, PPW)."""
        self._frames[camera] = _LastFrame(received_s, size, latent)

    def find(self, camera: str, received_s: float, size: tuple[int, int], ensemble_size: int,
             max_age_s: float) -> torch.Tensor | None:
        """Return what fits a frame; None if it is too old or of another shape."""
        last = self._frames.get(camera)
        if (last is None or received_s - last.received_s > max_age_s or last.size != size
                or len(last.latent) != ensemble_size):
            return None
        return last.latent

    def forget(self) -> None:
        """Let go of all latents."""
        self._frames.clear()
