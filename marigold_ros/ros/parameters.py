"""The node's parameters: one table that declares, checks, documents and reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
import re
import sys
from typing import Any

from rclpy.node import Node

from marigold_ros.depth.adaptive import AdaptiveConfig
from marigold_ros.depth.complexity import MEASURES
from marigold_ros.depth.config import (
    DTYPES,
    EngineConfig,
    LATE_FRAMES,
    STEP_POLICIES,
    StepPolicyConfig,
)
from marigold_ros.depth.errors import ConfigError
from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.metric.config import ScaleConfig, SOURCES
from marigold_ros.metric.filter import FilterConfig
from marigold_ros.metric.outputs import POINT_STRIDE
from marigold_ros.ros.parameter_row import Row, yaml_value

MAX_STEPS_REASON = 'above 10 steps Marigold gains no accuracy, only time, say its authors'


def _row(kind: type, default: Any, description: str, *, name: str = '', **rest: Any) -> Any:
    """Make a Settings field that carries its row; `name` where ROS has another one."""
    value = None if default == rest.get('keyword') else default
    return field(default=value, metadata={
        'row': {'name': name, 'kind': kind, 'default': default, 'description': description,
                **rest}})


@dataclass(frozen=True)
class Settings:
    """Values of all parameters at one moment; its fields are the parameter table."""

    cameras: tuple[str, ...] = _row(
        tuple, ('camera',), 'Names of the cameras; each has its topics below its name')
    input_transport: str = _row(
        str, 'auto', 'How images arrive; auto takes raw where somebody publishes it',
        choices=('auto', 'raw', 'compressed'))
    input_rectified: bool | None = _row(
        bool, 'auto', 'Whether images are free of distortion already; auto: if the last name of '
        'their topic begins with image_rect', keyword='auto')
    checkpoint: str = _row(
        str, 'tiny', "Embedded name, folder in diffusers' Marigold layout, or hub id")
    device: str = _row(str, 'auto', 'auto, cpu, cuda or cuda:<index>; auto takes a GPU if any')
    dtype: str = _row(str, 'auto', 'Number format of the networks', choices=DTYPES)
    processing_resolution: int | None = _row(
        int, 'auto', "Longest edge at which the model works, a multiple of 8; 0 is the image's "
        "own, auto the checkpoint's", unit='px', limits=(0, 4096), keyword='auto')
    compile: bool = _row(
        bool, False, 'Compile the networks at configure: up to minutes of start-up for faster '
        'frames; needs a C++ compiler')
    ensemble_size: int = _row(
        int, 1, 'Predictions from different noise merged into one; useful from 3',
        limits=(1, 20), run_time=True)
    step_policy: str = _row(
        str, 'complexity', 'How many denoising steps a frame gets: by its complexity, or always '
        'the most',
        choices=STEP_POLICIES, run_time=True)
    complexity_measure: str = _row(
        str, 'gradient_energy', 'What complexity means', choices=tuple(MEASURES), run_time=True)
    min_inference_steps: int = _row(
        int, 1, 'Fewest denoising steps', limits=(1, 10), run_time=True, reason=MAX_STEPS_REASON)
    max_inference_steps: int = _row(
        int, 4, 'Most denoising steps; a checkpoint that is useful at fewer gets fewer',
        limits=(1, 10), run_time=True, reason=MAX_STEPS_REASON)
    complexity_min: float | None = _row(
        float, 'auto', 'Complexity that gets the fewest steps; auto: 70 % quantile of the camera',
        limits=(0.0, 100.0), keyword='auto', run_time=True)
    alpha: float | None = _row(
        float, 'auto', 'Steps more per unit of complexity; auto: up to the 95 % quantile',
        limits=(0.0, 1e9), keyword='auto', run_time=True)
    latency_cap_ms: float = _row(
        float, 200.0, 'Longest time from receipt to publication that steps may use; 0: no cap',
        unit='ms', limits=(0.0, 60000.0), run_time=True)
    late_frames: str = _row(
        str, 'run', 'What becomes of a frame whose fewest steps already break the cap',
        choices=LATE_FRAMES, run_time=True)
    max_age_s: float = _row(
        float, 1.0, 'Frames whose stamp is older are dropped; off for historical stamps without '
        'use_sim_time', unit='s', limits=(0.01, 3600.0), run_time=True)
    max_input_pixels: int = _row(
        int, 16_000_000, 'Larger images are refused before they are decoded', unit='px',
        limits=(1, 1_000_000_000), run_time=True)
    scale_source: str = _row(
        str, ScaleConfig.source, 'Where metres come from: nowhere, an assumed range, a reference '
        'on <camera>/scale/depth, cloud or scan, or the floor', name='scale.source',
        choices=SOURCES, run_time=True)
    scale_min_depth_m: float | None = _row(
        float, 'unset', 'Depth that scale.source fixed assumes for the nearest point',
        name='scale.min_depth_m', unit='m', limits=(0.001, 1000.0), keyword='unset',
        run_time=True)
    scale_max_depth_m: float | None = _row(
        float, 'unset', 'Depth that scale.source fixed assumes for the farthest point',
        name='scale.max_depth_m', unit='m', limits=(0.001, 1000.0), keyword='unset',
        run_time=True)
    scale_extrinsics: str | None = _row(
        str, 'auto', "x y z roll pitch yaw (m, rad) of the reference sensor's body frame in the "
        "camera's body frame, both x forward, y left, z up; auto: from TF",
        name='scale.extrinsics', keyword='auto', run_time=True)
    scale_camera_height_m: float | None = _row(
        float, 'unset', 'Height of the camera above the floor, for scale.source ground_plane',
        name='scale.camera_height_m', unit='m', limits=(0.02, 100.0), keyword='unset',
        run_time=True)
    scale_camera_pitch_deg: float | None = _row(
        float, 'auto', 'How far the camera looks down, for ground_plane; auto: from TF, else '
        'searched in the image', name='scale.camera_pitch_deg', unit='deg', limits=(-15.0, 60.0),
        keyword='auto', run_time=True)
    scale_camera_roll_deg: float | None = _row(
        float, 'auto', 'How far its right side is turned down; auto as above',
        name='scale.camera_roll_deg', unit='deg', limits=(-15.0, 15.0), keyword='auto',
        run_time=True)
    scale_base_frame: str = _row(
        str, ScaleConfig.base_frame, 'Level frame of the robot from which TF gives pitch and roll',
        name='scale.base_frame', run_time=True)
    scale_max_change_per_s: float = _row(
        float, FilterConfig.max_change_per_s,
        'Largest relative change of metric depth by a changing scale',
        name='scale.max_change_per_s', unit='1/s', limits=(0.001, 100.0), run_time=True)
    scale_hold_s: float = _row(
        float, FilterConfig.hold_s,
        'Age from which a reference is not used any more, and a scale only held',
        name='scale.hold_s', unit='s', limits=(0.01, 3600.0), run_time=True)
    scale_expire_s: float = _row(
        float, FilterConfig.expire_s, 'Age of the last measurement at which metres stop',
        name='scale.expire_s', unit='s', limits=(0.01, 36000.0), run_time=True)
    min_depth_m: float = _row(
        float, DepthFilter.min_depth_m, 'Nearer depth is published as -Inf', unit='m',
        limits=(0.001, 1000.0), run_time=True)
    max_depth_m: float = _row(
        float, DepthFilter.max_depth_m, 'Farther depth is published as +Inf', unit='m',
        limits=(0.001, 1000.0), run_time=True)
    point_stride: int = _row(
        int, POINT_STRIDE, 'Every how many pixels, along both axes, the cloud has a point',
        unit='px', limits=(1, 64), run_time=True)
    max_relative_depth: float = _row(
        float, DepthFilter.max_relative_depth,
        'Farther relative depth is published as +Inf, for it is sky; 1: none',
        limits=(0.0, 1.0), run_time=True)
    confidence_min: float = _row(
        float, DepthFilter.confidence_min, 'Depth of less confidence is published as unknown',
        limits=(0.0, 1.0), run_time=True)
    min_surface_angle_deg: float = _row(
        float, DepthFilter.min_surface_angle_deg,
        'Flying pixels, which lie on a surface seen at a smaller angle to the ray, are published '
        'as unknown; 0: none', unit='deg', limits=(0.0, 45.0), run_time=True)
    depth_encoding: str = _row(
        str, '32FC1', 'Encoding of depth/image_rect: metres, or millimetres',
        choices=('32FC1', '16UC1'), run_time=True)
    autostart: bool = _row(bool, True, 'Configure and activate when the process starts')

    def __post_init__(self) -> None:
        """Check the rules that tie parameters together."""
        for name in self.cameras or ('',):
            if not re.fullmatch(r'[A-Za-z]\w*(/[A-Za-z]\w*)*', name):
                raise ConfigError('`cameras` must be at least one name of letters, digits, _ and '
                                  f'/, beginning with a letter; got {list(self.cameras)}')
        if len(set(self.cameras)) < len(self.cameras):
            raise ConfigError(f'`cameras` must differ; got {list(self.cameras)}')
        self.depth_filter()
        self.engine_config()
        self.adaptive_config()
        self.scale_config()

    def engine_config(self) -> EngineConfig:
        """Select what the engine is loaded with."""
        return EngineConfig(self.checkpoint, self.device, self.dtype, self.processing_resolution,
                            self.compile)

    def step_policy_config(self, max_useful_steps: int = 10) -> StepPolicyConfig:
        """Select the step policy's settings, never more steps than the checkpoint can use."""
        return StepPolicyConfig(
            policy=self.step_policy,
            min_inference_steps=min(self.min_inference_steps, max_useful_steps),
            max_inference_steps=min(self.max_inference_steps, max_useful_steps),
            complexity_min=self.complexity_min, alpha=self.alpha,
            latency_cap_s=self.latency_cap_ms / 1e3 or None, late_frames=self.late_frames)

    def adaptive_config(self, max_useful_steps: int = 10) -> AdaptiveConfig:
        """Select what is done with each frame, with steps as `step_policy_config` limits them."""
        return AdaptiveConfig(self.step_policy_config(max_useful_steps), self.complexity_measure,
                              self.ensemble_size)

    def depth_filter(self) -> DepthFilter:
        """Select what is published of metric depth."""
        return DepthFilter(self.min_depth_m, self.max_depth_m, self.max_relative_depth,
                           self.confidence_min, self.min_surface_angle_deg)

    def scale_config(self) -> ScaleConfig:
        """Select what the scale source is built from."""
        return ScaleConfig(
            source=self.scale_source, min_depth_m=self.scale_min_depth_m,
            max_depth_m=self.scale_max_depth_m, extrinsics=self.scale_extrinsics,
            camera_height_m=self.scale_camera_height_m,
            camera_pitch_deg=self.scale_camera_pitch_deg,
            camera_roll_deg=self.scale_camera_roll_deg, base_frame=self.scale_base_frame,
            filter=FilterConfig(self.scale_max_change_per_s, self.scale_hold_s,
                                self.scale_expire_s))


def _row_of(settings_field: Any) -> Row:
    row = dict(settings_field.metadata['row'])
    return Row(**{**row, 'name': row['name'] or settings_field.name})


ROWS: dict[str, Row] = {f.name: _row_of(f) for f in fields(Settings)}  # by field
TABLE: tuple[Row, ...] = tuple(ROWS.values())


def settings_from(values: Mapping[str, Any]) -> Settings:
    """
    Read settings from parameter values.

    Parameters
    ----------
    values : mapping
        ROS name -> value; what is missing keeps its default.

    Raises
    ------
    ConfigError
        If a value breaks a rule.
    """
    return Settings(**{name: row.read(values[row.name]) for name, row in ROWS.items()
                       if row.name in values})


def declare(node: Node) -> None:
    """Declare every parameter of the table."""
    for row in TABLE:
        default = list(row.default) if row.kind is tuple else row.default
        node.declare_parameter(row.name, default, row.descriptor())


def current_values(node: Node) -> dict[str, Any]:
    """Return ROS name -> value of every parameter of the table."""
    return {row.name: node.get_parameter(row.name).value for row in TABLE}


def refusal(current: Mapping[str, Any], changes: Iterable[tuple[str, Any]], *,
            configured: bool) -> str:
    """
    Say why a change must be refused.

    Parameters
    ----------
    current : mapping
        ROS name -> value now.
    changes : iterable of (name, value)
        Parameters of other owners (use_sim_time, qos_overrides) are not judged.
    configured : bool
        Whether the node holds an engine, so that only run-time parameters may change.

    Returns
    -------
    str
        The reason; empty if the change is welcome.
    """
    run_time = {row.name: row.run_time for row in TABLE}
    wanted = {name: value for name, value in changes if name in run_time}
    for name, value in wanted.items():
        if configured and not run_time[name] and value != current[name]:
            return (f'`{name}` is read at configure: deactivate and clean up the node first '
                    '(ros2 lifecycle set <node> deactivate, cleanup)')
    try:
        settings_from({**current, **wanted})
    except ConfigError as err:
        return str(err)
    return ''


def yaml_text() -> str:
    """Text of config/depth.yaml: every parameter at its default, described."""
    lines = ['# Every parameter of depth_node at its default; the README explains them.',
             '# Written by: python -m marigold_ros.ros.parameters yaml', '/**:',
             '  ros__parameters:']
    group = ''
    for row in TABLE:
        prefix, _, name = row.name.rpartition('.')
        if prefix and prefix != group:
            lines.append(f'    {prefix}:')
        group = prefix
        indent = '      ' if prefix else '    '
        lines.append(f'{indent}{name}: {yaml_value(row.default)}')
    return '\n'.join(lines) + '\n'


def markdown_table() -> str:
    """Table of all parameters for the README."""
    lines = ['| parameter | default | type, range | at run time | meaning |',
             '|---|---|---|---|---|']
    for row in TABLE:
        kind = row.type_name + (f': {row.rule}' if row.rule else '') + (
            f' {row.unit}' if row.unit else '')
        lines.append(f'| `{row.name}` | {yaml_value(row.default)} | {kind} | '
                     f'{"yes" if row.run_time else "no"} | {row.description} |')
    return '\n'.join(lines) + '\n'


def main() -> None:
    """Print the README's table, or config/depth.yaml when called with `yaml`."""
    sys.stdout.write(yaml_text() if sys.argv[1:] == ['yaml'] else markdown_table())


if __name__ == '__main__':
    main()
