"""The denoising loop: linear steps, equivalence with the published update, deadlines."""

from __future__ import annotations

from itertools import pairwise

from diffusers import DDIMScheduler
import pytest
import torch

from marigold_ros.depth import denoise as denoise_module
from marigold_ros.depth.denoise import denoise, make_schedule, Schedule
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


def make_schedules(*numbers, device='cpu'):
    """Return schedules of `sample` prediction, whose time bias is the number of the step."""
    scheduler = make_scheduler(prediction_type='sample')
    return [Schedule(torch.tensor([[each.r, each.q, each.u, each.w] for each in
                                   make_schedule(scheduler, steps)], device=device),
                     torch.arange(1.0, steps + 1.0, device=device)[:, None])
            for steps in numbers]


def test_each_frame_of_a_ragged_batch_follows_its_own_schedule():
    """x0 is the network's output, so each frame ends with the output of its last step."""
    rows_seen = []

    def step(image_latent, latent, coefficients, time_bias):
        rows_seen.append(len(latent))
        output = time_bias[:, :, None, None] + image_latent
        r, q, u, w = coefficients[:, :, None, None, None].unbind(1)
        return u * latent + w * output, r * latent + q * output

    image_latent = torch.tensor([10.0, 20.0, 30.0])[:, None, None, None].expand(3, 1, 2, 2)
    found = denoise(step, image_latent, torch.zeros(3, 1, 2, 2), make_schedules(1, 3, 2))
    assert [each.num_inference_steps for each in found] == [1, 3, 2]
    assert [each.stopped_by for each in found] == ['schedule'] * 3
    assert [float(each.latent.mean()) for each in found] == pytest.approx([11.0, 23.0, 32.0])
    assert rows_seen == [3, 2, 1]  # longest first


def test_a_past_deadline_ends_all_frames_with_their_first_x0():
    long, short = denoise(lambda image_latent, latent, *_: (latent, torch.ones_like(latent)),
                          torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 5.0),
                          make_schedules(4, 1), deadline=0.0)
    assert (long.num_inference_steps, long.stopped_by) == (1, 'deadline')
    assert (short.num_inference_steps, short.stopped_by) == (1, 'schedule')
    assert torch.equal(long.latent, torch.ones(1, 2, 2))
    assert torch.equal(short.latent, torch.full((1, 2, 2), 5.0))


def test_the_loop_reads_nothing_back_from_the_device():
    """Meta tensors have no values: whatever reads one raises."""
    image_latent, latent = torch.zeros(2, 3, 4, 2, 2, device='meta')
    found = denoise(lambda image_latent, latent, *_: (latent + image_latent, latent),
                    image_latent, latent, make_schedules(1, 3, 2, device='meta'), deadline=1e12)
    assert [each.num_inference_steps for each in found] == [1, 3, 2]
    assert all(each.latent.shape == (4, 2, 2) for each in found)


@pytest.mark.parametrize(('numbers', 'waits'), [((1, 1), 0), ((4, 1), 3)])
def test_a_deadline_costs_one_wait_per_step_that_follows(monkeypatch, numbers, waits):
    made = []
    check = denoise_module._DeadlineCheck.next_step_is_too_late
    monkeypatch.setattr(denoise_module._DeadlineCheck, 'next_step_is_too_late',
                        lambda self: (made.append(1), check(self))[1])
    denoise(lambda image_latent, latent, *_: (latent, latent), torch.zeros(2, 1, 2, 2),
            torch.zeros(2, 1, 2, 2), make_schedules(*numbers), deadline=1e12)
    assert len(made) == waits
