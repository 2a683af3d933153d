"""Convert decoded latents to depth, confidence and uncertainty at the input's size."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch.nn import functional

from marigold_ros.depth.confidence import estimate_confidence
from marigold_ros.depth.device import copy_to_host
from marigold_ros.depth.ensemble import merge_ensemble
from marigold_ros.depth.types import FloatImage


def postprocess(decoded: torch.Tensor, size: tuple[int, int]
                ) -> tuple[FloatImage, FloatImage, FloatImage | None]:
    """
    Merge the members of one frame and resize the result to the input's size.

    Parameters
    ----------
    decoded : float32 tensor [E, 1, PH, PW]
        Approximately in [-1, 1].
    size : (int, int)
        Input size (H, W).

    Returns
    -------
    depth, confidence : float32 [H, W]
        On a GPU valid once it has been waited for, see `copy_to_host`.
    uncertainty : float32 [H, W] or None
        None for a single member.
    """
    members = (decoded.clip(-1.0, 1.0) + 1.0) / 2.0
    depth, uncertainty = (members, None) if len(members) == 1 else merge_ensemble(members)
    return (_to_image(depth, size), _to_image(estimate_confidence(members), size),
            None if uncertainty is None else _to_image(uncertainty, size))


def _to_image(maps: torch.Tensor, size: tuple[int, int]) -> FloatImage:
    """Resize a [1, 1, PH, PW] tensor bilinearly to a contiguous float32 [H, W] of the input."""
    if maps.device.type == 'cpu':  # OpenCV is three times as fast
        small: FloatImage = maps[0, 0].numpy()
        return np.ascontiguousarray(cv2.resize(small, size[::-1]))
    large = functional.interpolate(maps, size, mode='bilinear')
    image: FloatImage = copy_to_host(large[0, 0].contiguous()).numpy()
    return image
