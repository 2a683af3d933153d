"""The denoising loop's arithmetic: linear steps, the source text's update, stopping rules."""

from __future__ import annotations

from diffusers import DDIMScheduler
import pytest
import torch

from marigold_ros.depth.denoise import denoise, schedule
from marigold_ros.depth.errors import CheckpointError, InputError


def make_scheduler(**overrides):
    """DDIM as Marigold v1-1 sets it."""
    settings = {'beta_start': 0.00085, 'beta_end': 0.012, 'beta_schedule': 'scaled_linear',
                'clip_sample': False, 'prediction_type': 'v_prediction',
                'timestep_spacing': 'trailing', 'rescale_betas_zero_snr': True}
    return DDIMScheduler(**{**settings, **overrides})


def test_trailing_schedules_start_at_999_and_end_at_x0():
    """The first call is common to all T; the last step gives x0 itself."""
    for steps in (1, 2, 3, 4, 10):
        rows = schedule(make_scheduler(), steps)
        assert len(rows) == steps
        assert rows[0].timestep == 999
        assert (rows[-1].u, rows[-1].w) == pytest.approx((rows[-1].r, rows[-1].q), abs=1e-6)


def test_seven_steps_end_above_x0_as_diffusers_has_it():
    """1000 // 7 = 142 leaves timestep 0 after the last step, whose cumulative alpha is not 1."""
    scheduler = make_scheduler()
    last = schedule(scheduler, 7)[-1]
    z, v = torch.randn(2, 1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(7)
    expected = scheduler.step(v, last.timestep, z).prev_sample
    assert torch.allclose(last.u * z + last.w * v, expected, atol=1e-5)


def test_zero_snr_start_ignores_the_noise():
    """At t = 999 with zero terminal SNR x0 = -v, whatever z is."""
    first = schedule(make_scheduler(), 4)[0]
    assert first.r == pytest.approx(0.0, abs=1e-6)
    assert first.q == pytest.approx(-1.0, abs=1e-6)


def test_update_is_the_source_texts_up_to_rescaling():
    """With zbar = z / sqrt(abar): zbar_s = zbar_t - a_t eps, as the module's docstring derives."""
    scheduler = make_scheduler(prediction_type='epsilon', rescale_betas_zero_snr=False)
    rows = schedule(scheduler, 4)
    z, eps = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    for row, following in zip(rows, rows[1:]):
        abar, abar_s = (scheduler.alphas_cumprod[step.timestep].double()
                        for step in (row, following))
        a_t = (1 / abar - 1).sqrt() - (1 / abar_s - 1).sqrt()
        expected = z / abar.sqrt() - a_t * eps
        assert torch.allclose((row.u * z + row.w * eps) / abar_s.sqrt(), expected, atol=1e-6)


def test_step_undefined_at_zero_snr_is_refused():
    """Epsilon prediction cannot tell x0 from pure noise."""
    with pytest.raises(CheckpointError, match="'epsilon' is not defined at timestep 999"):
        schedule(make_scheduler(prediction_type='epsilon'), 2)


@pytest.mark.parametrize('steps', [0, 1001])
def test_impossible_step_counts_are_refused(steps):
    """Between 1 and the number of training timesteps."""
    with pytest.raises(InputError, match=f'between 1 and 1000 .*got {steps}'):
        schedule(make_scheduler(), steps)


def test_only_the_frame_that_stands_still_stops():
    """A frame whose x0 never changes stops at step 2; the moving one runs all its steps."""
    outputs = iter(torch.arange(1.0, 9.0))

    def network(latents, timesteps):
        x0 = torch.ones(2, 1, 2, 2) if len(latents) == 2 else torch.ones(1, 1, 2, 2)
        x0[-1] = next(outputs)
        return x0

    rows = schedule(make_scheduler(prediction_type='sample'), 4)
    still, moving = denoise(network, torch.zeros(2, 2, 2, 2), torch.zeros(2, 1, 2, 2),
                            [rows, rows], x0_tolerance=0.01)
    assert (still.num_inference_steps, moving.num_inference_steps) == (2, 4)
    assert torch.equal(still.latent, torch.ones(1, 2, 2))
    assert moving.latent.unique().tolist() == pytest.approx([4.0])
