"""Data sets and augmentation in a recipe, and the base of every part of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from marigold_ros.depth.config import require

# Pixels per latent cell along one axis.
VAE_SCALE_FACTOR = 8

Reader = Literal['hypersim', 'virtual_kitti', 'rgbd_folder', 'bag', 'shards']


class Section:
    """Base of every part of a recipe: a misspelt key is an error."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {'extra': 'forbid'}


@dataclass(frozen=True)
class FrameSetConfig(Section):
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

    reader: Reader
    path: str
    size: tuple[int, int]
    weight: float = 1.0
    file_list: str | None = None
    image_topic: str | None = None
    depth_topic: str | None = None
    camera_info_topic: str | None = None

    def __post_init__(self) -> None:
        """Check the size, and that the reader has what it needs."""
        for edge in self.size:
            require(edge > 0 and edge % VAE_SCALE_FACTOR == 0, 'size',
                    f'multiples of {VAE_SCALE_FACTOR}', self.size)
        require(self.weight > 0, 'weight', 'positive', self.weight)
        if self.reader in ('hypersim', 'virtual_kitti'):
            require(self.file_list is not None, 'file_list',
                    f'given for the reader {self.reader}', self.file_list)
        if self.reader == 'bag':
            require(None not in (self.image_topic, self.depth_topic),
                    'image_topic` and `depth_topic', 'given for the reader bag',
                    (self.image_topic, self.depth_topic))


@dataclass(frozen=True)
class AugmentationConfig(Section):
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

    flip_probability: float = 0.5
    min_crop: float = 1.0
    max_crop: float = 1.0
    jitter_probability: float = 0.0
    jitter: float = 0.3
    blur_probability: float = 0.0
    max_blur_px: float = 2.0
    motion_blur_probability: float = 0.0
    max_motion_px: float = 7.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ('flip', 'jitter', 'blur', 'motion_blur'):
            name = f'{name}_probability'
            require(0 <= getattr(self, name) <= 1, name, 'in [0, 1]', getattr(self, name))
        require(0 < self.min_crop <= self.max_crop <= 1, 'min_crop` and `max_crop',
                'in (0, 1] and in this order', (self.min_crop, self.max_crop))
