"""Training configurations of `finetune` and `train_vae`, with their validation."""

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

from marigold_ros.data.bags.bag_frames import TOLERANCE_MS
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


class ConfigSection(BaseModel):
    """Base of all sections of a configuration: immutable, unknown keys are errors."""

    model_config = ConfigDict(extra='forbid', frozen=True)


class FrameSetConfig(ConfigSection):
    """
    One data set.

    Attributes
    ----------
    reader : {'hypersim', 'virtual_kitti', 'rgbd_folder', 'bag', 'shards'}
        Format of the data set.
    path : str
        Folder of the data set, or path of the bag.
    size : (int, int)
        Height and width of the training views, px.
    weight : float
        Share of the batches, relative to the other sets.
    file_list : str or None
        For 'hypersim' and 'virtual_kitti': one of Marigold's `data_split` lists.
    image_topic, depth_topic, camera_info_topic : str or None
        For 'bag'; the default of `camera_info_topic` is camera_info beside `image_topic`.
    tolerance_ms : float
        For 'bag': largest difference between the times of an image and its depth.
    input_rectified : bool or None
        For 'bag': whether the images are already rectified; None decides by the topic names.
    """

    reader: Literal['hypersim', 'virtual_kitti', 'rgbd_folder', 'bag', 'shards']
    path: str
    size: tuple[ViewEdge, ViewEdge]
    weight: PositiveFloat = 1.0
    file_list: str | None = None
    image_topic: str | None = None
    depth_topic: str | None = None
    camera_info_topic: str | None = None
    tolerance_ms: PositiveFloat = TOLERANCE_MS
    input_rectified: bool | None = None

    @model_validator(mode='after')
    def check_reader(self) -> FrameSetConfig:
        """Check that all keys that the reader needs are given."""
        needed = {'hypersim': ['file_list'], 'virtual_kitti': ['file_list'],
                  'bag': ['image_topic', 'depth_topic']}.get(self.reader, [])
        for key in needed:
            require(getattr(self, key) is not None, key, f'given for the reader {self.reader}',
                    None)
        return self


class AugmentationConfig(ConfigSection):
    """
    Random augmentation of the training views.

    Attributes
    ----------
    flip_probability : float
        Share of views that are flipped horizontally.
    min_crop, max_crop : float
        Side of the crop relative to the largest crop of the view's aspect ratio.
    jitter_probability : float
        Share of views whose exposure, contrast, saturation, gamma and white balance change.
    jitter : float
        Largest relative change of each.
    blur_probability, motion_blur_probability : float
        Shares of views with Gaussian blur and with motion blur.
    max_blur_px, max_motion_px : float
        Largest standard deviation of the Gaussian and length of the motion, px of the view.
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
        """Check that `min_crop` is at most `max_crop`."""
        require(self.min_crop <= self.max_crop, 'min_crop',
                f'at most `max_crop` ({self.max_crop})', self.min_crop)
        return self


class ScheduleConfig(ConfigSection):
    """
    Batch size, duration and learning rate of a training.

    The defaults are prs-eth/Marigold's `config/train_marigold_depth.yaml`.

    Attributes
    ----------
    batch_size : int
        Samples per iteration, over all devices.
    device_batch_size : int
        Samples per device and forward pass; gradients are accumulated up to `batch_size`.
    max_iterations : int
        Iterations after which training ends.
    learning_rate : float
        Highest rate, reached after `warmup_iterations`.
    warmup_iterations : int
        Iterations of linear increase from 0.
    decay_iterations : int
        Iteration at which the rate reaches `final_ratio`, where it stays.
    final_ratio : float
        Rate at the end relative to the highest.
    decay : {'exponential', 'cosine'}
        Shape of the decay.
    weight_decay : float
        Of AdamW; 0 is Adam.
    max_gradient_norm : float or None
        Gradients are clipped to this norm; None does not clip.
    ema_decay : float
        Decay of the exponential moving average of the weights that the checkpoint stores; it is
        smaller in the first iterations.  0 stores the last weights.
    checkpoint_every : int
        Iterations between saved and validated checkpoints.
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
        """Check that the warm-up ends before the decay does."""
        require(self.warmup_iterations < self.decay_iterations, 'warmup_iterations',
                f'below `decay_iterations` ({self.decay_iterations})', self.warmup_iterations)
        return self

    def rate_at(self, iteration: int) -> float:
        """
        Return the learning rate of an iteration.

        Returns
        -------
        float
            Linear from 0 over the warm-up, then from the highest rate down to `final_ratio` of it
            at `decay_iterations`, then constant (prs-eth/Marigold, `IterExponential`).

        Examples
        --------
        >>> schedule = ScheduleConfig(learning_rate=1e-4, warmup_iterations=100,
        ...                           decay_iterations=1000, final_ratio=0.01)
        >>> [f'{schedule.rate_at(iteration):.1e}' for iteration in (50, 100, 550, 2000)]
        ['5.0e-05', '1.0e-04', '1.0e-05', '1.0e-06']
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


class HardwareConfig(ConfigSection):
    """
    Devices and precision; `accelerate launch` starts a training on several GPUs.

    Attributes
    ----------
    device : {'auto', 'cpu'}
        'auto' uses a GPU if there is one.
    precision : {'auto', 'float32', 'bfloat16', 'float16'}
        Precision of the computation; weights and optimizer stay float32.  'auto' is bfloat16 if
        the device supports it natively, else float16 on a GPU and float32 on the CPU.
    workers : int
        Processes that read and augment frames; 0 does so in the training process.
    frames_on_device : bool
        Keep all frames in the device's memory and augment them there, without workers: faster
        for small networks on a GPU.  The frames of a set must have one size.  Views differ from
        those of workers: groups of up to 128 have one crop size.
    compile : bool
        Compile the networks with `torch.compile` (takes minutes).
    gradient_checkpointing : bool
        Recompute activations in the backward pass: less memory, more time.
    """

    device: Literal['auto', 'cpu'] = 'auto'
    precision: Literal['auto', 'float32', 'bfloat16', 'float16'] = 'float32'
    workers: int = 2
    frames_on_device: bool = False
    compile: bool = False
    gradient_checkpointing: bool = False


class ObjectiveConfig(ConfigSection):
    """
    Losses of the U-Net; the defaults are Marigold's diffusion objective.

    Attributes
    ----------
    variant : {'diffusion', 'end_to_end'}
        'end_to_end' (Garcia et al. 2025) predicts in one step from a zero latent at t = 999,
        decodes, and compares pixels after a least-squares fit of scale and shift, without a
        latent loss.
    latent_weight : float
        Weight of the masked squared error of the prediction.
    multires_strength : float
        Strength of the annealed multi-resolution noise at the last timestep; 0 is white
        Gaussian noise.
    terminal_fraction : float
        Share of a batch at t = 999, where every inference starts; t is uniform for the rest.
    rollout_fraction : float
        Share of the rest whose noisy latent is made from the model's own first prediction, as
        at inference.
    max_snr_weight : float or None
        Limit of the weight 1 + SNR(t) that the v objective gives to an error in x0.
    pixel_samples : int
        Samples of a diffusion batch that are decoded and compared in pixels as well.
    pixel_weight, gradient_weight : float
        Weights of the affine-invariant L1 and of the L1 of spatial gradients.
    relative_pixels : bool
        Weight the affine-invariant L1 so that it becomes the relative error of the depth.
    latent_drift_weight : float or None
        None keeps the autoencoder frozen, as Marigold does.  A number makes an AutoencoderTiny
        trainable with the U-Net; it then encodes images and decodes predictions.  The number is
        the weight of the penalty on changes of the latents that it gives to depth maps.  The
        relative error of the depth decoded from these latents is added with weight 1.
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
    latent_drift_weight: float | None = None

    @model_validator(mode='after')
    def check_rollout(self) -> ObjectiveConfig:
        """Check that `max_snr_weight` is given: noise implied by an imperfect x0 is unbounded."""
        require(self.rollout_fraction == 0 or self.max_snr_weight is not None, 'max_snr_weight',
                'given with `rollout_fraction`', self.max_snr_weight)
        return self


class VaeArchitecture(ConfigSection):
    """
    Architecture of the small autoencoder.

    Attributes
    ----------
    channels : int
        Width of every layer.
    encoder_blocks, decoder_blocks : tuple of int
        Residual blocks at each resolution: from full resolution down, and from the latent up.
    latent_channels : int
        Channels of the latent, which has one cell for 8x8 pixels.
    """

    channels: int
    encoder_blocks: BlocksPerLevel
    decoder_blocks: BlocksPerLevel
    latent_channels: PositiveInt = 4


class UNetArchitecture(ConfigSection):
    """
    Architecture of the denoising U-Net; attention only at the lowest resolution.

    Attributes
    ----------
    channels : tuple of int
        Width of each resolution, finest first.
    layers_per_block : int
        Residual blocks at each resolution.
    text_channels : int
        Width of the (empty) text embedding that the middle block attends to.
    norm_groups : int
        Groups of each group normalization; must divide every width.
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
        """Check that `norm_groups` divides every width."""
        require(all(width % self.norm_groups == 0 for width in self.channels), 'norm_groups',
                f'a divisor of every width in {self.channels}', self.norm_groups)
        return self


class TrainingConfig(ConfigSection):
    """
    Settings of both trainings.

    Attributes
    ----------
    run_folder : str
        Output folder; a run found there is resumed.
    seed : int
        Seed of weights, views, timesteps and noise.
    train, validation : tuple of FrameSetConfig
        Training sets, of which each batch uses one, and held-out sets.
    validation_frames : int
        Number of frames of each held-out set that are used, evenly spaced.
    augmentation, schedule, hardware
        See the classes.
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
    Training of the U-Net, from `initial_checkpoint`, or from `architecture` and `vae`.

    Attributes
    ----------
    initial_checkpoint : str or None
        Embedded name, folder or hub id of a Marigold checkpoint, or of one in Stable Diffusion
        2's layout, whose `conv_in` is doubled.
    architecture : UNetArchitecture or None
        Architecture of a new network.
    vae : str or None
        Folder or hub id of an autoencoder that replaces the checkpoint's; frozen, unless
        `objective.latent_drift_weight` is given.
    prediction_type : {'v_prediction', 'epsilon', 'sample'} or None
        Output of the U-Net; None keeps the checkpoint's, and is 'v_prediction' from scratch.
    objective : ObjectiveConfig
    default_denoising_steps : int or None
        Default number of denoising steps of the checkpoint: 1 if and only if it is end-to-end,
        because loaders recognize end-to-end checkpoints by it.  None is 1, or 4 for diffusion.
    default_processing_resolution : int
        Default of the longest edge at which the checkpoint processes images, px.
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
        """Check that training starts either from a checkpoint or from an architecture."""
        require((self.initial_checkpoint is None) == (self.architecture is not None),
                'initial_checkpoint` or `architecture', 'given, but not both',
                (self.initial_checkpoint, self.architecture))
        require(self.architecture is None or self.vae is not None, 'vae',
                'given where training starts from scratch', self.vae)
        return self

    @model_validator(mode='after')
    def check_denoising_steps(self) -> FinetuneConfig:
        """Check that the number of steps is 1 if and only if the checkpoint is end-to-end."""
        end_to_end = self.objective.variant == 'end_to_end'
        require(self.denoising_steps >= 1 and (self.denoising_steps == 1) == end_to_end,
                'default_denoising_steps',
                '1 for the variant end_to_end, and 2 or more for diffusion', self.denoising_steps)
        return self

    @property
    def denoising_steps(self) -> int:
        """Return the default number of denoising steps of the checkpoint."""
        if self.default_denoising_steps is not None:
            return self.default_denoising_steps
        return 1 if self.objective.variant == 'end_to_end' else 4


class VaeConfig(TrainingConfig):
    """
    Training of the small autoencoder on the image and the depth map of every view.

    Attributes
    ----------
    architecture : VaeArchitecture
        Architecture of the network.
    latent_noise : float
        Standard deviation of noise added to the latent before decoding, against which the
        decoder becomes robust.
    latent_penalty : float
        Weight of the mean square of the latent, which keeps it near 1.
    gradient_weight : float
        Weight of the L1 of spatial gradients.
    depth_weight : float
        Weight of the relative error of the depth maps.
    """

    architecture: VaeArchitecture
    latent_noise: float = 0.05
    latent_penalty: float = 1e-3
    gradient_weight: float = 1.0
    depth_weight: float = 0.0
