"""Losses on hand-computed numbers."""

from __future__ import annotations

import pytest
import torch
from training_fixtures import generator

from marigold_ros.training import losses
from marigold_ros.training.views import ViewBatch


def test_relative_l1_is_the_mean_relative_error():
    depth_m = torch.cat([torch.full((1, 8, 8), 1.0), torch.full((1, 8, 8), 3.0)], dim=2)
    depth_m[0, 0, 0] = torch.inf  # sky, which does not count
    batch = ViewBatch(torch.zeros(1, 3, 8, 16), depth_m, depth_m > 0)
    # 1 and 3 m become -1 and 1, so that 0 means 2 m: wrong by 1 m of 1 and by 1 m of 3.
    expected = (63 * 1.0 + 64 / 3) / 127
    assert losses.relative_l1(torch.zeros(1, 1, 8, 16), batch).item() == pytest.approx(expected)


def test_masked_mse_counts_masked_elements_and_weights_images():
    prediction = torch.tensor([[1.0, 5.0], [2.0, 2.0]]).reshape(2, 1, 1, 2)
    mask = torch.tensor([[True, False], [True, True]]).reshape(2, 1, 1, 2)
    loss = losses.masked_mse(
        prediction, torch.zeros_like(prediction), mask, torch.tensor([1.0, 0.5]))
    assert loss.item() == pytest.approx((1 + 0.5 * 4 + 0.5 * 4) / 3)


def test_weighted_l1_averages_over_elements_of_positive_weight():
    error = torch.tensor([1.0, -2.0, 5.0]).reshape(1, 1, 1, 3)
    weight = torch.tensor([3.0, 0.5, 0.0]).reshape(1, 1, 1, 3)
    loss = losses.weighted_l1(error, torch.zeros_like(error), weight)
    assert loss.item() == pytest.approx((3 * 1 + 0.5 * 2) / 2)


def test_alignment_removes_scale_and_shift_per_image():
    target = torch.rand(2, 1, 4, 5, generator=generator())
    prediction = torch.stack([target[0] * 30 - 7, target[1] * -40 + 1])
    mask = torch.ones_like(target, dtype=torch.bool)
    aligned = losses.align_least_squares(prediction, target, mask)
    assert torch.allclose(aligned, target, atol=1e-4)


def test_alignment_of_a_constant_is_the_mean_and_finite():
    target = torch.tensor([0.0, 1.0, 5.0]).reshape(1, 1, 1, 3)
    mask = torch.tensor([True, True, False]).reshape(1, 1, 1, 3)
    prediction = torch.ones_like(target).requires_grad_()
    aligned = losses.align_least_squares(prediction, target, mask)
    assert aligned.flatten().tolist() == pytest.approx([0.5, 0.5, 0.5])
    aligned.sum().backward()
    assert torch.isfinite(prediction.grad).all()


def test_gradient_loss_ignores_offsets():
    step = torch.tensor([0.0, 0.0, 1.0, 1.0]).reshape(1, 1, 1, 4)
    mask = torch.ones_like(step, dtype=torch.bool)
    assert losses.gradient_l1(step + 3, step, mask).item() == 0.0
    flat = torch.zeros_like(step)
    assert losses.gradient_l1(flat, step, mask).item() == pytest.approx(1 / 3)
    mask[..., 2] = False
    assert losses.gradient_l1(flat, step, mask).item() == 0.0
