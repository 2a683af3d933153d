"""From decoded latents to depth, confidence and uncertainty at the input's size."""

from __future__ import annotations

import torch

from marigold_ros.depth.confidence import confidence
from marigold_ros.depth.ensemble import ensemble
from marigold_ros.depth.preprocess import restore
from marigold_ros.depth.types import FloatImage


def merge_members(decoded: torch.Tensor, size: tuple[int, int]
                  ) -> tuple[FloatImage, FloatImage, FloatImage | None]:
    """
    Merge the members of one frame and go back to the input's size.

    The decoder was trained on depth repeated to three channels: its mean is the depth.

    Parameters
    ----------
    decoded : float32 tensor [E, 3, PH, PW]
        About in [-1, 1].
    size : (int, int)
        Input size (H, W).

    Returns
    -------
    depth, confidence : float32 [H, W]
    uncertainty : float32 [H, W] or None
        None for a single member.
    """
    members = (decoded.mean(dim=1, keepdim=True).clip(-1.0, 1.0) + 1.0) / 2.0  # [E,1,PH,PW]
    depth, uncertainty = (members, None) if len(members) == 1 else ensemble(members)
    return (_to_numpy(restore(depth, size)), _to_numpy(restore(confidence(members), size)),
            None if uncertainty is None else _to_numpy(restore(uncertainty, size)))


def _to_numpy(maps: torch.Tensor) -> FloatImage:
    """[1, 1, H, W] tensor -> contiguous float32 [H, W]."""
    image: FloatImage = maps[0, 0].contiguous().cpu().numpy()
    return image
