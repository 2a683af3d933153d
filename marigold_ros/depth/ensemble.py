"""
Merge ensemble members: align them to each other, compute the median and its deviation.

Method, initial values and stopping criterion are those of Marigold (Ke et al. 2024, sec. 3.3) as
implemented by diffusers' `MarigoldDepthPipeline.ensemble_depth`.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
import torch
from torch.nn import functional

REGULARIZER_STRENGTH = 0.02
MAX_ITERATIONS = 2
TOLERANCE = 1e-3
ALIGNMENT_EDGE_PX = 1024


def merge_ensemble(members: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Merge the members of one frame.

    Parameters
    ----------
    members : float32 tensor [E, 1, PH, PW]
        Relative depths in [0, 1], each up to its own scale and shift.

    Returns
    -------
    depth : tensor [1, 1, PH, PW]
        Median of the aligned members, normalized to [0, 1].
    uncertainty : tensor [1, 1, PH, PW]
        Median absolute deviation of the aligned members, in the unit of `depth`.
    """
    aligned = _align(members, _fit_alignment(members))
    depth = torch.median(aligned, dim=0, keepdim=True).values
    uncertainty = torch.median(torch.abs(aligned - depth), dim=0, keepdim=True).values
    nearest, extent = depth.min(), (depth.max() - depth.min()).clamp(min=1e-6)
    return (depth - nearest) / extent, uncertainty / extent


def _fit_alignment(members: torch.Tensor) -> NDArray[np.float64]:
    """Fit E scales and E shifts that align the members with each other, [2 E]."""
    longest = max(members.shape[2:])
    if longest > ALIGNMENT_EDGE_PX:
        size = [edge * ALIGNMENT_EDGE_PX // longest for edge in members.shape[2:]]
        members = functional.interpolate(members, size, mode='nearest-exact')
    flat = members.flatten(start_dim=1)
    near, far = flat.min(dim=1).values, flat.max(dim=1).values
    scales = 1.0 / (far - near).clamp(min=1e-6)
    start = torch.cat([scales, -scales * near]).cpu().numpy().astype(np.float64)
    result = minimize(lambda parameters: _alignment_cost(members, parameters), start,
                      method='BFGS', tol=TOLERANCE, options={'maxiter': MAX_ITERATIONS})
    return np.asarray(result.x, dtype=np.float64)


def _align(members: torch.Tensor, parameters: NDArray[np.float64]) -> torch.Tensor:
    scales, shifts = (torch.from_numpy(part).to(members).view(-1, 1, 1, 1)
                      for part in np.split(parameters, 2))
    return members * scales + shifts


def _alignment_cost(members: torch.Tensor, parameters: NDArray[np.float64]) -> float:
    """Compute the sum of pairwise RMSE, and a regularizer that keeps the median in [0, 1]."""
    aligned = _align(members, parameters)
    cost = sum(((aligned[i] - aligned[j]) ** 2).mean().sqrt().item()
               for i, j in combinations(range(len(aligned)), 2))
    merged = torch.median(aligned, dim=0, keepdim=True).values
    regularizer = merged.min().abs().item() + (1.0 - merged.max()).abs().item()
    return float(cost + REGULARIZER_STRENGTH * regularizer)
