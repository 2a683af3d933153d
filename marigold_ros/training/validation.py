"""How far a training is: accuracy of pipeline and autoencoder on held-out rendered frames."""

from __future__ import annotations

from diffusers import AutoencoderTiny, MarigoldDepthPipeline
import numpy as np
from numpy.typing import NDArray
import torch

from marigold_ros.evaluation.metrics import depth_metrics
from marigold_ros.training.dataset import FrameShards
from marigold_ros.training.targets import depth_range, normalize_depth, valid_depth

FRAMES = 64
BATCH = 16
MIN_DEPTH_M, MAX_DEPTH_M = 1e-3, 1e3


@torch.no_grad()
def mean_abs_rel(
    pipeline: MarigoldDepthPipeline, shards: FrameShards, num_inference_steps: int,
) -> float:
    """
    Average AbsRel after least squares over the first held-out frames.

    Parameters
    ----------
    pipeline : MarigoldDepthPipeline
        In float32.
    shards : FrameShards
        Frames that training never sees; sky is left out.
    num_inference_steps : int
        Denoising steps.

    Returns
    -------
    float
        Mean over up to 64 frames, at the frames' own resolution.
    """
    rgb, depth_m = _first_frames(shards)
    images = rgb.permute(0, 3, 1, 2).float() / 255
    prediction = pipeline(
        images, num_inference_steps=num_inference_steps, batch_size=BATCH,
        generator=torch.Generator().manual_seed(0)).prediction[..., 0]
    return _mean_abs_rel(prediction, depth_m)


@torch.no_grad()
def round_trip_abs_rel(vae: AutoencoderTiny, shards: FrameShards) -> float:
    """
    Average AbsRel of true depth that was only encoded and decoded: what no U-Net can beat.

    Parameters
    ----------
    vae : AutoencoderTiny
        In float32.
    shards : FrameShards
        Frames that training never sees; sky is left out.

    Returns
    -------
    float
        Mean over up to 64 frames, after least squares.
    """
    _, depth_m = _first_frames(shards)
    normalized = normalize_depth(depth_m, *depth_range(depth_m))
    batches = torch.split(normalized.expand(-1, 3, -1, -1), BATCH)
    decoded = torch.cat([vae.decode(vae.encode(batch).latents).sample for batch in batches])
    return _mean_abs_rel(decoded.mean(dim=1).numpy(), depth_m)


def _first_frames(shards: FrameShards) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the frames that every validation uses."""
    return shards.take(np.arange(min(FRAMES, len(shards))))


def _mean_abs_rel(prediction: NDArray[np.float32], depth_m: torch.Tensor) -> float:
    """Average AbsRel of [N, H, W] predictions over the frames."""
    errors = [
        depth_metrics(frame, truth, mask, alignment='least_square', min_depth_m=MIN_DEPTH_M,
                      max_depth_m=MAX_DEPTH_M)['abs_rel']
        for frame, truth, mask in zip(
            prediction, depth_m.numpy(), valid_depth(depth_m).numpy())]
    return float(np.mean(errors))
