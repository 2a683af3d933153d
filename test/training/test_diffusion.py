"""Noise, noisy latents and their targets, on hand-computed numbers."""

from __future__ import annotations

import pytest
import torch
from training_fixtures import generator

from marigold_ros.training import diffusion
from marigold_ros.training.diffusion import Diffusion

# abar = .64, .36, 0: sqrt(abar) = .8, .6, 0 and sqrt(1 - abar) = .6, .8, 1.
ABAR = torch.tensor([0.64, 0.36, 0.0])
ALL_STEPS = torch.tensor([0, 1, 2])


def test_noise_has_unit_deviation_over_the_batch():
    drawn = diffusion.multi_resolution_noise(
        torch.Size((8, 4, 24, 32)), torch.full((8,), 0.9), generator())
    assert drawn.std().item() == pytest.approx(1.0, abs=1e-5)


def test_noise_correlates_neighbours_until_it_is_annealed():
    timesteps = torch.tensor([999, 0])
    drawn = diffusion.annealed_noise(
        torch.Size((2, 64, 32, 32)), timesteps, 0.9, 1000, generator())
    left, right = drawn[..., :-1], drawn[..., 1:]
    correlation = (left * right).mean(dim=(1, 2, 3)) / (drawn ** 2).mean(dim=(1, 2, 3))
    assert correlation[0] > 0.2
    assert abs(correlation[1]) < 0.03


def test_noise_without_strength_is_gaussian():
    timesteps = torch.tensor([999])
    drawn = diffusion.annealed_noise(torch.Size((1, 4, 6, 8)), timesteps, 0.0, 1000, generator(3))
    assert torch.equal(drawn, torch.randn((1, 4, 6, 8), generator=generator(3)))


def test_noise_levels_shrink_compounding_and_stop_at_one(monkeypatch):
    sizes = []
    randn = torch.randn

    def recorded(*shape, generator):
        sizes.append(tuple(shape[0][-2:] if isinstance(shape[0], torch.Size) else shape[-2:]))
        return randn(*shape, generator=generator)

    monkeypatch.setattr(torch, 'randn', recorded)
    monkeypatch.setattr(torch, 'rand', lambda *shape, generator: torch.full(shape, 0.5))  # r = 3
    diffusion.multi_resolution_noise(torch.Size((1, 1, 54, 81)), torch.ones(1), generator())
    # 54x81, then over 3^0, 3^1, 3^2, 3^3 of what the last level left, floored: 0.07 becomes 1.
    assert sizes == [(54, 81), (54, 81), (18, 27), (2, 3), (1, 1)]


def column(*values):
    return torch.tensor(values).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(('prediction_type', 'target'), [
    ('v_prediction', [-0.4, -1.0, -2.0]),      # .8 - 1.2, .6 - 1.6, 0 - 2
    ('epsilon', [1.0, 1.0, 1.0]),
    ('sample', [2.0, 2.0, 2.0])])
def test_noisy_latent_target_and_x0_of_hand_computed_numbers(prediction_type, target):
    process = Diffusion(ABAR, prediction_type)
    x0, eps = torch.full((3, 1, 1, 1), 2.0), torch.full((3, 1, 1, 1), 1.0)
    noisy = process.add_noise(x0, eps, ALL_STEPS)
    assert noisy.flatten().tolist() == pytest.approx([2.2, 2.0, 1.0])
    assert process.target(x0, eps, ALL_STEPS).flatten().tolist() == pytest.approx(target)
    steps = ALL_STEPS[:2] if prediction_type == 'epsilon' else ALL_STEPS
    found = process.predicted_x0(noisy[:len(steps)], column(*target)[:len(steps)], steps)
    assert found.flatten().tolist() == pytest.approx([2.0] * len(steps))
    assert process.implied_noise(noisy, x0, ALL_STEPS).flatten().tolist() == pytest.approx([1] * 3)


def test_snr_weight_limits_what_an_error_in_x0_counts():
    weight = Diffusion(ABAR, 'v_prediction').snr_weight(ALL_STEPS, 2.0)
    # 1 + SNR = 1 / .36, 1 / .64, 1; only the first is above 2.
    assert weight.tolist() == pytest.approx([2 * 0.36, 1.0, 1.0])
    assert Diffusion(ABAR, 'v_prediction').snr_weight(ALL_STEPS, None).tolist() == [1, 1, 1]
    assert Diffusion(ABAR, 'sample').snr_weight(ALL_STEPS, 0.1).tolist() == [1, 1, 1]
