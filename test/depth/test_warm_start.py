"""What a warm start remembers of the last frame, and when it must not be used."""

from __future__ import annotations

import pytest
import torch

from marigold_ros.depth.warm_start import LastLatents

LATENT = torch.ones(2, 4, 6, 8)


def remembering():
    """One frame of camera a, received at 10 s, two members, padded to 48x64."""
    latents = LastLatents()
    latents.remember('a', 10.0, (48, 64), LATENT)
    return latents


def test_the_last_latent_of_the_same_camera_is_found():
    assert remembering().find('a', 10.5, (48, 64), 2, max_age_s=1.0) is LATENT


@pytest.mark.parametrize('request_', [
    ('b', 10.5, (48, 64), 2), ('a', 11.5, (48, 64), 2), ('a', 10.5, (64, 48), 2),
    ('a', 10.5, (48, 64), 1)], ids=['another camera', 'too old', 'another size', 'members'])
def test_what_does_not_fit_is_not_found(request_):
    assert remembering().find(*request_, max_age_s=1.0) is None


def test_forgetting_forgets():
    latents = remembering()
    latents.forget()
    assert latents.find('a', 10.5, (48, 64), 2, max_age_s=1.0) is None
