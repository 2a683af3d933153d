"""
Merge ensemble members: align them to each other, compute the median and its deviation.

Method, initial values and stopping criterion are those of Marigold (Ke et al. 2024, sec. 3.3) as
implemented by diffusers' `MarigoldDepthPipeline.ensemble_depth`.
"""

from __future__ import annotations

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
    flat = members.flatten(start_dim=1)  # [E,P]
    # The pairwise term needs only the mean products of the members with each other and with 1.
    features = torch.cat([flat, torch.ones_like(flat[:1])]).to(torch.float64)  # [E+1,P]
    moments = (features @ features.T / flat.shape[1]).cpu().numpy()  # [E+1,E+1]
    near, far = flat.min(dim=1).values, flat.max(dim=1).values
    scales = 1.0 / (far - near).clamp(min=1e-6)
    start = torch.cat([scales, -scales * near]).cpu().numpy().astype(np.float64)
    result = minimize(lambda parameters: _alignment_cost(flat, moments, parameters), start,
                      jac=True, method='BFGS', tol=TOLERANCE, options={'maxiter': MAX_ITERATIONS})
    return np.asarray(result.x, dtype=np.float64)


def _align(members: torch.Tensor, parameters: NDArray[np.float64]) -> torch.Tensor:
    scales, shifts = (torch.from_numpy(part).to(members).view(-1, 1, 1, 1)
                      for part in np.split(parameters, 2))
    return members * scales + shifts


def _alignment_cost(flat: torch.Tensor, moments: NDArray[np.float64],
                    parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """
    Compute the alignment's cost and gradient.

    The cost is the sum of pairwise RMSE, and a regularizer that keeps the median in [0, 1].

    Parameters
    ----------
    flat : float32 tensor [E, P]
        The members' pixels.
    moments : float64 [E+1, E+1]
        Mean products of the members' pixels and of 1.
    parameters : float64 [2 E]
        E scales, E shifts.

    Returns
    -------
    cost : float
    gradient : float64 [2 E]
    """
    pair_cost, pair_gradient = _pairwise_rmse(moments, parameters)
    extremes, gradients = _median_extremes(flat, parameters)  # [2], [2,2E]
    excess = extremes - (0.0, 1.0)
    return (pair_cost + REGULARIZER_STRENGTH * float(np.abs(excess).sum()),
            pair_gradient + REGULARIZER_STRENGTH * np.sign(excess) @ gradients)


def _pairwise_rmse(moments: NDArray[np.float64], parameters: NDArray[np.float64]
                   ) -> tuple[float, NDArray[np.float64]]:
    """Sum the RMSE between aligned members; a pair's is sqrt(v M v) of its coefficients v."""
    scales, shifts = np.split(parameters, 2)
    first, second = np.triu_indices(len(scales), 1)
    members = np.eye(len(scales))
    contrast = members[first] - members[second]  # [pairs,E]
    v = np.column_stack([contrast * scales, contrast @ shifts])  # [pairs,E+1]
    product = v @ moments
    rmse = np.sqrt(np.maximum((v * product).sum(axis=1), 0.0))
    slope = product / np.where(rmse > 0.0, rmse, np.inf)[:, None]
    return float(rmse.sum()), np.concatenate([
        (contrast * slope[:, :-1]).sum(axis=0), contrast.T @ slope[:, -1]])


def _median_extremes(flat: torch.Tensor, parameters: NDArray[np.float64]
                     ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Compute the smallest and the largest value of the median of the aligned members.

    One copy from the device: the optimizer runs on the host, and this is all that it needs from
    the members.

    Returns
    -------
    extremes : float64 [2]
    gradients : float64 [2, 2 E]
        Their derivatives: each is one pixel of one member.
    """
    scales, shifts = (torch.from_numpy(part).to(flat)[:, None]
                      for part in np.split(parameters, 2))
    median, member = torch.median(flat * scales + shifts, dim=0)  # [P] each
    pixels = torch.stack([median.argmin(), median.argmax()])
    found = torch.stack([median[pixels], member[pixels].to(flat),
                         flat[member[pixels], pixels]]).cpu().numpy().astype(np.float64)
    extremes, members, values = found
    gradients = np.zeros((2, 2, len(flat)))  # extreme, scale or shift, member
    rows = np.arange(2)
    gradients[rows, 0, members.astype(int)] = values
    gradients[rows, 1, members.astype(int)] = 1.0
    return extremes, gradients.reshape(2, -1)
