"""What people really bring: evaluate, finetune, play_bag and the node read the same from a bag."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
import time
from types import SimpleNamespace

from bag_fixtures import (
    camera_info,
    compressed_depth,
    compressed_image,
    header,
    image,
    K,
    pose_messages,
    ROS1,
    serialize,
    START_NS,
    text,
    to_ros1,
    webcam_jpeg,
    write_bag,
    write_mcap,
)
import cv2
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Ros1Writer
import yaml

from marigold_ros.data.bags.bag_frames import BagTopics
from marigold_ros.data.bags.messages import serialize_cloud
from marigold_ros.data.bags.reader import open_bag
from marigold_ros.data.datasets.bag import bag_data_set
from marigold_ros.evaluation.references import BagReferences
from marigold_ros.messages.camera_info import rectified_by_name
from marigold_ros.messages.cloud import pack_cloud
from marigold_ros.messages.header import peek_header
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.sources.reference import pose_without_tf
from marigold_ros.ros.calibration import CalibrationCache
from marigold_ros.ros.conversions import depth_from_message, rgb_from_message
from marigold_ros.ros.frame_buffer import ReceivedFrame
from marigold_ros.ros.metric_inputs import References
from marigold_ros.ros.stamps import StampMonitor
from marigold_ros.ros.tools.play_bag import plan_routes, Player, split_playable_routes
from marigold_ros.stop_flag import StopFlag
from marigold_ros.training.batches import open_frame_sets
from marigold_ros.training.config import FrameSetConfig

RAW, PACKED, INFO_TYPE = (f'sensor_msgs/msg/{name}' for name in (
    'Image', 'CompressedImage', 'CameraInfo'))
TF, ODOMETRY = 'tf2_msgs/msg/TFMessage', 'nav_msgs/msg/Odometry'
CLOCK, STRING = 'rosgraph_msgs/msg/Clock', 'std_msgs/msg/String'
IMAGE, DEPTH, INFO, CLOUD = '/cam/image', '/aligned/depth', '/cam/camera_info', '/points'
COUNT, PERIOD_NS, MS = 3, 10 ** 8, 10 ** 6
MATRIX = np.reshape(K, (3, 3))
BENT = (-0.3, 0.1, 0.0, 0.0, 0.0)
NO_CALIBRATION = 'images are used as they are, and there are no metric depth and clouds'
TOPICS = BagTopics(IMAGE, DEPTH)


@dataclass(frozen=True)
class Case:
    """A bag, and what is expected of it."""

    messages: list[tuple[str, str, int, bytes]]
    write: Callable[[Path, list], Path] = lambda path, messages: write_mcap(path, messages)
    topics: BagTopics = TOPICS
    undistort: Callable[[np.ndarray], np.ndarray] = lambda rgb: rgb
    calibrated: bool = True
    timed: bool = True
    lossy: bool = False
    notes: list[str] = field(default_factory=list)


def write_folder(path, messages, **empty):
    """Write a folder of rosbag2."""
    return write_bag(path, {**{topic: msgtype for topic, msgtype, *_ in messages}, **empty},
                     [(topic, at, data) for topic, _, at, data in messages])


def picture(number):
    """Make a smooth image with a bright box, 16 x 24; its colour tells its number."""
    rgb = np.full((16, 24, 3), (30 + 20 * number, 120, 200), np.uint8)
    rgb[4:12, 6:18] = 220
    return rgb


def depth_mm(number):
    depth = np.full((16, 24), 1000 * (number + 1), np.uint16)
    depth[4:12, 6:18] = 500 * (number + 1)
    return depth


def record(*, names=(IMAGE, DEPTH), stamp=lambda at: START_NS + at, depth_delay_ms=0,
           rgb=lambda number, stamp: (RAW, image(picture(number), 'rgb8', stamp)),
           depth=lambda number, stamp: (RAW, image(depth_mm(number), '16UC1', stamp)),
           info=camera_info(), extra=()):
    """List the messages of a usual recording, with camera_info first."""
    messages = [(INFO, INFO_TYPE, 0, info), *extra]
    for number in range(COUNT):
        at = number * PERIOD_NS
        later = at + depth_delay_ms * MS
        kind, data = rgb(number, stamp(at))
        messages.append((names[0], kind, at, data))
        kind, data = depth(number, stamp(later))
        messages.append((names[1], kind, later, data))
    return sorted(messages, key=lambda message: message[2])


def beside_other_worlds(path, messages):
    return write_mcap(path, messages, foreign=True)


def with_siblings_in_json(path, messages):
    """Write in JSON what would be used if it could be read."""
    return write_mcap(path, messages, json=(IMAGE, INFO, '/tf'))


def beside_an_empty_topic(path, messages):
    """Add a raw image topic without messages."""
    return write_folder(path, messages, **{IMAGE: RAW})


def contradict_metadata(path, messages):
    """Rename the file, and let the metadata state another storage, QoS and count."""
    write_folder(path, messages)
    next(path.glob('*.mcap')).rename(path / 'drive.mcap')
    metadata = yaml.safe_load((path / 'metadata.yaml').read_text())
    information = metadata['rosbag2_bagfile_information']
    information.update(storage_identifier='', message_count=80)
    for topic in information['topics_with_message_count']:
        topic['topic_metadata']['offered_qos_profiles'] = []
    (path / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    return path


def write_ros1(path, messages):
    with Ros1Writer(path) as writer:
        connections = {}
        for topic, msgtype, at, data in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=ROS1)
            writer.write(connections[topic], START_NS + at, to_ros1(msgtype, data))
    return path


def mosaic(number, stamp):
    """Sample colours in a mosaic of RG over GB, in a PNG."""
    rgb = picture(number)
    samples = rgb[..., 1].copy()
    samples[::2, ::2], samples[1::2, 1::2] = rgb[::2, ::2, 0], rgb[1::2, 1::2, 2]
    return PACKED, compressed_image(samples, '.png', 'bayer_rggb8; png compressed ', stamp)


def webcam(number, stamp):
    stream = webcam_jpeg(picture(number))[1]
    return PACKED, serialize(PACKED, header=header(stamp), format='jpeg',
                             data=np.frombuffer(stream, np.uint8))


POSES = [(topic, TF if topic == '/tf' else ODOMETRY, at * MS, pose_messages(
            at / 1000, START_NS + at * MS, xyzw=xyzw)[topic])
         for at in (0, 100, 200) for topic in ('/tf', '/odom')
         for xyzw in ((0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 0.0), (np.nan, 0.0, 0.0, 1.0))]
SIMULATED = 12 * 10 ** 9
TICKS = [('/clock', CLOCK, at * MS, serialize(CLOCK, clock=header(SIMULATED + at * MS).stamp))
         for at in range(0, 250, 20)]
NO_TIME = (f'the stamps on {IMAGE} and {DEPTH} carry no time (0, or repeated); log times are used '
           'instead')

CASES = {
    'unrelated topics': Case(record(), beside_other_worlds, notes=['5 topics cannot be read: ']),
    'unreadable siblings': Case(
        record(names=(f'{IMAGE}/compressed', DEPTH), rgb=webcam, extra=[
            (IMAGE, RAW, 0, b''), ('/tf', TF, 0, b'')]),
        with_siblings_in_json, calibrated=False, lossy=True, notes=['3 topics cannot be read: ']),
    'two types of a name': Case(
        record(extra=[(topic, STRING, 1, text('no image')) for topic in (IMAGE, INFO, '/tf')]),
        notes=['2 topics cannot be read: ']),
    'invalid transforms': Case(record(extra=POSES), notes=[
        'transforms ignored on /tf: 6; the first, ', 'transforms ignored on /odom: 6; the fir']),
    'metadata': Case(record(), contradict_metadata),
    'empty calibration': Case(
        record(info=camera_info(width=0, height=0, k=np.full(9, np.nan), d=BENT)),
        calibrated=False, notes=[NO_CALIBRATION]),
    'unknown model': Case(
        record(info=camera_info((0.1,) * 4, distortion_model='double_sphere')),
        calibrated=False, notes=[NO_CALIBRATION]),
    'raw by D': Case(
        record(names=('/cam/image_rect_raw', '/aligned/image_raw'), info=camera_info(BENT)),
        topics=BagTopics('/cam/image_rect_raw', '/aligned/image_raw'),
        undistort=lambda rgb: cv2.undistort(rgb, MATRIX, np.array(BENT))),
    'raw by option': Case(
        record(names=('/cam/image_rect', '/aligned/image_raw'), info=camera_info(BENT)),
        topics=BagTopics('/cam/image_rect', '/aligned/image_raw', input_rectified=False),
        undistort=lambda rgb: cv2.undistort(rgb, MATRIX, np.array(BENT))),
    'rectified by option': Case(
        record(info=camera_info(BENT)), topics=BagTopics(IMAGE, DEPTH, input_rectified=True)),
    'fisheye of zeros': Case(
        record(info=camera_info((0.0,) * 4, distortion_model='fisheye')),
        undistort=lambda rgb: cv2.fisheye.undistortImage(rgb, MATRIX, np.zeros(4), Knew=MATRIX)),
    'mono16 in RVL': Case(record(
        names=(IMAGE, f'{DEPTH}/compressedDepth'), depth=lambda number, stamp: (
            PACKED, compressed_depth(depth_mm(number), stamp, 'rvl', 'mono16')))),
    'webcam': Case(record(names=(f'{IMAGE}/compressed', DEPTH), rgb=webcam), lossy=True),
    'mosaic': Case(record(names=(f'{IMAGE}/compressed', DEPTH), rgb=mosaic), lossy=True),
    'empty raw topic': Case(record(names=(f'{IMAGE}/compressed', DEPTH), rgb=webcam),
                            beside_an_empty_topic, lossy=True),
    'stamps 0': Case(record(stamp=lambda at: 0), timed=False, notes=[NO_TIME]),
    'stamps set once': Case(record(stamp=lambda at: START_NS), timed=False, notes=[NO_TIME]),
    'late depth': Case(record(depth_delay_ms=20),
                       topics=BagTopics(IMAGE, DEPTH, tolerance_ms=20)),
    'simulation': Case(record(stamp=lambda at: SIMULATED + at, extra=TICKS)),
    'ROS 1': Case(record(extra=[message for message in POSES if message[0] == '/odom']),
                  write_ros1, notes=['transforms ignored on /odom: 6; the first, '])}


class LiveTopics:
    """Take what is played, as the node of a player; a topic has one publisher."""

    def __init__(self):
        self.played = []
        self.kinds = {}

    def create_publisher(self, kind, topic, qos):
        assert topic not in self.kinds
        self.kinds[topic] = kind
        return SimpleNamespace(publish=lambda data: self.played.append((topic, data)))


def play(path):
    """Return what play_bag publishes: topics and serialized messages."""
    live = LiveTopics()
    with open_bag(path) as bag, StopFlag() as stop:
        routes, skipped = split_playable_routes(bag, plan_routes(bag.topics))
        assert {topic.describe() for topic in bag.topics if topic.unreadable} <= set(skipped)
        Player(live, bag, routes).play(bag.start_ns, 1e9, stop)
    return live.played


class NodeReader:
    """Read played messages with the node's functions."""

    def __init__(self, played, topics):
        rectified = (bool(rectified_by_name(topics.image)) if topics.input_rectified is None
                     else topics.input_rectified)
        self._calibrations = CalibrationCache(rectified)
        self._played = played
        for data in self._read(topics.camera_info_topic):
            self._calibrations.put(data)
        self.images = [self._rectify(data, rgb_from_message, 'rectify')
                       for data in self._read(topics.image)]
        self.depths = [self._rectify(data, depth_from_message, 'rectify_depth')
                       for data in self._read(topics.depth)]
        monitor = StampMonitor(SimpleNamespace(get_clock=lambda: None), SimpleNamespace(
            report_event=lambda *event: None))
        self.timed = [monitor.has_time(ReceivedFrame('cam', data, False, peek_header(data)[0],
                                                     '', 0.0))
                      for data in self._read(topics.image)]

    def _read(self, wanted):
        return [data for topic, data in self._played if topic == wanted]

    def _rectify(self, data, decode, rectify):
        pixels = decode(data, compressed=False, max_pixels=1000)
        self.calibration = self._calibrations.find(peek_header(data)[0], *pixels.shape[:2])
        rectifier = self.calibration.rectifier
        return pixels if rectifier is None else getattr(rectifier, rectify)(pixels)


@pytest.mark.parametrize('name', CASES)
def test_all_commands_read_the_same_frames_from_a_bag(tmp_path, caplog, name):
    case = CASES[name]
    path = case.write(tmp_path / 'bag', case.messages)
    data_set = bag_data_set(path, case.topics)
    frames = list(data_set.frames())
    assert len(frames) == COUNT

    # evaluate: the frames that were recorded
    for number, frame in enumerate(frames):
        difference = np.abs(frame.rgb.astype(int) - case.undistort(picture(number)))
        assert difference.mean() < (8 if case.lossy else 2)
        assert set(np.unique(frame.depth_m[frame.valid])) == {
            np.float32(0.5 * (number + 1)), np.float32(number + 1)}
        assert (frame.K is None) != case.calibrated
    assert len(data_set.notes) == len(case.notes)
    assert all(part in note for part, note in zip(case.notes, data_set.notes))

    # finetune: the same frames, and the same notes in its log
    config = FrameSetConfig(
        reader='bag', path=str(path), size=(16, 24), image_topic=case.topics.image,
        depth_topic=case.topics.depth, tolerance_ms=case.topics.tolerance_ms,
        input_rectified=case.topics.input_rectified)
    trained, = open_frame_sets([config], tmp_path / 'cache')
    assert len(trained) == COUNT
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(trained[number].rgb, frame.rgb)
        np.testing.assert_array_equal(trained[number].known_depth_m, frame.known_depth_m)
    assert caplog.messages == data_set.notes

    # play_bag and the node: the same images, depth and calibration
    node = NodeReader(play(path), case.topics)
    assert len(node.images) == len(node.depths) == COUNT
    for frame, rgb, depth_m in zip(frames, node.images, node.depths):
        np.testing.assert_array_equal(rgb, frame.rgb)
        np.testing.assert_array_equal(depth_m, frame.known_depth_m)
        if case.calibrated:
            np.testing.assert_array_equal(node.calibration.camera.K, frame.K)
    assert (node.calibration.problem == '') == case.calibrated
    assert node.timed[-1] == case.timed


def lidar_ahead(stamp, distance_m, frame_id='lidar', no_return=((0.0, 0.0, 0.0),)):
    """Serialize a wall before a lidar; two thirds of its points mean no return."""
    wall = np.random.default_rng(0).uniform(-1.0, 1.0, (300, 3))
    wall[:, 0] = distance_m
    points = np.concatenate([wall, np.tile(no_return, (600, 1))])
    if 'optical' in frame_id:
        points = np.stack([-points[:, 1], -points[:, 2], points[:, 0]], axis=-1)
    return serialize_cloud(stamp, frame_id, pack_cloud(points[None].astype(np.float32), None))


@pytest.mark.parametrize('changes', [
    {}, {'no_return': [[np.nan] * 3]}, {'no_return': [[0.1, 0.0, 0.0]]}, {'frame_id': 'a_optical'},
    {'frame_id': 'a_optical_frame'}, {'stamp': 0}],
    ids=['origin', 'NaN', 'smallest range', '_optical', '_optical_frame', 'stamps 0'])
def test_evaluate_and_the_node_compute_the_same_anchors_from_a_cloud(tmp_path, changes):
    """The lidar is in view, 0.65 m ahead of the camera, and the wall moves away from it."""
    clouds = [(CLOUD, 'sensor_msgs/msg/PointCloud2', number * PERIOD_NS, lidar_ahead(**{
                  'stamp': START_NS + number * PERIOD_NS, 'distance_m': 3.0 + number, **changes}))
              for number in range(COUNT)]
    stamp = (lambda at: 0) if changes.get('stamp') == 0 else (lambda at: START_NS + at)
    path = write_mcap(tmp_path / 'bag', record(extra=clouds, stamp=stamp))
    topics = BagTopics(IMAGE, DEPTH, references=(CLOUD,))
    config = ScaleConfig(('cloud',), extrinsics={'cloud': '0.65 0 0 0 0 0'})
    with open_bag(path) as bag:
        references = BagReferences(bag, topics, config, {'cloud': CLOUD})
        evaluated = [references.lookup(frame).anchors['cloud']
                     for frame in bag_data_set(path, topics).frames()]
    assert len(evaluated) == COUNT

    played = play(path)
    calibration = NodeReader(played, topics).calibration
    reference, shown = References('cloud', False, config.filter.hold_s), []
    for topic, data in played:
        if topic == CLOUD:
            reference.buffer.put(data)
        elif topic == IMAGE:
            frame = ReceivedFrame('cam', data, False, *peek_header(data)[:2], time.monotonic())
            rgb = rgb_from_message(data, compressed=False, max_pixels=1000)
            shown.append(reference.compute_anchors(
                frame, rgb, calibration, config, lambda found: pose_without_tf(
                    config, 'cloud', 'camera_optical_frame', found.frame_id), 1000))
    for number, (anchors, expected) in enumerate(zip(shown, evaluated, strict=True)):
        np.testing.assert_allclose(anchors.depth_m, 3.65 + number, rtol=1e-5)
        for name in ('rows', 'columns', 'depth_m'):
            np.testing.assert_array_equal(getattr(anchors, name), getattr(expected, name))
