"""Frames from rendered shards, and the random views of them that training sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
import torch
from torch.nn import functional

from marigold_ros.data.scenes.shards import read_shards


class FrameShards:
    """
    Frames of a folder of rendered shards, which may still be growing.

    Parameters
    ----------
    folder : Path
        What `marigold_ros.data.scenes.bulk` writes; sky is +inf.

    Raises
    ------
    MarigoldError
        The folder holds no complete shard.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)
        self.refresh()

    def refresh(self) -> int:
        """Open the shards that are there now and return the number of frames."""
        self._shards = read_shards(self._folder)
        self._ends = np.cumsum([len(shard.rgb) for shard in self._shards])
        return len(self)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def take(self, indices: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Read the frames at `indices`.

        Returns
        -------
        uint8 [N, H, W, 3], float32 [N, H, W]
            RGB and depth along Z in metres.
        """
        numbers = np.searchsorted(self._ends, indices, side='right')
        offsets = indices - np.concatenate([[0], self._ends])[numbers]
        places = [(self._shards[number], offset) for number, offset in zip(numbers, offsets)]
        rgb = np.stack([shard.rgb[offset] for shard, offset in places])
        depth_m = np.stack([shard.depth_m[offset] for shard, offset in places])
        return torch.from_numpy(rgb), torch.from_numpy(depth_m)


@dataclass(frozen=True)
class ViewConfig:
    """
    How a frame varies each time it is seen.

    Attributes
    ----------
    height, width : int
        Size of a view, px.
    min_crop, max_crop : float
        Side of the crop relative to the frame's.
    flip_probability : float
        Share of views that are mirrored left to right.
    jitter : float
        Largest relative change of brightness, contrast, saturation, gamma and white balance.
    noise : float
        Largest standard deviation of added pixel noise, in units of the [0, 1] range.
    """

    height: int
    width: int
    min_crop: float = 1.0
    max_crop: float = 1.0
    flip_probability: float = 0.5
    jitter: float = 0.0
    noise: float = 0.0


def random_views(
    rgb: torch.Tensor, depth_m: torch.Tensor, config: ViewConfig, generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Crop, mirror, resize and recolour a batch of frames.

    Parameters
    ----------
    rgb : uint8 [N, H, W, 3]
        Frames.
    depth_m : float32 [N, H, W]
        Depth along Z, m.
    config : ViewConfig
        Ranges of the changes.
    generator : torch.Generator
        The only source of randomness.

    Returns
    -------
    float32 [N, 3, height, width], float32 [N, height, width]
        Images in [-1, 1] (bilinear) and their depth (nearest), seen through the same crop.
    """
    count = len(rgb)
    theta = _random_crops(count, config, generator)
    image = rgb.permute(0, 3, 1, 2).float() / 255
    # Several samples a pixel, averaged, do what antialiasing does at inference.
    samples = max(1, round(rgb.shape[1] / config.height))
    image = functional.grid_sample(
        image, _grid(theta, config, samples), mode='bilinear', padding_mode='border',
        align_corners=False)
    image = functional.avg_pool2d(image, samples)
    depth = functional.grid_sample(
        depth_m[:, None], _grid(theta, config, 1), mode='nearest', padding_mode='border',
        align_corners=False)
    return _recolour(image, config, generator) * 2 - 1, depth[:, 0]


def _random_crops(
    count: int, config: ViewConfig, generator: torch.Generator,
) -> torch.Tensor:
    """Return the [N, 2, 3] affine maps of random crops, some mirrored."""
    span = config.max_crop - config.min_crop
    side = config.min_crop + span * torch.rand(count, generator=generator)
    centre = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - side)[:, None]
    mirrored = torch.rand(count, generator=generator) < config.flip_probability
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = torch.where(mirrored, -side, side)
    theta[:, 1, 1] = side
    theta[:, :, 2] = centre
    return theta


def _grid(theta: torch.Tensor, config: ViewConfig, samples: int) -> torch.Tensor:
    """Return the sampling positions of views with `samples` squared positions a pixel."""
    size = [len(theta), 1, config.height * samples, config.width * samples]
    return functional.affine_grid(theta, size, align_corners=False)


def _recolour(
    image: torch.Tensor, config: ViewConfig, generator: torch.Generator,
) -> torch.Tensor:
    """Change exposure, contrast, saturation, gamma, white balance and noise of [0, 1] images."""
    if config.jitter == 0.0 and config.noise == 0.0:
        return image
    count = len(image)

    def factor(channels: int = 1) -> torch.Tensor:
        change = 2 * torch.rand(count, channels, 1, 1, generator=generator) - 1
        return torch.exp(config.jitter * change)

    image = image.clamp(1e-3, 1.0) ** factor() * factor() * factor(3) ** 0.3
    grey = image.mean(dim=1, keepdim=True)
    image = grey + (image - grey) * factor()
    middle = image.mean(dim=(1, 2, 3), keepdim=True)
    image = middle + (image - middle) * factor()
    sigma = config.noise * torch.rand(count, 1, 1, 1, generator=generator)
    return (image + sigma * torch.randn(image.shape, generator=generator)).clamp(0.0, 1.0)
