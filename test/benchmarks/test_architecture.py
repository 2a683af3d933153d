"""Rules of the random checkpoints and of the counted work that times are compared with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.architecture import (
    Architecture,
    ARCHITECTURES,
    counted_flops,
    make_unet,
    make_vae,
    matrix_rate,
    save_random_checkpoint,
)
from marigold_ros.depth.engine import DepthEngine

MINIATURE = Architecture((32, 64), (2, 4), 48, (32, 32, 32, 32), (8, 8, 8, 8), 1, (1, 1, 1, 1),
                         64)


def on_meta(make, *arguments):
    with torch.device('meta'):
        return make(*arguments)


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_sd2_has_the_published_size():
    """865.9 M parameters with 8 input channels; the KL VAE 83.7 M, TAESD 2.4 M."""
    sd2 = ARCHITECTURES['sd2']
    assert parameters(on_meta(make_unet, sd2)) == pytest.approx(865.9e6, rel=1e-4)
    assert parameters(on_meta(make_vae, sd2, 'kl')) == pytest.approx(83.7e6, rel=1e-3)
    assert parameters(on_meta(make_vae, sd2, 'tiny')) == pytest.approx(2.445e6, rel=1e-3)


@pytest.mark.parametrize(('vae', 'encode', 'decode'), [('kl', 1.92, 4.28), ('tiny', 0.21, 0.24)])
def test_sd2_costs_the_known_work_at_768x576(vae, encode, decode):
    """TFLOP of a U-Net step at latent 96x72 and of both VAEs, from an independent count."""
    sd2 = ARCHITECTURES['sd2']
    flops = counted_flops(on_meta(make_unet, sd2), on_meta(make_vae, sd2, vae), (576, 768))
    assert flops['unet_step'] / 1e12 == pytest.approx(1.49, abs=0.005)
    assert flops['encode'] / 1e12 == pytest.approx(encode, abs=0.005)
    assert flops['decode'] / 1e12 == pytest.approx(decode, abs=0.005)


@pytest.mark.parametrize('vae', ['kl', 'tiny'])
def test_random_checkpoint_runs_in_the_engine(tmp_path, vae):
    engine = DepthEngine.load(str(save_random_checkpoint(tmp_path, MINIATURE, vae)))
    assert engine.processing_resolution == 64
    assert engine.checkpoint_info.max_useful_steps == 10
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    depth = engine.infer(image, num_inference_steps=2).affine_invariant_depth
    assert depth.shape == (48, 64)
    assert np.isfinite(depth).all()


def test_matrix_rate_is_a_rate(monkeypatch):
    """Twice the edge cubed over the median time; a processor does 1e8 to 1e14 a second."""
    monkeypatch.setattr('benchmarks.architecture.MATRIX_EDGE', {'cpu': 256})
    assert 1e8 < matrix_rate(torch.device('cpu'), torch.float32, rounds=3) < 1e14
