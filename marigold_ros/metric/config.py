"""The parameters `scale.*`, validated on construction."""

from __future__ import annotations

from dataclasses import dataclass, field
import math

from marigold_ros.depth.config import one_of, require
from marigold_ros.depth.errors import ConfigError
from marigold_ros.geometry.poses import parse_extrinsics
from marigold_ros.metric.filter import FilterConfig

# Sources that need the messages of another sensor.
REFERENCE_SOURCES = ('depth', 'cloud', 'scan')
SCALE_SOURCES = ('none', 'fixed', *REFERENCE_SOURCES, 'ground_plane')
# Instead of an angle of the camera's mount: it is estimated from the images.
SEARCH = 'search'


@dataclass(frozen=True)
class ScaleConfig:
    """
    Values of the parameters `scale.*`, with the same names.

    Attributes
    ----------
    source : str
        One of `SCALE_SOURCES`.
    min_depth_m, max_depth_m : float or None
        Metric depth that `fixed` assumes for relative depth 0 and 1, m.
    extrinsics : str or None
        Pose of the reference sensor, see `geometry.poses.parse_extrinsics`; None uses TF.
    camera_height_m : float or None
        Height of the camera above the floor, for `ground_plane`, m.
    camera_pitch_deg, camera_roll_deg : float, 'search' or None
        Tilt of the camera, degrees; nose down and right side down are positive.  'search'
        estimates the angle from the images, None takes it from TF.
    base_frame : str
        Level coordinate frame of the robot, relative to which TF gives pitch and roll.
    filter : FilterConfig

    Raises
    ------
    ConfigError
        If the source is unknown, a value that the source needs is unset, or a value is out of
        range.
    """

    source: str = 'none'
    min_depth_m: float | None = None
    max_depth_m: float | None = None
    extrinsics: str | None = None
    camera_height_m: float | None = None
    camera_pitch_deg: float | str | None = None
    camera_roll_deg: float | str | None = None
    base_frame: str = 'base_link'
    filter: FilterConfig = field(default_factory=FilterConfig)

    def __post_init__(self) -> None:
        """Validate the values."""
        require(self.source in SCALE_SOURCES, 'scale.source', one_of(SCALE_SOURCES), self.source)
        if self.source == 'fixed':
            self._check_range(self.min_depth_m, self.max_depth_m)
        if self.source == 'ground_plane' and self.camera_height_m is None:
            raise ConfigError('`scale.camera_height_m` must be set in metres for scale.source '
                              'ground_plane; got None')
        for name in ('camera_pitch_deg', 'camera_roll_deg'):
            angle = getattr(self, name)
            require(angle in (None, SEARCH) or (isinstance(angle, (int, float))
                                                and math.isfinite(angle)),
                    f'scale.{name}', f'an angle in degrees, auto or {SEARCH}', angle)
        if self.extrinsics is not None:
            parse_extrinsics(self.extrinsics)

    @property
    def reference_source(self) -> str | None:
        """Return the source if it subscribes to a reference, else None."""
        return self.source if self.source in REFERENCE_SOURCES else None

    @property
    def is_measured(self) -> bool:
        """Check whether the source measures the scale; `none` and `fixed` do not."""
        return self.source not in ('none', 'fixed')

    @property
    def needs_transforms(self) -> bool:
        """Check whether TF must supply a pose that no parameter sets."""
        if self.source == 'ground_plane':
            return self.camera_pitch_deg is None or self.camera_roll_deg is None
        return self.reference_source is not None and self.extrinsics is None

    def _check_range(self, low_m: float | None, high_m: float | None) -> None:
        if low_m is None or high_m is None:
            raise ConfigError('`scale.min_depth_m` and `scale.max_depth_m` must be set in metres '
                              f'for scale.source fixed; got {low_m} and {high_m}')
        require(math.isfinite(low_m) and low_m > 0, 'scale.min_depth_m',
                'finite and above 0 m', low_m)
        require(math.isfinite(high_m) and high_m > low_m, 'scale.max_depth_m',
                f'finite and above scale.min_depth_m ({low_m} m)', high_m)
