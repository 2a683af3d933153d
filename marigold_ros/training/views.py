"""What training sees of a frame: a crop of it, mirrored, resized, recoloured and blurred."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
import torch
from torch.nn import functional

from marigold_ros.data.frames import DepthFrame
from marigold_ros.training.data_config import AugmentationConfig
from marigold_ros.training.targets import depth_range, normalize_depth

# Gamma and logarithms need something above 0.
MIN_INTENSITY = 1e-3
# The colour of light varies less than its amount.
WHITE_BALANCE_SHARE = 0.3
MIN_MOTION_PX = 3.0


@dataclass(frozen=True, eq=False)
class ViewBatch:
    """
    Views of one size.

    Attributes
    ----------
    image : float32 [N, 3, H, W]
        In [-1, 1].
    depth_m : float32 [N, H, W]
        Depth along Z, m; where it is valid, +inf is sky.
    valid : bool [N, H, W]
        Where depth is known.
    """

    image: torch.Tensor
    depth_m: torch.Tensor
    valid: torch.Tensor

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, part: slice) -> ViewBatch:
        return ViewBatch(self.image[part], self.depth_m[part], self.valid[part])

    def to(self, device: torch.device) -> ViewBatch:
        """Return the batch on a device."""
        return ViewBatch(*(field.to(device, non_blocking=True)
                           for field in (self.image, self.depth_m, self.valid)))

    def pin_memory(self) -> ViewBatch:
        """Return the batch in memory that a GPU copies from without the processor."""
        return ViewBatch(*(field.pin_memory()
                           for field in (self.image, self.depth_m, self.valid)))

    @classmethod
    def join(cls, views: list[ViewBatch]) -> ViewBatch:
        """Make one batch of several."""
        return cls(torch.cat([view.image for view in views]),
                   torch.cat([view.depth_m for view in views]),
                   torch.cat([view.valid for view in views]))


def grey_depth(batch: ViewBatch) -> torch.Tensor:
    """
    Show the normalised depth of views as images, for the autoencoder.

    Returns
    -------
    float32 [N, 3, H, W]
        In [-1, 1], near is dark.
    """
    depth = normalize_depth(batch.depth_m, *depth_range(batch.depth_m, batch.valid))
    return depth.expand(-1, 3, -1, -1)


def random_view(
    frame: DepthFrame, size: tuple[int, int], config: AugmentationConfig,
    random: np.random.Generator,
) -> ViewBatch:
    """
    Take a random view of a frame.

    Parameters
    ----------
    frame : DepthFrame
    size : (int, int)
        Height and width of the view, px.
    config : AugmentationConfig
        Ranges of the changes.
    random : numpy.random.Generator
        The only source of randomness.

    Returns
    -------
    ViewBatch
        Of one view: the image bilinear with antialias, as at inference, its depth nearest.
    """
    rows, columns = _crop(frame.depth_m.shape, size, config, random)
    mirrored = random.random() < config.flip_probability
    step = slice(None, None, -1 if mirrored else 1)

    def cut(array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.array(array[rows, columns][:, step]))[None]

    rgb, depth_m, valid = cut(frame.rgb), cut(frame.depth_m), cut(frame.valid)
    image = rgb.permute(0, 3, 1, 2).float() / 255
    if image.shape[2:] != size:
        image = functional.interpolate(image, size, mode='bilinear', antialias=True)
        depth_m = functional.interpolate(depth_m[:, None], size, mode='nearest-exact')[:, 0]
        valid = functional.interpolate(
            valid[:, None].float(), size, mode='nearest-exact')[:, 0] > 0
    varied = _disturb(image[0].permute(1, 2, 0).numpy(), config, random)
    image = torch.from_numpy(np.ascontiguousarray(varied.transpose(2, 0, 1)))[None]
    return ViewBatch(image * 2 - 1, depth_m, valid)


def _crop(
    shape: tuple[int, ...], size: tuple[int, int], config: AugmentationConfig,
    random: np.random.Generator,
) -> tuple[slice, slice]:
    """Choose rows and columns of the view's aspect ratio."""
    ratio = min(shape[0] / size[0], shape[1] / size[1])
    side = random.uniform(config.min_crop, config.max_crop)
    height, width = (max(1, round(edge * ratio * side)) for edge in size)
    top = int(random.integers(shape[0] - height + 1))
    left = int(random.integers(shape[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)


def _disturb(
    image: NDArray[np.float32], config: AugmentationConfig, random: np.random.Generator,
) -> NDArray[np.float32]:
    """Recolour, blur and add noise, each with its probability; [H, W, 3] in [0, 1]."""
    if random.random() < config.jitter_probability:
        image = _recolour(image, config.jitter, random)
    if random.random() < config.blur_probability:
        sigma = random.uniform(0.0, config.max_blur_px) + 1e-3
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
    if random.random() < config.motion_blur_probability:
        kernel = motion_kernel(random.uniform(MIN_MOTION_PX, max(
            MIN_MOTION_PX, config.max_motion_px)), random.uniform(0.0, np.pi))
        image = np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE),
                           np.float32)
    if config.noise > 0:
        sigma = config.noise * random.random()
        image = image + sigma * random.standard_normal(image.shape, np.float32)
    return image.clip(0.0, 1.0, dtype=np.float32)


def _recolour(
    image: NDArray[np.float32], jitter: float, random: np.random.Generator,
) -> NDArray[np.float32]:
    """Change gamma, exposure, white balance, saturation and contrast."""
    gamma, exposure, saturation, contrast = np.exp(random.uniform(-jitter, jitter, 4))
    white = np.exp(WHITE_BALANCE_SHARE * random.uniform(-jitter, jitter, 3))
    image = image.clip(MIN_INTENSITY, 1.0) ** gamma * exposure * white
    grey = image.mean(axis=2, keepdims=True)
    image = grey + (image - grey) * saturation
    mean = image.mean()
    return np.asarray(mean + (image - mean) * contrast, np.float32)


def motion_kernel(length_px: float, angle: float) -> NDArray[np.float32]:
    """
    Draw the path of a point that moves while the shutter is open.

    Parameters
    ----------
    length_px : float
        Of the path.
    angle : float
        Of its direction, rad.

    Returns
    -------
    float32 [n, n]
        With the sum 1; n is odd.
    """
    radius = int(np.ceil(length_px / 2))
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    half = np.array([np.cos(angle), np.sin(angle)]) * (length_px - 1) / 2
    # cv2 takes points with 4 fractional bits.
    ends = [tuple(np.round((radius + sign * half) * 16).astype(int).tolist())
            for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, lineType=cv2.LINE_AA, shift=4)
    return np.asarray(kernel / kernel.sum(), np.float32)
