"""The two recipes: what `finetune` and `train_vae` are told, with every rule checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from marigold_ros.depth.config import require
from marigold_ros.training.data_config import AugmentationConfig, FrameSetConfig, Section

VAE_LEVELS = 4

PredictionType = Literal['v_prediction', 'epsilon', 'sample']


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """
    How long to train, in which batches, and how the learning rate runs.

    The defaults are prs-eth/Marigold's `config/train_marigold_depth.yaml`.

    Attributes
    ----------
    batch_size : int
        Samples per iteration, over all devices.
    device_batch_size : int
        Samples that a device takes at once; gradients are accumulated up to `batch_size`.
    max_iterations : int
        Iterations after which training ends.
    learning_rate : float
        Highest rate, reached after `warmup_iterations`.
    warmup_iterations : int
        Iterations of linear increase from 0.
    decay_iterations : int
        Iterations after which the rate has fallen to `final_ratio` and stays there.
    final_ratio : float
        Rate at the end relative to the highest.
    decay : {'exponential', 'cosine'}
        Shape of the way down.
    weight_decay : float
        Of AdamW; with 0 it is Adam.
    max_gradient_norm : float or None
        Longer gradients are shortened to it.
    ema_decay : float
        Decay of the average of the weights, which is what the checkpoint gets; it starts lower,
        so that the first weights fade fast.  0 saves the last weights.
    checkpoint_every : int
        Iterations from one saved and validated checkpoint to the next.
    """

    batch_size: int = 32
    device_batch_size: int = 2
    max_iterations: int = 30_000
    learning_rate: float = 3e-5
    warmup_iterations: int = 100
    decay_iterations: int = 25_000
    final_ratio: float = 0.01
    decay: Literal['exponential', 'cosine'] = 'exponential'
    weight_decay: float = 0.0
    max_gradient_norm: float | None = None
    ema_decay: float = 0.999
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ('batch_size', 'device_batch_size', 'max_iterations', 'learning_rate',
                     'checkpoint_every'):
            require(getattr(self, name) > 0, name, 'positive', getattr(self, name))
        require(0 <= self.warmup_iterations < self.decay_iterations, 'warmup_iterations',
                f'from 0 to below `decay_iterations` ({self.decay_iterations})',
                self.warmup_iterations)
        require(0 < self.final_ratio <= 1, 'final_ratio', 'in (0, 1]', self.final_ratio)
        require(0 <= self.ema_decay < 1, 'ema_decay', 'in [0, 1)', self.ema_decay)


@dataclass(frozen=True)
class HardwareConfig(Section):
    """
    What the training runs on; several GPUs are used by starting it with `accelerate launch`.

    Attributes
    ----------
    device : {'auto', 'cpu'}
        'auto' is the GPU if there is one.
    precision : {'float32', 'bfloat16', 'float16'}
        Of the arithmetic; weights and optimizer stay float32.
    workers : int
        Processes that read and vary frames; 0 does it between the iterations.
    frames_on_device : bool
        Keep every frame in the device's memory and take the views there, without any worker: what
        a GPU needs that trains a small network, as long as the sets fit, each of frames of one
        size.  The views are others than a worker's: up to 128 at a time share their crops' size.
    compile : bool
        Compile the networks first (minutes).
    gradient_checkpointing : bool
        Compute activations twice instead of keeping them: less memory, more time.
    """

    device: Literal['auto', 'cpu'] = 'auto'
    precision: Literal['float32', 'bfloat16', 'float16'] = 'float32'
    workers: int = 2
    frames_on_device: bool = False
    compile: bool = False
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class ObjectiveConfig(Section):
    """
    What the U-Net learns; the defaults are Marigold's diffusion objective.

    Attributes
    ----------
    variant : {'diffusion', 'end_to_end'}
        'end_to_end' (Garcia et al. 2025) predicts from t = 999 and zero noise, decodes, and
        compares pixels after a least-squares fit of scale and shift; it has no latent loss.
    latent_weight : float
        Weight of the masked error of the prediction.
    multires_strength : float
        Strength of the annealed multi-resolution noise at the last timestep; 0 is Gaussian.
    terminal_fraction : float
        Share of a batch at t = 999, where every inference starts; the rest draws t uniformly.
    rollout_fraction : float
        Share of the others whose noisy latent comes from the model's own first prediction, as
        it does at inference.
    max_snr_weight : float or None
        Limit of the weight 1 + SNR(t) that the v objective gives to an error in x0.
    pixel_samples : int
        Samples of a diffusion batch that are decoded and compared in pixels as well.
    pixel_weight, gradient_weight : float
        Weights of the affine-invariant L1 and of the L1 between differences of neighbours.
    relative_pixels : bool
        Weigh the affine-invariant L1 so that it becomes a relative error in depth.
    autoencoder_anchor : float or None
        None keeps the autoencoder frozen, as Marigold does.  A number lets an AutoencoderTiny
        learn with the U-Net, to say what depth needs to know of an image and to decode what the
        U-Net predicts, and is the weight that holds its latents of depth maps where they were.
        How well it decodes those is added as a relative error with the weight 1.
    """

    variant: Literal['diffusion', 'end_to_end'] = 'diffusion'
    latent_weight: float = 1.0
    multires_strength: float = 0.9
    terminal_fraction: float = 0.0
    rollout_fraction: float = 0.0
    max_snr_weight: float | None = None
    pixel_samples: int = 0
    pixel_weight: float = 1.0
    gradient_weight: float = 0.0
    relative_pixels: bool = False
    autoencoder_anchor: float | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ('multires_strength', 'terminal_fraction', 'rollout_fraction'):
            require(0 <= getattr(self, name) <= 1, name, 'in [0, 1]', getattr(self, name))
        # Made from an imperfect x0, nearly noiseless latents mean noise without bounds.
        require(self.rollout_fraction == 0 or self.max_snr_weight is not None, 'max_snr_weight',
                'given with `rollout_fraction`', self.max_snr_weight)


@dataclass(frozen=True)
class VaeArchitecture(Section):
    """
    Shape of the small autoencoder: one width, blocks from full resolution (encoder) and to it.

    Attributes
    ----------
    channels : int
        Width of every layer.
    encoder_blocks, decoder_blocks : tuple of int
        Residual blocks at each resolution; each resolution halves or doubles the last.
    latent_channels : int
        Numbers that a cell of 8x8 pixels is encoded in.
    """

    channels: int
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    latent_channels: int = 4

    def __post_init__(self) -> None:
        """Check that encoder and decoder have the resolutions of an eightfold reduction."""
        require(self.latent_channels > 0, 'latent_channels', 'positive', self.latent_channels)
        for name in ('encoder_blocks', 'decoder_blocks'):
            require(len(getattr(self, name)) == VAE_LEVELS, name,
                    f'of {VAE_LEVELS} resolutions', getattr(self, name))


@dataclass(frozen=True)
class UNetArchitecture(Section):
    """
    Shape of the denoising U-Net; attention only where the latent is smallest.

    Attributes
    ----------
    channels : tuple of int
        Width of each resolution, finest first.
    layers_per_block : int
        Residual blocks at each resolution.
    text_channels : int
        Width of the (empty) text embedding that the middle block attends to.
    norm_groups : int
        Groups of each group normalisation; divides every width.
    attention_head_channels : int
        Width of an attention head in the middle block.
    """

    channels: tuple[int, ...]
    layers_per_block: int
    text_channels: int
    norm_groups: int
    attention_head_channels: int

    def __post_init__(self) -> None:
        """Check that the groups divide the widths."""
        require(all(width % self.norm_groups == 0 for width in self.channels), 'norm_groups',
                f'a divisor of every width in {self.channels}', self.norm_groups)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Section):
    """
    What both recipes have.

    Attributes
    ----------
    run_folder : str
        Where everything goes; a run found there goes on.
    seed : int
        Of weights, views, timesteps and noise.
    train, validation : tuple of FrameSetConfig
        Sets to learn from, a batch from one of them, and held-out sets to watch.
    validation_frames : int
        Frames of each held-out set that are used, spread over it.
    augmentation, schedule, hardware
        See there.
    """

    run_folder: str
    seed: int
    train: tuple[FrameSetConfig, ...]
    validation: tuple[FrameSetConfig, ...]
    validation_frames: int = 64
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)

    def __post_init__(self) -> None:
        """Check that there is something to learn from and to watch."""
        for name in ('train', 'validation'):
            require(len(getattr(self, name)) > 0, name, 'at least one set', getattr(self, name))
        require(self.validation_frames > 0, 'validation_frames', 'positive',
                self.validation_frames)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainingConfig):
    """
    Recipe of the U-Net; either `initial_checkpoint`, or `architecture` and `vae`, must be given.

    Attributes
    ----------
    initial_checkpoint : str or None
        Embedded name, folder or hub id of a Marigold checkpoint, or of a Stable Diffusion 2
        layout, whose `conv_in` is then doubled.
    architecture : UNetArchitecture or None
        Shape of a new network.
    vae : str or None
        Folder or hub id of an autoencoder that replaces the checkpoint's; frozen, unless
        `objective.autoencoder_anchor` is given.
    prediction_type : {'v_prediction', 'epsilon', 'sample'} or None
        What the U-Net predicts; None keeps the checkpoint's, or takes v.
    objective : ObjectiveConfig
    default_denoising_steps : int or None
        Steps that the checkpoint runs unless told otherwise: 1 for an end-to-end one, more for
        every other, because that is how a reader tells them apart.  None is 1, or 4.
    default_processing_resolution : int
        Longest edge at which the checkpoint runs unless told otherwise, px.
    """

    initial_checkpoint: str | None = None
    architecture: UNetArchitecture | None = None
    vae: str | None = None
    prediction_type: PredictionType | None = None
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    default_denoising_steps: int | None = None
    default_processing_resolution: int = 768

    def __post_init__(self) -> None:
        """Check the way to start, and what the objective needs."""
        super().__post_init__()
        require((self.initial_checkpoint is None) == (self.architecture is not None),
                'initial_checkpoint` and `architecture', 'given one without the other',
                (self.initial_checkpoint, self.architecture))
        if self.architecture is not None:
            require(self.vae is not None, 'vae', 'given where training starts from scratch',
                    self.vae)
        end_to_end = self.objective.variant == 'end_to_end'
        require(self.denoising_steps >= 1 and (self.denoising_steps == 1) == end_to_end,
                'default_denoising_steps',
                '1 for the variant end_to_end, and 2 or more for diffusion', self.denoising_steps)

    @property
    def denoising_steps(self) -> int:
        """Give the steps that the checkpoint runs unless told otherwise."""
        if self.default_denoising_steps is not None:
            return self.default_denoising_steps
        return 1 if self.objective.variant == 'end_to_end' else 4


@dataclass(frozen=True, kw_only=True)
class VaeConfig(TrainingConfig):
    """
    Recipe of the small autoencoder; it sees every view twice, as an image and as a depth map.

    Attributes
    ----------
    architecture : VaeArchitecture
        Shape of the network.
    latent_noise : float
        Standard deviation of noise on the latent while decoding: a smooth latent forgives errors.
    latent_penalty : float
        Weight of the latent's mean square, which keeps it near unit size.
    gradient_weight : float
        Weight of the loss on differences of neighbouring pixels.
    depth_weight : float
        Weight of the relative error in depth that the error in depth maps makes.
    """

    architecture: VaeArchitecture
    latent_noise: float = 0.05
    latent_penalty: float = 1e-3
    gradient_weight: float = 1.0
    depth_weight: float = 0.0
