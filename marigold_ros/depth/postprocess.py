"""Convert decoded latents to depth, confidence and uncertainty at the processing size."""

from __future__ import annotations

import torch

from marigold_ros.depth.confidence import estimate_confidence
from marigold_ros.depth.device import copy_to_host
from marigold_ros.depth.ensemble import merge_ensemble
from marigold_ros.depth.types import FloatImage


def postprocess(decoded: torch.Tensor) -> tuple[FloatImage, FloatImage, FloatImage | None]:
    """
    Merge the members of one frame.

    Parameters
    ----------
    decoded : float32 tensor [E, 1, PH, PW]
        Approximately in [-1, 1].

    Returns
    -------
    depth, confidence : float32 [PH, PW]
        On a GPU valid once it has been waited for, see `copy_to_host`.
    uncertainty : float32 [PH, PW] or None
        None for a single member.
    """
    members = (decoded.clip(-1.0, 1.0) + 1.0) / 2.0
    depth, uncertainty = (members, None) if len(members) == 1 else merge_ensemble(members)
    return (_to_host(depth), _to_host(estimate_confidence(members)),
            None if uncertainty is None else _to_host(uncertainty))


def _to_host(maps: torch.Tensor) -> FloatImage:
    """Copy a [1, 1, PH, PW] tensor to a contiguous float32 [PH, PW]."""
    image: FloatImage = copy_to_host(maps[0, 0].contiguous()).numpy()
    return image
