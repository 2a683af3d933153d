"""The node's parameters: one table from which they are declared, validated and documented."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
import re
import sys
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind

from marigold_ros.depth.adaptive import AdaptiveConfig
from marigold_ros.depth.config import (
    COMPLEXITY_MEASURES,
    DTYPES,
    EngineConfig,
    STEP_POLICIES,
    StepPolicyConfig,
    UPSAMPLING_METHODS,
)
from marigold_ros.depth.errors import ConfigError
from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.metric.config import (
    MEASURED_SOURCES,
    REFERENCE_SOURCES,
    SCALE_SOURCES,
    ScaleConfig,
    WEIGHT_LIMITS,
)
from marigold_ros.metric.filter import FilterConfig
from marigold_ros.metric.outputs import PointFilter
from marigold_ros.ros.parameter_row import format_yaml_value, ParameterRow
from marigold_ros.ros.rclpy_workarounds import find_given_parameters
from marigold_ros.ros.spelling import describe_unknown

QOS_ENTITIES = ('publisher', 'subscription')
QOS_POLICIES = tuple(name.lower() for name in QoSPolicyKind.__members__)
# qos_overrides.<topic>.<entity>[_<id>].<policy>
QOS_OVERRIDE = re.compile(
    rf'qos_overrides\..+\.({"|".join(QOS_ENTITIES)})(_\w+)?\.({"|".join(QOS_POLICIES)})')
# Parameters of earlier versions, and what has replaced them.
REPLACED = {
    'scale.source': 'scale.sources, a list such as [cloud, ground_plane]',
    'scale.extrinsics': 'scale.<source>.extrinsics, such as scale.cloud.extrinsics'}
MAX_STEPS_REASON = "Marigold's authors report no gain in accuracy above 10 steps"


def _row(kind: type, default: Any, description: str, *, name: str = '', **rest: Any) -> Any:
    """Define a Settings field with its row; `name` is the ROS name if it differs."""
    value = None if default == rest.get('keyword') else default
    return field(default=value, metadata={
        'row': {'name': name, 'kind': kind, 'default': default, 'description': description,
                **rest}})


def _extrinsics_row(source: str) -> Any:
    return _row(str, 'auto', f"x y z roll pitch yaw (m, rad) of the body frame of {source}'s "
                "sensor in the camera's body frame, both x forward, y left, z up; auto: from TF",
                name=f'scale.{source}.extrinsics', keyword='auto', run_time=True)


def _weight_row(source: str) -> Any:
    return _row(float, 1.0, f'How much {source} counts beside other scale sources',
                name=f'scale.{source}.weight', limits=WEIGHT_LIMITS, run_time=True)


@dataclass(frozen=True)
class Settings:
    """Values of all parameters at one time; the fields define the parameter table."""

    cameras: tuple[str, ...] = _row(
        tuple, ('camera',), 'Names of the cameras; the topics of a camera begin with its name',
        reason='at least one name')
    input_transport: str = _row(
        str, 'auto', 'Transport of the input images; auto uses raw if a raw image topic has a '
        'publisher, else compressed', choices=('auto', 'raw', 'compressed'))
    input_rectified: bool | None = _row(
        bool, 'auto', 'Whether the input images are already rectified; auto: true if the last '
        'part of the image topic begins with image_rect, but not with image_rect_raw',
        keyword='auto')
    checkpoint: str = _row(
        str, 'tiny', "Name of an embedded checkpoint, folder in diffusers' Marigold layout, or "
        'Hugging Face id')
    device: str = _row(
        str, 'auto', 'auto, cpu, cuda, cuda:<index>, openvino:CPU, openvino:GPU or openvino:NPU; '
        'auto uses a CUDA GPU if there is one, else the CPU with OpenVINO if that is installed; '
        'cpu uses torch')
    dtype: str = _row(str, 'auto', 'Number format of the networks', choices=DTYPES)
    processing_resolution: int | None = _row(
        int, 'auto', 'Longest edge of the image that the model processes, a multiple of 8; 0: '
        "that of the input image; auto: the checkpoint's", unit='px', limits=(0, 4096),
        keyword='auto')
    upsampling: str = _row(
        str, EngineConfig.upsampling, 'How depth is brought to the size of the image; guided: '
        'with the edges of the image; bilinear: smooth, in less time',
        choices=UPSAMPLING_METHODS)
    compile: bool = _row(
        bool, False, 'Compile the networks with torch at configure: the first start takes up to '
        'minutes longer, then processes frames faster; needs a C++ compiler, and Triton on a GPU')
    ensemble_size: int = _row(
        int, 1, 'Number of predictions from different noise that are merged into one; useful from '
        '3', limits=(1, 20), run_time=True)
    step_policy: str = _row(
        str, 'novelty', 'How the number of denoising steps is chosen; novelty: by how much of the '
        'image is new since the last run, whose depth 0 steps carry along; complexity: by the '
        'complexity of the image; fixed: always max_inference_steps', choices=STEP_POLICIES,
        run_time=True)
    complexity_measure: str = _row(
        str, 'entropy', 'Measure of the complexity of an image', choices=COMPLEXITY_MEASURES,
        run_time=True)
    min_inference_steps: int = _row(
        int, 0, 'Smallest number of denoising steps; 0: the depth of the last run is carried '
        'along', limits=(0, 10), run_time=True, reason=MAX_STEPS_REASON)
    max_inference_steps: int = _row(
        int, 4, 'Largest number of denoising steps; reduced to the largest number that is useful '
        'for the checkpoint', limits=(1, 10), run_time=True, reason=MAX_STEPS_REASON)
    complexity_min: float | None = _row(
        float, 'auto', 'Complexity up to which a frame gets min_inference_steps; auto: 0 for '
        "novelty, the 70 % quantile of the camera's frames for complexity", limits=(0.0, 100.0),
        keyword='auto', run_time=True)
    alpha: float | None = _row(
        float, 'auto', 'Additional steps per unit of complexity above complexity_min; auto: 7.2 '
        'for novelty, of which C is a share; for complexity max_inference_steps at the 95 % '
        "quantile of the camera's frames",
        limits=(0.0, 1e9), keyword='auto', run_time=True)
    latency_cap_ms: float = _row(
        float, 200.0, 'Largest time from receipt to publication; the number of steps of frames '
        'that wait for their run is reduced to keep it; 0: no cap', unit='ms',
        limits=(0.0, 60000.0), run_time=True)
    max_carry_s: float = _row(
        float, 2.0, 'Longest time for which depth is carried along although nothing is new, but '
        'at least twice the time of a run; older depth has no metric outputs',
        unit='s', limits=(0.1, 60.0), run_time=True)
    odom_frame: str = _row(
        str, 'odom', 'Coordinate frame in which TF tells how the cameras move; carried metric '
        'depth follows that, as far as TF knows it; empty: along the image only', run_time=True)
    max_age_s: float = _row(
        float, 1.0, 'Frames with an older stamp are dropped; not applied above 60 s, as of '
        'recordings and simulations on another clock', unit='s', limits=(0.01, 3600.0),
        run_time=True)
    max_input_pixels: int = _row(
        int, 16_000_000, 'Larger images are rejected before they are decoded', unit='px',
        limits=(1, 1_000_000_000), run_time=True)
    scale_sources: tuple[str, ...] = _row(
        tuple, ScaleConfig.sources, 'Sources of the metric scale, of which several may be named; '
        'none: no metric depth; fixed: an assumed range; depth, cloud, scan: a reference on '
        '<camera>/scale/<source>; ground_plane: the floor; motion: how the image moves while TF '
        'tells how the camera does', name='scale.sources', choices=SCALE_SOURCES, run_time=True)
    scale_min_depth_m: float | None = _row(
        float, 'unset', 'Depth that the scale source fixed assumes for the nearest point',
        name='scale.min_depth_m', unit='m', limits=(0.001, 1000.0), keyword='unset',
        run_time=True)
    scale_max_depth_m: float | None = _row(
        float, 'unset', 'Depth that the scale source fixed assumes for the farthest point',
        name='scale.max_depth_m', unit='m', limits=(0.001, 1000.0), keyword='unset',
        run_time=True)
    scale_camera_height_m: float | None = _row(
        float, 'unset', 'Height of the camera above the floor, for the scale source ground_plane; '
        'with motion, points below the floor are left out', name='scale.camera_height_m',
        unit='m', limits=(0.02, 100.0), keyword='unset', run_time=True)
    scale_camera_pitch_deg: float | None = _row(
        float, 'auto', 'Pitch of the camera, nose down positive, where the height above the floor '
        'is set; auto: from TF', name='scale.camera_pitch_deg', unit='deg', limits=(-15.0, 60.0),
        keyword='auto', run_time=True)
    scale_camera_roll_deg: float | None = _row(
        float, 'auto', 'Roll of the camera, right side down positive, where the height above the '
        'floor is set; auto: from TF', name='scale.camera_roll_deg', unit='deg',
        limits=(-15.0, 15.0), keyword='auto', run_time=True)
    scale_base_frame: str = _row(
        str, ScaleConfig.base_frame, 'Level coordinate frame of the robot, relative to which TF '
        'gives pitch and roll of the camera', name='scale.base_frame', run_time=True)
    scale_max_change_per_s: float = _row(
        float, FilterConfig.max_change_per_s,
        'Largest relative change of the metric depth that a change of the scale may cause',
        name='scale.max_change_per_s', unit='1/s', limits=(0.001, 100.0), run_time=True)
    scale_hold_s: float = _row(
        float, FilterConfig.hold_s,
        'Largest time between an image and its reference; a scale whose last measurement is older '
        'counts as held', name='scale.hold_s', unit='s', limits=(0.01, 3600.0), run_time=True)
    scale_expire_s: float = _row(
        float, FilterConfig.expire_s, 'Age of the last measurement above which the scale is '
        'discarded and metric outputs stop', name='scale.expire_s', unit='s',
        limits=(0.01, 36000.0), run_time=True)
    scale_depth_extrinsics: str | None = _extrinsics_row('depth')
    scale_depth_weight: float = _weight_row('depth')
    scale_cloud_extrinsics: str | None = _extrinsics_row('cloud')
    scale_cloud_weight: float = _weight_row('cloud')
    scale_scan_extrinsics: str | None = _extrinsics_row('scan')
    scale_scan_weight: float = _weight_row('scan')
    scale_ground_plane_weight: float = _weight_row('ground_plane')
    scale_motion_weight: float = _weight_row('motion')
    scale_motion_refine_rotation: bool = _row(
        bool, ScaleConfig.refine_rotation, 'Let the corners of the images correct the rotation '
        'between two views where they contradict TF: for odometry that drifts or is late; with '
        'intrinsics that are not exact it does harm', name='scale.motion.refine_rotation',
        run_time=True)
    min_depth_m: float = _row(
        float, DepthFilter.min_depth_m, 'Smaller metric depth is published as -Inf', unit='m',
        limits=(0.001, 1000.0), run_time=True)
    max_depth_m: float = _row(
        float, DepthFilter.max_depth_m, 'Larger metric depth is published as +Inf', unit='m',
        limits=(0.001, 1000.0), run_time=True)
    point_stride: int = _row(
        int, PointFilter.stride, 'Distance between the pixels that become points of the cloud, '
        'along both axes', unit='px', limits=(1, 64), run_time=True)
    points_min_surface_angle_deg: float = _row(
        float, PointFilter.min_surface_angle_deg, 'As min_surface_angle_deg, for what becomes '
        'points of the cloud: edges that are predicted too soft would be obstacles', unit='deg',
        limits=(0.0, 45.0), run_time=True)
    points_confidence_min: float = _row(
        float, PointFilter.confidence_min, 'As confidence_min, for what becomes points of the '
        'cloud', limits=(0.0, 1.0), run_time=True)
    max_relative_depth: float = _row(
        float, DepthFilter.max_relative_depth,
        'Pixels of larger relative depth count as sky, whose metric depth is published as +Inf; '
        '1: none', limits=(0.0, 1.0), run_time=True)
    confidence_min: float = _row(
        float, DepthFilter.confidence_min,
        'Metric depth of lower confidence is published as NaN; where the scale is measured, it is '
        'the probability that depth is right within a factor of 1.25', limits=(0.0, 1.0),
        run_time=True)
    min_surface_angle_deg: float = _row(
        float, DepthFilter.min_surface_angle_deg,
        'Pixels whose surface has a smaller angle to the viewing ray count as flying pixels and '
        'are published as NaN; 0: none', unit='deg', limits=(0.0, 45.0), run_time=True)
    depth_encoding: str = _row(
        str, '32FC1', 'Encoding of depth/image_rect; 32FC1: metres; 16UC1: millimetres',
        choices=('32FC1', '16UC1'), run_time=True)
    autostart: bool = _row(bool, True, 'Configure and activate the node when the process starts')

    def __post_init__(self) -> None:
        """Validate the cameras' names and the rules between parameters."""
        for name in self.cameras:
            if not re.fullmatch(r'[A-Za-z]\w*(/[A-Za-z]\w*)*', name):
                raise ConfigError('each name in `cameras` must consist of letters, digits, _ and '
                                  f'/, and begin with a letter; got {list(self.cameras)}')
        if len(set(self.cameras)) < len(self.cameras):
            raise ConfigError('the names in `cameras` must differ from each other; got '
                              f'{list(self.cameras)}')
        self.depth_filter()
        self.engine_config()
        self.adaptive_config()
        if 'motion' in self.scale_config().sources and not self.odom_frame:
            raise ConfigError('`odom_frame` must name a coordinate frame for the scale source '
                              "motion; got ''")

    def engine_config(self) -> EngineConfig:
        """Return the settings with which the engine is loaded."""
        return EngineConfig(self.checkpoint, self.device, self.dtype, self.processing_resolution,
                            self.compile, self.upsampling)

    def step_policy_config(self, max_useful_steps: int = 10) -> StepPolicyConfig:
        """Return the step policy's settings, with at most `max_useful_steps` steps."""
        return StepPolicyConfig(
            policy=self.step_policy,
            min_inference_steps=min(self.min_inference_steps, max_useful_steps),
            max_inference_steps=min(self.max_inference_steps, max_useful_steps),
            complexity_min=self.complexity_min, alpha=self.alpha,
            latency_cap_s=self.latency_cap_ms / 1e3 or None)

    def adaptive_config(self, max_useful_steps: int = 10) -> AdaptiveConfig:
        """Return the settings of AdaptiveDepth, with at most `max_useful_steps` steps."""
        return AdaptiveConfig(self.step_policy_config(max_useful_steps), self.complexity_measure,
                              self.ensemble_size, self.max_carry_s)

    def depth_filter(self) -> DepthFilter:
        """Return the filter of the published metric depth."""
        return DepthFilter(self.min_depth_m, self.max_depth_m, self.max_relative_depth,
                           self.confidence_min, self.min_surface_angle_deg)

    def point_filter(self) -> PointFilter:
        """Return the filter of what becomes points."""
        return PointFilter(self.point_stride, self.points_min_surface_angle_deg,
                           self.points_confidence_min)

    def scale_config(self) -> ScaleConfig:
        """Return the settings of the scale estimation."""
        extrinsics = {source: getattr(self, f'scale_{source}_extrinsics')
                      for source in REFERENCE_SOURCES}
        return ScaleConfig(
            sources=self.scale_sources, min_depth_m=self.scale_min_depth_m,
            max_depth_m=self.scale_max_depth_m,
            extrinsics={source: each for source, each in extrinsics.items() if each is not None},
            weights={source: getattr(self, f'scale_{source}_weight')
                     for source in MEASURED_SOURCES},
            camera_height_m=self.scale_camera_height_m,
            camera_pitch_deg=self.scale_camera_pitch_deg,
            camera_roll_deg=self.scale_camera_roll_deg,
            refine_rotation=self.scale_motion_refine_rotation, base_frame=self.scale_base_frame,
            filter=FilterConfig(self.scale_max_change_per_s, self.scale_hold_s,
                                self.scale_expire_s))


def _row_of(settings_field: Any) -> ParameterRow:
    row = dict(settings_field.metadata['row'])
    return ParameterRow(**{**row, 'name': row['name'] or settings_field.name})


ROWS: dict[str, ParameterRow] = {f.name: _row_of(f) for f in fields(Settings)}  # by field
TABLE: tuple[ParameterRow, ...] = tuple(ROWS.values())


def settings_from_parameters(values: Mapping[str, Any]) -> Settings:
    """
    Validate parameter values and convert them to Settings.

    Parameters
    ----------
    values : mapping
        ROS name -> value; a missing parameter keeps its default.

    Raises
    ------
    ConfigError
        If a value is invalid.
    """
    return Settings(**{name: row.parse(values[row.name]) for name, row in ROWS.items()
                       if row.name in values})


def declare_parameters(node: Node) -> None:
    """
    Declare every parameter of the table.

    Raises
    ------
    ConfigError
        If an initial value is invalid by itself, or is of a parameter that has been replaced.
    """
    given = find_given_parameters(node)
    for name, successor in REPLACED.items():
        if name in given:
            raise ConfigError(f'`{name}` must be replaced by {successor}; got {given[name]!r}')
    for row in TABLE:
        if row.name in given:
            row.parse(given[row.name])
        default = list(row.default) if row.kind is tuple else row.default
        node.declare_parameter(row.name, default, row.descriptor())


def describe_unknown_parameters(given: Iterable[str], declared: Collection[str]) -> str:
    """
    Describe parameters that were given but do not exist, each with the most similar one.

    Parameters
    ----------
    given : iterable of str
        ROS names.  A QoS override may be of a topic that does not exist yet, or of another node.
    declared : collection of str
        ROS names of the parameters that exist.

    Returns
    -------
    str
        Empty if there are none.
    """
    parts = []
    for name in sorted(set(given) - set(declared)):
        if QOS_OVERRIDE.fullmatch(name):
            continue
        qos_overrides = [f'{name.rsplit(".", 2)[0]}.{entity}.{policy}'
                         for entity in QOS_ENTITIES for policy in QOS_POLICIES]
        parts.append(describe_unknown(
            name, qos_overrides if name.startswith('qos_overrides.') else declared))
    return ', '.join(parts)


def read_current_values(node: Node) -> dict[str, Any]:
    """Read the value of every parameter of the table by its ROS name."""
    return {row.name: node.get_parameter(row.name).value for row in TABLE}


def find_rejection_reason(current: Mapping[str, Any], changes: Iterable[tuple[str, Any]], *,
                          configured: bool) -> str:
    """
    Find the reason why a change of parameters is invalid.

    Parameters
    ----------
    current : mapping
        ROS name -> current value.
    changes : iterable of (name, value)
        New values; parameters outside the table (use_sim_time, qos_overrides) are ignored.
    configured : bool
        Whether the node holds an engine, so that only run-time parameters may change.

    Returns
    -------
    str
        The reason; empty if the change is valid.
    """
    run_time = {row.name: row.run_time for row in TABLE}
    new = {name: value for name, value in changes if name in run_time}
    for name, value in new.items():
        if configured and not run_time[name] and value != current[name]:
            return (f'`{name}` can only change while the node is unconfigured: run '
                    '`ros2 lifecycle set <node> deactivate` and '
                    '`ros2 lifecycle set <node> cleanup` first')
    try:
        settings_from_parameters({**current, **new})
    except ConfigError as err:
        return str(err)
    return ''


def format_yaml() -> str:
    """Format config/depth.yaml, with every parameter at its default."""
    lines = ['# Every parameter of depth_node at its default, described in '
             'docs/topics-and-parameters.md.',
             '# Written by: python -m marigold_ros.ros.parameters yaml', '/**:',
             '  ros__parameters:']
    open_groups: list[str] = []
    for row in TABLE:
        *groups, name = row.name.split('.')
        for depth, group in enumerate(groups):
            if open_groups[:depth + 1] != groups[:depth + 1]:
                lines.append(f'{"  " * depth}    {group}:')
        open_groups = groups
        lines.append(f'{"  " * len(groups)}    {name}: {format_yaml_value(row.default)}')
    return '\n'.join(lines) + '\n'


def format_parameter_table() -> str:
    """Format the table of all parameters for the documentation."""
    lines = ['| parameter | default | type, range | at run time | meaning |',
             '|---|---|---|---|---|']
    for row in TABLE:
        kind = row.type_name + (f': {row.rule}' if row.rule else '') + (
            f' {row.unit}' if row.unit else '')
        lines.append(f'| `{row.name}` | {format_yaml_value(row.default)} | {kind} | '
                     f'{"yes" if row.run_time else "no"} | {row.description} |')
    return '\n'.join(lines) + '\n'


def main() -> None:
    """Print the documentation's table, or config/depth.yaml when called with `yaml`."""
    sys.stdout.write(format_yaml() if sys.argv[1:] == ['yaml'] else format_parameter_table())


if __name__ == '__main__':
    main()
