"""The fine-tuning protocol's rules, each on numbers made by hand."""

from __future__ import annotations

import pytest
import torch

from marigold_ros.training import diffusion, losses, targets
from marigold_ros.training.config import ObjectiveConfig, ScheduleConfig
from marigold_ros.training.diffusion import Diffusion
from marigold_ros.training.networks import decode_depth, double_conv_in
from marigold_ros.training.objective import Objective
from marigold_ros.training.trainer import generator_for
from marigold_ros.training.views import ViewBatch


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- targets -------------------------------------------------------------------------------

def normalized_depth(depth, valid=None):
    valid = torch.isfinite(depth) if valid is None else valid
    return targets.normalize_depth(depth, *targets.depth_range(depth, valid))


def test_two_percent_quantiles_become_minus_one_and_one():
    depth = torch.arange(101.0)[None, None] + 1          # quantiles 2 %: 3 m, 98 %: 99 m
    normalized = normalized_depth(depth)[0, 0, 0]
    assert normalized[[0, 2, 50, 98, 100]].tolist() == pytest.approx([-1, -1, 0, 1, 1])


def test_quantiles_are_each_images_own_and_of_valid_depth_alone():
    near = torch.cat([torch.arange(101.0) + 1, torch.full((40,), 500.0)])
    depth = torch.stack([near, 10 * near])[:, None]
    low, spread = targets.depth_range(depth, depth < 5000 * 0.9 * torch.tensor([[[0.1]], [[1]]]))
    assert low.flatten().tolist() == pytest.approx([3, 30])
    assert spread.flatten().tolist() == pytest.approx([96, 960])


def test_sky_is_far_and_leaves_the_quantiles_alone():
    depth = torch.cat([torch.arange(101.0) + 1, torch.full((50,), torch.inf)])[None, None]
    normalized = normalized_depth(depth, torch.ones_like(depth, dtype=torch.bool))[0, 0, 0]
    assert normalized[50].item() == pytest.approx(0.0)
    assert (normalized[101:] == 1).all()


def test_an_image_without_valid_depth_gives_finite_numbers():
    assert torch.isfinite(normalized_depth(torch.full((1, 2, 2), torch.nan))).all()


def test_relative_weight_makes_normalised_error_relative():
    depth = torch.tensor([[[1.0, 2.0, 10.0, torch.inf, 1.0]]])
    valid = torch.tensor([[[True, True, True, True, False]]])
    weight = targets.relative_weight(depth, valid, torch.tensor([[[4.0]]]))
    # One normalised unit is 2 m: 200 % at 1 m, 100 % at 2 m, 20 % at 10 m.
    assert weight[0, 0, 0].tolist() == pytest.approx([2.0, 1.0, 0.2, 0.0, 0.0])
    assert targets.relative_weight(depth, valid, torch.tensor([[[40.0]]])).max() == 16.0


def test_relative_l1_is_the_mean_relative_error():
    depth_m = torch.cat([torch.full((1, 8, 8), 1.0), torch.full((1, 8, 8), 3.0)], dim=2)
    depth_m[0, 0, 0] = torch.inf  # sky, which does not count
    batch = ViewBatch(torch.zeros(1, 3, 8, 16), depth_m, depth_m > 0)
    # 1 and 3 m become -1 and 1, so that 0 means 2 m: wrong by 1 m of 1 and by 1 m of 3.
    expected = (63 * 1.0 + 64 / 3) / 127
    assert losses.relative_l1(torch.zeros(1, 1, 8, 16), batch).item() == pytest.approx(expected)


def test_one_invalid_pixel_masks_its_latent_cell_in_all_channels():
    valid = torch.ones(1, 16, 24, dtype=torch.bool)
    valid[0, 9, 17] = False
    mask = targets.latent_mask(valid, 8, 4)
    assert mask.shape == (1, 4, 2, 3)
    assert mask[0, :, 1, 2].tolist() == [False] * 4
    assert mask.sum() == 4 * (2 * 3 - 1)


# --- conv_in -------------------------------------------------------------------------------

class OneLayer(torch.nn.Module):
    """As much of a U-Net as the surgery touches."""

    def __init__(self):
        super().__init__()
        self.conv_in = torch.nn.Conv2d(4, 6, 3, padding=1)
        self.settings = {}

    def register_to_config(self, **settings):
        self.settings |= settings


def test_doubled_conv_in_answers_a_doubled_latent_as_before():
    torch.manual_seed(0)
    unet = OneLayer()
    latent = torch.randn(2, 4, 5, 7, generator=generator())
    weight, bias, before = (unet.conv_in.weight.clone(), unet.conv_in.bias.clone(),
                            unet.conv_in(latent))
    double_conv_in(unet)
    assert torch.allclose(unet.conv_in(latent.repeat(1, 2, 1, 1)), before, atol=1e-6)
    assert torch.equal(unet.conv_in.weight[:, :4], weight / 2)
    assert torch.equal(unet.conv_in.weight[:, 4:], weight / 2)
    assert torch.equal(unet.conv_in.bias, bias)
    assert unet.settings == {'in_channels': 8}


# --- noise ---------------------------------------------------------------------------------

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


# --- diffusion -----------------------------------------------------------------------------

# abar = .64, .36, 0: sqrt(abar) = .8, .6, 0 and sqrt(1 - abar) = .6, .8, 1.
ABAR = torch.tensor([0.64, 0.36, 0.0])
ALL_STEPS = torch.tensor([0, 1, 2])


def column(*values):
    return torch.tensor(values).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(('prediction_type', 'target'), [
    ('v_prediction', [-0.4, -1.0, -2.0]),      # .8 - 1.2, .6 - 1.6, 0 - 2
    ('epsilon', [1.0, 1.0, 1.0]),
    ('sample', [2.0, 2.0, 2.0])])
def test_noisy_latent_target_and_x0_of_hand_made_numbers(prediction_type, target):
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


# --- the objective, with networks made of arithmetic ---------------------------------------

class Autoencoder:
    """Encodes 8x8 pixels as their mean in 4 channels, and decodes by repetition."""

    class config:
        scaling_factor = 0.5

    def encode(self, images):
        means = torch.nn.functional.avg_pool2d(images, 8).mean(dim=1, keepdim=True)
        return type('Encoded', (), {'latents': means.expand(-1, 4, -1, -1)})

    def decode(self, latents, return_dict):
        grown = torch.nn.functional.interpolate(latents[:, :1], scale_factor=8.0, mode='nearest')
        return (grown.expand(-1, 3, -1, -1),)


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


def test_unet_sees_image_then_depth_and_pays_for_valid_cells():
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


def test_rolled_out_samples_start_from_the_models_own_prediction():
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


def test_decoded_depth_is_unscaled_clipped_and_of_one_channel():
    decoded = decode_depth(Autoencoder(), torch.tensor([0.2, 3.0]).reshape(1, 1, 1, 2))
    assert decoded.shape == (1, 1, 8, 16)
    assert decoded[0, 0, 0, [0, 15]].tolist() == pytest.approx([0.4, 1.0])


# --- losses --------------------------------------------------------------------------------

def test_masked_mse_counts_masked_elements_and_weights_images():
    prediction = torch.tensor([[1.0, 5.0], [2.0, 2.0]]).reshape(2, 1, 1, 2)
    mask = torch.tensor([[True, False], [True, True]]).reshape(2, 1, 1, 2)
    loss = losses.masked_mse(
        prediction, torch.zeros_like(prediction), mask, torch.tensor([1.0, 0.5]))
    assert loss.item() == pytest.approx((1 + 0.5 * 4 + 0.5 * 4) / 3)


def test_weighted_l1_averages_over_the_elements_that_count():
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


def test_gradient_loss_sees_edges_not_offsets():
    step = torch.tensor([0.0, 0.0, 1.0, 1.0]).reshape(1, 1, 1, 4)
    mask = torch.ones_like(step, dtype=torch.bool)
    assert losses.gradient_l1(step + 3, step, mask).item() == 0.0
    flat = torch.zeros_like(step)
    assert losses.gradient_l1(flat, step, mask).item() == pytest.approx(1 / 3)
    mask[..., 2] = False
    assert losses.gradient_l1(flat, step, mask).item() == 0.0


# --- schedule and seeds --------------------------------------------------------------------

@pytest.mark.parametrize(('iteration', 'rate'), [
    (0, 0.0), (50, 1.5e-5), (100, 3e-5), (12_550, 3e-6), (25_000, 3e-7), (29_999, 3e-7)])
def test_marigolds_rate_warms_up_and_decays_to_one_percent(iteration, rate):
    # Half of the 24 900 iterations of decay are a factor of 10.
    assert ScheduleConfig().rate_at(iteration) == pytest.approx(rate)


def test_cosine_is_half_way_down_in_the_middle():
    schedule = ScheduleConfig(learning_rate=1.0, warmup_iterations=0, decay_iterations=100,
                              final_ratio=0.01, decay='cosine')
    assert schedule.rate_at(50) == pytest.approx(0.505)


def test_seeds_give_streams_of_their_own():
    draws = {tuple(torch.rand(3, generator=generator_for(*numbers)).tolist())
             for numbers in [(1, 0, 0), (1, 1, 0), (1, 0, 1), (2, 0, 0)]}
    assert len(draws) == 4
    again = torch.rand(3, generator=generator_for(1, 1, 0))
    assert tuple(again.tolist()) in draws
