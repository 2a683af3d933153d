"""The parameters `scale.*`, validated on construction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
import math

from marigold_ros.depth.config import one_of, require
from marigold_ros.depth.errors import ConfigError
from marigold_ros.geometry.poses import parse_extrinsics
from marigold_ros.metric.filter import FilterConfig

# Sources that need the messages of another sensor.
REFERENCE_SOURCES = ('depth', 'cloud', 'scan')
MEASURED_SOURCES = (*REFERENCE_SOURCES, 'ground_plane', 'motion')
SCALE_SOURCES = ('none', 'fixed', *MEASURED_SOURCES)
WEIGHT_LIMITS = (0.01, 100.0)


@dataclass(frozen=True)
class ScaleConfig:
    """
    Values of the parameters `scale.*`, with the same names.

    Attributes
    ----------
    sources : tuple of str
        Of `SCALE_SOURCES`; 'none' and 'fixed' stand alone, and each occurs once.
    min_depth_m, max_depth_m : float or None
        Metric depth that `fixed` assumes for relative depth 0 and 1, m.
    extrinsics : mapping of str to str
        Pose of the sensor of a source of `REFERENCE_SOURCES`, see
        `geometry.poses.parse_extrinsics`; TF tells those of the others.
    weights : mapping of str to float
        How much each of `MEASURED_SOURCES` counts, beside others of weight 1.
    camera_height_m : float or None
        Height of the camera above the floor, for `ground_plane`, m.  It also tells `motion` which
        points lie below the floor.
    camera_pitch_deg, camera_roll_deg : float or None
        Tilt of the camera, degrees; nose down and right side down are positive.  None takes it
        from TF.
    refine_rotation : bool
        See `MotionAnchors`.
    base_frame : str
        Level coordinate frame of the robot, relative to which TF gives pitch and roll.
    filter : FilterConfig

    Raises
    ------
    ConfigError
        If a source is unknown or must not be beside the others, a value that a source needs is
        unset, or a value is out of range.
    """

    sources: tuple[str, ...] = ('none',)
    min_depth_m: float | None = None
    max_depth_m: float | None = None
    extrinsics: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    camera_height_m: float | None = None
    camera_pitch_deg: float | None = None
    camera_roll_deg: float | None = None
    refine_rotation: bool = False
    base_frame: str = 'base_link'
    filter: FilterConfig = field(default_factory=FilterConfig)

    def __post_init__(self) -> None:
        """Validate the values."""
        self._check_sources()
        if self.sources == ('fixed',):
            self._check_range(self.min_depth_m, self.max_depth_m)
        if 'ground_plane' in self.sources and self.camera_height_m is None:
            raise ConfigError('`scale.camera_height_m` must be set in metres for the scale source '
                              'ground_plane; got None')
        for name in ('camera_pitch_deg', 'camera_roll_deg'):
            angle = getattr(self, name)
            require(angle is None or math.isfinite(angle), f'scale.{name}',
                    'an angle in degrees or auto', angle)
        for source, text in self.extrinsics.items():
            require(source in REFERENCE_SOURCES, f'scale.{source}.extrinsics',
                    f'of a source that is {one_of(REFERENCE_SOURCES)}', text)
            parse_extrinsics(text, f'scale.{source}.extrinsics')
        low, high = WEIGHT_LIMITS
        for source, weight in self.weights.items():
            require(source in MEASURED_SOURCES, f'scale.{source}.weight',
                    f'of a source that is {one_of(MEASURED_SOURCES)}', weight)
            require(low <= weight <= high, f'scale.{source}.weight', f'{low:g} to {high:g}',
                    weight)

    @property
    def reference_sources(self) -> tuple[str, ...]:
        """Return the sources that subscribe to a reference."""
        return tuple(each for each in self.sources if each in REFERENCE_SOURCES)

    @property
    def is_measured(self) -> bool:
        """Check whether the sources measure the scale; `none` and `fixed` do not."""
        return self.sources[0] in MEASURED_SOURCES

    @property
    def uses_floor(self) -> bool:
        """Check whether the height of the camera above the floor is known and of use."""
        return self.camera_height_m is not None and not {'ground_plane', 'motion'}.isdisjoint(
            self.sources)

    @property
    def needs_tilt(self) -> bool:
        """Check whether TF must tell an angle of the camera's mount."""
        return self.uses_floor and (self.camera_pitch_deg is None or self.camera_roll_deg is None)

    @property
    def needs_transforms(self) -> bool:
        """Check whether TF must supply a pose that no parameter sets."""
        return (self.needs_tilt or 'motion' in self.sources
                or any(each not in self.extrinsics for each in self.reference_sources))

    def weight(self, source: str) -> float:
        """Return how much a source counts."""
        return self.weights.get(source, 1.0)

    def _check_sources(self) -> None:
        for source in self.sources:
            require(source in SCALE_SOURCES, 'scale.sources',
                    f'a list of names, each {one_of(SCALE_SOURCES)}', list(self.sources))
        require(len(self.sources) > 0, 'scale.sources', 'a list with at least one source', [])
        require(len(set(self.sources)) == len(self.sources), 'scale.sources',
                'a list in which each source occurs once', list(self.sources))
        require(len(self.sources) == 1 or set(self.sources) <= set(MEASURED_SOURCES),
                'scale.sources', 'a list in which none and fixed stand alone', list(self.sources))

    def _check_range(self, low_m: float | None, high_m: float | None) -> None:
        if low_m is None or high_m is None:
            raise ConfigError('`scale.min_depth_m` and `scale.max_depth_m` must be set in metres '
                              f'for the scale source fixed; got {low_m} and {high_m}')
        require(math.isfinite(low_m) and low_m > 0, 'scale.min_depth_m',
                'finite and above 0 m', low_m)
        require(math.isfinite(high_m) and high_m > low_m, 'scale.max_depth_m',
                f'finite and above scale.min_depth_m ({low_m} m)', high_m)
