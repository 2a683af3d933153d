"""Augmented views of frames: crop, flip, resize, colour jitter, blur and noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
import torch
from torch.nn import functional

from marigold_ros.data.frames import DepthFrame
from marigold_ros.training.config import AugmentationConfig
from marigold_ros.training.targets import depth_range, normalize_depth

# Gamma correction needs positive intensities.
MIN_INTENSITY = 1e-3
# White balance varies less than exposure.
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
        Where depth is valid.
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
        """Return the batch in pinned memory, for asynchronous copies to a GPU."""
        return ViewBatch(*(field.pin_memory()
                           for field in (self.image, self.depth_m, self.valid)))

    @classmethod
    def concatenate(cls, views: list[ViewBatch]) -> ViewBatch:
        """Concatenate batches of one size."""
        return cls(torch.cat([view.image for view in views]),
                   torch.cat([view.depth_m for view in views]),
                   torch.cat([view.valid for view in views]))


def depth_as_images(batch: ViewBatch) -> torch.Tensor:
    """
    Convert the normalized depth of views to grey images for the autoencoder.

    Returns
    -------
    float32 [N, 3, H, W]
        In [-1, 1], near is dark.
    """
    depth = normalize_depth(batch.depth_m, *depth_range(batch.depth_m, batch.valid))
    return depth.expand(-1, 3, -1, -1)


class FrameStack(NamedTuple):
    """
    Frames of one size, on any device.

    Attributes
    ----------
    rgb : uint8 [N, H, W, 3]
    depth_m : float32 [N, H, W]
        Depth along Z, m; where it is valid, +inf is sky.
    valid : bool [N, H, W]
        Where depth is valid.
    """

    rgb: torch.Tensor
    depth_m: torch.Tensor
    valid: torch.Tensor

    @classmethod
    def from_frame(cls, frame: DepthFrame) -> FrameStack:
        """Convert one frame; contiguous, writable arrays are not copied."""
        return cls(*(torch.from_numpy(np.require(field, requirements=('C', 'W')))[None]
                     for field in (frame.rgb, frame.depth_m, frame.valid)))


def random_view(
    frame: DepthFrame, size: tuple[int, int], config: AugmentationConfig,
    random: np.random.Generator,
) -> ViewBatch:
    """Return a random view of one frame; see `random_views`."""
    return random_views(FrameStack.from_frame(frame), [0], size, config, random)


def random_views(
    frames: FrameStack, chosen: Sequence[int], size: tuple[int, int],
    config: AugmentationConfig, random: np.random.Generator,
) -> ViewBatch:
    """
    Return a random view of each chosen frame, computed on the device of the frames.

    Parameters
    ----------
    frames : FrameStack
    chosen : sequence of int
        Indices of frames; their crops have one size and different positions.
    size : (int, int)
        Height and width of the views, px.
    config : AugmentationConfig
        Ranges of the changes.
    random : numpy.random.Generator
        The only source of randomness; seeds the added noise, which is drawn on the device and
        so differs between kinds of devices.

    Returns
    -------
    ViewBatch
        Images resized bilinearly with antialiasing as at inference, depth by nearest neighbour.
    """
    crops = _crop_and_flip(frames, chosen, size, config, random)
    image = crops.rgb.permute(0, 3, 1, 2).float() / 255                      # [n,3,h,w]
    depth_m, valid = crops.depth_m, crops.valid
    if image.shape[2:] != size:
        image = functional.interpolate(image, size, mode='bilinear', antialias=True)
        depth_m = functional.interpolate(depth_m[:, None], size, mode='nearest-exact')[:, 0]
        valid = functional.interpolate(
            valid[:, None].float(), size, mode='nearest-exact')[:, 0] > 0
    return ViewBatch(_augment_images(image, config, random) * 2 - 1, depth_m, valid)


def _crop_and_flip(
    frames: FrameStack, chosen: Sequence[int], size: tuple[int, int],
    config: AugmentationConfig, random: np.random.Generator,
) -> FrameStack:
    """Crop each chosen frame to the aspect ratio of the views, and flip some horizontally."""
    edges = frames.depth_m.shape[1:]
    ratio = min(edges[0] / size[0], edges[1] / size[1])
    side = random.uniform(config.min_crop, config.max_crop)
    height, width = (max(1, round(edge * ratio * side)) for edge in size)
    tops = random.integers(edges[0] - height + 1, size=len(chosen)).tolist()
    lefts = random.integers(edges[1] - width + 1, size=len(chosen)).tolist()
    mirrored = (random.random(len(chosen)) < config.flip_probability).tolist()

    def crop(field: torch.Tensor) -> torch.Tensor:
        parts = [field[index, top:top + height, left:left + width]
                 for index, top, left in zip(chosen, tops, lefts)]
        return torch.stack([part.flip(1) if mirror else part
                            for part, mirror in zip(parts, mirrored)])

    return FrameStack(*map(crop, frames))


def _augment_images(
    image: torch.Tensor, config: AugmentationConfig, random: np.random.Generator,
) -> torch.Tensor:
    """Jitter colours, blur and add noise, each with its probability; [N, 3, H, W] in [0, 1]."""
    count = len(image)
    jittered = _draw_subset(count, config.jitter_probability, random)
    if len(jittered):
        image[jittered] = _jitter_colours(image[jittered], config.jitter, random)
    for blurred, kernels in _draw_blurs(count, config, random):
        image[blurred] = filter_per_image(image[blurred], kernels)
    if config.noise > 0:
        generator = torch.Generator(image.device).manual_seed(int(random.integers(2**62)))
        noise = torch.randn(image.shape, generator=generator, device=image.device)
        image = image + config.noise * _reshape_per_view(random.random(count), image) * noise
    return image.clamp(0.0, 1.0)


def _draw_subset(count: int, probability: float, random: np.random.Generator) -> NDArray[np.intp]:
    """Return the indices of a random subset of `count` views."""
    return np.flatnonzero(random.random(count) < probability)


def _reshape_per_view(values: NDArray[np.float64], image: torch.Tensor) -> torch.Tensor:
    """Convert values per view, or per view and channel, to a tensor that broadcasts to `image`."""
    shape = (len(values), -1, 1, 1)
    return torch.from_numpy(values).to(image.device, image.dtype).reshape(shape)


def _jitter_colours(
    image: torch.Tensor, jitter: float, random: np.random.Generator,
) -> torch.Tensor:
    """Change gamma, exposure, white balance, saturation and contrast; [N, 3, H, W]."""
    count = len(image)
    gamma, exposure, saturation, contrast = (
        _reshape_per_view(np.exp(random.uniform(-jitter, jitter, count)), image) for _ in range(4))
    white = _reshape_per_view(
        np.exp(WHITE_BALANCE_SHARE * random.uniform(-jitter, jitter, (count, 3))), image)
    image = image.clamp(MIN_INTENSITY, 1.0) ** gamma * exposure * white
    grey = image.mean(dim=1, keepdim=True)
    image = grey + (image - grey) * saturation
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (image - mean) * contrast


def _draw_blurs(
    count: int, config: AugmentationConfig, random: np.random.Generator,
) -> Iterator[tuple[NDArray[np.intp], list[NDArray[np.float32]]]]:
    """Draw the views with Gaussian and with motion blur, and their kernels."""
    blurred = _draw_subset(count, config.blur_probability, random)
    if len(blurred):
        profiles = [gaussian_kernel_1d(random.uniform(0.0, config.max_blur_px) + 1e-3)
                    for _ in blurred]
        yield blurred, profiles                                  # vertical
        yield blurred, [profile.T for profile in profiles]       # horizontal
    blurred = _draw_subset(count, config.motion_blur_probability, random)
    if len(blurred):
        longest = max(MIN_MOTION_PX, config.max_motion_px)
        yield blurred, [motion_blur_kernel(random.uniform(MIN_MOTION_PX, longest),
                                           random.uniform(0.0, np.pi)) for _ in blurred]


def filter_per_image(image: torch.Tensor, kernels: list[NDArray[np.float32]]) -> torch.Tensor:
    """Filter each image [N, 3, H, W] with its own kernel [h, w]; edges are replicated."""
    rows, columns = (max(kernel.shape[axis] for kernel in kernels) // 2 for axis in (0, 1))
    padded = np.stack([np.pad(kernel, ((rows - kernel.shape[0] // 2,) * 2,
                                       (columns - kernel.shape[1] // 2,) * 2))
                       for kernel in kernels])
    weight = torch.from_numpy(padded).to(image.device)[:, None].repeat_interleave(3, dim=0)
    # Grouped convolution: one group per channel of each image.
    channels = functional.pad(image, (columns, columns, rows, rows), mode='replicate')
    filtered = functional.conv2d(channels.flatten(0, 1)[None], weight, groups=len(weight))
    return filtered.reshape(image.shape)


def gaussian_kernel_1d(sigma_px: float) -> NDArray[np.float32]:
    """Return a Gaussian kernel of four standard deviations; float32 [n, 1], n odd, sum 1."""
    return np.asarray(cv2.getGaussianKernel(2 * math.ceil(4 * sigma_px) + 1, sigma_px),
                      np.float32)


def motion_blur_kernel(length_px: float, angle: float) -> NDArray[np.float32]:
    """
    Return a kernel of linear motion blur.

    Parameters
    ----------
    length_px : float
        Length of the motion.
    angle : float
        Direction of the motion, rad.

    Returns
    -------
    float32 [n, n]
        Sums to 1; n is odd.
    """
    radius = int(np.ceil(length_px / 2))
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    half = np.array([np.cos(angle), np.sin(angle)]) * (length_px - 1) / 2
    # Fixed-point coordinates with 4 fractional bits.
    ends = [tuple(np.round((radius + sign * half) * 16).astype(int).tolist())
            for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, lineType=cv2.LINE_AA, shift=4)
    return np.asarray(kernel / kernel.sum(), np.float32)
