"""The command line of `evaluate`: its options, and the objects created from them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from marigold_ros.data.bags.bag_frames import BagTopics, TOLERANCE_MS
from marigold_ros.data.bags.pose_buffer import pose_topics, STATIC_TOPIC
from marigold_ros.data.bags.reader import open_bag
from marigold_ros.data.datasets.bag import bag_data_set
from marigold_ros.data.datasets.data_set import DataSet
from marigold_ros.data.datasets.published import PUBLISHED_SETS
from marigold_ros.data.datasets.rgbd_folder import folder_data_set
from marigold_ros.data.frames import Part, WHOLE
from marigold_ros.data.shards import shards_data_set
from marigold_ros.depth.config import EngineConfig, one_of, require
from marigold_ros.depth.errors import ConfigError
from marigold_ros.evaluation.config import (
    EvaluationConfig,
    PROTOCOLS,
    SEQUENCE_POLICIES,
    SINGLE_FRAME_POLICIES,
)
from marigold_ros.evaluation.metrics.costmap import read_layer_config
from marigold_ros.evaluation.metrics.metric_depth import MetricDepthEvaluator
from marigold_ros.evaluation.metrics.obstacle_map import ReferenceMap
from marigold_ros.evaluation.metrics.obstacles import ObstacleScorer, read_scene
from marigold_ros.evaluation.references import BagReferences
from marigold_ros.metric.config import MEASURED_SOURCES, REFERENCE_SOURCES, ScaleConfig
from marigold_ros.metric.outputs import PointFilter

EVALUATED_SOURCES = ('fixed', *MEASURED_SOURCES)
COSTMAP = Path('config/nav2_costmap.yaml')


def make_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog=name, description=description)
    commands = parser.add_subparsers(dest='data_set', required=True, metavar='DATA_SET')
    add_data_sets(commands.add_parser)
    fleet = commands.add_parser('fleet', help='many recordings, of a list')
    fleet.add_argument('list', type=Path, metavar='LIST.yaml',
                       help='recordings and their options; see docs/fleet.md')
    fleet.add_argument('--out', type=Path, required=True, metavar='DIR',
                       help='folder for the reports; what it holds already is not run again')
    fleet.add_argument('--ray', metavar='ADDRESS',
                       help='run on a Ray cluster; auto finds that of this machine (default: '
                            'processes on this machine)')
    fleet.add_argument('--baseline', type=Path, metavar='DIR',
                       help='output folder of an earlier fleet to compare with')
    return parser


def add_data_sets(add_parser: Callable[..., argparse.ArgumentParser]
                  ) -> dict[str, argparse.ArgumentParser]:
    """Add a parser for each kind of data set, with all its options; return them by kind."""
    parsers = {}
    bag = parsers['bag'] = add_parser('bag', help='ROS 2 or ROS 1 bag with images and their depth')
    bag.add_argument('--image', required=True, metavar='TOPIC', help='raw or compressed images')
    bag.add_argument('--depth', required=True, metavar='TOPIC',
                     help='true depth, registered to the image')
    bag.add_argument('--camera-info', metavar='TOPIC',
                     help='default: camera_info in the namespace of the image')
    bag.add_argument('--tolerance-ms', type=float, metavar='MS', default=TOLERANCE_MS,
                     help='largest difference between the times of an image and its depth '
                          '(default: %(default)g)')
    bag.add_argument('--input-rectified', choices=('true', 'false'),
                     help='whether the images are already rectified (default: by topic names)')
    _add_metric_options(bag)
    for data_set, text in (('folder', 'RGB-D folder with frames.json'),
                           ('shards', 'folder of rendered shards')):
        parsers[data_set] = add_parser(data_set, help=text)
    for data_set, published_set in PUBLISHED_SETS.items():
        published = parsers[data_set] = add_parser(
            data_set, help=f"{published_set.title} in the layout of Marigold's evaluation")
        published.add_argument('--file-list', type=Path, required=True, metavar='TXT',
                               help=f"Marigold's data_split/{published_set.file_list}")
    for data_set, parser in parsers.items():
        parser.set_defaults(data_set=data_set)
        parser.add_argument('path', type=Path, help='bag, folder or archive to evaluate')
        _add_common_options(parser)
    return parsers


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    default = EvaluationConfig()
    parser.add_argument('--out', type=Path, required=True, metavar='DIR',
                        help='folder for the report')
    parser.add_argument('--checkpoint', default=default.checkpoint,
                        help='embedded name, folder or hub id (default: %(default)s)')
    parser.add_argument('--device', default='auto', metavar='DEVICE',
                        help='cpu, cuda or openvino:<DEVICE> (default: the first GPU, else cpu)')
    parser.add_argument('--policies', metavar='A,B,...',
                        help='step policies to compare; the first is the primary one, which the '
                             f'verdict is about (default: {",".join(SEQUENCE_POLICIES)}; without '
                             'novelty for single frames)')
    parser.add_argument('--ensemble-size', type=int, default=default.ensemble_size,
                        help='predictions combined per frame (default: %(default)s)')
    parser.add_argument('--processing-resolution', type=int, metavar='PX',
                        help="longest edge, px; 0 keeps the image's size (default: the data set's "
                             "or the checkpoint's)")
    parser.add_argument('--latency-cap-ms', type=float, metavar='MS',
                        default=1e3 * (default.latency_cap_s or 0.0),
                        help='latency cap; 0 is no cap (default: %(default)g)')
    parser.add_argument('--protocol', choices=PROTOCOLS, default=default.protocol,
                        help='A: least squares in depth; B: RANSAC in log depth, edges masked '
                             '(default: %(default)s)')
    parser.add_argument('--max-frames', type=int, metavar='N',
                        help='evaluate only the first N frames')
    parser.add_argument('--baseline', type=Path, metavar='TFLITE',
                        help='also compare with a depth network in a TFLite file')
    parser.add_argument('--latency-table', type=Path, metavar='JSON',
                        help='measured costs of a frame, written by an earlier evaluation '
                             '(default: the one in --out, else measured)')
    parser.add_argument('--live', action='store_true',
                        help='also play the bag in real time with the first policy')
    parser.add_argument('--out-bag', type=Path, metavar='BAG',
                        help='MCAP bag to write: image, depth, truth, error, cloud, status')


def _add_metric_options(parser: argparse.ArgumentParser) -> None:
    metric = parser.add_argument_group(
        'metric depth', "the node's parameters `scale.*`")
    metric.add_argument('--scale-sources', metavar='A,B,...',
                        help=f'of {", ".join(EVALUATED_SOURCES)}; fixed stands alone')
    metric.add_argument('--reference', type=_source_text, metavar='SOURCE=TOPIC', action='append',
                        default=[], help='topic of a scale source that is '
                        f'{" or ".join(REFERENCE_SOURCES)}; once for each')
    metric.add_argument('--reference-info', metavar='TOPIC',
                        help='camera_info of a reference depth (default: in its namespace)')
    metric.add_argument('--extrinsics', type=_source_text, action='append', default=[],
                        metavar="SOURCE='X Y Z ROLL PITCH YAW'",
                        help='pose of the sensor of a source (default: from the TF of the bag)')
    metric.add_argument('--weight', type=_source_number, metavar='SOURCE=WEIGHT',
                        action='append', default=[],
                        help='how much a source counts (default: 1)')
    metric.add_argument('--base-frame', metavar='FRAME', default='base_link',
                        help='level frame of the robot (default: %(default)s)')
    angle = 'degrees; auto: from the TF of the bag (default: auto)'
    for name, kind, text in (
            ('camera-height-m', float, 'height of the camera above the floor, for ground_plane '
             'and motion'),
            ('camera-pitch-deg', _mount_angle, angle), ('camera-roll-deg', _mount_angle, angle),
            ('min-depth-m', float, 'source fixed: depth of relative depth 0'),
            ('max-depth-m', float, 'source fixed: depth of relative depth 1')):
        metric.add_argument(f'--{name}', type=kind, help=text)
    metric.add_argument('--refine-rotation', action='store_true',
                        help='source motion: let the corners of the images correct the rotation '
                             'between two views')
    metric.add_argument('--scene', type=Path, metavar='JSON',
                        help='also score obstacles: description of the room such as '
                             "sample/scene.json, in the frame of the bag's poses")
    metric.add_argument('--points-min-surface-angle-deg', type=float, metavar='DEG',
                        default=PointFilter.min_surface_angle_deg,
                        help='smallest angle of a surface that becomes points '
                             '(default: %(default)g)')
    metric.add_argument('--points-confidence-min', type=float, metavar='P',
                        default=PointFilter.confidence_min,
                        help='smallest confidence of depth that becomes points '
                             '(default: %(default)g)')
    metric.add_argument('--costmap-sensor', metavar='NAME',
                        help='source of that layer to which a reference sensor belongs; the '
                             "camera's is depth_cloud (default: the settings of the camera's)")
    metric.add_argument('--costmap', type=Path, metavar='YAML', default=COSTMAP,
                        help='Nav2 parameter file with global_costmap.obstacle_layer '
                             '(default: %(default)s)')


def read_data_set(options: argparse.Namespace, part: Part = WHOLE) -> DataSet:
    """Open the data set that the command line names, or a part of it."""
    if options.data_set == 'bag':
        return bag_data_set(options.path, _bag_topics(options), part)
    if options.data_set in PUBLISHED_SETS:
        published_set = PUBLISHED_SETS[options.data_set]
        return published_set.data_set(options.path, options.file_list, part)
    make: dict[str, Callable[[Path, Part], DataSet]] = {
        'folder': folder_data_set, 'shards': shards_data_set}
    return make[options.data_set](options.path, part)


def read_config(options: argparse.Namespace, data_set: DataSet) -> EvaluationConfig:
    """Create the settings; the data set may prescribe the processing resolution."""
    policies = SEQUENCE_POLICIES if data_set.is_sequence else SINGLE_FRAME_POLICIES
    if options.policies is not None:
        policies = tuple(options.policies.split(','))
    config = EvaluationConfig(
        policies=policies, checkpoint=options.checkpoint,
        ensemble_size=options.ensemble_size,
        processing_resolution=options.processing_resolution,
        latency_cap_s=1e-3 * options.latency_cap_ms if options.latency_cap_ms else None,
        protocol=options.protocol, max_frames=options.max_frames)
    if config.processing_resolution is None:
        config = replace(config, processing_resolution=data_set.rules.processing_resolution)
    EngineConfig(config.checkpoint, options.device,
                 processing_resolution=config.processing_resolution)
    return config


class MetricSetup(NamedTuple):
    """
    What metric depth is evaluated with.

    Attributes
    ----------
    references : BagReferences
    make_evaluator : callable
        Returns a new evaluator.
    reference_map : ReferenceMap or None
        New; compares costmaps where a sensor and poses are known, but no scene.
    """

    references: BagReferences
    make_evaluator: Callable[[], MetricDepthEvaluator]
    reference_map: ReferenceMap | None


def open_references(options: argparse.Namespace, stack: ExitStack, part: Part = WHOLE
                    ) -> MetricSetup | None:
    """
    Open the references of metric depth.

    Parameters
    ----------
    options : argparse.Namespace
    stack : ExitStack
        Closes the bag.
    part : Part
        Of the bag.

    Returns
    -------
    MetricSetup or None
        None without scale sources.

    Raises
    ------
    ConfigError, InputError, BagError
        If a scale source is unknown or its settings are incomplete, or a file or topic is
        missing.
    """
    if options.data_set != 'bag':
        return None
    if options.scale_sources is None:
        _require_unset(options, 'scale_sources', (
            'reference', 'reference_info', 'extrinsics', 'weight', 'camera_height_m',
            'camera_pitch_deg', 'camera_roll_deg', 'min_depth_m', 'max_depth_m',
            'refine_rotation', 'scene'))
    if options.scene is None:
        _require_unset(options, 'scene', ('costmap_sensor',))
    if options.scale_sources is None:
        return None
    config = _read_scale_config(options)
    bag = stack.enter_context(open_bag(options.path, recover=True))
    scene = reference_map = None
    moves = not set(pose_topics(bag.topics)) <= {STATIC_TOPIC}
    if options.scene is not None:
        sensor = options.costmap_sensor
        scene = (read_scene(options.scene), read_layer_config(options.costmap),
                 None if sensor is None else read_layer_config(options.costmap, sensor))
        if not moves:
            raise ConfigError('`scene` needs the poses of the camera, on /tf or /odom; '
                              f'{options.path} has none')
    # Outside a clone the default file is missing, and the report has no map.
    elif config.reference_sources and moves and (options.costmap != COSTMAP or COSTMAP.is_file()):
        reference_map = ReferenceMap(config.reference_sources[0],
                                     read_layer_config(options.costmap))
    references = BagReferences(bag, _bag_topics(options), config,
                               _by_source(options, 'reference', config.sources),
                               camera_info=options.reference_info, part=part)
    point_filter = PointFilter(
        min_surface_angle_deg=options.points_min_surface_angle_deg,
        confidence_min=options.points_confidence_min)
    return MetricSetup(references, lambda: MetricDepthEvaluator(
        config, None if scene is None else ObstacleScorer(*scene), point_filter), reference_map)


def _require_unset(options: argparse.Namespace, missing: str, names: Sequence[str]) -> None:
    """Check that options which need another one are not given without it."""
    for name in names:
        value = getattr(options, name)
        require(value is None or value is False or value == [], name,
                f'unset without `{missing}`', value)


def _by_source(options: argparse.Namespace, name: str, sources: Sequence[str]) -> dict[str, Any]:
    """Return the values of an option that is given once for each source."""
    values: dict[str, Any] = {}
    for source, value in getattr(options, name):
        require(source in sources, name, f'of a source in `scale_sources` ({", ".join(sources)})',
                f'{source}={value}')
        require(source not in values, name, 'given once for each source', f'{source}={value}')
        values[source] = value
    return values


def _read_scale_config(options: argparse.Namespace) -> ScaleConfig:
    sources = tuple(options.scale_sources.split(','))
    for source in sources:
        require(source in EVALUATED_SOURCES, 'scale_sources', one_of(EVALUATED_SOURCES), source)
    require(options.camera_height_m is None or options.camera_height_m > 0, 'camera_height_m',
            'above 0', options.camera_height_m)
    return ScaleConfig(
        sources, options.min_depth_m, options.max_depth_m,
        _by_source(options, 'extrinsics', sources), _by_source(options, 'weight', sources),
        options.camera_height_m, options.camera_pitch_deg,
        options.camera_roll_deg, options.refine_rotation, options.base_frame)


def _source_text(text: str) -> tuple[str, str]:
    """Parse SOURCE=TEXT."""
    source, _, rest = text.partition('=')
    if source not in MEASURED_SOURCES or not rest:
        raise argparse.ArgumentTypeError(
            f'must be SOURCE=VALUE, with a source of {", ".join(MEASURED_SOURCES)}; got {text!r}')
    return source, rest


def _source_number(text: str) -> tuple[str, float]:
    """Parse SOURCE=NUMBER."""
    source, number = _source_text(text)
    try:
        return source, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f'must be SOURCE=NUMBER; got {text!r}') from None


def _mount_angle(text: str) -> float | None:
    """Parse an angle in degrees, or auto."""
    try:
        return None if text == 'auto' else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'must be an angle in degrees or auto; got {text!r}') from None


def _bag_topics(options: argparse.Namespace) -> BagTopics:
    rectified = {None: None, 'true': True, 'false': False}[options.input_rectified]
    return BagTopics(options.image, options.depth, options.camera_info,
                     options.tolerance_ms, tuple(topic for _, topic in options.reference),
                     rectified)
