"""The two recipes: what `train_vae` and `finetune` read from YAML, with every rule checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from marigold_ros.depth.errors import ConfigError
from marigold_ros.training.architecture import UNetArchitecture, VaeArchitecture
from marigold_ros.training.dataset import ViewConfig


@dataclass(frozen=True)
class ScheduleConfig:
    """
    How long to train and how the learning rate runs.

    Attributes
    ----------
    batch_size : int
        Samples per iteration.
    max_iterations : int
        Iterations after which training ends.
    max_minutes : float
        Wall-clock budget; training ends at whichever of the two limits comes first.
    learning_rate : float
        Highest rate, reached after `warmup_iterations`.
    warmup_iterations : int
        Iterations of linear increase from 0.
    final_ratio : float
        Rate at the end relative to the highest.
    decay : {'cosine', 'exponential'}
        Shape of the way down.
    """

    batch_size: int
    max_iterations: int
    max_minutes: float
    learning_rate: float
    warmup_iterations: int = 100
    final_ratio: float = 0.01
    decay: Literal['cosine', 'exponential'] = 'cosine'

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ('batch_size', 'max_iterations', 'max_minutes', 'learning_rate'):
            _require_positive(name, getattr(self, name))
        if not 0.0 < self.final_ratio <= 1.0:
            raise ConfigError(f'`final_ratio` must be in (0, 1]; got {self.final_ratio}')
        if self.decay not in ('cosine', 'exponential'):
            raise ConfigError(f'`decay` must be cosine or exponential; got {self.decay!r}')


@dataclass(frozen=True)
class VaeConfig:
    """
    Recipe of the small autoencoder.

    Attributes
    ----------
    frames, validation_frames, run_folder : str
        Rendered shards to learn from and to watch progress on; where the result goes.
    seed : int
        Seed of weights, views and noise.
    architecture : VaeArchitecture
        Shape of the network.
    views : ViewConfig
        Half of a batch are views, the other half the depth maps of the same views.
    schedule : ScheduleConfig
        Length and learning rate.
    latent_noise : float
        Standard deviation of noise on the latent while decoding: a smooth latent forgives errors.
    latent_penalty : float
        Weight of the latent's mean square, which keeps it near unit size.
    gradient_weight : float
        Weight of the loss on differences of neighbouring pixels.
    save_minutes : float
        Time between two saved states.
    compile : bool
        Compile the network first (about a minute).
    """

    frames: str
    validation_frames: str
    run_folder: str
    seed: int
    architecture: VaeArchitecture
    views: ViewConfig
    schedule: ScheduleConfig
    latent_noise: float = 0.05
    latent_penalty: float = 1e-3
    gradient_weight: float = 1.0
    save_minutes: float = 3.0
    compile: bool = False


@dataclass(frozen=True)
class DiffusionConfig:
    """
    What the U-Net learns.

    Attributes
    ----------
    terminal_fraction : float
        Share of samples at the last timestep, where every inference starts; the others draw
        t ~ U{0..999}.
    rollout_fraction : float
        Share of the other samples whose noisy latent is made from the model's own first
        prediction, as it is at inference, instead of from the truth.
    multires_strength : float
        Strength of the annealed multi-resolution noise at the last timestep; 0 is Gaussian.
    max_snr_weight : float
        Upper limit of the weight 1 + SNR(t) that the v objective gives to an error in x0.
    pixel_samples : int
        Samples of a batch that are also decoded and compared in pixels.
    pixel_weight, gradient_weight : float
        Weights of the affine-invariant L1 and of its gradient term.
    ema_decay : float
        Decay of the average of the weights that is saved.
    encoder_anchor : float
        0 keeps the autoencoder frozen, as Marigold does.  Above 0 its encoder learns with the
        U-Net to say what depth needs to know about the image, and this is the weight that holds
        its latents of depth maps where they were.
    anchor_samples : int
        Depth maps of a batch that hold the encoder.
    latent_reuse : int
        How often an encoded view is used on average before a fresh one replaces it.
    latent_pool : int
        Encoded views that are held ready.
    """

    terminal_fraction: float = 0.0
    rollout_fraction: float = 0.0
    multires_strength: float = 0.9
    max_snr_weight: float = float('inf')
    pixel_samples: int = 0
    pixel_weight: float = 0.0
    gradient_weight: float = 0.0
    ema_decay: float = 0.999
    encoder_anchor: float = 0.0
    anchor_samples: int = 8
    latent_reuse: int = 1
    latent_pool: int = 0

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ('terminal_fraction', 'rollout_fraction', 'multires_strength', 'ema_decay'):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f'`{name}` must be in [0, 1]; got {getattr(self, name)}')
        _require_positive('latent_reuse', self.latent_reuse)


@dataclass(frozen=True)
class FinetuneConfig:
    """
    Recipe of the U-Net.

    Attributes
    ----------
    frames, validation_frames, run_folder : str
        Rendered shards to learn from and to watch progress on; where the result goes.
    vae : str
        Checkpoint folder of the frozen autoencoder.
    initial_checkpoint : str or None
        Marigold checkpoint to start from; None builds `architecture` from scratch.
    seed : int
        Seed of weights, views, timesteps and noise.
    architecture : UNetArchitecture
        Shape of a new network.
    views : ViewConfig
        How frames vary; `height` and `width` are the processing size of the checkpoint.
    schedule : ScheduleConfig
        Length and learning rate.
    diffusion : DiffusionConfig
        Objective.
    default_denoising_steps : int
        Steps that the checkpoint runs unless told otherwise.
    save_minutes : float
        Time between two saved and validated states.
    compile : bool
        Compile the U-Net first (about a minute).
    """

    frames: str
    validation_frames: str
    run_folder: str
    vae: str
    seed: int
    architecture: UNetArchitecture
    views: ViewConfig
    schedule: ScheduleConfig
    diffusion: DiffusionConfig
    initial_checkpoint: str | None = None
    default_denoising_steps: int = 1
    save_minutes: float = 5.0
    compile: bool = False


_SECTIONS: dict[str, dict[str, type]] = {
    'VaeConfig': {
        'architecture': VaeArchitecture, 'views': ViewConfig, 'schedule': ScheduleConfig},
    'FinetuneConfig': {
        'architecture': UNetArchitecture, 'views': ViewConfig, 'schedule': ScheduleConfig,
        'diffusion': DiffusionConfig},
}


def load_vae_config(path: Path) -> VaeConfig:
    """Read the recipe of `train_vae`."""
    return VaeConfig(**_read(path, VaeConfig))


def load_finetune_config(path: Path) -> FinetuneConfig:
    """Read the recipe of `finetune`."""
    return FinetuneConfig(**_read(path, FinetuneConfig))


def config_as_yaml(config: VaeConfig | FinetuneConfig) -> str:
    """Write a recipe so that reading it gives the same recipe."""
    plain = _without_tuples(asdict(config))
    return str(yaml.safe_dump(plain, sort_keys=False))


def _read(path: Path, kind: type) -> dict[str, Any]:
    """Read YAML, build the nested sections, and name the file and key of any mistake."""
    try:
        fields = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as err:
        raise ConfigError(f'`{path}` must be a readable YAML file; got {err}') from err
    if not isinstance(fields, dict):
        raise ConfigError(f'`{path}` must hold keys and values; got {type(fields).__name__}')
    try:
        for section, section_type in _SECTIONS[kind.__name__].items():
            fields[section] = section_type(**_with_tuples(fields[section]))
        kind(**fields)
    except (KeyError, TypeError) as err:
        raise ConfigError(
            f'`{path}` must have exactly the keys of {kind.__name__}; {err}') from err
    return fields


def _with_tuples(section: dict[str, Any]) -> dict[str, Any]:
    """Turn YAML's lists into the tuples of frozen dataclasses."""
    return {key: tuple(value) if isinstance(value, list) else value
            for key, value in section.items()}


def _without_tuples(value: Any) -> Any:
    """Turn tuples into the lists that safe YAML knows."""
    if isinstance(value, dict):
        return {key: _without_tuples(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _require_positive(name: str, value: float) -> None:
    """Raise unless `value` is above zero."""
    if not value > 0:
        raise ConfigError(f'`{name}` must be positive; got {value}')
