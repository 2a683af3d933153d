"""References of a bag: the nearest in time, its pose, and why it is rejected."""

from __future__ import annotations

from dataclasses import replace

from bag_fixtures import camera_info as fixture_info
from bag_fixtures import (
    compressed_depth,
    header,
    image,
    serialize,
    START_NS,
    TYPES,
    write_bag,
)
import numpy as np
import pytest

from marigold_ros.data.bags.bag_frames import BagTopics, message_times
from marigold_ros.data.bags.messages import serialize_cloud
from marigold_ros.data.bags.reader import open_bag
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.errors import BagError, ConfigError, InputError
from marigold_ros.evaluation.references import BagReferences
from marigold_ros.messages.cloud import pack_cloud
from marigold_ros.metric.config import ScaleConfig
from scenes.robot_messages import camera_info

K = np.array([[40.0, 0, 31.5], [0, 40.0, 23.5], [0, 0, 1]])
HEIGHT, WIDTH = 48, 64
MS = 10 ** 6
CLOUDS = ScaleConfig(('cloud',))
AHEAD = ScaleConfig(('cloud',), extrinsics={'cloud': '0.3 0 0 0 0 0'})
IMAGE, CLOUD, SCAN, DEPTH = '/camera/image_rect', '/points', '/scan', '/tof/image_rect'
TOPICS = {IMAGE: 'sensor_msgs/msg/Image', '/camera/camera_info': 'sensor_msgs/msg/CameraInfo',
          CLOUD: 'sensor_msgs/msg/PointCloud2', SCAN: 'sensor_msgs/msg/LaserScan',
          DEPTH: 'sensor_msgs/msg/Image',
          f'{DEPTH}/compressedDepth': 'sensor_msgs/msg/CompressedImage',
          '/tof/camera_info': 'sensor_msgs/msg/CameraInfo',
          '/tf_static': 'tf2_msgs/msg/TFMessage', '/tf': 'tf2_msgs/msg/TFMessage'}
# x ahead, y left, z up of a body to x right, y down, z ahead of its optical frame.
OPTICAL = (-0.5, 0.5, -0.5, 0.5)


def texts(found) -> dict[str, str]:
    """Return what is wrong with the sources."""
    return {source: str(problem) for source, problem in found.problems.items()}


def transform(parent, child, xyz, quaternion=(0.0, 0.0, 0.0, 1.0), at_ms=0):
    """Serialize a TFMessage of one transform."""
    types = TYPES
    return serialize('tf2_msgs/msg/TFMessage', transforms=[types[
        'geometry_msgs/msg/TransformStamped'](
            header=header(START_NS + at_ms * MS, parent), child_frame_id=child,
            transform=types['geometry_msgs/msg/Transform'](
                translation=types['geometry_msgs/msg/Vector3'](*xyz),
                rotation=types['geometry_msgs/msg/Quaternion'](*quaternion)))])


def cloud(at_ms, x_m, frame_id='lidar'):
    """Serialize points on a plane in front of a lidar, in its frame (x forward)."""
    y, z = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-0.5, 0.5, 5))
    points = np.stack([np.full_like(y, x_m), y, z], axis=-1).astype(np.float32)
    return serialize_cloud(START_NS + at_ms * MS, frame_id, pack_cloud(points, None))


def lidar_in_view(marks, frame_id='lidar'):
    """Serialize a wall 3.35 m ahead of a lidar, among points that mean no return."""
    wall = np.random.default_rng(0).uniform((3.35, -1.5, -1.0), (3.35, 1.5, 1.0), (390, 3))
    points = np.concatenate([wall[:200], marks, wall[200:]]).astype(np.float32)
    return serialize_cloud(START_NS, frame_id, pack_cloud(points[None], None))


def scan(at_ms, range_m):
    """Serialize a scan of 11 beams ahead."""
    return serialize('sensor_msgs/msg/LaserScan', header=header(START_NS + at_ms * MS, 'lidar'),
                     angle_min=-0.5, angle_max=0.5, angle_increment=0.1, time_increment=0.0,
                     scan_time=0.1, range_min=0.1, range_max=10.0,
                     ranges=np.full(11, range_m, np.float32), intensities=np.empty(0, np.float32))


def record(path, messages, *, mount=True, info=camera_info(START_NS, WIDTH, HEIGHT, K)):
    """Write a bag with an image, its calibration and the static transforms of the sensors."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    always = [(IMAGE, 0, image(pixels, 'rgb8', START_NS)),
              ('/camera/camera_info', 0, info)]
    if mount:
        always += [
            ('/tf_static', 0, transform('base_link', 'camera_optical_frame', (0.0, 0.0, 0.4),
                                        OPTICAL)),
            ('/tf_static', 0, transform('base_link', 'lidar', (0.1, 0.0, 0.4)))]
    return write_bag(path, TOPICS, always + [(topic, at * MS, data)
                                             for topic, at, data in messages])


def frame(at_ms=0, brightness=0):
    """Return a frame without true depth."""
    rgb = np.full((HEIGHT, WIDTH, 3), brightness, np.uint8)
    return DepthFrame(f'at {at_ms} ms', rgb, np.ones((1, 1), np.float32), np.ones((1, 1), bool),
                      'camera', stamp_ns=START_NS + at_ms * MS, K=K)


def open_references(bag, config, reference=None, topics=None, **options):
    """Open the references of sources; `reference` is the topic of the only one."""
    if reference is not None:
        topics = {config.sources[0]: reference}
    return BagReferences(bag, BagTopics(IMAGE, IMAGE, references=tuple((topics or {}).values())),
                         config, topics, **options)


def lookup_references(path, config, frames, **options):
    """Return the references for each frame; see `open_references`."""
    with open_bag(path) as bag:
        references = open_references(bag, config, **options)
        return [references.lookup(each) for each in frames]


def stored(references):
    """Count the messages in memory."""
    return sum(len(each._stored) for each in references._references)


def test_a_cloud_becomes_anchors_through_the_bags_tf(tmp_path):
    path = record(tmp_path / 'bag', [(CLOUD, 0, cloud(0, 2.0))])
    found, = lookup_references(path, CLOUDS, [frame()], reference=CLOUD)
    # The lidar stands 0.1 m ahead of the camera.
    np.testing.assert_allclose(found.anchors['cloud'].depth_m, 2.1, rtol=1e-6)
    assert (found.problems, found.anchors['cloud'].stamp_ns) == ({}, START_NS)
    # 2.1 m ahead, 1 m to the left is 40 / 2.1 px to the left
    middle = found.anchors['cloud'].rows == 24
    assert found.anchors['cloud'].columns[middle].min() == round(31.5 - 40 / 2.1)
    assert found.base_from_camera[2, 3] == pytest.approx(0.4)
    assert found.tilt is None  # of no use for a cloud


def test_a_scan_becomes_anchors(tmp_path):
    path = record(tmp_path / 'bag', [(SCAN, 0, scan(0, 2.0))])
    found, = lookup_references(path, ScaleConfig(('scan',)), [frame()], reference=SCAN)
    expected = 0.1 + 2.0 * np.cos(np.arange(-5, 6) * 0.1)
    np.testing.assert_allclose(np.sort(found.anchors['scan'].depth_m), np.sort(expected),
                               rtol=1e-5)


@pytest.mark.parametrize('marks', [
    np.zeros((610, 3)), np.full((610, 3), np.nan), np.tile([0.0, 0.1, 0.0], (610, 1))],
    ids=['origin', 'NaN', 'smallest range'])
def test_points_that_mean_no_return_are_no_anchors(tmp_path, marks):
    """61 % of the points; the lidar stands in view, 0.65 m ahead of the camera."""
    path = record(tmp_path / 'bag', [
        ('/tf_static', 0, transform('base_link', 'ahead', (0.65, 0.0, 0.4))),
        (CLOUD, 0, lidar_in_view(marks, 'ahead'))])
    found, = lookup_references(path, CLOUDS, [frame()], reference=CLOUD)
    np.testing.assert_allclose(found.anchors['cloud'].depth_m, 4.0, rtol=1e-6)
    assert len(found.anchors['cloud'].depth_m) > 200


def test_no_return_at_the_place_of_a_sensor_in_another_frame_counts_once(tmp_path):
    """The driver has turned the cloud into the frame of the robot, zeros as well."""
    marks = np.tile([0.65, 0.0, 0.4], (610, 1))
    path = record(tmp_path / 'bag', [(CLOUD, 0, lidar_in_view(marks, 'base_link'))])
    found, = lookup_references(path, CLOUDS, [frame()], reference=CLOUD)
    depth_m = found.anchors['cloud'].depth_m
    assert np.count_nonzero(depth_m < 3) <= 1 < 200 < len(depth_m)


def test_a_cloud_without_any_return_is_rejected(tmp_path):
    zeros = np.zeros((1, 50, 3), np.float32)
    nothing = serialize_cloud(START_NS, 'lidar', pack_cloud(zeros, None))
    path = record(tmp_path / 'bag', [(CLOUD, 0, nothing)])
    found, = lookup_references(path, CLOUDS, [frame()], reference=CLOUD)
    assert texts(found) == {
        'cloud': 'the reference has no measured point: each is NaN, Inf or "no return"'}


@pytest.mark.parametrize('wrong', [
    ((0.1, 0.0, 0.4), (0.0, 0.0, 0.0, 0.0)), ((0.1, np.nan, 0.4),)], ids=['rotation', 'metres'])
@pytest.mark.parametrize('topic', ['/tf_static', '/tf'])
def test_invalid_transforms_are_ignored(tmp_path, topic, wrong):
    path = record(tmp_path / 'bag', [(topic, 0, transform('base_link', 'lidar', *wrong)),
                                     (CLOUD, 0, cloud(0, 2.0))])
    found, = lookup_references(path, CLOUDS, [frame()], reference=CLOUD)
    np.testing.assert_allclose(found.anchors['cloud'].depth_m, 2.1, rtol=1e-6)


@pytest.mark.parametrize('limit_m', [0.1, 10.0, 0.0, np.nan])
def test_a_scan_without_any_return_is_rejected(tmp_path, limit_m):
    path = record(tmp_path / 'bag', [(SCAN, 0, scan(0, limit_m))])
    found, = lookup_references(path, ScaleConfig(('scan',)), [frame()], reference=SCAN)
    assert str(found.problems['scan']).startswith('the reference has no measured point')


DEPTH_MM = np.full((24, 32), 3000, np.uint16)


@pytest.mark.parametrize('topic, message', [
    (DEPTH, image(DEPTH_MM.astype(np.float32) / 1000, '32FC1', START_NS)),
    (DEPTH, image(DEPTH_MM, 'mono16', START_NS)),
    (f'{DEPTH}/compressedDepth', compressed_depth(DEPTH_MM, START_NS, 'rvl')),
    (f'{DEPTH}/compressedDepth', compressed_depth(DEPTH_MM, START_NS, encoding='mono16'))])
def test_a_depth_image_is_registered_by_its_own_calibration(tmp_path, topic, message):
    small_K = np.diag([0.5, 0.5, 1.0]) @ K
    messages = [(topic, 0, message),
                ('/tof/camera_info', 0, camera_info(START_NS, 32, 24, small_K))]
    found, = lookup_references(record(tmp_path / 'bag', messages), ScaleConfig(('depth',)),
                               [frame()], reference=DEPTH)
    assert found.anchors['depth'].coverage((HEIGHT, WIDTH)) == 1.0
    assert (found.anchors['depth'].depth_m == 3.0).all()


def test_the_nearest_reference_in_time_is_used(tmp_path):
    path = record(tmp_path / 'bag', [(CLOUD, at, cloud(at, 1.0 + at / 1000))
                                     for at in (0, 300, 900)])
    found = lookup_references(path, CLOUDS,
                              [frame(at) for at in (100, 200, 650, 950)], reference=CLOUD)
    assert [each.anchors['cloud'].depth_m[0] for each in found] == pytest.approx(
        [1.1, 1.4, 2.0, 2.0])


def test_a_reference_farther_than_hold_s_is_not_used(tmp_path):
    path = record(tmp_path / 'bag', [(CLOUD, 0, cloud(0, 2.0)), (CLOUD, 5000, cloud(5000, 2.0))])
    found = lookup_references(path, CLOUDS,
                              [frame(at) for at in (1000, 1001, 3999, 4000, 6001)],
                              reference=CLOUD)
    assert ['cloud' in each.anchors for each in found] == [True, False, False, True, False]
    assert not any(each.problems for each in found)


@pytest.mark.parametrize('unstamped', ['image', 'cloud'])
def test_log_times_replace_stamps_that_carry_no_time(tmp_path, unstamped):
    """Frames have log times then, too: `read_bag_frames` looks at the same topics."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stamp_ms = {'image': 0, 'cloud': 0} | {unstamped: -START_NS // MS}
    messages = [(IMAGE, at, image(pixels, 'rgb8', START_NS + (stamp_ms['image'] or at) * MS))
                for at in range(100, 1100, 100)]
    messages += [(CLOUD, at, cloud(stamp_ms['cloud'] or at, 1.0 + at / 1000))
                 for at in range(0, 1000, 200)]
    nod = [('/tf', at, transform('base_link', 'head', (at / 1000, 0.0, 0.4), at_ms=at + 7_200_000))
           for at in (0, 1000)]
    path = record(tmp_path / 'bag', [*messages, *nod])
    topics = BagTopics(IMAGE, IMAGE, references=(CLOUD,))
    with open_bag(path) as bag:
        assert message_times(bag, topics).unstamped == (
            {'image': IMAGE, 'cloud': CLOUD}[unstamped],)
        references = BagReferences(bag, topics, CLOUDS, {'cloud': CLOUD})
        found = [references.lookup(frame(at)) for at in (210, 590)]
        assert references._poses.transforms.lookup('base_link', 'head', START_NS + 500 * MS)[
            0, 3] == pytest.approx(0.5)
    assert [each.anchors['cloud'].depth_m[0] for each in found] == pytest.approx([1.3, 1.7])


def test_references_of_a_stopped_clock_are_left_out(tmp_path):
    path = record(tmp_path / 'bag', [(CLOUD, at, cloud(min(at, 1000), 1.0 + at / 1000))
                                     for at in range(0, 5000, 100)])
    with open_bag(path) as bag:
        references = open_references(bag, CLOUDS, CLOUD)
        found = [references.lookup(frame(at)) for at in (1000, 1500, 2500)]
        assert stored(references) <= 22
    assert [each.anchors['cloud'].depth_m[0] for each in found[:2]] == pytest.approx([2.1, 2.1])
    assert found[2].anchors == {}
    assert references.notes == ['39 messages on /points with the time of an earlier one are left '
                                'out']


def test_disagreeing_clocks_are_noted_and_memory_stays_bounded(tmp_path):
    path = record(tmp_path / 'bag', [(CLOUD, at, cloud(at - START_NS // MS, 2.0))
                                     for at in range(1000, 9000, 100)])
    with open_bag(path) as bag:
        references = open_references(bag, CLOUDS, CLOUD)
        assert references.lookup(frame(2000)).anchors == {}
        assert stored(references) == 0
    assert references.notes == ['no message on /points is within 1 s of a frame: do the clocks of '
                                'camera and reference agree?']


def test_transforms_of_another_clock_hide_no_references(tmp_path):
    messages = [(CLOUD, at, cloud(at, 2.0)) for at in range(0, 3000, 100)]
    messages += [('/tf', at, transform('odom', 'base_link', (0.0, 0.0, 0.0), at_ms=at + 3_600_000))
                 for at in range(0, 3000, 100)]
    path = record(tmp_path / 'bag', messages)
    found = lookup_references(path, CLOUDS, [frame(0), frame(2500)],
                              reference=CLOUD)
    assert [each.anchors['cloud'].stamp_ns - START_NS for each in found] == [0, 2500 * MS]


def test_memory_is_bounded(tmp_path):
    path = record(tmp_path / 'bag', [(CLOUD, at, cloud(at, 2.0)) for at in range(0, 20000, 100)])
    with open_bag(path) as bag:
        references = open_references(bag, CLOUDS, CLOUD)
        for at in range(0, 20000, 500):
            assert references.lookup(frame(at)).anchors
            assert stored(references) <= 22    # a second before and after, at 10 Hz


def test_a_moving_sensor_uses_the_pose_at_the_stamp(tmp_path):
    nods = [('/tf', at, transform('base_link', 'head', (at / 1000, 0.0, 0.4), at_ms=at))
            for at in (0, 1000)]
    path = record(tmp_path / 'bag', [*nods, (CLOUD, 500, cloud(500, 2.0, 'head'))])
    found, = lookup_references(path, CLOUDS, [frame(500)], reference=CLOUD)
    np.testing.assert_allclose(found.anchors['cloud'].depth_m, 2.5, rtol=1e-6)


def test_a_reference_that_cannot_be_placed_gives_way_to_the_next(tmp_path):
    nods = [('/tf', at, transform('base_link', 'head', (at / 1000, 0.0, 0.4), at_ms=at))
            for at in (0, 400)]
    path = record(tmp_path / 'bag', [*nods, (CLOUD, 300, cloud(300, 2.0, 'head')),
                                     (CLOUD, 500, cloud(500, 2.0, 'head'))])
    found, alone = lookup_references(path, CLOUDS, [frame(500), frame(1450)],
                                     reference=CLOUD)
    assert (found.anchors['cloud'].stamp_ns, found.problems) == (START_NS + 300 * MS, {})
    assert 'no transform from head to camera_optical_frame at' in str(alone.problems['cloud'])
    assert 'extrapolation into the future, 0.100 s from the newest' in str(alone.problems['cloud'])


def test_the_tilt_comes_from_the_newest_transforms_as_in_the_node(tmp_path):
    config = ScaleConfig(('ground_plane',), camera_height_m=0.4, base_frame='odom')
    rides = [('/tf', at, transform('odom', 'base_link', (at / 1000, 0.0, 0.0), at_ms=at))
             for at in range(0, 1001, 100)]
    path = record(tmp_path / 'bag', rides)
    for at_ms, told_ms in ((450, 450), (3000, 1000)):
        found, = lookup_references(path, config, [frame(at_ms)])
        assert (found.tilt.pitch, found.tilt.roll) == pytest.approx((0.0, 0.0), abs=1e-9)
        assert (found.tilt.stamp_ns, found.problems) == (START_NS + told_ms * MS, {})
    found, = lookup_references(path, replace(config, base_frame='nowhere'), [frame()])
    assert found.tilt is None
    assert ("scale.base_frame 'nowhere': 'nowhere' is not a coordinate frame of TF"
            in str(found.problems['ground_plane']))
    found, = lookup_references(path, replace(config, camera_pitch_deg=0.0, camera_roll_deg=0.0),
                               [frame()])
    assert (found.tilt, found.problems) == (None, {})


def test_extrinsics_replace_transforms(tmp_path):
    path = record(tmp_path / 'bag', [(CLOUD, 0, cloud(0, 2.0))], mount=False)
    found, = lookup_references(path, AHEAD, [frame()], reference=CLOUD)
    np.testing.assert_allclose(found.anchors['cloud'].depth_m, 2.3, rtol=1e-6)
    assert found.tilt is found.base_from_camera is None


@pytest.mark.parametrize(('frame_id', 'turned', 'said'), [
    ('tof_optical', False, 'z forward, x right, y down (optical)'),
    ('tof_optical_frame', False, 'z forward, x right, y down (optical)'),
    ('tof_link', True, 'x forward, y left, z up')])
def test_the_axes_of_a_cloud_are_known_by_the_name_of_its_frame_and_said(
        tmp_path, frame_id, turned, said):
    body = np.array([[2.0, y, 0.1 * y] for y in np.linspace(-0.5, 0.5, 20)], np.float32)
    points = body if turned else np.stack([-body[:, 1], -body[:, 2], body[:, 0]], axis=-1)
    path = record(tmp_path / 'bag', [
        (CLOUD, at, serialize_cloud(START_NS + at * MS, frame_id,
                                    pack_cloud(points[None], None)))
        for at in (0, 100)], mount=False)
    with open_bag(path) as bag:
        references = open_references(bag, AHEAD, CLOUD)
        for at in (0, 100):
            found = references.lookup(frame(at))
            np.testing.assert_allclose(found.anchors['cloud'].depth_m, 2.3, rtol=1e-6)
    assert references.notes == [
        f'the frame {frame_id!r} of the reference is taken as {said}, by its name: optical frames '
        'end in _optical_frame or _optical']


def test_a_missing_transform_is_reported(tmp_path):
    path = record(tmp_path / 'bag', [(CLOUD, 0, cloud(0, 2.0))], mount=False)
    found, = lookup_references(path, CLOUDS, [frame()], reference=CLOUD)
    assert found.anchors == {}
    assert texts(found) == {
        'cloud': f'the bag has no transform from lidar to camera_optical_frame at {START_NS} ns: '
                 'there are no transforms on /tf and /tf_static; record it or set the extrinsics '
                 'of cloud'}


def test_a_frozen_reference_is_rejected(tmp_path):
    """Its content does not change while its stamps and the image do."""
    path = record(tmp_path / 'bag', [(CLOUD, at, cloud(at, 2.0)) for at in range(0, 3000, 100)])
    found = lookup_references(path, CLOUDS,
                              [frame(at, brightness=at // 20) for at in range(0, 3000, 100)],
                              reference=CLOUD)
    assert found[5].problems == {}
    assert 'the reference is frozen' in str(found[-1].problems['cloud'])


def test_a_frame_without_calibration_is_rejected(tmp_path):
    path = record(tmp_path / 'bag', [(CLOUD, 0, cloud(0, 2.0))])
    bare = DepthFrame('bare', frame().rgb, np.ones((1, 1), np.float32), np.ones((1, 1), bool),
                      stamp_ns=START_NS)
    with pytest.raises(InputError, match='bare: metric depth needs a stamp, and a camera_info'):
        lookup_references(path, CLOUDS, [bare], reference=CLOUD)


def test_images_without_calibration_have_no_metric_depth(tmp_path):
    none = write_bag(tmp_path / 'none', {IMAGE: TOPICS[IMAGE]}, [
        (IMAGE, 0, image(frame().rgb, 'rgb8', START_NS))])
    with pytest.raises(BagError, match='needs the calibration of /camera/image_rect; .* has no '
                       '/camera/camera_info'):
        lookup_references(none, ScaleConfig(('fixed',), 1.0, 2.0), [])
    zero = record(tmp_path / 'zero', [], info=camera_info(START_NS, WIDTH, HEIGHT, 0 * K))
    with pytest.raises(BagError, match=r'/camera/camera_info has no valid .*: K\[0\] is 0'):
        lookup_references(zero, ScaleConfig(('fixed',), 1.0, 2.0), [])


@pytest.mark.parametrize(('topic', 'input_rectified', 'rectified'), [
    ('/tof/image_rect', None, True), ('/tof/image_raw', None, False),
    ('/tof/image_rect_raw', None, False), ('/tof/image_raw', True, True)])
def test_a_distorted_reference_depth_is_rectified_unless_it_already_is(
        tmp_path, topic, input_rectified, rectified):
    depth_m = np.full((HEIGHT, WIDTH), 3.0, np.float32)
    path = write_bag(tmp_path / 'bag', {**TOPICS, topic: TOPICS[DEPTH]}, [
        (IMAGE, 0, image(frame().rgb, 'rgb8', START_NS)),
        ('/camera/camera_info', 0, camera_info(START_NS, WIDTH, HEIGHT, K)),
        ('/tof/camera_info', 0, fixture_info((0.5, 0.0, 0.0, 0.0, 0.0), width=WIDTH,
                                             height=HEIGHT, k=K.ravel(), p=np.zeros(12))),
        (topic, 0, image(depth_m, '32FC1', START_NS))])
    with open_bag(path) as bag:
        topics = BagTopics(IMAGE, IMAGE, references=(topic,), input_rectified=input_rectified)
        found = BagReferences(bag, topics, ScaleConfig(('depth',)), {'depth': topic}
                              ).lookup(frame())
    # The corners of the rectified image lie outside the raw one.
    anchors = found.anchors['depth']
    has_corner = (anchors.rows[0], anchors.columns[0]) == (0, 0)
    assert has_corner is rectified


def test_a_reference_depth_of_another_size_than_its_camera_info_is_rejected(tmp_path):
    messages = [(DEPTH, 0, image(np.full((24, 32), 3.0, np.float32), '32FC1', START_NS)),
                ('/tof/camera_info', 0, camera_info(START_NS, WIDTH, HEIGHT, K))]
    found, = lookup_references(record(tmp_path / 'bag', messages), ScaleConfig(('depth',)),
                               [frame()], reference=DEPTH)
    assert texts(found) == {
        'depth': 'camera_info is for 64 x 48 px, but the image is 32 x 24 px'}


def test_messages_that_cannot_be_read_are_skipped(tmp_path):
    """A broken transform and a broken cloud end neither the poses nor the references."""
    broken = b'\0\1\0\0\xff\xff\xff\xff'
    path = record(tmp_path / 'bag', [
        ('/tf_static', 0, broken), (CLOUD, 0, broken), (CLOUD, 0, cloud(0, 2.0))])
    with open_bag(path) as bag:
        references = open_references(bag, CLOUDS, CLOUD)
        found = references.lookup(frame())
    np.testing.assert_allclose(found.anchors['cloud'].depth_m, 2.1, rtol=1e-6)
    first, count = references.notes
    assert first.startswith(f'first unusable message on {CLOUD}: cannot decode a message on')
    assert count == f'1 messages on {CLOUD} cannot be used'


def test_references_end_where_the_bag_is_damaged(tmp_path, monkeypatch):
    path = record(tmp_path / 'bag', [(CLOUD, at, cloud(at, 2.0)) for at in (0, 5000)])
    with open_bag(path) as bag:
        messages = bag.messages

        def damaged(topics, **options):
            for message in messages(topics, **options):
                if message.log_time_ns > START_NS:
                    raise BagError('damaged 5.000 s after its start')
                yield message

        monkeypatch.setattr(bag, 'messages', damaged)
        references = open_references(bag, CLOUDS, CLOUD)
        found = [references.lookup(frame(at)) for at in (0, 5000)]
    assert ['cloud' in each.anchors for each in found] == [True, False]
    assert references.notes == ['references end early: damaged 5.000 s after its start']


@pytest.mark.parametrize(('source', 'options', 'error', 'message'), [
    ('cloud', {}, ConfigError, r"`reference` must name a topic .* \['cloud'\]; got {}"),
    ('cloud', {'reference': '/nowhere'}, BagError,
     r'no topic /nowhere \(sensor_msgs/msg/PointCloud2\)'),
    ('scan', {'reference': CLOUD}, BagError, r'no topic /points \(sensor_msgs/msg/LaserScan\)'),
    ('depth', {'reference': DEPTH, 'camera_info': '/b'}, BagError, 'no topic /b'),
    ('none', {'reference': CLOUD}, ConfigError, r'`reference` must name .* \[\]; got .*/points'),
    ('cloud', {'topics': {'cloud': CLOUD, 'scan': SCAN}}, ConfigError,
     r"`reference` must name a topic .* \['cloud'\]; got .*'scan': '/scan'")])
def test_invalid_topics_are_rejected(source, options, error, message, tmp_path):
    path = record(tmp_path / 'bag', [(CLOUD, 0, cloud(0, 2.0))])
    with pytest.raises(error, match=message):
        lookup_references(path, ScaleConfig((source,)), [], **options)


# Several sources

BOTH = ScaleConfig(('cloud', 'scan'))
BOTH_TOPICS = {'cloud': CLOUD, 'scan': SCAN}


def test_each_source_has_its_own_reference(tmp_path):
    path = record(tmp_path / 'bag', [(CLOUD, 100, cloud(100, 2.0)), (SCAN, 0, scan(0, 3.0)),
                                     (SCAN, 300, scan(300, 4.0))])
    found = lookup_references(path, BOTH, [frame(100), frame(200), frame(1200)],
                              topics=BOTH_TOPICS)
    assert [{source: (each.stamp_ns - START_NS) // MS for source, each in at.anchors.items()}
            for at in found] == [{'cloud': 100, 'scan': 0}, {'cloud': 100, 'scan': 300},
                                 {'scan': 300}]
    np.testing.assert_allclose(found[0].anchors['cloud'].depth_m, 2.1, rtol=1e-6)
    assert found[0].anchors['scan'].depth_m.max() == pytest.approx(3.1)
    assert not any(at.problems for at in found)


def test_a_problem_of_one_source_leaves_the_others(tmp_path):
    path = record(tmp_path / 'bag', [(CLOUD, 0, cloud(0, 2.0, 'nowhere')),
                                     (SCAN, 0, scan(0, 3.0))])
    found, = lookup_references(path, BOTH, [frame()], topics=BOTH_TOPICS)
    assert list(found.anchors) == ['scan'] and list(found.problems) == ['cloud']
    assert 'no transform from nowhere to camera_optical_frame' in str(found.problems['cloud'])


def test_extrinsics_are_those_of_one_source(tmp_path):
    path = record(tmp_path / 'bag', [(CLOUD, 0, cloud(0, 2.0)), (SCAN, 0, scan(0, 3.0))])
    config = replace(BOTH, extrinsics={'scan': '0.5 0 0 0 0 0'})
    found, = lookup_references(path, config, [frame()], topics=BOTH_TOPICS)
    assert found.anchors['cloud'].depth_m.max() == pytest.approx(2.1)
    assert found.anchors['scan'].depth_m.max() == pytest.approx(3.5)


def test_where_one_topic_ends_the_other_is_read_on_in_step_with_the_frames(tmp_path):
    """The scan ends after 1 s; references are used up to 1 s after a frame, and read 1 s ahead."""
    path = record(tmp_path / 'bag', [
        *((CLOUD, at, cloud(at, 2.0)) for at in range(0, 20000, 100)),
        *((SCAN, at, scan(at, 3.0)) for at in range(0, 1001, 100))])
    with open_bag(path) as bag:
        references = open_references(bag, BOTH, topics=BOTH_TOPICS)
        for at in range(0, 20000, 500):
            found = references.lookup(frame(at))
            assert ('cloud' in found.anchors, 'scan' in found.anchors) == (True, at <= 2000)
            assert references._by_topic[CLOUD].newest_ns <= START_NS + (at + 2100) * MS
            assert stored(references) <= 32 + 11


def test_where_one_topic_begins_late_the_other_is_read_in_step_with_the_frames(tmp_path):
    path = record(tmp_path / 'bag', [
        *((CLOUD, at, cloud(at, 2.0)) for at in range(0, 20000, 100)),
        *((SCAN, at, scan(at, 3.0)) for at in range(15000, 20000, 100))])
    with open_bag(path) as bag:
        references = open_references(bag, BOTH, topics=BOTH_TOPICS)
        for at in range(0, 20000, 500):
            found = references.lookup(frame(at))
            assert ('cloud' in found.anchors, 'scan' in found.anchors) == (True, at >= 14000)
            assert stored(references) <= 32 + 32


# References that are moved to the time of the image

def drive(jump_m=0.0):
    """Drive ahead at 1 m/s; after 250 ms the odometry is set anew."""
    return [('/tf', at, transform('odom', 'base_link',
                                  (at / 1000 + (jump_m if at > 250 else 0.0), 0.0, 0.0), at_ms=at))
            for at in range(0, 1001, 100)]


@pytest.mark.parametrize('at_ms, depth_m', [(0, 2.4), (300, 2.1), (500, 1.9)])
@pytest.mark.parametrize('config', [CLOUDS, AHEAD], ids=['TF', 'extrinsics'])
def test_a_reference_is_moved_by_odometry_to_the_time_of_the_image(
        tmp_path, at_ms, depth_m, config):
    """The wall is 2.1 m ahead after 300 ms; 2.3 m with the extrinsics."""
    path = record(tmp_path / 'bag', [*drive(), (CLOUD, 300, cloud(300, 2.0))])
    found, = lookup_references(path, config, [frame(at_ms)], reference=CLOUD)
    expected_m = depth_m + (0.2 if config is AHEAD else 0.0)
    np.testing.assert_allclose(found.anchors['cloud'].depth_m, expected_m, rtol=1e-5)
    assert found.anchors['cloud'].stamp_ns == START_NS + 300 * MS


@pytest.mark.parametrize('at_ms, depth_m', [(0, 2.1), (500, 1.9)])
def test_a_reference_is_not_moved_across_a_jump_of_the_odometry(tmp_path, at_ms, depth_m):
    path = record(tmp_path / 'bag', [*drive(jump_m=-20.0), (CLOUD, 300, cloud(300, 2.0))])
    found, = lookup_references(path, CLOUDS, [frame(at_ms)], reference=CLOUD)
    np.testing.assert_allclose(found.anchors['cloud'].depth_m, depth_m, rtol=1e-5)


def test_without_odometry_a_reference_is_not_moved(tmp_path):
    path = record(tmp_path / 'bag', [(CLOUD, 300, cloud(300, 2.0))])
    found, = lookup_references(path, CLOUDS, [frame()], reference=CLOUD)
    np.testing.assert_allclose(found.anchors['cloud'].depth_m, 2.1, rtol=1e-6)
