"""Encoded views, held ready so that the autoencoder does not starve the U-Net's training."""

from __future__ import annotations

from dataclasses import dataclass, fields

from diffusers import AutoencoderTiny
import torch

from marigold_ros.training.architecture import VAE_SCALE_FACTOR
from marigold_ros.training.targets import (
    depth_range, known_depth, latent_mask, normalize_depth, relative_weight,
)


@dataclass(frozen=True)
class LatentBatch:
    """
    Views as the U-Net sees them.

    Attributes
    ----------
    view : float32 [N, 3, H, W]
        The image itself, in [-1, 1].
    image, depth : float32 [N, 4, h, w]
        Latents times the autoencoder's scaling factor.
    mask : bool [N, 4, h, w]
        Latent cells whose every pixel is known.
    normalized_depth : float32 [N, 1, H, W]
        In [-1, 1].
    relative_weight : float32 [N, 1, H, W]
        Turns an error in normalised depth into a relative one; 0 where depth is not measured.
    """

    view: torch.Tensor
    image: torch.Tensor
    depth: torch.Tensor
    mask: torch.Tensor
    normalized_depth: torch.Tensor
    relative_weight: torch.Tensor

    def __len__(self) -> int:
        return len(self.image)

    def take(self, indices: torch.Tensor) -> LatentBatch:
        """Return the samples at `indices`."""
        return LatentBatch(**{
            field.name: getattr(self, field.name)[indices] for field in fields(self)})


@torch.no_grad()
def encode_views(
    vae: AutoencoderTiny, image: torch.Tensor, depth_m: torch.Tensor,
) -> LatentBatch:
    """
    Encode views and their normalised depth, repeated to three channels.

    Parameters
    ----------
    vae : AutoencoderTiny
        Frozen.
    image : float32 [N, 3, H, W]
        In [-1, 1].
    depth_m : float32 [N, H, W]
        Depth along Z, m; +inf is sky, NaN and values <= 0 are unknown.
    """
    low_m, spread_m = depth_range(depth_m)
    normalized = normalize_depth(depth_m, low_m, spread_m)
    both = torch.cat([image, normalized.expand(-1, 3, -1, -1)])
    with torch.autocast('cpu', torch.bfloat16):
        latents = vae.encode(both.contiguous(memory_format=torch.channels_last)).latents
    image_latent, depth_latent = (latents.float() * vae.config.scaling_factor).chunk(2)
    mask = latent_mask(known_depth(depth_m), VAE_SCALE_FACTOR, depth_latent.shape[1])
    return LatentBatch(image, image_latent, depth_latent, mask, normalized,
                       relative_weight(depth_m, spread_m))


class LatentPool:
    """
    Encoded views that are drawn several times before fresh ones replace them.

    Parameters
    ----------
    capacity : int
        Views held at most.
    generator : torch.Generator
        Chooses what is drawn and what is replaced.
    """

    def __init__(self, capacity: int, generator: torch.Generator) -> None:
        self._capacity = capacity
        self._generator = generator
        self._stored: LatentBatch | None = None
        self._filled = 0

    def __len__(self) -> int:
        return self._filled

    def add(self, fresh: LatentBatch) -> None:
        """Store views: in free places first, then in place of randomly chosen ones."""
        if self._stored is None:
            self._stored = LatentBatch(**{
                field.name: _empty(getattr(fresh, field.name), self._capacity)
                for field in fields(fresh)})
        free = torch.arange(self._filled, min(self._filled + len(fresh), self._capacity))
        replaced = torch.randperm(self._filled, generator=self._generator)
        places = torch.cat([free, replaced[:len(fresh) - len(free)]])
        for field in fields(fresh):
            getattr(self._stored, field.name)[places] = getattr(fresh, field.name)
        self._filled += len(free)

    def draw(self, count: int) -> LatentBatch:
        """Return `count` randomly chosen views."""
        if self._stored is None:
            raise RuntimeError('draw() needs views; add() some first')
        indices = torch.randint(self._filled, (count,), generator=self._generator)
        return self._stored.take(indices)


def _empty(example: torch.Tensor, capacity: int) -> torch.Tensor:
    """Reserve room for `capacity` samples shaped like the rows of `example`."""
    return torch.empty((capacity, *example.shape[1:]), dtype=example.dtype)
