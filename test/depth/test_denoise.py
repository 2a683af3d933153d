"""The denoising loop: linear steps, equivalence with the published update, deadlines."""

from __future__ import annotations

from itertools import pairwise

from diffusers import DDIMScheduler
import pytest
import torch

from marigold_ros.depth.denoise import denoise, make_schedule
from marigold_ros.depth.errors import CheckpointError, InputError


def make_scheduler(**overrides):
    """Return DDIM with the settings of Marigold v1-1."""
    settings = {'beta_start': 0.00085, 'beta_end': 0.012, 'beta_schedule': 'scaled_linear',
                'clip_sample': False, 'prediction_type': 'v_prediction',
                'timestep_spacing': 'trailing', 'rescale_betas_zero_snr': True}
    return DDIMScheduler(**{**settings, **overrides})


def test_trailing_schedules_start_at_999_and_end_at_x0():
    """All T start at the same timestep; the last step yields x0."""
    for steps in (1, 2, 3, 4, 10):
        rows = make_schedule(make_scheduler(), steps)
        assert len(rows) == steps
        assert rows[0].timestep == 999
        assert (rows[-1].u, rows[-1].w) == pytest.approx((rows[-1].r, rows[-1].q), abs=1e-6)


def test_seven_steps_end_above_x0_as_in_diffusers():
    """1000 // 7 = 142 leaves timestep 0 after the last step, whose cumulative alpha is not 1."""
    scheduler = make_scheduler()
    last = make_schedule(scheduler, 7)[-1]
    z, v = torch.randn(2, 1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(7)
    expected = scheduler.step(v, last.timestep, z).prev_sample
    assert torch.allclose(last.u * z + last.w * v, expected, atol=1e-5)


def test_zero_snr_start_ignores_the_noise():
    """At t = 999 with zero terminal SNR x0 = -v, for any z."""
    first = make_schedule(make_scheduler(), 4)[0]
    assert first.r == pytest.approx(0.0, abs=1e-6)
    assert first.q == pytest.approx(-1.0, abs=1e-6)


def test_the_update_equals_the_published_one_up_to_rescaling():
    """zbar_s = zbar_t - a_t eps with zbar = z / sqrt(abar), see the module's docstring."""
    scheduler = make_scheduler(prediction_type='epsilon', rescale_betas_zero_snr=False)
    rows = make_schedule(scheduler, 4)
    z, eps = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    for row, following in pairwise(rows):
        abar, abar_s = (scheduler.alphas_cumprod[step.timestep].double()
                        for step in (row, following))
        a_t = (1 / abar - 1).sqrt() - (1 / abar_s - 1).sqrt()
        expected = z / abar.sqrt() - a_t * eps
        assert torch.allclose((row.u * z + row.w * eps) / abar_s.sqrt(), expected, atol=1e-6)


def test_a_step_undefined_at_zero_snr_is_rejected():
    """Epsilon prediction cannot recover x0 from pure noise."""
    with pytest.raises(CheckpointError, match="'epsilon' is not defined at timestep 999"):
        make_schedule(make_scheduler(prediction_type='epsilon'), 2)


@pytest.mark.parametrize('steps', [0, 1001])
def test_invalid_step_counts_are_rejected(steps):
    with pytest.raises(InputError, match=f'between 1 and 1000 .*got {steps}'):
        make_schedule(make_scheduler(), steps)


def test_each_frame_of_a_ragged_batch_follows_its_own_schedule():
    """x0 is the network's output, so each frame ends with the output of its last step."""
    rows_seen = []

    def network(latents, timesteps):
        rows_seen.append(timesteps.tolist())
        return (len(rows_seen) + 10.0 * torch.arange(len(latents)))[:, None, None, None].expand(
            -1, 1, 2, 2)

    scheduler = make_scheduler(prediction_type='sample')
    schedules = [make_schedule(scheduler, steps) for steps in (1, 3, 2)]
    found = denoise(network, torch.zeros(3, 2, 2, 2), torch.zeros(3, 1, 2, 2), schedules)
    assert [each.num_inference_steps for each in found] == [1, 3, 2]
    assert [each.stopped_by for each in found] == ['schedule'] * 3
    # Longest first: rows 0, 1, 2 are the frames of 3, 2, 1 steps.
    assert [float(each.latent.mean()) for each in found] == pytest.approx([21.0, 3.0, 12.0])
    assert [len(rows) for rows in rows_seen] == [3, 2, 1]


def test_a_past_deadline_ends_all_frames_with_their_first_x0():
    scheduler = make_scheduler(prediction_type='sample')
    schedules = [make_schedule(scheduler, steps) for steps in (4, 1)]
    long, short = denoise(lambda latents, _: torch.ones(len(latents), 1, 2, 2),
                          torch.zeros(2, 2, 2, 2), torch.full((2, 1, 2, 2), 5.0), schedules,
                          deadline=0.0)
    assert (long.num_inference_steps, long.stopped_by) == (1, 'deadline')
    assert (short.num_inference_steps, short.stopped_by) == (1, 'schedule')
    assert torch.equal(long.latent, torch.ones(1, 2, 2))
