"""Frames in the running node: outputs, encodings, calibration and dropped frames."""

from __future__ import annotations

import time

from bag_fixtures import webcam_jpeg
from checkpoints import make_checkpoint
import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node_harness import (
    camera_info,
    compressed,
    find_free_domain,
    floats,
    image,
    points,
    Robot,
    stamp_of,
    start_node,
)
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from marigold_ros.depth.engine import DepthEngine

pytestmark = pytest.mark.node
HEIGHT, WIDTH = 120, 160
IMAGE, INFO = '/camera/image_raw', '/camera/camera_info'
OUTPUTS = {
    '/camera/depth/image_rect': Image, '/camera/depth/camera_info': CameraInfo,
    '/camera/points': PointCloud2, '/camera/depth/image_color': Image,
    '/camera/depth_relative/image': Image, '/camera/depth_relative/camera_info': CameraInfo,
    '/camera/rgb/image_rect': Image, '/camera/rgb/camera_info': CameraInfo,
}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp('models') / 'random')


@pytest.fixture(scope='module')
def node(checkpoint, tmp_path_factory):
    """Run one node for the whole module, with three cameras and an assumed range of 1 to 5 m."""
    domain = find_free_domain()
    process = start_node(
        tmp_path_factory.mktemp('node'), domain, '-p', f'checkpoint:={checkpoint}',
        '-p', 'cameras:=[camera, packed, bare]', '-p', 'scale.sources:=[fixed]',
        '-p', 'scale.min_depth_m:=1', '-p', 'scale.max_depth_m:=5', '-p', 'latency_cap_ms:=0',
        '-p', 'max_age_s:=30',  # so that a busy machine drops no frame
        '-p', 'step_policy:=fixed')  # the images do not change
    process.domain = domain
    yield process
    process.stop()


@pytest.fixture(scope='module')
def robot(node):
    robot = Robot(node.domain)
    robot.until(lambda: robot.node.count_subscribers(IMAGE), 200, 'an active node')
    robot.listen_all({'/depth_node/status': DiagnosticArray, **OUTPUTS})
    robot.advertise(INFO, CameraInfo)
    for camera in ('camera', 'bare'):
        robot.advertise(f'/{camera}/image_raw', Image)
    robot.advertise('/packed/image_raw/compressed', CompressedImage)
    yield robot
    robot.close()


@pytest.fixture
def rgb():
    """Make an image of smooth waves, whose neighbouring pixels are similar."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([127 + 100 * np.sin(x / 9.0), 127 + 100 * np.cos(y / 7.0),
                     (x + y) / 2.0], axis=-1).astype(np.uint8)


def now_ns() -> int:
    return time.time_ns()


def show(robot: Robot, rgb, **changes) -> int:
    """Publish a frame with its camera_info, and return its stamp."""
    stamp_ns = now_ns()
    robot.publish(INFO, camera_info(stamp_ns, **changes))
    robot.publish(IMAGE, image(rgb, stamp_ns))
    return stamp_ns


def test_every_output_carries_the_stamp_and_frame_of_the_input(robot, rgb):
    stamp_ns = show(robot, rgb)
    for topic in OUTPUTS:
        message = robot.find(topic, stamp_ns)
        assert message.header.frame_id == 'camera_optical_frame', topic
    for topic in ('depth', 'depth_relative', 'rgb'):
        info = robot.find(f'/camera/{topic}/camera_info', stamp_ns)
        assert (info.width, info.height) == (WIDTH, HEIGHT)
        assert list(info.k) == [100, 0, 80, 0, 100, 60, 0, 0, 1]
        assert list(info.p) == [100, 0, 80, 0, 0, 100, 60, 0, 0, 0, 1, 0]
    color = robot.find('/camera/depth/image_color', stamp_ns)
    assert (color.encoding, color.step) == ('rgb8', 3 * WIDTH)


def test_metric_depth_maps_relative_depth_onto_the_assumed_range(
        robot, rgb, checkpoint):
    robot.cut()
    stamp_ns = show(robot, rgb)
    status = robot.status_of(stamp_ns)
    expected = DepthEngine.load(str(checkpoint)).infer(
        rgb, num_inference_steps=int(status['num_inference_steps']), seed=0)
    relative = floats(robot.find('/camera/depth_relative/image', stamp_ns))
    np.testing.assert_allclose(relative, expected.affine_invariant_depth, atol=1e-5)
    depth_m = floats(robot.find('/camera/depth/image_rect', stamp_ns))
    np.testing.assert_allclose(depth_m, 1.0 + 4.0 * relative, atol=1e-5)


def test_the_cloud_is_organized_along_the_pixels_rays(robot, rgb):
    stamp_ns = show(robot, rgb)
    cloud = robot.find('/camera/points', stamp_ns)
    depth_m = floats(robot.find('/camera/depth/image_rect', stamp_ns))
    assert (cloud.height, cloud.width, cloud.is_dense) == (HEIGHT // 4, WIDTH // 4, False)
    assert cloud.row_step == cloud.width * cloud.point_step
    xyz = points(cloud)
    z = depth_m[40, 100]  # the point in row 10, column 25
    np.testing.assert_allclose(xyz[10, 25], [(100 - 80) / 100 * z, (40 - 60) / 100 * z, z],
                               rtol=1e-5)
    packed_rgb = np.frombuffer(cloud.data, np.uint32).reshape(*xyz.shape[:2], -1)[10, 25, 3]
    r, g, b = (int(each) for each in rgb[40, 100])
    assert packed_rgb == r << 16 | g << 8 | b


@pytest.mark.parametrize(('encoding', 'convert', 'padding'), [
    ('rgb8', lambda rgb: rgb, 0),
    ('rgb8', lambda rgb: rgb, 13),
    ('bgr8', lambda rgb: rgb[..., ::-1], 0),
    ('bgr8', lambda rgb: rgb[..., ::-1], 32),
    ('8UC3', lambda rgb: rgb[..., ::-1], 1),
    ('rgba8', lambda rgb: np.dstack([rgb, rgb[..., 0]]), 3),
    ('bgra8', lambda rgb: np.dstack([rgb[..., ::-1], rgb[..., 0]]), 0),
    ('mono8', lambda rgb: rgb[..., 0], 5),
    ('rgb16', lambda rgb: rgb.astype('<u2') * 257, 6),
])
def test_the_processed_image_is_republished_in_any_encoding(
        robot, rgb, encoding, convert, padding):
    stamp_ns = now_ns()
    robot.publish(INFO, camera_info(stamp_ns))
    pixels = np.ascontiguousarray(convert(rgb))
    message = image(pixels.view(np.uint8).reshape(HEIGHT, -1), stamp_ns, encoding, padding)
    message.width = WIDTH
    robot.publish(IMAGE, message)
    seen = robot.find('/camera/rgb/image_rect', stamp_ns)
    expected = np.repeat(rgb[..., :1], 3, axis=2) if encoding == 'mono8' else rgb
    assert seen.encoding == 'rgb8'
    np.testing.assert_array_equal(
        np.frombuffer(seen.data, np.uint8).reshape(HEIGHT, WIDTH, 3), expected)


# Mid grey, which every encoding and its interpolation preserves, as the bytes of each row.
@pytest.mark.parametrize(('encoding', 'rows', 'is_bigendian'), [
    *[(f'bayer_{pattern}8', np.full((HEIGHT, WIDTH), 128, np.uint8), 0)
      for pattern in ('rggb', 'bggr', 'gbrg', 'grbg')],
    ('mono16', np.full((HEIGHT, WIDTH), 128 * 257, '>u2'), 1),
    ('mono16', np.full((HEIGHT, WIDTH), 128 * 257, '<u2'), 0),
    ('yuv422', np.tile(np.array([128, 126], np.uint8), (HEIGHT, WIDTH)), 0),
    ('yuv422_yuy2', np.tile(np.array([126, 128], np.uint8), (HEIGHT, WIDTH)), 1),
    ('nv12', np.repeat(np.array([126, 128], np.uint8), (HEIGHT, HEIGHT // 2))[:, None]
     .repeat(WIDTH, axis=1), 0),
])
def test_grey_in_any_encoding_is_decoded_as_grey(robot, encoding, rows, is_bigendian):
    stamp_ns = now_ns()
    message = image(rows.view(np.uint8), stamp_ns, encoding, padding=3)
    message.height, message.width, message.is_bigendian = HEIGHT, WIDTH, is_bigendian
    robot.publish(IMAGE, message)
    seen = robot.find('/camera/rgb/image_rect', stamp_ns)
    assert (seen.height, seen.width, seen.step) == (HEIGHT, WIDTH, 3 * WIDTH)
    assert np.abs(np.frombuffer(seen.data, np.uint8).astype(int) - 128).max() <= 1


def test_every_output_has_the_resolution_of_its_input(robot, rgb):
    """Without a camera_info of the new size only relative depth is published."""
    robot.status_of(show(robot, rgb))
    for scale in (2, 1):
        height, width = HEIGHT * scale, WIDTH * scale
        pixels = cv2.resize(rgb, (width, height))
        stamp_ns = now_ns()
        robot.publish(IMAGE, image(pixels, stamp_ns))  # the last camera_info is of another size
        assert robot.status_of(stamp_ns)['scale_sources'] == 'none'
        stamp_ns = now_ns()
        robot.publish(INFO, camera_info(stamp_ns, width=width, height=height, f=100.0 * scale))
        robot.publish(IMAGE, image(pixels, stamp_ns))
        for topic in OUTPUTS:
            message = robot.find(topic, stamp_ns)
            stride = 4 if topic.endswith('points') else 1
            assert (message.height, message.width) == (height // stride, width // stride), topic
            if topic.endswith('camera_info'):
                assert list(message.k) == [100 * scale, 0, width / 2, 0, 100 * scale, height / 2,
                                           0, 0, 1]


def test_status_describes_a_processed_frame(robot, rgb):
    robot.cut()
    status = robot.status_of(show(robot, rgb))
    assert (status['camera'], status['outcome'], status['reason']) == ('camera', 'processed', '')
    assert status['depth_state'] == 'run'
    assert status['scale_sources'] == 'fixed (assumed)'
    assert (float(status['scale']), float(status['shift'])) == (4.0, 1.0)
    assert int(status['num_inference_steps']) == 4
    assert status['step_reason'] == 'fixed: Tmax = 4'
    assert (float(status['covered_share']), float(status['carried_s'])) == (1.0, 0.0)
    assert float(status['complexity']) > 0
    stages = ['age', 'read_image', 'rectify', 'complexity', 'preprocess', 'encode', 'denoise',
              'decode_depth', 'postprocess', 'fit_scale', 'pack', 'publish']
    total_ms = sum(float(status[f'{stage}_ms']) for stage in stages)
    assert total_ms <= float(status['latency_ms']) < total_ms + 50


def test_status_describes_frames_that_do_not_wait_for_the_networks(robot, rgb):
    """Depth is carried until a run has ended; the next frame shows it."""
    robot.cut()
    robot.status_of(show(robot, rgb))
    status = robot.status_of(show(robot, rgb))
    assert (status['depth_state'], status['num_inference_steps']) == ('carried', '0')
    assert status['step_reason'] == 'fixed: Tmax = 4'  # a run has begun
    assert float(status['carried_s']) > 0.0 and float(status['covered_share']) == 1.0
    status = robot.status_of_run(lambda: show(robot, rgb))
    assert (status['depth_state'], status['num_inference_steps']) == ('run', '4')
    assert status['step_reason'] == 'fixed: Tmax = 4'
    assert float(status['carried_s']) > 0.0 and float(status['covered_share']) == 1.0


def test_compressed_images_are_used_if_no_raw_images_are_published(robot, rgb):
    robot.listen('/packed/rgb/image_rect', Image)
    for suffix in ('.png', '.jpg'):
        stream = cv2.imencode(suffix, np.ascontiguousarray(rgb[..., ::-1]))[1].tobytes()
        stamp_ns = now_ns()
        robot.publish('/packed/image_raw/compressed', compressed(stream, stamp_ns))
        seen = np.frombuffer(robot.find('/packed/rgb/image_rect', stamp_ns).data, np.uint8)
        difference = np.abs(seen.reshape(rgb.shape).astype(int) - rgb)
        assert difference.max() == 0 if suffix == '.png' else difference.mean() < 4


def test_stray_bytes_of_a_webcam_change_nothing(robot, rgb):
    robot.listen('/packed/rgb/image_rect', Image)
    seen = []
    for stream in webcam_jpeg(rgb):
        stamp_ns = now_ns()
        robot.publish('/packed/image_raw/compressed', compressed(stream, stamp_ns, 'jpeg'))
        seen.append(bytes(robot.find('/packed/rgb/image_rect', stamp_ns).data))
    assert seen[0] == seen[1]


def test_a_compressed_mosaic_is_published_in_colour(robot):
    robot.listen('/packed/rgb/image_rect', Image)
    mosaic = np.tile(np.array([[30, 120], [120, 200]], np.uint8), (HEIGHT // 2, WIDTH // 2))
    stamp_ns = now_ns()
    robot.publish('/packed/image_raw/compressed', compressed(
        cv2.imencode('.png', mosaic)[1].tobytes(), stamp_ns, 'bayer_rggb8; png compressed '))
    seen = np.frombuffer(robot.find('/packed/rgb/image_rect', stamp_ns).data, np.uint8)
    np.testing.assert_allclose(seen.reshape(-1, 3), [[30, 120, 200]] * (HEIGHT * WIDTH), atol=1)


def test_nothing_is_computed_without_subscribers(robot, rgb):
    robot.publish('/bare/image_raw', image(rgb, now_ns()))
    stamp_ns = now_ns()
    robot.publish('/bare/image_raw', image(rgb, stamp_ns))
    assert robot.status_of(stamp_ns)['reason'] == 'unsubscribed'


def test_confidence_is_published_with_the_camera_info_of_rgb(robot, rgb):
    topics = {'/bare/confidence': Image, '/bare/rgb/camera_info': CameraInfo}
    robot.listen_all(topics)
    stamp_ns = now_ns()
    robot.publish('/bare/image_raw', image(rgb, stamp_ns))
    for topic in topics:
        assert robot.find(topic, stamp_ns).width == WIDTH
        robot.ignore(topic)


def test_without_camera_info_there_is_relative_depth_only(node, robot, rgb):
    robot.listen_all({'/bare/depth/image_rect': Image, '/bare/depth_relative/image': Image,
                      '/bare/depth_relative/camera_info': CameraInfo})
    stamp_ns = now_ns()
    robot.publish('/bare/image_raw', image(rgb, stamp_ns))
    robot.find('/bare/depth_relative/image', stamp_ns)
    info = robot.find('/bare/depth_relative/camera_info', stamp_ns)
    assert (info.width, info.height, info.k[0]) == (WIDTH, HEIGHT, 0.0)  # uncalibrated
    assert robot.status_of(stamp_ns)['scale_sources'] == 'none'
    assert not robot.messages['/bare/depth/image_rect']
    assert 'bare: no_calibration: no camera_info received' in node.log.read_text()

    robot.ignore('/bare/depth_relative/image')
    stamp_ns = now_ns()
    robot.publish('/bare/image_raw', image(rgb, stamp_ns))
    assert robot.status_of(stamp_ns)['reason'] == 'no_calibration'
    robot.ignore('/bare/depth/image_rect')


def test_a_frame_with_an_older_camera_info_is_counted(robot, rgb):
    robot.status_of(show(robot, rgb))
    before = robot.counters('camera').get('camera_info_not_by_stamp', 0)
    stamp_ns = now_ns()
    robot.publish(IMAGE, image(rgb, stamp_ns))
    assert robot.find('/camera/depth/camera_info', stamp_ns).k[0] == 100.0
    assert robot.counters('camera')['camera_info_not_by_stamp'] == before + 1


def test_the_image_of_a_distorted_camera_is_rectified_first(robot, rgb):
    stamp_ns = show(robot, rgb, d=(-0.3, 0.1, 0.0, 0.0, 0.0))
    seen = np.frombuffer(robot.find('/camera/rgb/image_rect', stamp_ns).data, np.uint8)
    K = np.array([[100, 0, 80], [0, 100, 60], [0, 0, 1.0]])
    expected = cv2.undistort(rgb, K, np.array([-0.3, 0.1, 0.0, 0.0, 0.0]))
    assert np.abs(seen.reshape(rgb.shape).astype(int) - expected).mean() < 1.0
    assert np.abs(rgb.astype(int) - expected).mean() > 5.0
    info = robot.find('/camera/rgb/camera_info', stamp_ns)
    assert set(info.d) == {0.0} and list(info.r) == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert list(info.k) == [100, 0, 80, 0, 100, 60, 0, 0, 1]


def test_a_frame_older_than_max_age_s_is_dropped(node, robot, rgb):
    old_ns = now_ns() - 40 * 10 ** 9
    robot.publish(IMAGE, image(rgb, old_ns))
    assert robot.status_of(old_ns)['reason'] == 'too_old'
    for seconds in (3600, 3599):
        recorded_ns = now_ns() - seconds * 10 ** 9
        robot.publish(IMAGE, image(rgb, recorded_ns))
        assert robot.status_of(recorded_ns)['outcome'] == 'processed'
    assert node.log.read_text().count('camera: historical_stamps') == 1  # warned once


def test_a_camera_without_stamps_is_processed_and_reported_once(node, robot, rgb):
    def processed() -> bool:
        stamp_ns = now_ns()
        robot.publish('/bare/image_raw', image(rgb, stamp_ns))
        return robot.status_of(stamp_ns)['outcome'] == 'processed'

    robot.listen('/bare/rgb/image_rect', Image)
    robot.until(processed, what='a processed frame')
    for count in range(1, 4):
        robot.publish('/bare/image_raw', image(rgb, 0))
        robot.until(lambda: len(unstamped(robot)) == count, what=f'status {count}')
    for status in unstamped(robot):
        values = {each.key: each.value for each in status.values}
        assert values['outcome'] == 'processed'
        assert float(values['age_ms']) <= float(values['latency_ms']) < 60_000  # not since 1970
    log = node.wait_for_log('bare: unstamped: image stamps carry no time (0, or repeated); times '
                            'of receipt are used instead')
    assert log.count('bare: unstamped') == 1
    assert 'stamp_jumped_back' not in robot.counters('bare')
    robot.ignore('/bare/rgb/image_rect')


def unstamped(robot: Robot) -> list[DiagnosticStatus]:
    return [array.status[0] for array in robot.messages['/depth_node/status']
            if not stamp_of(array.header)]


def test_the_cap_limits_only_frames_that_wait_and_late_ones_are_counted(robot, rgb):
    robot.status_of(show(robot, rgb))
    assert robot.set_parameter('latency_cap_ms', 1) == ''
    late = robot.counters('camera').get('late', 0)
    status = robot.status_of(show(robot, rgb[:100].copy()))  # another size: nothing to carry
    assert status['num_inference_steps'] == '1'
    assert status['step_reason'].endswith('stopped after 1 by the deadline')
    status = robot.status_of(show(robot, rgb))  # of which the cost is known
    assert status['num_inference_steps'] == '1'
    assert status['step_reason'].startswith('late, run with 1: the cap: 1 ms - age')
    robot.until(lambda: robot.counters('camera').get('late', 0) == late + 2)
    # Later runs have all the time; the frames that wait for none are late, too.
    status = robot.status_of_run(lambda: show(robot, rgb))
    assert (status['num_inference_steps'], status['step_reason']) == ('4', 'fixed: Tmax = 4')
    assert robot.counters('camera')['late'] > late + 2
    assert robot.set_parameter('latency_cap_ms', 0) == ''


def test_depth_is_carried_while_nothing_is_new(robot, rgb):
    """With the header of its own image; what came into view is unknown in metric outputs."""
    assert set(robot.set_parameters({'step_policy': 'novelty', 'max_carry_s': 60.0})) == {''}
    moved = np.roll(rgb, 6, axis=1)
    moved[:, :6] = rgb[:, :1]
    robot.cut()  # so that no run is under way
    first = show(robot, rgb)
    robot.status_of(first)
    second = show(robot, moved)
    status = robot.status_of(second)
    assert status['num_inference_steps'] == '0', status
    assert 0.0 < float(status['carried_s']) < 60.0
    assert 0.9 < float(status['covered_share']) < 1.0
    assert status['step_reason'].startswith('novelty: T(0.0')
    relative = floats(robot.find('/camera/depth_relative/image', second))
    depth_m = floats(robot.find('/camera/depth/image_rect', second))
    known = ~np.isnan(depth_m)
    assert known.mean() == pytest.approx(float(status['covered_share']), abs=1e-3)
    np.testing.assert_allclose(depth_m[known], 1.0 + 4.0 * relative[known], atol=1e-5)
    before = floats(robot.find('/camera/depth_relative/image', first))
    assert np.abs(relative[:, 12:] - before[:, 6:-6]).mean() < 0.05
    assert set(robot.set_parameters({'step_policy': 'fixed', 'max_carry_s': 2.0})) == {''}


def test_a_disabled_node_drops_frames_until_it_is_enabled_again(robot, rgb):
    robot.enable(False)
    assert robot.status_of(show(robot, rgb))['reason'] == 'disabled'
    robot.enable(True)
    assert robot.status_of(show(robot, rgb))['outcome'] == 'processed'


def test_without_a_scale_nothing_metric_is_published(
        robot, rgb):
    assert robot.set_parameter('scale.sources', ['none']) == ''
    stamp_ns = show(robot, rgb)
    robot.find('/camera/depth_relative/image', stamp_ns)
    assert robot.status_of(stamp_ns)['scale_sources'] == 'none'
    for topic in ('/camera/depth/image_rect', '/camera/points'):
        assert all(stamp_of(message.header) != stamp_ns for message in robot.messages[topic])
    diagnostics = robot.diagnostics('depth_node')
    assert diagnostics.level == DiagnosticStatus.WARN
    assert 'set the parameter scale.sources' in diagnostics.message
    assert robot.reset_scale().success
    assert robot.set_parameter('scale.sources', ['fixed']) == ''


def test_a_camera_that_restarts_with_another_reliability_is_received(robot, rgb):
    for reliable in (False, True):
        robot.retire(IMAGE)
        robot.advertise(IMAGE, Image, reliable=reliable)
        assert robot.status_of(show(robot, rgb))['outcome'] == 'processed'
