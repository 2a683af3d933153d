"""Find and load a Marigold checkpoint: embedded name, folder or hub id; safetensors only."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import json
from pathlib import Path, PurePosixPath
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
from huggingface_hub.errors import DryRunError, HfHubHTTPError, LocalEntryNotFoundError
from safetensors.torch import load_file
import torch

from marigold_ros.depth.errors import CheckpointError
from marigold_ros.depth.types import CheckpointInfo

MODELS = Path(__file__).parents[1] / 'models'
EMPTY_TEXT = 'empty_text_embedding'
INDEX = 'model_index.json'
# The second is the name of the authors' own pipeline, before diffusers had one.
DEPTH_PIPELINES = ('MarigoldDepthPipeline', 'MarigoldPipeline')
VAES: dict[str, Any] = {'AutoencoderKL': AutoencoderKL, 'AutoencoderTiny': AutoencoderTiny}
SCHEDULERS: dict[str, Any] = {'DDIMScheduler': DDIMScheduler, 'LCMScheduler': LCMScheduler}
# The Marigold authors advise against more steps: no gain in accuracy.
MAX_DDIM_STEPS = 10
# Resolution of the released checkpoints, whose older index files do not contain it.
DEFAULT_RESOLUTION_PX = 768
# Without the single files in which Stable Diffusion's repositories hold the same weights again.
HUB_FILES = ['*.json', '*.txt', '*diffusion_pytorch_model*.safetensors',
             'text_encoder/*.safetensors', f'{EMPTY_TEXT}.safetensors']
# diffusers' name of weights that are stored in half precision beside others.
HALF = 'fp16'
RGB = (3, 3)


@dataclass(frozen=True)
class Components:
    """
    The parts of a Marigold checkpoint that inference needs.

    Attributes
    ----------
    unet, vae, scheduler
        diffusers' modules, on the CPU.
    empty_text_embedding : float32 tensor [1, 2, D]
        Output of the text encoder for the empty prompt.
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
        If it is missing, truncated, not Marigold's or of another task than depth; the message
        contains path and remedy.
    """
    folder = find_checkpoint(checkpoint, dtype)
    try:
        index = json.loads((folder / INDEX).read_text())
        check_task(folder, index)
        unet = _load_model(UNet2DConditionModel, folder / 'unet', dtype)
        autoencoder = _load_vae(folder / 'vae' if vae is None else find_checkpoint(vae, dtype),
                                dtype)
        scheduler = _supported_class(index['scheduler'][1], SCHEDULERS).from_pretrained(
            folder / 'scheduler')
        text = _load_text_embedding(folder, dtype)
    except CheckpointError:
        raise
    except Exception as err:  # tokenizers raises a plain Exception for a damaged file
        raise CheckpointError(
            f'cannot load the checkpoint in {folder}: {err}. It must hold model_index.json, '
            'scheduler/, unet/ and vae/ with complete .safetensors weights, as '
            'MarigoldDepthPipeline.save_pretrained writes them; download or copy it again, or set '
            "`checkpoint` to 'tiny'") from err
    _check_shapes(folder, unet, autoencoder, text)
    return Components(unet, autoencoder, scheduler, text,
                      _checkpoint_info(checkpoint, index, scheduler, autoencoder))


def find_checkpoint(checkpoint: str, dtype: torch.dtype = torch.float32) -> Path:
    """
    Return the folder of a checkpoint; download it if it is a hub id.

    Parameters
    ----------
    checkpoint : str
        Embedded name, folder or hub id.
    dtype : torch.dtype
        Of the networks; decides which of several variants of the weights is downloaded.

    Raises
    ------
    CheckpointError
        If the checkpoint does not exist or cannot be downloaded.
    """
    for folder in (MODELS / checkpoint, Path(checkpoint).expanduser()):
        if folder.is_dir():
            return folder
    embedded = ', '.join(sorted(p.name for p in MODELS.iterdir() if p.is_dir()))
    if not re.fullmatch(r'[\w.-]+/[\w.-]+', checkpoint):
        raise CheckpointError(f'`checkpoint` must be a local folder, an embedded checkpoint '
                              f'({embedded}) or a hub id (owner/name); got {checkpoint!r}')
    try:
        return _download(checkpoint, dtype)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as err:
        raise CheckpointError(
            f'checkpoint {checkpoint!r} is not a local folder and cannot be downloaded from the '
            f'hub: {err.__cause__ or err}. Check the name and the network, or set `checkpoint` to '
            'the folder of a local copy') from err


def check_task(folder: Path, index: dict[str, Any],
               pipelines: Collection[str] = DEPTH_PIPELINES) -> None:
    """
    Check that a checkpoint predicts depth.

    Parameters
    ----------
    folder : Path
    index : dict
        Content of its model_index.json.
    pipelines : collection of str
        Accepted pipelines.

    Raises
    ------
    CheckpointError
        If it is for another task, such as surface normals, appearance or disparity.
    """
    for key, accepted in (('_class_name', pipelines), ('prediction_type', ('depth', None))):
        if index.get(key) not in accepted:
            raise CheckpointError(
                f'{folder} is a checkpoint of another task: `{key}` in its {INDEX} must be '
                f'{" or ".join(filter(None, accepted))}; got {index.get(key)!r}. If it does '
                'predict depth, correct that entry')


def weights_variant(folder: Path, dtype: torch.dtype) -> str | None:
    """
    Choose among the weights of one network that a folder holds in several precisions.

    Parameters
    ----------
    folder : Path
    dtype : torch.dtype
        Of the network.

    Returns
    -------
    str or None
        'fp16' if there is no other, or if the network is in half precision anyway: half the
        bytes.  None is the variant without a name.
    """
    return HALF if _use_half([path.name for path in folder.iterdir()], dtype) else None


def _download(checkpoint: str, dtype: torch.dtype) -> Path:
    """Download what is needed; without a connection, return what an earlier call downloaded."""
    try:
        planned = snapshot_download(checkpoint, allow_patterns=HUB_FILES, dry_run=True)
    except DryRunError as err:
        try:
            return Path(snapshot_download(checkpoint, allow_patterns=[INDEX],
                                          local_files_only=True))
        except LocalEntryNotFoundError:
            raise err from err.__cause__
    needed = _needed_files([file.filename for file in planned], dtype)
    return Path(snapshot_download(checkpoint, allow_patterns=needed))


def _needed_files(names: Collection[str], dtype: torch.dtype) -> list[str]:
    """Leave out the weights of the variant that is not used."""
    beside: dict[PurePosixPath, list[str]] = {}
    for name in names:
        beside.setdefault(PurePosixPath(name).parent, []).append(name)
    half = {folder: _use_half(files, dtype) for folder, files in beside.items()}
    return [name for name in names if not name.endswith('.safetensors')
            or half[PurePosixPath(name).parent] == (f'.{HALF}' in name)]


def _use_half(files: Collection[str], dtype: torch.dtype) -> bool:
    """Decide between the weights in full and in half precision that lie beside each other."""
    half = [f'.{HALF}' in name for name in files if name.endswith('.safetensors')]
    return any(half) and (dtype.itemsize == 2 or all(half))


def _supported_class(name: str, supported: dict[str, Any]) -> Any:
    if name not in supported:
        raise ValueError(f'{name} is not supported; use one of {", ".join(supported)}')
    return supported[name]


def _load_model(model_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Load one network; raise ValueError if a weight is missing or unexpected."""
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} does not exist')
    reject_pickled_weights(folder)
    with quiet(logging):
        model, report = model_class.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False,
            torch_dtype=dtype, variant=weights_variant(folder, dtype),
            output_loading_info=True)
    _check_loading_report(folder, report)
    return model.eval().requires_grad_(False)


@contextmanager
def quiet(library: Any) -> Iterator[None]:
    """
    Hide warnings and progress bars of a library, also from a pipe, while it loads or saves.

    Every saved AutoencoderTiny has a config entry that diffusers warns about.

    Parameters
    ----------
    library : module
        `diffusers.utils.logging` or `transformers.utils.logging`.
    """
    verbosity, shows_bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(verbosity)
        if shows_bars:
            library.enable_progress_bar()


def reject_pickled_weights(folder: Path) -> None:
    """
    Check that every shard index in a folder lists .safetensors files only.

    diffusers and transformers would unpickle any other file.

    Raises
    ------
    ValueError
        If an index lists another file.
    """
    for index in folder.rglob('*.index*.json'):
        names = set(json.loads(index.read_text())['weight_map'].values())
        wrong = sorted(name for name in names if not name.endswith('.safetensors'))
        if wrong:
            raise ValueError(f'{index} must list .safetensors files only; got {wrong}')


def _check_loading_report(folder: Path, report: dict[str, Any]) -> None:
    """Raise ValueError if the weights do not match the network."""
    wrong = {kind: names for kind, names in report.items() if names}
    if wrong:
        raise ValueError(f'the weights in {folder} do not match its config.json: {wrong}')


def _load_vae(folder: Path, dtype: torch.dtype) -> Any:
    name = json.loads((folder / 'config.json').read_text())['_class_name']
    return _load_model(_supported_class(name, VAES), folder, dtype)


def _load_text_embedding(folder: Path, dtype: torch.dtype) -> torch.Tensor:
    """Read the stored embedding, or compute it with the checkpoint's text encoder."""
    stored = folder / f'{EMPTY_TEXT}.safetensors'
    if stored.is_file():
        return load_file(stored)[EMPTY_TEXT].to(torch.float32)
    # Slow to import, rarely needed.
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging as transformers_logging

    tokenizer = CLIPTokenizer.from_pretrained(folder / 'tokenizer', local_files_only=True)
    reject_pickled_weights(folder / 'text_encoder')
    with quiet(transformers_logging):
        encoder, report = CLIPTextModel.from_pretrained(
            folder / 'text_encoder', local_files_only=True, use_safetensors=True,
            variant=weights_variant(folder / 'text_encoder', dtype),
            # Otherwise config.json could refer to attention code on the hub, which would be run.
            attn_implementation='eager', output_loading_info=True)
    _check_loading_report(folder / 'text_encoder', {
        kind: report[kind] for kind in ('missing_keys', 'mismatched_keys')})
    tokens = tokenizer('', padding='do_not_pad', truncation=True, return_tensors='pt').input_ids
    with torch.inference_mode():
        embedding: torch.Tensor = encoder.float()(tokens)[0].to(torch.float32).clone()  # [1,2,D]
    return embedding


def _check_shapes(folder: Path, unet: Any, vae: Any, text: torch.Tensor) -> None:
    """Check that the parts match each other and Marigold's architecture."""
    channels = vae.config.latent_channels
    if (unet.config.in_channels, unet.config.out_channels) != (2 * channels, channels):
        raise CheckpointError(
            f'{folder} is not a Marigold checkpoint: its U-Net maps {unet.config.in_channels} to '
            f'{unet.config.out_channels} channels; Marigold needs {2 * channels} (image and depth '
            f'latent) to {channels}. A Stable Diffusion model must be fine-tuned first')
    decoded = vae.config.in_channels, vae.config.out_channels
    if decoded != RGB:
        raise CheckpointError(f'{folder}: the VAE maps {decoded[0]} to {decoded[1]} channels; '
                              'Marigold needs 3 (image) to 3 (depth)')
    if text.ndim != 3 or text.shape[2] != unet.config.cross_attention_dim:
        raise CheckpointError(f'{folder}: the empty-text embedding has shape {list(text.shape)}; '
                              f'the U-Net expects [1, 2, {unet.config.cross_attention_dim}]')


def _checkpoint_info(name: str, index: dict[str, Any], scheduler: Any,
                     vae: Any) -> CheckpointInfo:
    """
    Return the properties of a checkpoint.

    diffusers' layout does not mark end-to-end models.  They are the DDIM checkpoints whose
    `default_denoising_steps` is 1 (Garcia et al. 2025); they expect a zero initial latent.
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
