"""The two recipes: what `finetune` and `train_vae` are told, with every rule of it."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from marigold_ros.depth.config import require

# Pixels per latent cell along one axis, by halving the resolution three times.
VAE_SCALE_FACTOR = 8
VAE_LEVELS = 4

PredictionType = Literal['v_prediction', 'epsilon', 'sample']
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
ViewEdge = Annotated[int, Field(gt=0, multiple_of=VAE_SCALE_FACTOR)]
BlocksPerLevel = Annotated[tuple[NonNegativeInt, ...],
                           Field(min_length=VAE_LEVELS, max_length=VAE_LEVELS)]


class RecipePart(BaseModel):
    """Base of every part of a recipe: it does not change, and a misspelt key is an error."""

    model_config = ConfigDict(extra='forbid', frozen=True)


class FrameSetConfig(RecipePart):
    """
    One data set.

    Attributes
    ----------
    reader : {'hypersim', 'virtual_kitti', 'rgbd_folder', 'bag', 'shards'}
        What it is.
    path : str
        Its folder; the bag, for a bag.
    size : (int, int)
        Height and width of the views that training takes of it, px.
    weight : float
        Share of the batches relative to the other sets'.
    file_list : str or None
        For 'hypersim' and 'virtual_kitti': one of Marigold's `data_split` lists.
    image_topic, depth_topic, camera_info_topic : str or None
        For 'bag'; camera_info may be left out if it is the image's sibling.
    """

    reader: Literal['hypersim', 'virtual_kitti', 'rgbd_folder', 'bag', 'shards']
    path: str
    size: tuple[ViewEdge, ViewEdge]
    weight: PositiveFloat = 1.0
    file_list: str | None = None
    image_topic: str | None = None
    depth_topic: str | None = None
    camera_info_topic: str | None = None

    @model_validator(mode='after')
    def check_reader(self) -> FrameSetConfig:
        """Check that the reader has what it needs."""
        needed = {'hypersim': ['file_list'], 'virtual_kitti': ['file_list'],
                  'bag': ['image_topic', 'depth_topic']}.get(self.reader, [])
        for key in needed:
            require(getattr(self, key) is not None, key, f'given for the reader {self.reader}',
                    None)
        return self


class AugmentationConfig(RecipePart):
    """
    How a frame varies each time it is seen.

    Attributes
    ----------
    flip_probability : float
        Share of views that are mirrored left to right.
    min_crop, max_crop : float
        Side of the crop relative to the largest that has the view's aspect ratio.
    jitter_probability : float
        Share of views whose exposure, contrast, saturation, gamma and white balance change.
    jitter : float
        Largest relative change of each.
    blur_probability, motion_blur_probability : float
        Shares of views that are blurred alike in all directions, and along one.
    max_blur_px, max_motion_px : float
        Largest standard deviation and length of these, in pixels of the view.
    noise : float
        Largest standard deviation of added pixel noise, in units of the [0, 1] range.
    """

    flip_probability: Share = 0.5
    min_crop: PositiveShare = 1.0
    max_crop: PositiveShare = 1.0
    jitter_probability: Share = 0.0
    jitter: float = 0.3
    blur_probability: Share = 0.0
    max_blur_px: float = 2.0
    motion_blur_probability: Share = 0.0
    max_motion_px: float = 7.0
    noise: float = 0.0

    @model_validator(mode='after')
    def check_crops(self) -> AugmentationConfig:
        """Check that the crops' ends are in order."""
        require(self.min_crop <= self.max_crop, 'min_crop',
                f'at most `max_crop` ({self.max_crop})', self.min_crop)
        return self


class ScheduleConfig(RecipePart):
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

    batch_size: PositiveInt = 32
    device_batch_size: PositiveInt = 2
    max_iterations: PositiveInt = 30_000
    learning_rate: PositiveFloat = 3e-5
    warmup_iterations: NonNegativeInt = 100
    decay_iterations: PositiveInt = 25_000
    final_ratio: PositiveShare = 0.01
    decay: Literal['exponential', 'cosine'] = 'exponential'
    weight_decay: float = 0.0
    max_gradient_norm: float | None = None
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    checkpoint_every: PositiveInt = 500

    @model_validator(mode='after')
    def check_warmup(self) -> ScheduleConfig:
        """Check that something is left to decay after the warm-up."""
        require(self.warmup_iterations < self.decay_iterations, 'warmup_iterations',
                f'below `decay_iterations` ({self.decay_iterations})', self.warmup_iterations)
        return self

    def rate_at(self, iteration: int) -> float:
        """
        Say the learning rate after so many iterations.

        Returns
        -------
        float
            Linear from 0 over the warm-up, then from the highest rate down to `final_ratio` of it
            at `decay_iterations`, then constant (prs-eth/Marigold, `IterExponential`).
        """
        if iteration < self.warmup_iterations:
            return self.learning_rate * iteration / self.warmup_iterations
        length = self.decay_iterations - self.warmup_iterations
        progress = min(1.0, (iteration - self.warmup_iterations) / length)
        if self.decay == 'exponential':
            factor = math.exp(math.log(self.final_ratio) * progress)
        else:
            cosine = 0.5 * (1 + math.cos(math.pi * progress))
            factor = self.final_ratio + (1 - self.final_ratio) * cosine
        return self.learning_rate * factor


class HardwareConfig(RecipePart):
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


class ObjectiveConfig(RecipePart):
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
    multires_strength: Share = 0.9
    terminal_fraction: Share = 0.0
    rollout_fraction: Share = 0.0
    max_snr_weight: float | None = None
    pixel_samples: int = 0
    pixel_weight: float = 1.0
    gradient_weight: float = 0.0
    relative_pixels: bool = False
    autoencoder_anchor: float | None = None

    @model_validator(mode='after')
    def check_rollout(self) -> ObjectiveConfig:
        """Check that errors are bounded: made from an imperfect x0, noise may have any size."""
        require(self.rollout_fraction == 0 or self.max_snr_weight is not None, 'max_snr_weight',
                'given with `rollout_fraction`', self.max_snr_weight)
        return self


class VaeArchitecture(RecipePart):
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
    encoder_blocks: BlocksPerLevel
    decoder_blocks: BlocksPerLevel
    latent_channels: PositiveInt = 4


class UNetArchitecture(RecipePart):
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

    @model_validator(mode='after')
    def check_norm_groups(self) -> UNetArchitecture:
        """Check that the groups divide the widths."""
        require(all(width % self.norm_groups == 0 for width in self.channels), 'norm_groups',
                f'a divisor of every width in {self.channels}', self.norm_groups)
        return self


class TrainingConfig(RecipePart):
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
    train: Annotated[tuple[FrameSetConfig, ...], Field(min_length=1)]
    validation: Annotated[tuple[FrameSetConfig, ...], Field(min_length=1)]
    validation_frames: PositiveInt = 64
    augmentation: AugmentationConfig = AugmentationConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    hardware: HardwareConfig = HardwareConfig()


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
    objective: ObjectiveConfig = ObjectiveConfig()
    default_denoising_steps: int | None = None
    default_processing_resolution: int = 768

    @model_validator(mode='after')
    def check_start(self) -> FinetuneConfig:
        """Check that there is one way to start."""
        require((self.initial_checkpoint is None) == (self.architecture is not None),
                'initial_checkpoint` and `architecture', 'given one without the other',
                (self.initial_checkpoint, self.architecture))
        require(self.architecture is None or self.vae is not None, 'vae',
                'given where training starts from scratch', self.vae)
        return self

    @model_validator(mode='after')
    def check_denoising_steps(self) -> FinetuneConfig:
        """Check that a reader can tell an end-to-end checkpoint from every other."""
        end_to_end = self.objective.variant == 'end_to_end'
        require(self.denoising_steps >= 1 and (self.denoising_steps == 1) == end_to_end,
                'default_denoising_steps',
                '1 for the variant end_to_end, and 2 or more for diffusion', self.denoising_steps)
        return self

    @property
    def denoising_steps(self) -> int:
        """Give the steps that the checkpoint runs unless told otherwise."""
        if self.default_denoising_steps is not None:
            return self.default_denoising_steps
        return 1 if self.objective.variant == 'end_to_end' else 4


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
