"""The parameters `scale.*`: where metres come from; every rule is checked when one is made."""

from __future__ import annotations

from dataclasses import dataclass, field
import math

from marigold_ros.depth.config import one_of, require
from marigold_ros.depth.errors import ConfigError
from marigold_ros.geometry.poses import parse_extrinsics
from marigold_ros.metric.filter import FilterConfig

# Sources that another sensor's messages are needed for.
REFERENCES = ('depth', 'cloud', 'scan')
SOURCES = ('none', 'fixed', *REFERENCES, 'ground_plane')


@dataclass(frozen=True)
class ScaleConfig:
    """
    Parameters `scale.*`, named as there.

    Attributes
    ----------
    source : str
        One of `SOURCES`.
    min_depth_m, max_depth_m : float or None
        Depth of affine-invariant 0 and 1 that `fixed` assumes, m.
    extrinsics : str or None
        Of the reference sensor, see `geometry.poses.parse_extrinsics`; None asks TF.
    camera_height_m : float or None
        Above the floor, for `ground_plane`, m.
    camera_pitch_deg, camera_roll_deg : float or None
        Nose down and right side down; None asks TF, and searches where TF does not know.
    base_frame : str
        Level frame of the robot, from which TF gives pitch and roll.
    filter : FilterConfig

    Raises
    ------
    ConfigError
        For an unknown source, a value that the source needs and that is unset, or one that breaks
        its rule.
    """

    source: str = 'none'
    min_depth_m: float | None = None
    max_depth_m: float | None = None
    extrinsics: str | None = None
    camera_height_m: float | None = None
    camera_pitch_deg: float | None = None
    camera_roll_deg: float | None = None
    base_frame: str = 'base_link'
    filter: FilterConfig = field(default_factory=FilterConfig)

    def __post_init__(self) -> None:
        """Check every rule."""
        require(self.source in SOURCES, 'scale.source', one_of(SOURCES), self.source)
        if self.source == 'fixed':
            self._check_range(self.min_depth_m, self.max_depth_m)
        if self.source == 'ground_plane' and self.camera_height_m is None:
            raise ConfigError('`scale.camera_height_m` must be set in metres for scale.source '
                              'ground_plane; got None')
        if self.extrinsics is not None:
            parse_extrinsics(self.extrinsics)

    @property
    def reference(self) -> str | None:
        """Give the kind of reference that is listened to, if any."""
        return self.source if self.source in REFERENCES else None

    @property
    def is_measured(self) -> bool:
        """Whether metres are measured, and not left out or assumed."""
        return self.source not in ('none', 'fixed')

    @property
    def needs_transforms(self) -> bool:
        """Whether TF is asked for something that no parameter says."""
        if self.source == 'ground_plane':
            return self.camera_pitch_deg is None or self.camera_roll_deg is None
        return self.reference is not None and self.extrinsics is None

    def _check_range(self, low_m: float | None, high_m: float | None) -> None:
        if low_m is None or high_m is None:
            raise ConfigError('`scale.min_depth_m` and `scale.max_depth_m` must be set in metres '
                              f'for scale.source fixed; got {low_m} and {high_m}')
        require(math.isfinite(low_m) and low_m > 0, 'scale.min_depth_m',
                'finite and above 0 m', low_m)
        require(math.isfinite(high_m) and high_m > low_m, 'scale.max_depth_m',
                f'finite and above scale.min_depth_m ({low_m} m)', high_m)
