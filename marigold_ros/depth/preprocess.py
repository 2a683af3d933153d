"""Resize and pad images to network inputs, as Marigold does."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from marigold_ros.depth.device import copy_to_device
from marigold_ros.depth.errors import InputError
from marigold_ros.depth.types import RgbImage


def processing_size(height: int, width: int, processing_resolution: int) -> tuple[int, int]:
    """
    Return the size (PH, PW) with the longest edge = resolution, the other rounded down.

    Parameters
    ----------
    height, width : int
        Input size H, W, px.
    processing_resolution : int
        Longest edge, px; 0 keeps the input's size.

    Raises
    ------
    InputError
        If the short edge would have no pixel.
    """
    if processing_resolution == 0:
        return height, width
    longest = max(height, width)
    size = (height * processing_resolution // longest, width * processing_resolution // longest)
    if min(size) == 0:
        raise InputError(f'an image of {width}x{height} px is too elongated for '
                         f'`processing_resolution` {processing_resolution}')
    return size


def padded_size(size: tuple[int, int], vae_scale_factor: int) -> tuple[int, int]:
    """Return (PPH, PPW): (PH, PW) rounded up to multiples of the VAE's factor."""
    return size[0] + -size[0] % vae_scale_factor, size[1] + -size[1] % vae_scale_factor


def preprocess(rgb: RgbImage, size: tuple[int, int], vae_scale_factor: int,
               device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """
    Convert an image to the VAE's input.

    Resize bilinearly with antialiasing; pad at the right and bottom by replication.

    Parameters
    ----------
    rgb : uint8 [H, W, 3]
    size : (int, int)
        Processing size (PH, PW).
    vae_scale_factor : int
        The VAE's factor.
    device : torch.device
        The image is copied to it as uint8, a quarter of its float32 size.
    dtype : torch.dtype
        Of the networks.  For half precision, which has fewer bits than a pixel, the CPU resizes in
        uint8, which is much faster.

    Returns
    -------
    float32 tensor [1, 3, PPH, PPW]
        In [-1, 1].
    """
    # torch warns about read-only arrays, such as a message's data, so these are copied.
    pixels = torch.from_numpy(np.require(rgb, requirements=['C', 'W']))
    # The channels stay last in memory, for which torch's resizing is fastest.
    image = copy_to_device(pixels, device).permute(2, 0, 1)[None]  # [1,3,H,W]
    if image.shape[2:] != size:
        if device.type != 'cpu' or dtype.itemsize > 2:
            image = image.to(torch.float32)
        image = functional.interpolate(image, size, mode='bilinear', antialias=True)  # [1,3,PH,PW]
    image = image.to(torch.float32) / 127.5 - 1.0
    padded = padded_size(size, vae_scale_factor)
    pad = (0, padded[1] - size[1], 0, padded[0] - size[0])
    return functional.pad(image, pad, mode='replicate')  # [1,3,PPH,PPW]
