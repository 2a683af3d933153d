"""The objective, with networks of simple arithmetic."""

from __future__ import annotations

import pytest
import torch
from training_fixtures import Autoencoder, generator

from marigold_ros.training.config import ObjectiveConfig
from marigold_ros.training.diffusion import Diffusion
from marigold_ros.training.objective import Objective
from marigold_ros.training.views import ViewBatch

# abar = .64, .36, 0: sqrt(abar) = .8, .6, 0 and sqrt(1 - abar) = .6, .8, 1.
ABAR = torch.tensor([0.64, 0.36, 0.0])


def checkerboard():
    """One image of 16x16 px: cells of 1 m and 2 m depth, one pixel of the last not valid."""
    depth_m = torch.tensor([[1.0, 2.0], [2.0, 1.0]]).repeat_interleave(8, 0).repeat_interleave(
        8, 1)[None]
    valid = torch.ones_like(depth_m, dtype=torch.bool)
    valid[0, 15, 15] = False
    return ViewBatch(torch.full((1, 3, 16, 16), 0.25), depth_m, valid)


def objective(config, prediction_type='v_prediction', alphas=ABAR):
    return Objective(config, Autoencoder(), Diffusion(alphas, prediction_type),
                     torch.zeros(1, 2, 3))


def test_unet_gets_image_then_depth_and_the_loss_covers_valid_cells():
    seen = []

    def unet(sample, timesteps, text, return_dict):
        seen.append((sample, timesteps, text.shape))
        return (torch.zeros_like(sample[:, :4]),)

    config = ObjectiveConfig(multires_strength=0.0, terminal_fraction=1.0)
    loss = objective(config).losses(unet, checkerboard(), generator())
    (sample, timesteps, text_shape), = seen
    assert timesteps.tolist() == [2] and text_shape == (1, 2, 3)
    assert torch.allclose(sample[:, :4], torch.full((1, 4, 2, 2), 0.125))   # .25 x scaling .5
    # At the end z is noise and v = -x0; cells are -1 and 1, scaled by .5, squared: .25 each.
    assert loss['latent'].item() == pytest.approx(0.25)


def test_masked_cells_do_not_count():
    def right_but_for_the_masked_cell(sample, timesteps, text, return_dict):
        v = -0.5 * torch.tensor([[-1.0, 1.0], [1.0, 77.0]])
        return (v.expand(1, 4, 2, 2),)

    config = ObjectiveConfig(terminal_fraction=1.0)
    loss = objective(config).losses(right_but_for_the_masked_cell, checkerboard(), generator())
    assert loss['latent'].item() == pytest.approx(0.0, abs=1e-9)


def test_end_to_end_starts_from_zeros_and_fits_scale_and_shift():
    def unet(sample, timesteps, text, return_dict):
        assert timesteps.tolist() == [2]
        assert (sample[:, 4:] == 0).all()
        # x0 = -v: right but for scale and shift, which the fit removes.
        return (-torch.tensor([[0.1, 0.2], [0.2, 0.1]]).expand(1, 4, 2, 2),)

    config = ObjectiveConfig(variant='end_to_end')
    loss = objective(config).losses(unet, checkerboard(), generator())
    assert set(loss) == {'pixel'}
    # The floor under the variance leaves .01 / (.01 + .0001) of the amplitude: an error of 1 %.
    assert loss['pixel'].item() == pytest.approx(0.01, abs=1e-3)


def test_end_to_end_error_of_a_flat_map_is_its_deviation():
    def flat(sample, timesteps, text, return_dict):
        return (torch.zeros_like(sample[:, :4]),)

    loss = objective(ObjectiveConfig(variant='end_to_end')).losses(
        flat, checkerboard(), generator())
    # 128 pixels at -1 less one that is masked, 128 at 1: mean 1/255, deviation about 1.
    assert loss['pixel'].item() == pytest.approx(1.0, abs=1e-3)


def test_rolled_out_samples_start_from_a_first_prediction():
    seen = []

    def unet(sample, timesteps, text, return_dict):
        seen.append((sample[:, 4:].clone(), timesteps))
        return (torch.full_like(sample[:, :4], -3.0),)      # at the end: x0 = 3 everywhere

    config = ObjectiveConfig(rollout_fraction=1.0, max_snr_weight=1.0, multires_strength=0.0)
    process = objective(config, alphas=torch.tensor([0.64, 0.64, 0.0]))
    for seed in range(20):
        seen.clear()
        loss = process.losses(unet, checkerboard(), generator(seed))
        if seen[-1][1].item() < 2:
            break
    noise_seen, noisy = seen[0][0], seen[1][0]
    assert torch.allclose(noisy, 0.8 * 3 + 0.6 * noise_seen, atol=1e-5)
    # The prediction means x0 = .8 z + .6 x 3; with the weight 1 its error to the truth counts.
    truth = 0.5 * torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    error = ((0.8 * noisy + 1.8 - truth) ** 2)[0].reshape(4, -1)[:, :3]
    assert loss['latent'].item() == pytest.approx(error.mean().item(), rel=1e-4)


def test_half_of_the_batch_starts_at_the_last_timestep():
    process = objective(ObjectiveConfig(terminal_fraction=0.5))
    timesteps = process._draw_timesteps(200, generator())
    assert (timesteps[:100] == 2).all()
    assert set(timesteps[100:].tolist()) == {0, 1, 2}
