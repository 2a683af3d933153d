"""Image to network input and network output back to the image's size, as Marigold does it."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from marigold_ros.depth.errors import InputError
from marigold_ros.depth.types import RgbImage


def processing_size(height: int, width: int, processing_resolution: int) -> tuple[int, int]:
    """
    Size (PH, PW) at which an image is processed: longest edge = resolution, floored.

    Parameters
    ----------
    height, width : int
        Input size H, W, px.
    processing_resolution : int
        Longest edge, px; 0 keeps the input's size.

    Raises
    ------
    InputError
        If the image is so elongated that its short edge vanishes.
    """
    if processing_resolution == 0:
        return height, width
    longest = max(height, width)
    size = (height * processing_resolution // longest, width * processing_resolution // longest)
    if min(size) == 0:
        raise InputError(f'an image of {width}x{height} px is too elongated for '
                         f'`processing_resolution` {processing_resolution}')
    return size


def padded_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Size (PPH, PPW) after padding (PH, PW) up to multiples of the VAE's factor."""
    return size[0] + -size[0] % multiple, size[1] + -size[1] % multiple


def preprocess(rgb: RgbImage, size: tuple[int, int], multiple: int,
               device: torch.device) -> torch.Tensor:
    """
    Turn an image into the VAE's input.

    Resized bilinearly with antialias, padded at the right and bottom by replication.

    Parameters
    ----------
    rgb : uint8 [H, W, 3]
    size : (int, int)
        Processing size (PH, PW).
    multiple : int
        The VAE's factor.
    device : torch.device
        Where to work; the image is sent there as uint8, a quarter of its float size.

    Returns
    -------
    float32 tensor [1, 3, PPH, PPW]
        In [-1, 1].
    """
    # torch takes no memory that it may not write to, such as a message's own.
    pixels = np.require(rgb, requirements=['C', 'W'])
    image = torch.from_numpy(pixels).to(device)[None]  # [1,H,W,3]
    image = image.permute(0, 3, 1, 2).to(torch.float32) / 255.0 * 2.0 - 1.0  # [1,3,H,W]
    if image.shape[2:] != size:
        image = functional.interpolate(image, size, mode='bilinear', antialias=True)  # [1,3,PH,PW]
    padded = padded_size(size, multiple)
    pad = (0, padded[1] - size[1], 0, padded[0] - size[0])
    return functional.pad(image, pad, mode='replicate')  # [1,3,PPH,PPW]


def resize_to_input(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize [N, 1, PH, PW] maps bilinearly to the input's size (H, W)."""
    if maps.shape[2:] == size:
        return maps
    return functional.interpolate(maps, size, mode='bilinear')
