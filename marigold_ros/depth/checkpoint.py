"""Find and load a Marigold checkpoint: embedded name, folder or hub id; safetensors only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import json
from pathlib import Path
import re
from typing import Any

from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    LCMScheduler,
    UNet2DConditionModel,
)
from diffusers.utils import logging
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors.torch import load_file
import torch

from marigold_ros.depth.errors import CheckpointError
from marigold_ros.depth.types import CheckpointInfo

MODELS = Path(__file__).parents[1] / 'models'
EMPTY_TEXT = 'empty_text_embedding'
VAES: dict[str, Any] = {'AutoencoderKL': AutoencoderKL, 'AutoencoderTiny': AutoencoderTiny}
SCHEDULERS: dict[str, Any] = {'DDIMScheduler': DDIMScheduler, 'LCMScheduler': LCMScheduler}
# The authors warn above 10 steps: no gain, softer layout.
MAX_DDIM_STEPS = 10
# Of the released checkpoints; older ones do not name it.
DEFAULT_RESOLUTION_PX = 768
HUB_FILES = ['*.json', '*.txt', '*.safetensors']


@dataclass(frozen=True)
class Components:
    """
    The parts of a Marigold checkpoint that inference needs.

    Attributes
    ----------
    unet, vae, scheduler
        diffusers' modules, on the CPU.
    empty_text_embedding : float32 tensor [1, 2, D]
        The empty prompt seen through the text encoder.
    info : CheckpointInfo
    """

    unet: Any
    vae: Any
    scheduler: Any
    empty_text_embedding: torch.Tensor
    info: CheckpointInfo


def load_components(checkpoint: str, *, vae: str | None = None,
                    dtype: torch.dtype = torch.float32) -> Components:
    """
    Load a checkpoint.

    Parameters
    ----------
    checkpoint : str
        Embedded name, folder in the layout that `MarigoldDepthPipeline.save_pretrained` writes,
        or hub id 'owner/name'.
    vae : str, optional
        Folder or hub id of a VAE that replaces the checkpoint's own (e.g. an AutoencoderTiny).
    dtype : torch.dtype
        Of the networks.

    Raises
    ------
    CheckpointError
        If it is missing, truncated or not Marigold's; names the path and the way out.
    """
    folder = find(checkpoint)
    try:
        index = json.loads((folder / 'model_index.json').read_text())
        unet = _load_model(UNet2DConditionModel, folder / 'unet', dtype)
        autoencoder = _load_vae(folder / 'vae' if vae is None else find(vae), dtype)
        scheduler = _class_named(index['scheduler'][1], SCHEDULERS).from_pretrained(
            folder / 'scheduler')
        text = _empty_text_embedding(folder)
    except CheckpointError:
        raise
    except Exception as err:  # tokenizers raises nothing narrower for a damaged file
        raise CheckpointError(
            f'cannot load the checkpoint in {folder}: {err}. It must hold model_index.json, '
            'scheduler/, unet/ and vae/ with complete .safetensors weights, as '
            'MarigoldDepthPipeline.save_pretrained writes them; fetch or copy it again, or use '
            "`checkpoint` 'tiny'") from err
    _check_shapes(folder, unet, autoencoder, text)
    return Components(unet, autoencoder, scheduler, text,
                      _describe(checkpoint, index, scheduler, autoencoder))


def find(checkpoint: str) -> Path:
    """
    Find a checkpoint's folder, fetching it from the hub if it is a hub id.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    for folder in (MODELS / checkpoint, Path(checkpoint).expanduser()):
        if folder.is_dir():
            return folder
    embedded = ', '.join(sorted(p.name for p in MODELS.iterdir() if p.is_dir()))
    if not re.fullmatch(r'[\w.-]+/[\w.-]+', checkpoint):
        raise CheckpointError(f'checkpoint {checkpoint!r} is no folder here, no embedded '
                              f'checkpoint ({embedded}) and no hub id (owner/name); set '
                              '`checkpoint` to one of these')
    try:
        return Path(snapshot_download(checkpoint, allow_patterns=HUB_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as err:
        raise CheckpointError(f'checkpoint {checkpoint!r} is no folder here and the hub did not '
                              f'give it: {err}. Check the name and the network, or copy it here '
                              'and set `checkpoint` to its folder') from err


def _class_named(name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise ValueError(f'{name} is not supported; known are {", ".join(known)}')
    return known[name]


def _load_model(model_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Load one network; a missing or unexpected weight is an error, never a random tensor."""
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} does not exist')
    refuse_pickles(folder)
    with _quiet_diffusers():
        model, report = model_class.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False,
            torch_dtype=dtype, output_loading_info=True)
    _check_fit(folder, report)
    return model.eval().requires_grad_(False)


def refuse_pickles(folder: Path) -> None:
    """
    Check that every index of shards names safetensors only; anything else would be unpickled.

    Raises
    ------
    ValueError
        If one does not; a folder that does not exist has none.
    """
    for index in folder.rglob('*.index.json'):
        names = set(json.loads(index.read_text())['weight_map'].values())
        wrong = sorted(name for name in names if not name.endswith('.safetensors'))
        if wrong:
            raise ValueError(f'{index} must name .safetensors files only; got {wrong}')


def _check_fit(folder: Path, report: dict[str, Any]) -> None:
    """Raise ValueError if a loading report says that weights do not fit."""
    wrong = {kind: names for kind, names in report.items() if names}
    if wrong:
        raise ValueError(f'the weights in {folder} do not fit its config.json: {wrong}')


@contextmanager
def _quiet_diffusers() -> Iterator[None]:
    """Mute its warning about a config entry that every saved AutoencoderTiny has."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _load_vae(folder: Path, dtype: torch.dtype) -> Any:
    name = json.loads((folder / 'config.json').read_text())['_class_name']
    return _load_model(_class_named(name, VAES), folder, dtype)


def _empty_text_embedding(folder: Path) -> torch.Tensor:
    """Read the stored embedding, or compute it once with the checkpoint's own text encoder."""
    stored = folder / f'{EMPTY_TEXT}.safetensors'
    if stored.is_file():
        return load_file(stored)[EMPTY_TEXT].to(torch.float32)
    from transformers import CLIPTextModel, CLIPTokenizer  # seconds to import, rarely needed

    tokenizer = CLIPTokenizer.from_pretrained(folder / 'tokenizer', local_files_only=True)
    refuse_pickles(folder / 'text_encoder')
    encoder, report = CLIPTextModel.from_pretrained(
        folder / 'text_encoder', local_files_only=True, use_safetensors=True,
        # Else config.json could name attention code on the hub, which transformers would run.
        attn_implementation='eager', output_loading_info=True)
    _check_fit(folder / 'text_encoder', {kind: report[kind]
                                         for kind in ('missing_keys', 'mismatched_keys')})
    tokens = tokenizer('', padding='do_not_pad', truncation=True, return_tensors='pt').input_ids
    with torch.inference_mode():
        embedding: torch.Tensor = encoder.float()(tokens)[0].to(torch.float32).clone()  # [1,2,D]
    return embedding


def _check_shapes(folder: Path, unet: Any, vae: Any, text: torch.Tensor) -> None:
    """Check that the parts belong together and to Marigold."""
    channels = vae.config.latent_channels
    if (unet.config.in_channels, unet.config.out_channels) != (2 * channels, channels):
        raise CheckpointError(
            f'{folder} is not a Marigold checkpoint: its U-Net maps {unet.config.in_channels} to '
            f'{unet.config.out_channels} channels; Marigold needs {2 * channels} (image and depth '
            f'latent) to {channels}. A Stable Diffusion model must be fine-tuned first')
    if text.ndim != 3 or text.shape[2] != unet.config.cross_attention_dim:
        raise CheckpointError(f'{folder}: the empty-text embedding has shape {list(text.shape)}; '
                              f'the U-Net expects [1, 2, {unet.config.cross_attention_dim}]')


def _describe(name: str, index: dict[str, Any], scheduler: Any, vae: Any) -> CheckpointInfo:
    """
    Collect the facts about a checkpoint.

    diffusers' layout does not mark end-to-end models; they are the DDIM checkpoints whose
    `default_denoising_steps` is 1 (Garcia et al. 2025), and they expect a zero initial latent.
    """
    kind = type(scheduler).__name__
    default_steps = int(index.get('default_denoising_steps') or (1 if 'LCM' in kind else 4))
    one_step = kind == 'LCMScheduler' or default_steps == 1
    return CheckpointInfo(
        name=name,
        scheduler=kind,
        prediction_type=scheduler.config.prediction_type,
        default_steps=default_steps,
        max_useful_steps=1 if one_step else MAX_DDIM_STEPS,
        initial_latent='zeros' if one_step and kind == 'DDIMScheduler' else 'gaussian',
        processing_resolution=int(
            index.get('default_processing_resolution', DEFAULT_RESOLUTION_PX)),
        vae_scale_factor=2 ** (len(vae.config.block_out_channels) - 1),
    )
