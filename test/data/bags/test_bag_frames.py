"""Frames of bags: formats, matching, rectification, poses, and errors of invalid bags."""

from __future__ import annotations

import re

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
    STORE,
    text,
    to_ros1,
    transform,
    webcam_jpeg,
    write_bag,
    write_mcap,
)
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin, Writer

from marigold_ros.data.bags.bag_frames import BagTopics, count_parts
from marigold_ros.data.datasets.bag import bag_data_set, open_bag_as_shards
from marigold_ros.data.frames import Part
from marigold_ros.depth.errors import BagError, ConfigError, InputError

IMAGE, DEPTH, INFO = '/cam/image_raw', '/cam/depth/image_raw', '/cam/camera_info'
MS = 1_000_000
RAW, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
PIXELS = np.full((16, 24, 3), (30, 120, 200), np.uint8)
MOSAIC = np.tile(np.array([[120, 200], [30, 120]], np.uint8), (8, 12))  # GB over RG
DEPTH_MM = np.full((16, 24), 2000, np.uint16)
DEPTH_MM[:, :4] = 0


def record(folder, *, depths=(DEPTH_MM,), delay_ms=0, info=camera_info(), extra=(), types=None):
    """Write raw images of one colour 100 ms apart, each with a depth map that comes later."""
    messages = [] if info is None else [(INFO, 0, info)]
    for number, depth in enumerate(depths):
        at = 100 * MS * number
        messages.append((IMAGE, at, image(PIXELS, 'rgb8', START_NS + at)))
        if depth is not None:
            at += delay_ms * MS
            encoding = '16UC1' if depth.dtype == np.uint16 else '32FC1'
            messages.append((DEPTH, max(at, 0), image(depth, encoding, START_NS + at)))
    topics = {IMAGE: RAW, DEPTH: RAW, **(types or {})}
    if info is not None:
        topics[INFO] = 'sensor_msgs/msg/CameraInfo'
    return write_bag(folder / 'bag', topics,
                     sorted([*messages, *extra], key=lambda message: message[1]))


def read(path, topics=BagTopics(IMAGE, DEPTH)):
    """Return all frames and the notes."""
    data_set = bag_data_set(path, topics)
    return list(data_set.frames()), data_set.notes


def write_ros1(path, messages):
    """Write raw CDR messages as a ROS 1 bag."""
    with Ros1Writer(path) as writer:
        for topic, msgtype, data in messages:
            connection = writer.add_connection(topic, msgtype, typestore=ROS1)
            writer.write(connection, START_NS, to_ros1(msgtype, data))
    return path


def write_ros1_mcap(path, messages):
    """Write raw CDR messages as an MCAP file of ROS 1, beside topics that nobody can read."""
    return write_mcap(path, [(topic, msgtype, 0, data) for topic, msgtype, data in messages],
                      ros1=True, foreign=True, profile='ros1')


def write_rosbag2(path, messages, plugin):
    with Writer(path, version=9 if plugin is StoragePlugin.MCAP else 8,
                storage_plugin=plugin) as writer:
        for topic, msgtype, data in messages:
            connection = writer.add_connection(topic, msgtype, typestore=STORE)
            writer.write(connection, START_NS, data)
    return path


WRITERS = {
    'mcap': lambda path, messages: write_rosbag2(path, messages, StoragePlugin.MCAP),
    'sqlite3': lambda path, messages: write_rosbag2(path, messages, StoragePlugin.SQLITE3),
    'ros1': lambda path, messages: write_ros1(path.with_suffix('.bag'), messages),
    'ros1 mcap': write_ros1_mcap}
DEPTH_M = np.where(DEPTH_MM == 0, np.nan, DEPTH_MM / 1000).astype(np.float32)
DEPTHS = {
    '16UC1': (DEPTH, RAW, image(DEPTH_MM, '16UC1', START_NS)),
    '32FC1': (DEPTH, RAW, image(DEPTH_M, '32FC1', START_NS)),
    '16UC1 PNG': (f'{DEPTH}/compressed', COMPRESSED,
                  compressed_image(DEPTH_MM, '.png', '16UC1; png compressed ', START_NS)),
    '16UC1 compressedDepth': (f'{DEPTH}/compressedDepth', COMPRESSED,
                              compressed_depth(DEPTH_MM, START_NS)),
    '32FC1 compressedDepth': (f'{DEPTH}/compressedDepth', COMPRESSED,
                              compressed_depth(DEPTH_M, START_NS)),
    'mono16': (DEPTH, RAW, image(DEPTH_MM, 'mono16', START_NS)),
    'mono16 PNG': (f'{DEPTH}/compressed', COMPRESSED,
                   compressed_image(DEPTH_MM, '.png', 'mono16; png compressed ', START_NS)),
    'PNG': (f'{DEPTH}/compressed', COMPRESSED,
            compressed_image(DEPTH_MM, '.png', 'png', START_NS)),
    'mono16 compressedDepth': (f'{DEPTH}/compressedDepth', COMPRESSED,
                               compressed_depth(DEPTH_MM, START_NS, encoding='mono16')),
    '16UC1 RVL': (f'{DEPTH}/compressedDepth', COMPRESSED,
                  compressed_depth(DEPTH_MM, START_NS, 'rvl')),
    '32FC1 RVL': (f'{DEPTH}/compressedDepth', COMPRESSED,
                  compressed_depth(DEPTH_M, START_NS, 'rvl'))}
IMAGES = {
    'raw': (IMAGE, RAW, image(PIXELS, 'rgb8', START_NS)),
    'JPEG': (f'{IMAGE}/compressed', COMPRESSED,
             compressed_image(PIXELS[..., ::-1].copy(), '.jpg', 'rgb8; jpeg compressed bgr8',
                              START_NS)),
    'JPEG of a webcam': (f'{IMAGE}/compressed', COMPRESSED, serialize(
        COMPRESSED, header=header(START_NS), format='jpeg',
        data=np.frombuffer(webcam_jpeg(PIXELS)[1], np.uint8))),
    'Bayer PNG': (f'{IMAGE}/compressed', COMPRESSED,
                  compressed_image(MOSAIC, '.png', 'bayer_gbrg8; png compressed ', START_NS))}


@pytest.mark.parametrize('kind', WRITERS)
@pytest.mark.parametrize('depth', DEPTHS)
def test_every_bag_and_depth_format_gives_the_same_frame(tmp_path, kind, depth):
    for name, picture in IMAGES.items():
        frame, = read(WRITERS[kind](tmp_path / name, [picture, DEPTHS[depth]]))[0]
        np.testing.assert_allclose(frame.rgb, PIXELS, atol=3)
        np.testing.assert_allclose(frame.depth_m, DEPTH_M, rtol=2e-3)
        assert frame.valid.sum() == 16 * 20
        assert (frame.stamp_ns, frame.block) == (START_NS, 'second 0')
        assert frame.K is frame.world_from_camera is None


def test_lossless_depth_is_preferred_to_jpeg_and_topics_without_messages_are_not(tmp_path):
    lossy = compressed_image((DEPTH_MM // 256).astype(np.uint8), '.jpg',
                             '16UC1; jpeg compressed mono8', START_NS)
    types = {IMAGE: RAW, f'{IMAGE}/compressedDepth': COMPRESSED, f'{IMAGE}/compressed': COMPRESSED,
             f'{DEPTH}/compressed': COMPRESSED, f'{DEPTH}/compressedDepth': COMPRESSED}
    path = write_bag(tmp_path / 'bag', types, [
        (f'{IMAGE}/compressed', 0, IMAGES['JPEG'][2]), (f'{DEPTH}/compressed', 0, lossy),
        (f'{DEPTH}/compressedDepth', 0, compressed_depth(DEPTH_MM, START_NS))])
    frame, = read(path)[0]
    np.testing.assert_allclose(frame.rgb, PIXELS, atol=3)
    np.testing.assert_allclose(frame.depth_m, DEPTH_M)
    with pytest.raises(InputError, match=r"single 16-bit channel for the format '16UC1; jpeg co"):
        read(path, BagTopics(IMAGE, f'{DEPTH}/compressed'))


def test_topics_may_have_any_name(tmp_path):
    path = WRITERS['mcap'](tmp_path / 'bag', [('/a', RAW, IMAGES['raw'][2]),
                                              ('/b', RAW, DEPTHS['16UC1'][2]),
                                              ('/c', 'sensor_msgs/msg/CameraInfo', camera_info())])
    frame, = read(path, BagTopics('/a', '/b', '/c'))[0]
    np.testing.assert_array_equal(frame.K, np.reshape(K, (3, 3)))
    with pytest.raises(BagError, match=r'no topic /d \(sensor_msgs/msg/CameraInfo\)'):
        bag_data_set(path, BagTopics('/a', '/b', '/d'))


def test_image_and_depth_are_matched_within_the_tolerance(tmp_path):
    path = record(tmp_path, depths=[DEPTH_MM] * 3 + [None], delay_ms=14)
    frames, notes = read(path)
    assert [frame.stamp_ns - START_NS for frame in frames] == [0, 100 * MS, 200 * MS]
    assert notes == ['1 images have no depth within 15 ms (`tolerance_ms`)']
    with pytest.raises(BagError, match=r'no image on /cam/image_raw has depth on '
                       r'/cam/depth/image_raw within 13 ms: offset of the nearest depth over 4 '
                       r'images: closest \+14.000 ms, median \+14.000 ms, range -86.000 to '
                       r'\+14.000 ms; if it shows the same moment, set `tolerance_ms` above that'):
        read(path, BagTopics(IMAGE, DEPTH, tolerance_ms=13))


@pytest.mark.parametrize('tolerance_ms', [0, -1, float('nan'), float('inf')])
def test_a_tolerance_that_is_no_duration_is_rejected(tolerance_ms):
    with pytest.raises(ConfigError, match='`tolerance_ms` must be positive and finite; got'):
        BagTopics(IMAGE, DEPTH, tolerance_ms=tolerance_ms)


# --- stamps that carry no time -------------------------------------------------------------

STAMPS = {
    'right': lambda log_ns: log_ns,
    'zero': lambda log_ns: 0,
    'constant': lambda log_ns: START_NS + 5,
    'whole seconds': lambda log_ns: log_ns // 10 ** 9 * 10 ** 9}


def record_stamped(path, image_stamp, depth_stamp, count=15, lost=(3,), extra=(), types=None):
    """
    Write images and depth logged 2 ms later; brightness and depth in m are 1, 2, 3...

    The depth maps of the frames in `lost` are missing, so that the order of messages misleads.
    """
    messages = []
    for number in range(count):
        at = 100 * MS * number
        picture = np.full((16, 24, 3), number + 1, np.uint8)
        depth = np.full((16, 24), 1000 * (number + 1), np.uint16)
        messages.append((IMAGE, at, image(picture, 'rgb8', image_stamp(START_NS + at))))
        if number not in lost:
            at += 2 * MS
            messages.append((DEPTH, at, image(depth, '16UC1', depth_stamp(START_NS + at))))
    return write_bag(path, {IMAGE: RAW, DEPTH: RAW, **(types or {})},
                     sorted([*extra, *messages], key=lambda message: message[1]))


def pairs(frames):
    """Return brightness and depth in m of each frame."""
    return [(int(frame.rgb[0, 0, 0]), round(float(frame.depth_m[0, 0]))) for frame in frames]


@pytest.mark.parametrize(('image_stamp', 'depth_stamp'), [
    ('zero', 'zero'), ('constant', 'constant'), ('whole seconds', 'whole seconds'),
    ('right', 'zero'), ('constant', 'right')])
def test_log_times_replace_stamps_that_carry_no_time(tmp_path, image_stamp, depth_stamp):
    frames, notes = read(record_stamped(tmp_path / 'bag', STAMPS[image_stamp],
                                        STAMPS[depth_stamp]))
    assert pairs(frames) == [(number, number) for number in range(1, 16) if number != 4]
    assert [frame.stamp_ns for frame in frames[:2]] == [START_NS, START_NS + 100 * MS]
    wrong = ' and '.join(topic for topic, kind in ((IMAGE, image_stamp), (DEPTH, depth_stamp))
                         if kind != 'right')
    assert notes == [f'the stamps on {wrong} carry no time (0, or repeated); log times are used '
                     'instead', '1 images have no depth within 15 ms (`tolerance_ms`)']


def test_stamps_are_judged_by_the_messages_that_can_be_read(tmp_path):
    zero = STAMPS['zero']
    path = record_stamped(tmp_path / 'bag', zero, zero, count=4, lost=(), extra=[
        (topic, 0, b'\0\1\0\0\xff') for topic in (IMAGE, DEPTH)])
    assert pairs(read(path)[0]) == [(number, number) for number in range(1, 5)]


def test_nothing_is_matched_after_the_clock_has_stopped(tmp_path):
    def stops(log_ns):
        return min(log_ns, START_NS + 1200 * MS)

    frames, notes = read(record_stamped(tmp_path / 'bag', stops, stops, count=20, lost=(14,)))
    assert pairs(frames) == [(number, number) for number in range(1, 14)]
    assert notes == ['7 images with the time of an earlier one are left out',
                     '6 depth maps with the time of an earlier one are left out']


def test_poses_follow_log_times_together_with_frames(tmp_path):
    # The clock of the robot's transforms is an hour ahead of the log.
    ahead_ns = 3600 * 10 ** 9
    poses = [('/tf', at * MS, transform('odom', 'camera_optical_frame', (at / 1000, 0.0, 0.0),
                                        stamp_ns=START_NS + at * MS + ahead_ns))
             for at in range(0, 500, 80)]
    path = record_stamped(tmp_path / 'bag', STAMPS['zero'], STAMPS['zero'], count=4, lost=(),
                          extra=poses, types={'/tf': 'tf2_msgs/msg/TFMessage'})
    assert [frame.world_from_camera[0, 3] for frame in read(path)[0]] == pytest.approx(
        [0.0, 0.1, 0.2, 0.3])


def test_a_bag_without_any_time_is_rejected(tmp_path):
    messages = [(topic, 0, image(pixels, encoding, 0)) for _ in range(3)
                for topic, pixels, encoding in ((IMAGE, PIXELS, 'rgb8'),
                                                (DEPTH, DEPTH_MM, '16UC1'))]
    path = write_bag(tmp_path / 'bag', {IMAGE: RAW, DEPTH: RAW}, messages)
    with pytest.raises(BagError, match='the stamps on /cam/image_raw and the log times on '
                       r'/cam/image_raw carry no time \(0, or repeated\)'):
        read(path)


def test_blocks_are_seconds_after_the_first_frame(tmp_path):
    frames, _ = read(record(tmp_path, depths=[DEPTH_MM] * 12))
    assert [frame.block for frame in frames] == ['second 0'] * 10 + ['second 1'] * 2


def test_depth_keeps_its_own_size_and_is_rectified_like_the_image(tmp_path):
    small = np.full((8, 12), 2000, np.uint16)
    frame, = read(record(tmp_path / 'plain', depths=[small]))[0]
    assert (frame.rgb.shape, frame.depth_m.shape) == ((16, 24, 3), (8, 12))
    assert frame.valid.all()
    bent, = read(record(tmp_path / 'bent', depths=[small], info=camera_info(
        (0.5, 0.0, 0.0, 0.0, 0.0))))[0]
    assert not bent.valid[0, 0] and bent.valid[4, 6]
    np.testing.assert_array_equal(bent.K, np.reshape(K, (3, 3)))


# --- calibration ---------------------------------------------------------------------------

BENT = (0.5, 0.0, 0.0, 0.0, 0.0)
SILENT = {
    'zero': (camera_info(k=np.zeros(9), p=np.zeros(12), r=np.zeros(9)), r'uncalibrated: K\[0\]'),
    'zero size': (camera_info(width=0, height=0), 'must be positive; got 0 x 0'),
    'nothing': (camera_info((), width=0, height=0, distortion_model='', k=np.zeros(9)), 'uncalib'),
    'nan': (camera_info(k=np.full(9, np.nan)), '`K` must be finite'),
    'nan in D': (camera_info((np.nan,) * 5), '`D` must be finite'),
    'unknown model': (camera_info((0.1, 0.2), distortion_model='double_sphere'),
                      "`distortion_model` must be one of .*; got 'double_sphere'"),
    'unknown model of zeros': (camera_info((), distortion_model='mei'), "got 'mei'"),
    'no model': (camera_info(BENT, distortion_model=''), "the model '' must have 0 coeff.*got 5"),
    'short D': (camera_info((0.1, 0.2, 0.3)), '`D` of the model .*; got 3'),
    'other size': (camera_info(BENT, width=48), 'is for 48 x 16 px, but the image is 24 x 16 px'),
    'truncated': (camera_info()[:60], 'cannot decode a message on /cam/camera_info')}


@pytest.mark.parametrize('kind', SILENT)
def test_a_calibration_that_says_nothing_is_as_none_and_said_once(tmp_path, kind):
    info, reason = SILENT[kind]
    plain, notes = read(record(tmp_path / 'plain', depths=[DEPTH_MM] * 3, info=None))
    assert len(plain) == 3 and notes == []
    frames, notes = read(record(tmp_path / 'silent', depths=[DEPTH_MM] * 3, info=info))
    assert len(frames) == 3
    for frame, expected in zip(frames, plain):
        np.testing.assert_array_equal(frame.rgb, expected.rgb)
        np.testing.assert_array_equal(frame.valid, expected.valid)
        assert frame.K is None
    note, = notes
    assert re.search(reason, note), note
    assert note.endswith('images are used as they are, and there are no metric depth and clouds')


def test_an_empty_camera_info_topic_is_as_none(tmp_path):
    types = {INFO: 'sensor_msgs/msg/CameraInfo'}
    frames, notes = read(record(tmp_path, info=None, types=types))
    assert frames[0].K is None
    assert [note.partition(';')[0] for note in notes] == [
        '/cam/camera_info has no valid calibration: no message']


def test_a_topic_of_another_type_beside_the_image_is_no_camera_info(tmp_path):
    frames, notes = read(record(tmp_path, info=None, types={INFO: 'std_msgs/msg/String'}))
    assert len(frames) == 1 and notes == []


def test_the_first_valid_calibration_is_used(tmp_path):
    frames, notes = read(record(tmp_path, info=camera_info(k=np.zeros(9)), extra=[
        (INFO, 10 * MS, camera_info())]))
    np.testing.assert_array_equal(frames[0].K, np.reshape(K, (3, 3)))
    assert notes == []


def test_intrinsics_are_k_of_a_raw_image_without_distortion_and_p_of_a_rectified_one(tmp_path):
    P = np.array([9.0, 0, 12, 0, 0, 9, 8, 0, 0, 0, 1, 0])
    for number, (name, focal_px) in enumerate([('image_raw', K[0]), ('image_rect', 9.0),
                                               ('image_rect_raw', K[0])]):
        frame, = read(record_pair(tmp_path / str(number), f'/cam/{name}', DEPTH,
                                  camera_info(p=P)), BagTopics(f'/cam/{name}', DEPTH))[0]
        assert frame.K[0, 0] == focal_px, name


# --- what is rectified ---------------------------------------------------------------------

def record_pair(folder, image_topic, depth_topic, info):
    """Write an image with a bright middle, depth of the same shape, and a camera_info."""
    pixels, depth_mm = np.full((16, 24, 3), 50, np.uint8), np.full((16, 24), 4000, np.uint16)
    pixels[3:13, 4:20], depth_mm[3:13, 4:20] = 200, 1000
    info_topic = image_topic.rpartition('/')[0] + '/camera_info'
    return write_bag(folder, {
        image_topic: RAW, depth_topic: RAW, info_topic: 'sensor_msgs/msg/CameraInfo'}, [
            (info_topic, 0, info), (image_topic, 0, image(pixels, 'rgb8', START_NS)),
            (depth_topic, 0, image(depth_mm, '16UC1', START_NS))])


RAW_PAIR, RECTIFIED_PAIR, DEPTH_STAYS = 'raw', 'rectified', 'depth stays'


@pytest.mark.parametrize(('image_name', 'depth_name', 'option', 'expected'), [
    ('image_raw', 'image_raw', None, RAW_PAIR),
    ('image_raw', 'image_rect', None, DEPTH_STAYS),
    ('image_rect_raw', 'image_raw', None, RAW_PAIR),    # RealSense D405
    ('image_rect_raw', 'image_rect_raw', None, RAW_PAIR),
    ('image_rect_color', 'image_rect', None, RECTIFIED_PAIR),
    ('image_rect', 'depth_registered', None, RECTIFIED_PAIR),
    ('image_color', 'depth_registered', None, RAW_PAIR),
    ('image_raw', 'image_raw', True, RECTIFIED_PAIR),
    ('image_rect', 'image_raw', True, RECTIFIED_PAIR),
    ('image_rect', 'image_raw', False, RAW_PAIR),
    ('image_rect', 'depth_registered', False, RAW_PAIR),
    ('image_rect_raw', 'image_raw', True, RECTIFIED_PAIR)])
def test_what_is_rectified_is_decided_by_the_option_else_by_both_names(
        tmp_path, image_name, depth_name, option, expected):
    topics = BagTopics(f'/cam/{image_name}', f'/aligned/{depth_name}', input_rectified=option)
    frame, = read(record_pair(tmp_path / 'bag', topics.image, topics.depth, camera_info(BENT)),
                  topics)[0]
    # Positive k1 moves the corners of the rectified image outside the raw one; the box shrinks.
    assert frame.valid.all() == (expected == RECTIFIED_PAIR)
    bright, near = frame.rgb[..., 0] > 125, frame.depth_m < 2.5
    assert (bright.sum() == 160) == (expected == RECTIFIED_PAIR)
    assert (near.sum() == 160) == (expected != RAW_PAIR)


def test_names_that_contradict_each_other_matter_only_with_distortion(tmp_path):
    topics = BagTopics('/cam/image_rect', '/aligned/image_raw')
    straight = record_pair(tmp_path / 'straight', topics.image, topics.depth, camera_info())
    assert read(straight, topics)[0][0].valid.all()
    bent = record_pair(tmp_path / 'bent', topics.image, topics.depth, camera_info(BENT))
    with pytest.raises(BagError, match='/aligned/image_raw is raw but /cam/image_rect is rectified'
                       ', .* or set `input_rectified` if both are raw .false. or rectified .true'):
        read(bent, topics)


def test_a_fisheye_without_coefficients_is_rectified_in_a_bag(tmp_path):
    info = camera_info((0.0,) * 4, distortion_model='fisheye')
    frame, = read(record_pair(tmp_path / 'bag', IMAGE, DEPTH, info))[0]
    # The edge of the image, 12 px from its centre, is at 12 / f rad and not at atan(12 / f).
    half_px = min(12.0, K[0] * np.tan(8 / K[0]))
    bright = frame.rgb[8, :, 0] > 125
    assert bright.sum() == pytest.approx(2 * half_px, abs=2) and bright.sum() > 16


# --- poses ---------------------------------------------------------------------------------

# x right, y down, z ahead of an optical frame, from x ahead, y left, z up of the robot.
OPTICAL = (-0.5, 0.5, -0.5, 0.5)


@pytest.mark.parametrize('topic', ['/odom', '/tf'])
def test_poses_are_interpolated_between_odometry_or_transforms(tmp_path, topic):
    # The robot drives 1 m/s; its camera is 0.2 m ahead and 0.5 m above of its middle.
    poses = [(topic, at * MS, pose_messages(at / 1000, START_NS + at * MS)[topic])
             for at in (0, 80, 160)]
    mount = ('/tf_static', 0, transform('base_link', 'camera_optical_frame', (0.2, 0.0, 0.5),
                                        OPTICAL))
    path = record(tmp_path, depths=[DEPTH_MM] * 3, extra=[mount, *poses], types={
        '/tf_static': 'tf2_msgs/msg/TFMessage',
        topic: 'nav_msgs/msg/Odometry' if topic == '/odom' else 'tf2_msgs/msg/TFMessage'})
    first, second, third = (frame.world_from_camera for frame in read(path)[0])
    np.testing.assert_allclose(first @ (0, 0, 1, 1), (1.2, 0, 0.5, 1), atol=1e-12)
    np.testing.assert_allclose(second @ (1, 0, 0, 1), (0.3, -1, 0.5, 1), atol=1e-12)
    assert third is None    # 200 ms, after the last


@pytest.mark.parametrize('topic', ['/odom', '/tf'])
@pytest.mark.parametrize('wrong', [
    {'xyzw': (0.0, 0.0, 0.0, 0.0)}, {'xyzw': (np.nan, 0.0, 0.0, 1.0)}, {'x_m': np.nan},
    {'x_m': -np.inf}], ids=['zero', 'NaN', 'NaN m', 'Inf m'])
def test_invalid_poses_are_ignored_and_counted_anywhere(tmp_path, topic, wrong):
    """Before, at and after the images; the valid ones beside them are used."""
    poses = [(topic, at * MS, pose_messages(at / 1000, START_NS + at * MS)[topic])
             for at in (0, 80, 160)]
    poses += [(topic, at * MS, pose_messages(stamp_ns=START_NS + at * MS, **{'x_m': 7.0, **wrong})
               [topic]) for at in (0, 40, 100, 120, 250)]
    mounts = [('/tf_static', 0, transform('base_link', 'camera_optical_frame', *pose))
              for pose in (((0.2, 0.0, 0.5), OPTICAL), ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)))]
    path = record(tmp_path, depths=[DEPTH_MM] * 2, extra=[*mounts, *poses], types={
        '/tf_static': 'tf2_msgs/msg/TFMessage',
        topic: 'nav_msgs/msg/Odometry' if topic == '/odom' else 'tf2_msgs/msg/TFMessage'})
    (first, second), notes = read(path)
    np.testing.assert_allclose(first.world_from_camera @ (0, 0, 1, 1), (1.2, 0, 0.5, 1))
    np.testing.assert_allclose(second.world_from_camera @ (1, 0, 0, 1), (0.3, -1, 0.5, 1))
    assert [note.partition(';')[0] for note in notes] == [
        'transforms ignored on /tf_static: 1', f'transforms ignored on {topic}: 5']
    assert len(open_bag_as_shards(path, BagTopics(IMAGE, DEPTH), tmp_path / 'shards')) == 2


def test_static_transforms_alone_give_no_pose(tmp_path):
    mount = ('/tf_static', 0, transform('base_link', 'camera_optical_frame', (0.2, 0.0, 0.5)))
    path = record(tmp_path, extra=[mount], types={'/tf_static': 'tf2_msgs/msg/TFMessage'})
    assert read(path)[0][0].world_from_camera is None


def test_poses_are_not_interpolated_across_more_than_a_second(tmp_path):
    poses = [('/tf', at * MS, transform('odom', 'camera_optical_frame', (at / 1000, 0.0, 0.0),
                                        stamp_ns=START_NS + at * MS)) for at in (0, 50, 1100)]
    path = record(tmp_path, depths=[DEPTH_MM] * 2, extra=poses,
                  types={'/tf': 'tf2_msgs/msg/TFMessage'})
    first, second = (frame.world_from_camera for frame in read(path)[0])
    assert first is not None and second is None


# --- invalid input -------------------------------------------------------------------------

def test_the_error_of_a_missing_topic_lists_the_existing_ones(tmp_path):
    with pytest.raises(BagError, match=r'no topic /cam/depth .* it has /cam/camera_info '
                       r'\(sensor_msgs/msg/CameraInfo\), /cam/depth/image_raw \(sensor_msgs/msg/Im'
                       r'age\), /cam/image_raw \(sensor_msgs/msg/Image\)'):
        bag_data_set(record(tmp_path), BagTopics(IMAGE, '/cam/depth'))


def test_all_wrong_topics_are_named_at_once(tmp_path):
    with pytest.raises(BagError) as raised:
        bag_data_set(record(tmp_path), BagTopics('/a', '/b', camera_info='/c'))
    assert all(f'no topic {name} ' in str(raised.value) for name in ('/a', '/b', '/c'))


def test_a_topic_of_another_type_is_rejected(tmp_path):
    with pytest.raises(BagError, match=r'no topic /cam/camera_info \(sensor_msgs/msg/Image or '
                       r'sensor_msgs/msg/CompressedImage\)'):
        bag_data_set(record(tmp_path), BagTopics(IMAGE, INFO))


def test_an_unknown_encoding_is_rejected(tmp_path):
    path = WRITERS['mcap'](tmp_path / 'bag', [IMAGES['raw'], (DEPTH, RAW, image(
        PIXELS, 'rgb8', START_NS))])
    with pytest.raises(InputError, match='`encoding` must be one of 32FC1, 16UC1, mono16; got'):
        read(path)


def test_an_empty_bag_is_rejected(tmp_path):
    with pytest.raises(BagError, match='is empty: no topics'):
        bag_data_set(write_bag(tmp_path / 'none', {}, []))
    with pytest.raises(BagError, match='is empty: no message on /cam/depth/image_raw'):
        bag_data_set(record(tmp_path, depths=[None]), BagTopics(IMAGE, DEPTH))


@pytest.mark.parametrize(('depth', 'median'), [
    (np.full((16, 24), 2000.0, np.float32), '2000'),    # mm instead of m
    (np.full((16, 24), 2, np.uint16), '0.002')])    # m instead of mm
def test_depth_in_a_wrong_unit_is_rejected(tmp_path, depth, median):
    with pytest.raises(InputError, match=rf'at {START_NS} ns: the median depth must lie between '
                       rf'0.05 and 200.0 m; got {median} m: is the unit wrong\?'):
        read(record(tmp_path, depths=[depth]))


def test_a_bag_without_any_measurement_is_rejected(tmp_path):
    with pytest.raises(BagError, match='none of the 2 matched depth maps of /cam/depth/image_raw'):
        read(record(tmp_path, depths=[np.zeros((16, 24), np.uint16)] * 2))


def test_unusable_frames_are_skipped_and_counted(tmp_path):
    wrong = np.full((16, 24), 2, np.uint16)
    frames, notes = read(record(tmp_path, depths=[
        DEPTH_MM, wrong, wrong, np.zeros((16, 24), np.uint16), DEPTH_MM]))
    assert len(frames) == 2
    assert 'the median depth must lie between' in notes[0]
    assert notes[1:] == ['2 messages or frames cannot be used', '1 frames have no depth at all']


def test_depth_of_another_camera_is_noted(tmp_path):
    other = serialize(RAW, header=header(START_NS, 'infra_frame'), height=16, width=24,
                      encoding='16UC1', is_bigendian=0, step=48,
                      data=DEPTH_MM.reshape(-1).view(np.uint8))
    _, notes = read(WRITERS['mcap'](tmp_path / 'bag', [IMAGES['raw'], (DEPTH, RAW, other)]))
    assert notes == ["depth has frame_id 'infra_frame' and the image has "
                     "'camera_optical_frame': is the depth registered to the image?"]


def test_topics_that_cannot_be_read_are_named_and_hurt_nothing(tmp_path):
    path = write_mcap(tmp_path / 'a.mcap', [(*message[:2], 0, message[2]) for message in
                                            (IMAGES['raw'], DEPTHS['16UC1'])], foreign=True)
    frames, notes = read(path)
    assert len(frames) == 1
    unparsable = 'its definition in ros2msg cannot be parsed'
    reasons = [
        ('/incomplete', 'my_msgs/msg/Pair', "its definition lacks the type 'my_msgs/msg/Half'"),
        ('/json', 'foxglove.Log', "messages in 'json', not in an encoding of ROS"),
        ('/nameless_field', 'my_msgs/msg/Odd', unparsable),
        ('/protobuf', 'foxglove.SceneUpdate', "messages in 'protobuf', not in an encoding of ROS"),
        ('/service_event', 'my_srvs/srv/Add_Event', unparsable)]
    assert notes == ['5 topics cannot be read: ' + ', '.join(
        f'{name} ({msgtype}, 1 messages: {reason})' for name, msgtype, reason in reasons)]


def drive_messages():
    """Return two frames with calibration, poses, and the images once more compressed."""
    messages = []
    for at in (0, 100 * MS):
        stamp_ns = START_NS + at
        messages += [
            (INFO, 'sensor_msgs/msg/CameraInfo', at, camera_info(stamp_ns=stamp_ns)),
            (IMAGE, RAW, at, image(PIXELS, 'rgb8', stamp_ns)),
            (f'{IMAGE}/compressed', COMPRESSED, at, compressed_image(
                PIXELS[..., ::-1].copy(), '.png', 'png', stamp_ns)),
            (DEPTH, RAW, at, image(DEPTH_MM, '16UC1', stamp_ns)),
            ('/tf', 'tf2_msgs/msg/TFMessage', at, pose_messages(
                0.1, stamp_ns, child_frame_id='camera_optical_frame')['/tf'])]
    return messages


@pytest.mark.parametrize('topic', [INFO, IMAGE, DEPTH, '/tf'])
def test_a_second_type_on_a_topic_is_named_and_hurts_nothing(tmp_path, topic):
    frames, notes = read(write_mcap(tmp_path / 'a.mcap', [
        (topic, 'std_msgs/msg/String', 0, text('other')), *drive_messages()]))
    assert [(frame.K is None, frame.world_from_camera is None) for frame in frames] == [
        (False, False)] * 2
    msgtype = next(each[1] for each in drive_messages() if each[0] == topic)
    assert notes == [f'1 topics cannot be read: {topic} (std_msgs/msg/String, 1 messages: most '
                     f'messages of the topic are {msgtype})']


@pytest.mark.parametrize('topic', [INFO, IMAGE, '/tf'])
def test_topics_that_are_not_needed_hurt_nothing_if_they_cannot_be_read(tmp_path, topic):
    frames, notes = read(write_mcap(tmp_path / 'a.mcap', drive_messages(), json=(topic,)))
    assert [(frame.K is None, frame.world_from_camera is None) for frame in frames] == [
        (topic == INFO, topic == '/tf')] * 2
    note, = notes
    assert note.startswith(f'1 topics cannot be read: {topic} (')


def test_a_named_camera_info_that_cannot_be_read_is_an_error(tmp_path):
    path = write_mcap(tmp_path / 'a.mcap', drive_messages(), json=(INFO,))
    with pytest.raises(BagError, match=f'cannot read {INFO} '):
        read(path, BagTopics(IMAGE, DEPTH, INFO))


def test_poses_that_cannot_be_read_are_counted_and_hurt_no_frame(tmp_path):
    broken = [('/tf', at * MS, b'\0\1\0\0\xff\xff\xff\xff') for at in range(20)]
    frames, notes = read(record(tmp_path, extra=broken,
                                types={'/tf': 'tf2_msgs/msg/TFMessage'}))
    assert len(frames) == 1
    assert notes[0].startswith('first unusable message on /tf: cannot decode a message on /tf in')
    assert notes[1:] == ['20 messages on /tf cannot be used']


def write_noise(path, count, first=0):
    """Write frames of 1.8 MB an image, so that a chunk of the writer holds one."""
    noise = np.random.default_rng(0).integers(0, 255, (600, 1000, 3), np.uint8)
    depth = np.full((600, 1000), 2000, np.uint16)
    messages = []
    for number in range(first, first + count):
        at = 100 * MS * number
        messages += [(IMAGE, at, image(noise, 'rgb8', START_NS + at)),
                     (DEPTH, at, image(depth, '16UC1', START_NS + at))]
    write_bag(path, {IMAGE: RAW, DEPTH: RAW}, messages)
    return messages


def truncate(file, part=2 / 3):
    whole = file.read_bytes()
    file.write_bytes(whole[:int(len(whole) * part)])


@pytest.mark.parametrize('folder', [True, False])
def test_the_complete_messages_of_a_truncated_bag_are_read(tmp_path, folder):
    path = tmp_path / 'bag'
    write_noise(path, 6)
    truncate(path / 'bag.mcap')
    (path / 'metadata.yaml').unlink()    # a recorder that was killed has not written it
    data_set = bag_data_set(path if folder else path / 'bag.mcap', BagTopics(IMAGE, DEPTH))
    frames = list(data_set.frames())
    assert 2 <= len(frames) <= 4
    assert data_set.count >= len(frames)
    assert frames[-1].rgb.std() > 70    # the noise, not an empty page
    assert any('is truncated 0.' in note and 'later data is lost' in note
               for note in data_set.notes)


def test_the_last_file_of_a_split_recording_may_be_truncated(tmp_path):
    path = tmp_path / 'bag'
    write_noise(path, 2)
    write_noise(tmp_path / 'next', 3, first=2)
    (path / 'bag.mcap').rename(path / 'bag_9.mcap')
    (tmp_path / 'next' / 'next.mcap').rename(path / 'bag_10.mcap')
    (path / 'metadata.yaml').unlink()
    truncate(path / 'bag_10.mcap')
    frames, notes = read(path)
    assert [frame.stamp_ns for frame in frames[:3]] == [START_NS + at * 100 * MS
                                                        for at in range(3)]
    assert any('is truncated' in note for note in notes)


def test_a_bag_without_a_complete_message_is_rejected(tmp_path):
    path = record(tmp_path)
    (path / 'bag.mcap').write_bytes((path / 'bag.mcap').read_bytes()[:200])
    with pytest.raises(BagError, match='truncated before the end of its first message'):
        bag_data_set(path)


def test_frames_before_damage_are_read(tmp_path):
    path = tmp_path / 'bag'
    messages = write_noise(path, 4)
    content = bytearray((path / 'bag.mcap').read_bytes())
    # The length of the third image's record, 31 bytes before its CDR: opcode, length, header.
    length = content.index(messages[4][2][:16]) - 31 + 1
    content[length:length + 8] = b'\xff' * 7 + b'\x00'
    (path / 'bag.mcap').write_bytes(content)
    frames, notes = read(path)
    assert len(frames) == 2
    assert any('is damaged' in note and 'later data is lost' in note for note in notes)


def test_a_damaged_first_image_is_skipped(tmp_path):
    damaged = serialize(COMPRESSED, header=header(START_NS), format='jpeg',
                        data=np.frombuffer(b'\xff\xd8 damaged', np.uint8))
    whole = compressed_image(PIXELS, '.jpg', 'jpeg', START_NS + 100 * MS)
    messages = [('/a/compressed', 0, damaged), (DEPTH, 0, image(DEPTH_MM, '16UC1', START_NS)),
                ('/a/compressed', 1, whole),
                (DEPTH, 1, image(DEPTH_MM, '16UC1', START_NS + 100 * MS))]
    path = write_bag(tmp_path / 'bag', {'/a/compressed': COMPRESSED, DEPTH: RAW}, messages)
    frames, notes = read(path, BagTopics('/a', DEPTH))
    assert len(frames) == 1
    assert notes[0].startswith('first unusable message or frame: ')
    assert notes[1:] == ['1 messages or frames cannot be used']


def test_reading_stops_after_ten_unusable_frames(tmp_path):
    path = record(tmp_path, depths=[np.full((16, 24), 2, np.uint16)] * 12 + [DEPTH_MM])
    with pytest.raises(InputError, match='the median depth must lie between'):
        read(path)


def test_the_parts_of_a_bag_hold_each_frame_once_and_what_leads_in(tmp_path):
    """The depth of the last image before each border is logged behind it."""
    moving = [(topic, 100 * MS * number, data) for number in range(31)
              for topic, data in pose_messages(0.1 * number, START_NS + 100 * MS * number).items()]
    path = record(tmp_path, depths=[DEPTH_MM] * 30, delay_ms=12, extra=[
        *moving,
        ('/tf_static', 0, transform('base_link', 'camera_optical_frame', (0.2, 0.0, 0.5)))],
                  types={'/odom': 'nav_msgs/msg/Odometry', '/tf': 'tf2_msgs/msg/TFMessage',
                         '/tf_static': 'tf2_msgs/msg/TFMessage'})
    topics = BagTopics(IMAGE, DEPTH)
    whole = list(bag_data_set(path, topics).frames())
    parts = [list(bag_data_set(path, topics, Part(index, 3, 0.5)).frames()) for index in range(3)]
    counted = [frame for part in parts for frame in part if not frame.is_lead_in]
    for name in ('stamp_ns', 'block', 'name'):
        assert [getattr(each, name) for each in counted] == [getattr(each, name) for each in whole]
    for mine, alone in zip(counted, whole):
        np.testing.assert_array_equal(mine.world_from_camera, alone.world_from_camera)
    assert [sum(frame.is_lead_in for frame in part) for part in parts] == [0, 5, 5]
    assert bag_data_set(path, topics, Part(1, 3)).count == 10


@pytest.mark.parametrize('delay_ms', [-250, 30, 250, 1500])
def test_parts_without_lead_in_hold_frames_whose_depth_is_logged_in_another(tmp_path, delay_ms):
    stamps = [100 * MS * number for number in range(40)]
    messages = [(topic, at + 2000 * MS + late * MS, image(pixels, encoding, START_NS + at))
                for at in stamps for topic, pixels, encoding, late in (
                    (IMAGE, PIXELS, 'rgb8', 0), (DEPTH, DEPTH_MM, '16UC1', delay_ms))]
    path = write_bag(tmp_path / 'bag', {IMAGE: RAW, DEPTH: RAW},
                     sorted(messages, key=lambda message: message[1]))
    frames = [frame for index in range(4)
              for frame in bag_data_set(path, BagTopics(IMAGE, DEPTH), Part(index, 4)).frames()]
    assert [frame.stamp_ns - START_NS for frame in frames] == stamps
    assert not any(frame.is_lead_in for frame in frames)


@pytest.mark.parametrize(('part_s', 'parts'), [(2.0, 2), (1.0, 4), (0.5, 8)])
def test_a_bag_has_as_many_parts_as_its_duration_needs(tmp_path, part_s, parts):
    path = record(tmp_path, depths=[DEPTH_MM] * 40)
    assert count_parts(path, part_s) == parts


def test_a_clock_that_jumps_makes_no_more_parts_than_there_are_frames(tmp_path):
    """The first image was logged before NTP set the clock."""
    path = record(tmp_path, depths=[DEPTH_MM] * 12, extra=[
        (IMAGE, -START_NS, image(PIXELS, 'rgb8', 0))])
    parts = count_parts(path, 2.0)
    assert parts == 7
    frames = [frame for index in range(parts) for frame in bag_data_set(
        path, BagTopics(IMAGE, DEPTH), Part(index, parts, 1.0)).frames()]
    assert len(frames) == 12


def test_a_part_without_images_is_empty(tmp_path):
    path = record(tmp_path, depths=[DEPTH_MM] * 2, extra=[(INFO, 10_000 * MS, camera_info())])
    topics = BagTopics(IMAGE, DEPTH)
    assert [len(list(bag_data_set(path, topics, Part(index, 4)).frames()))
            for index in range(4)] == [2, 0, 0, 0]
