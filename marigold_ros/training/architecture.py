"""Builds Marigold's components from scratch, small, and writes them in diffusers' layout."""

from __future__ import annotations

from dataclasses import dataclass
import json
from pathlib import Path

from diffusers import AutoencoderTiny, DDIMScheduler, MarigoldDepthPipeline, UNet2DConditionModel
from safetensors.torch import save_file
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from marigold_ros.depth.errors import ConfigError

LATENT_CHANNELS = 4
VAE_SCALE_FACTOR = 8
VAE_LEVELS = 4
NUM_TRAIN_TIMESTEPS = 1000
EMPTY_TEXT_FILE = 'empty_text_embedding.safetensors'
EMPTY_TEXT_KEY = 'empty_text_embedding'
VOCABULARY = {'<|startoftext|>': 0, '<|endoftext|>': 1}


@dataclass(frozen=True)
class VaeArchitecture:
    """
    Shape of the small autoencoder: one width, blocks from full resolution (encoder) and to it.

    Attributes
    ----------
    channels : int
        Width of every layer.
    encoder_blocks, decoder_blocks : tuple of int
        Residual blocks at each resolution; each resolution halves or doubles the last.
    """

    channels: int
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that encoder and decoder have the resolutions of an eightfold reduction."""
        for name in ('encoder_blocks', 'decoder_blocks'):
            if len(getattr(self, name)) != VAE_LEVELS:
                raise ConfigError(
                    f'`{name}` must have {VAE_LEVELS} resolutions; got {getattr(self, name)}')


@dataclass(frozen=True)
class UNetArchitecture:
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
        for width in self.channels:
            if width % self.norm_groups:
                raise ConfigError(
                    f'`norm_groups` must divide every width in `channels`; '
                    f'got {self.norm_groups} and {self.channels}')


def build_vae(architecture: VaeArchitecture) -> AutoencoderTiny:
    """Build an untrained AutoencoderTiny with four latent channels."""
    widths = (architecture.channels,) * VAE_LEVELS
    return AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=architecture.encoder_blocks,
        num_decoder_blocks=architecture.decoder_blocks,
        latent_channels=LATENT_CHANNELS,
    )


def build_unet(architecture: UNetArchitecture) -> UNet2DConditionModel:
    """Build an untrained U-Net that reads image and depth latents and predicts v."""
    levels = len(architecture.channels)
    return UNet2DConditionModel(
        in_channels=2 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=architecture.channels,
        layers_per_block=architecture.layers_per_block,
        down_block_types=('DownBlock2D',) * levels,
        mid_block_type='UNetMidBlock2DCrossAttn',
        up_block_types=('UpBlock2D',) * levels,
        cross_attention_dim=architecture.text_channels,
        attention_head_dim=architecture.attention_head_channels,
        norm_num_groups=architecture.norm_groups,
    )


def build_scheduler() -> DDIMScheduler:
    """Build Marigold v1-1's schedule: v-prediction, trailing timesteps, zero terminal SNR."""
    return DDIMScheduler(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule='scaled_linear',
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type='v_prediction',
        timestep_spacing='trailing',
        rescale_betas_zero_snr=True,
    )


def build_text_encoder(text_channels: int) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """
    Build the smallest tokenizer and text encoder that diffusers' pipeline can ask for ''.

    Parameters
    ----------
    text_channels : int
        Width of the embedding.

    Returns
    -------
    CLIPTokenizer, CLIPTextModel
        The tokenizer turns '' into begin and end; the encoder's weights are random and stay so.
    """
    tokenizer = CLIPTokenizer(vocab=dict(VOCABULARY), merges=[], model_max_length=77)
    encoder = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(VOCABULARY), hidden_size=text_channels, intermediate_size=text_channels,
        num_hidden_layers=1, num_attention_heads=1, max_position_embeddings=77,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    ))
    return tokenizer, encoder.eval()


@torch.no_grad()
def empty_text_embedding(tokenizer: CLIPTokenizer, encoder: CLIPTextModel) -> torch.Tensor:
    """
    Embed the empty prompt as diffusers' pipeline does.

    Returns
    -------
    float32 [1, 2, D]
        Of the begin and the end token, without padding.
    """
    tokens = tokenizer('', padding='do_not_pad', truncation=True, return_tensors='pt')
    embedding: torch.Tensor = encoder(tokens.input_ids)[0]
    return embedding


def assemble_pipeline(
    unet: UNet2DConditionModel,
    vae: AutoencoderTiny,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    *,
    default_denoising_steps: int,
    default_processing_resolution: int,
) -> MarigoldDepthPipeline:
    """Put components together as diffusers' affine-invariant depth pipeline."""
    return MarigoldDepthPipeline(
        unet=unet, vae=vae, scheduler=build_scheduler(), text_encoder=text_encoder,
        tokenizer=tokenizer, prediction_type='depth', scale_invariant=True, shift_invariant=True,
        default_denoising_steps=default_denoising_steps,
        default_processing_resolution=default_processing_resolution,
    )


def save_pipeline(pipeline: MarigoldDepthPipeline, folder: Path) -> None:
    """
    Write a checkpoint that both this project's engine and diffusers open.

    Parameters
    ----------
    pipeline : MarigoldDepthPipeline
        Its weights are written in the precision that they have.
    folder : Path
        Gets diffusers' layout plus the stored embedding of the empty prompt.
    """
    pipeline.save_pretrained(folder, safe_serialization=True)
    embedding = empty_text_embedding(pipeline.tokenizer, pipeline.text_encoder)
    save_file({EMPTY_TEXT_KEY: embedding.contiguous()}, Path(folder) / EMPTY_TEXT_FILE)
    # Paths of the machine that trained.
    for config in [Path(folder) / 'model_index.json', *Path(folder).glob('*/config.json')]:
        _drop_key(config, '_name_or_path')
    # AutoencoderTiny adds this by itself and warns when it finds it.
    _drop_key(Path(folder) / 'vae' / 'config.json', 'block_out_channels')
    # transformers before version 5 read the vocabulary from these two files.
    tokenizer_folder = Path(folder) / 'tokenizer'
    (tokenizer_folder / 'vocab.json').write_text(json.dumps(VOCABULARY))
    (tokenizer_folder / 'merges.txt').write_text('#version: 0.2\n')


def _drop_key(path: Path, key: str) -> None:
    """Rewrite a JSON object without one of its keys."""
    fields = json.loads(path.read_text())
    fields.pop(key, None)
    path.write_text(json.dumps(fields, indent=2) + '\n')
