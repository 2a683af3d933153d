"""
Train a Marigold checkpoint: from Stable Diffusion, from scratch, or fine-tuned to a camera.

    python -m marigold_ros.training.finetune --config config/finetune.yaml
    accelerate launch -m marigold_ros.training.finetune --config config/finetune.yaml
"""

from __future__ import annotations

from collections.abc import Sequence
import copy
from pathlib import Path
from typing import Any

from diffusers import AutoencoderTiny
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn

from marigold_ros.data.frames import DepthFrame, FrameSet
from marigold_ros.depth.config import EngineConfig, require
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.executors.torch import TorchExecutor
from marigold_ros.depth.stages import vae_memory_format
from marigold_ros.training.checkpoints import (
    empty_text_embedding,
    load_initial_pipeline,
    save_pipeline,
)
from marigold_ros.training.command import run_command
from marigold_ros.training.config import FinetuneConfig
from marigold_ros.training.diffusion import Diffusion
from marigold_ros.training.objective import Objective
from marigold_ros.training.trainer import Trainer
from marigold_ros.training.validation import compare_with_truth, Predictor, ValidationResult
from marigold_ros.training.views import ViewBatch


class UNetAndAutoencoder(nn.Module):
    """U-Net and autoencoder that are trained together; calls go to the U-Net."""

    def __init__(self, unet: nn.Module, vae: nn.Module) -> None:
        super().__init__()
        self.unet, self.vae = unet, vae

    def forward(self, *inputs: Any, **settings: Any) -> Any:
        """Call the U-Net."""
        return self.unet(*inputs, **settings)


class FinetuneTrainer(Trainer[FinetuneConfig]):
    """
    Train the U-Net.

    Parameters
    ----------
    config : FinetuneConfig

    Raises
    ------
    MarigoldError
        If the initial checkpoint is invalid; see also `Trainer`.
    """

    def __init__(self, config: FinetuneConfig) -> None:
        torch.manual_seed(config.seed)
        self._pipeline = load_initial_pipeline(config)
        vae, unet = self._pipeline.vae.requires_grad_(False), self._pipeline.unet.train()
        if config.hardware.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        model: nn.Module = unet.to(memory_format=torch.channels_last)
        self._frozen_vae, self._trainable_vae = vae, None
        if config.objective.latent_drift_weight is not None:
            require(isinstance(vae, AutoencoderTiny), 'vae',
                    'an AutoencoderTiny if `latent_drift_weight` is given', type(vae).__name__)
            self._frozen_vae, self._trainable_vae = copy.deepcopy(vae), vae
            model = UNetAndAutoencoder(unet, vae.requires_grad_())
        super().__init__(config, model)

    def prepare(self, device: torch.device, train: list[FrameSet]) -> None:
        """Move the autoencoder and the embedding of the empty prompt to the device."""
        scheduler = self._pipeline.scheduler
        for vae in (self._pipeline.vae, self._frozen_vae):
            vae.to(device, memory_format=vae_memory_format(
                vae, device, compiled=self.config.hardware.compile))
            if self.config.hardware.compile:
                vae.encoder.compile(dynamic=False)
                vae.decoder.compile(dynamic=False)
        self._objective = Objective(
            self.config.objective, self._frozen_vae,
            Diffusion(scheduler.alphas_cumprod.to(device), scheduler.config.prediction_type),
            empty_text_embedding(self._pipeline.tokenizer,
                                 self._pipeline.text_encoder).to(device), self._trainable_vae)

    def losses(self, model: Any, batch: ViewBatch,
               generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Return the objective's losses."""
        return self._objective.losses(model, batch, generator)

    def save(self, folder: Path) -> None:
        """Write the checkpoint."""
        save_pipeline(self._pipeline, folder)

    def validate(self, folder: Path, frame_sets: dict[str, FrameSet],
                 device: torch.device) -> ValidationResult:
        """Measure the checkpoint in DepthEngine, with 1 and with its default number of steps."""
        # Eagerly and in float32, so that validations of all machines compare.
        engine = DepthEngine(EngineConfig(str(folder)),
                             executor=TorchExecutor(device, torch.float32))
        steps = sorted({1, self.config.denoising_steps})
        predictors = {str(count): _predictor(engine, count) for count in steps}
        return compare_with_truth(predictors, frame_sets, self.config.validation_frames)


def _predictor(engine: DepthEngine, num_inference_steps: int) -> Predictor:
    def predict(frame: DepthFrame) -> NDArray[np.float32]:
        prediction = engine.infer(frame.rgb, num_inference_steps=num_inference_steps)
        return prediction.affine_invariant_depth

    return predict


def finetune(config: FinetuneConfig) -> Path:
    """
    Train a U-Net, or resume its training.

    Parameters
    ----------
    config : FinetuneConfig

    Returns
    -------
    Path
        Folder of the checkpoint, which DepthEngine.load and MarigoldDepthPipeline open.

    Raises
    ------
    MarigoldError
        If configuration, checkpoint or data is invalid, or the loss is no longer finite.
    """
    return FinetuneTrainer(config).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 or 1."""
    return run_command(FinetuneConfig, finetune, __doc__, arguments)


if __name__ == '__main__':
    raise SystemExit(main())
