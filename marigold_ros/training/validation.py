"""How far a training is: accuracy of the pipeline on held-out rendered frames."""

from __future__ import annotations

from diffusers import MarigoldDepthPipeline
import numpy as np
import torch

from marigold_ros.evaluation.metrics import depth_metrics
from marigold_ros.training.dataset import FrameShards
from marigold_ros.training.targets import valid_depth

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
    rgb, depth_m = shards.take(np.arange(min(FRAMES, len(shards))))
    images = rgb.permute(0, 3, 1, 2).float() / 255
    prediction = pipeline(
        images, num_inference_steps=num_inference_steps, batch_size=BATCH,
        generator=torch.Generator().manual_seed(0)).prediction[..., 0]
    valid = valid_depth(depth_m).numpy()
    errors = [
        depth_metrics(frame, truth, mask, alignment='least_square', min_depth_m=MIN_DEPTH_M,
                      max_depth_m=MAX_DEPTH_M)['abs_rel']
        for frame, truth, mask in zip(prediction, depth_m.numpy(), valid)]
    return float(np.mean(errors))
