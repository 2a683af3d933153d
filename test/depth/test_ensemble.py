"""Merging ensemble members: cost, gradient and result against the reference's."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace

from diffusers import MarigoldDepthPipeline
from diffusers.pipelines.marigold import pipeline_marigold_depth
import numpy as np
import pytest
from scipy.optimize import approx_fprime
import torch

from marigold_ros.depth.ensemble import (
    _alignment_cost,
    _fit_alignment,
    merge_ensemble,
    REGULARIZER_STRENGTH,
)


def make_members(number, seed=0):
    """Return one depth with other scales, shifts and noise, float64 [E, 1, 12, 16]."""
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(1, 1, 12, 16, generator=generator, dtype=torch.float64)
    scales = torch.linspace(0.4, 0.9, number, dtype=torch.float64).view(-1, 1, 1, 1)
    noise = torch.randn(number, 1, 12, 16, generator=generator, dtype=torch.float64)
    return depth * scales + 0.05 + 0.02 * noise


def moments_of(flat):
    features = torch.cat([flat, torch.ones_like(flat[:1])])
    return (features @ features.T / flat.shape[1]).numpy()


@pytest.fixture
def float64_reference(monkeypatch):
    """
    Return diffusers' merging, computed in float64.

    It differentiates its cost by differences of 1.5e-8, which are below float32's resolution: what
    it returns in float32 depends on rounding.
    """
    in_float64 = SimpleNamespace(**{**vars(torch), 'float32': torch.float64})
    monkeypatch.setattr(pipeline_marigold_depth, 'torch', in_float64)
    return MarigoldDepthPipeline.ensemble_depth


@pytest.mark.parametrize('number', [2, 3, 6])
def test_cost_and_gradient_equal_their_definition(number):
    """The cost by a loop over pairs, the gradient by differences."""
    members = make_members(number)
    flat = members.flatten(1)
    parameters = np.concatenate([np.linspace(0.8, 1.3, number), np.linspace(-0.1, 0.2, number)])

    def cost(parameters):
        scales, shifts = torch.from_numpy(parameters).view(2, -1, 1)
        aligned = flat * scales + shifts
        pairs = sum(((one - other) ** 2).mean().sqrt() for one, other in combinations(aligned, 2))
        median = aligned.median(dim=0).values
        return float(pairs + REGULARIZER_STRENGTH * (median.min().abs()
                                                     + (1.0 - median.max()).abs()))

    found, gradient = _alignment_cost(flat, moments_of(flat), parameters)
    assert found == pytest.approx(cost(parameters), rel=1e-12)
    assert gradient == pytest.approx(approx_fprime(parameters, cost, 1e-7), abs=1e-5)


@pytest.mark.parametrize('number', [2, 5, 10])
def test_merging_equals_the_reference_in_float64(number, float64_reference):
    members = make_members(number)
    expected, spread = float64_reference(members, output_uncertainty=True)
    found, uncertainty = merge_ensemble(members)
    assert (found - expected).abs().max() < 1e-4
    assert (uncertainty - spread).abs().max() < 1e-4


def test_equal_members_are_returned_as_they_are():
    """They agree already: the pairwise term is 0, and its derivative is defined there."""
    member = make_members(1)
    found, uncertainty = merge_ensemble(member.expand(4, -1, -1, -1).to(torch.float32))
    expected = (member - member.min()) / (member.max() - member.min())
    assert (found - expected).abs().max() < 1e-5
    assert uncertainty.max() < 1e-5


def test_the_alignment_reads_back_once_per_evaluation(monkeypatch):
    """The reference reads every pair's cost: 47 times per evaluation for ten members."""
    reads = []
    to_cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, 'cpu', lambda self: (reads.append(1), to_cpu(self))[1])
    _fit_alignment(make_members(10))
    assert len(reads) < 30
