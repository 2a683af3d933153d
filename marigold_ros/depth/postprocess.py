"""From decoded latents to depth, confidence and uncertainty at the input's size."""

from __future__ import annotations

import torch

from marigold_ros.depth.ensemble import ensemble
from marigold_ros.depth.preprocess import restore
from marigold_ros.depth.types import FloatImage

# Disagreement of the decoder's channels, as a part of the depth range, at which the confidence
# has fallen to 1/e.
CONFIDENCE_SPREAD = 0.05


def merge_members(decoded: torch.Tensor, size: tuple[int, int]
                  ) -> tuple[FloatImage, FloatImage, FloatImage | None]:
    """
    Merge the members of one frame and go back to the input's size.

    The decoder was trained on depth repeated to three channels: its mean is the depth, and where
    its channels disagree it is unsure.

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
    spread = (decoded.amax(dim=1, keepdim=True) - decoded.amin(dim=1, keepdim=True)) / 2.0
    confidence = torch.exp(-spread.mean(dim=0, keepdim=True) / CONFIDENCE_SPREAD)  # [1,1,PH,PW]
    depth, uncertainty = (members, None) if len(members) == 1 else ensemble(members)
    return (_to_numpy(restore(depth, size)), _to_numpy(restore(confidence, size)),
            None if uncertainty is None else _to_numpy(restore(uncertainty, size)))


def _to_numpy(maps: torch.Tensor) -> FloatImage:
    """[1, 1, H, W] tensor -> contiguous float32 [H, W]."""
    image: FloatImage = maps[0, 0].contiguous().cpu().numpy()
    return image
