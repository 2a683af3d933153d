"""How far each pixel of a prediction can be trusted, from its depth alone."""

from __future__ import annotations

import torch
from torch.nn import functional

# One latent cell: the VAE decides about 8x8 px at once, so that finer detail in an error estimate
# is noise.
CELL_PX = 8
# Affine-invariant depth that is added because 0 is near, not at the camera: the metric depth is
# proportional to depth + shift/scale.  The lower quartile of shift/scale on held-out frames.
OFFSET = 0.1
# Estimated relative error at which the confidence has fallen to 1/e: the worst tenth of the
# pixels of held-out frames lie above it.
ERROR_SCALE = 0.03


def estimate_confidence(depth: torch.Tensor) -> torch.Tensor:
    """
    Rank pixels by their likely relative error, |d - truth| / truth.

    The error is taken as the roughness of the depth, its distance from a smooth surface through
    the means of latent cells, large at object borders and clutter.  Averaged over cells and
    divided by the depth it is a relative error.

    Parameters
    ----------
    depth : float32 tensor [E, 1, PH, PW]
        Members of one frame, affine-invariant depth in [0, 1].

    Returns
    -------
    float32 tensor [1, 1, PH, PW]
        In [0, 1], 1 sure; no probability.

    Notes
    -----
    Much of the ranking is the depth itself: near pixels and those between near and far are less
    sure.  `benchmarks.confidence_ranking` measures it beside the depth alone.  How far the
    decoder's three channels disagree tells nothing where it was trained on their mean alone.
    """
    size = depth.shape[2:]
    cell_depth = _cell_means(depth)  # [E,1,ceil(PH/8),ceil(PW/8)]
    roughness = (depth - _enlarge(cell_depth, size)).abs()  # [E,1,PH,PW]
    error = _cell_means(roughness) / (cell_depth + OFFSET)
    return torch.exp(-_enlarge(error.mean(dim=0, keepdim=True), size) / ERROR_SCALE)


def _cell_means(maps: torch.Tensor) -> torch.Tensor:
    """Average [E, 1, PH, PW] over cells; those at the right and bottom may be cut."""
    return functional.avg_pool2d(maps, CELL_PX, ceil_mode=True)


def _enlarge(cells: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return functional.interpolate(cells, size, mode='bilinear')
