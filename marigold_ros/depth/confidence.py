"""Estimate the confidence of each pixel from its predicted depth."""

from __future__ import annotations

import torch
from torch.nn import functional

# Size of a latent cell: the VAE decodes 8x8 px together, so finer detail of the error is noise.
CELL_PX = 8
# Relative depth 0 is near but not at the camera; metric depth is proportional to relative depth
# + shift/scale.  This is the lower quartile of shift/scale on held-out frames.
OFFSET = 0.1
# Estimated relative error at which the confidence is 1/e.  A tenth of the pixels of held-out
# frames have a larger error.
ERROR_SCALE = 0.03


def estimate_confidence(depth: torch.Tensor) -> torch.Tensor:
    """
    Estimate a confidence that ranks pixels by the expected relative error of their depth.

    The error estimate is the roughness of the depth: its distance from a smooth surface through
    the cell means, which is large at object borders and in clutter.  It is averaged over cells
    and divided by the depth.

    Parameters
    ----------
    depth : float32 tensor [E, 1, PH, PW]
        Ensemble members of one frame, relative depth in [0, 1].

    Returns
    -------
    float32 tensor [1, 1, PH, PW]
        In [0, 1], 1 most reliable; not a probability.

    Notes
    -----
    Much of the ranking comes from the depth itself: near pixels and pixels at depth edges
    have a lower confidence.  `benchmarks.confidence_ranking` compares it with the depth alone.
    The spread of the decoder's three channels is not used: a decoder trained on their mean does
    not constrain it.
    """
    size = depth.shape[2:]
    cell_depth = _cell_means(depth)  # [E,1,ceil(PH/8),ceil(PW/8)]
    roughness = (depth - _upsample(cell_depth, size)).abs()  # [E,1,PH,PW]
    error = _cell_means(roughness) / (cell_depth + OFFSET)
    return torch.exp(-_upsample(error.mean(dim=0, keepdim=True), size) / ERROR_SCALE)


def _cell_means(maps: torch.Tensor) -> torch.Tensor:
    """Average [E, 1, PH, PW] over cells; cells at the right and bottom may be partial."""
    return functional.avg_pool2d(maps, CELL_PX, ceil_mode=True)


def _upsample(cells: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return functional.interpolate(cells, size, mode='bilinear')
