"""
Turn Stable Diffusion into Marigold, or fit Marigold to a camera.

    python -m marigold_ros.training.finetune --config config/finetune.yaml
    accelerate launch -m marigold_ros.training.finetune --config config/finetune.yaml
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
import torch

from marigold_ros.data.frames import DepthFrame, FrameSet
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.training.checkpoints import (
    empty_text_embedding, initial_pipeline, save_pipeline,
)
from marigold_ros.training.command import run_command
from marigold_ros.training.config import FinetuneConfig
from marigold_ros.training.diffusion import Diffusion
from marigold_ros.training.loop import Trainer
from marigold_ros.training.objective import Objective
from marigold_ros.training.validation import measure, Predict, Validation
from marigold_ros.training.views import ViewBatch


class Finetuning:
    """
    What is particular to the U-Net's training; the autoencoder stays frozen.

    Parameters
    ----------
    config : FinetuneConfig

    Raises
    ------
    MarigoldError
        If the checkpoint to start from cannot be used.
    """

    def __init__(self, config: FinetuneConfig) -> None:
        torch.manual_seed(config.seed)
        self._config = config
        self._pipeline = initial_pipeline(config)
        self._pipeline.vae.requires_grad_(False)
        self.model = self._pipeline.unet.train().to(memory_format=torch.channels_last)
        if config.hardware.gradient_checkpointing:
            self.model.enable_gradient_checkpointing()

    def start(self, device: torch.device, train: list[FrameSet]) -> None:
        """Put autoencoder and empty prompt on the device."""
        scheduler = self._pipeline.scheduler
        self._pipeline.vae.to(device, memory_format=torch.channels_last)
        self._objective = Objective(
            self._config.objective, self._pipeline.vae,
            Diffusion(scheduler.alphas_cumprod.to(device), scheduler.config.prediction_type),
            empty_text_embedding(self._pipeline.tokenizer,
                                 self._pipeline.text_encoder).to(device))

    def losses(self, model: Any, batch: ViewBatch,
               generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Return the objective's losses."""
        return self._objective.losses(model, batch, generator)

    def save(self, folder: Path) -> None:
        """Write the checkpoint."""
        save_pipeline(self._pipeline, folder)

    def validate(self, folder: Path, frame_sets: dict[str, FrameSet],
                 device: torch.device) -> Validation:
        """Run the checkpoint as users will: with the engine, in 1 step and in its default."""
        # accelerate counts processors, which are no devices to anybody else.
        name = 'cpu' if device.type == 'cpu' else str(device)
        engine = DepthEngine.load(str(folder), device=name)
        steps = sorted({1, self._config.default_denoising_steps})
        return measure({str(count): _predictor(engine, count) for count in steps}, frame_sets,
                       self._config.validation_frames)


def _predictor(engine: DepthEngine, num_inference_steps: int) -> Predict:
    def predict(frame: DepthFrame) -> NDArray[np.float32]:
        prediction = engine.infer(frame.rgb, num_inference_steps=num_inference_steps)
        return prediction.affine_invariant_depth

    return predict


def finetune(config: FinetuneConfig) -> Path:
    """
    Train a U-Net, or go on training it.

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
        If recipe, checkpoint or data break a rule, or the loss is no longer finite.
    """
    return Trainer(config, Finetuning(config)).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 or 1."""
    return run_command(FinetuneConfig, finetune, __doc__, arguments)


if __name__ == '__main__':
    raise SystemExit(main())
