"""Convert decoded latents to depth, confidence and uncertainty at the input's size."""

from __future__ import annotations

import torch

from marigold_ros.depth.confidence import estimate_confidence
from marigold_ros.depth.ensemble import merge_ensemble
from marigold_ros.depth.preprocess import resize_to_input
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
    uncertainty : float32 [H, W] or None
        None for a single member.
    """
    members = (decoded.clip(-1.0, 1.0) + 1.0) / 2.0
    depth, uncertainty = (members, None) if len(members) == 1 else merge_ensemble(members)
    return (_to_image(depth, size), _to_image(estimate_confidence(members), size),
            None if uncertainty is None else _to_image(uncertainty, size))


def _to_image(maps: torch.Tensor, size: tuple[int, int]) -> FloatImage:
    """Resize a [1, 1, PH, PW] tensor to the input's size as a contiguous float32 [H, W]."""
    image: FloatImage = resize_to_input(maps, size)[0, 0].contiguous().cpu().numpy()
    return image
