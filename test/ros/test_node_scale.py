"""The scale in the running node: every measured source on real topics, and invalid references."""

from __future__ import annotations

from bag_fixtures import encode_rvl
import cv2
from diagnostic_msgs.msg import DiagnosticStatus
from node_harness import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, header, stamp_of
import numpy as np
import pytest
from scale_stage import (
    body_points,
    check_depth,
    CLOUD,
    cloud,
    CX,
    DEPTH,
    F,
    move,
    run_stage,
    SCAN,
    SECOND,
    small_depth,
    true_depth,
)
from sensor_msgs.msg import CompressedImage, LaserScan, PointCloud2

pytestmark = pytest.mark.node


@pytest.fixture(scope='module')
def stage(tmp_path_factory):
    with run_stage(tmp_path_factory.mktemp('node')) as stage:
        yield stage


@pytest.mark.parametrize('encoding', ['32FC1', '16UC1', 'mono16'])
def test_a_reference_depth_of_another_size_gives_the_scale(stage, encoding):
    stage.use('depth')
    assert stage.publish_image()['scale_state'] == 'waiting'
    status = stage.measure(DEPTH, small_depth(stage, encoding=encoding))
    check_depth(stage, status)
    assert status['scale_sources'] == 'depth'
    shown = {each.key: each.value for each in stage.robot.diagnostics(': camera').values}
    measured = [key for key in status if key == 'shift' or key.startswith('scale')]
    assert len(measured) == 14 + 4  # of the scale, and of its source
    assert {key: shown[key] for key in measured} == {key: status[key] for key in measured}


def test_without_a_reference_the_scale_is_held_and_then_expires(stage):
    stage.use('depth')
    stage.measure(DEPTH, small_depth(stage))
    stage.wait(2.0)
    held = stage.publish_image()
    assert held['scale_state'] == 'holding' and len(stage.depth_m())
    for _ in range(2):  # a jump of 2 s is as far as depth is carried
        stage.tick(1.0)
        expired = stage.publish_image()
    assert (expired['scale_state'], expired['scale']) == ('expired', '')
    stage.robot.find('/camera/depth_relative/image', stage.now_ns)  # relative depth goes on
    assert not [each for each in stage.robot.messages['/camera/depth/image_rect']
                if stamp_of(each.header) == stage.now_ns]
    camera = stage.diagnosis('no metric depth: the scale is expired')
    values = {each.key: each.value for each in camera.values}
    assert (camera.level, values['scale_state']) == (DiagnosticStatus.WARN, 'expired')
    check_depth(stage, stage.measure(DEPTH, small_depth(stage)))  # back at once


def test_a_reset_and_a_jump_back_in_time_discard_the_scale(stage):
    stage.use('depth')
    stage.measure(DEPTH, small_depth(stage))
    assert stage.robot.reset_scale().success
    stage.tick(0.1)
    assert stage.publish_image()['scale_state'] == 'waiting'
    stage.measure(DEPTH, small_depth(stage))
    stage.tick(-60.0)
    assert stage.publish_image()['scale_state'] == 'waiting'


def test_a_new_configure_discards_the_scale(stage):
    stage.use('depth')
    stage.measure(DEPTH, small_depth(stage))
    for transition in (DEACTIVATE, CLEANUP, CONFIGURE, ACTIVATE):
        assert stage.robot.change_state(transition)
    for topic in ('/camera/camera_info', '/camera/image_raw', DEPTH):
        stage.robot.until(stage.robot._publishers[topic].get_subscription_count, what=topic)
    # The first frames may come before the node has found who listens, or their camera_info.
    status = stage.until(lambda status: status.get('scale_state', 'none') != 'none')
    assert status['scale_state'] == 'waiting'
    check_depth(stage, stage.measure(DEPTH, small_depth(stage)))


def test_a_source_that_measures_and_tracks_is_no_warning(stage):
    stage.use('depth')
    stage.measure(DEPTH, small_depth(stage))
    log = stage.process.wait_for_log('scale_tracking')
    healthy = [line for line in log.splitlines()
               if 'scale_tracking' in line or 'scale.sources depth: the scale is measured' in line]
    assert len(healthy) >= 2
    assert all(line.startswith('[INFO]') for line in healthy), healthy


def wrong_nan(stage):
    message = small_depth(stage)
    message.data = np.full((120, 160), np.nan, np.float32).tobytes()
    return message


def wrong_clock(stage):
    message = small_depth(stage)
    message.header = header(stage.now_ns - 100 * SECOND)
    return message


@pytest.mark.parametrize(('make', 'detail'), [
    (lambda stage: small_depth(stage, factor=1000.0), 'publishes millimetres as metres'),
    (wrong_nan, 'no finite pixel'),
    (wrong_clock, 'the reference arrived with the image, but its stamp is 100'),
    (lambda stage: small_depth(stage, frame_id='elsewhere'),
     "(frame 'camera_optical_frame') is unknown: 'elsewhere' is not a coordinate frame of TF"),
], ids=['millimetres', 'all NaN', 'clocks', 'no TF'])
def test_an_invalid_reference_is_reported_while_the_scale_is_held(stage, make, detail):
    stage.use('depth')
    stage.measure(DEPTH, small_depth(stage))
    before = stage.robot.counters('camera').get('scale_rejections', 0)
    stage.tick(1.2)  # the good reference is too old by now
    stage.rejection(detail, lambda: stage.robot.publish(DEPTH, make(stage)))
    np.testing.assert_allclose(stage.depth_m(), true_depth(stage), rtol=0.03)  # the held scale
    camera = stage.diagnosis(detail, lambda: stage.robot.publish(DEPTH, make(stage)))
    values = {each.key: each.value for each in camera.values}
    assert camera.level == DiagnosticStatus.WARN
    assert detail in values['last_scale_rejections'] and int(values['scale_rejections']) > before


def test_millimetres_from_the_start_are_never_used(stage):
    stage.use('depth')
    status = stage.measure(DEPTH, small_depth(stage, factor=1000.0))
    assert (status['scale_state'], status['scale']) == ('rejected', '')
    stage.process.wait_for_log('scale_rejections')


def test_a_frozen_reference_is_detected_by_its_content(stage):
    stage.use('depth')
    details = []
    for step in range(30):  # on a busy machine a reference may come after its image
        stage.tick(0.2)
        stage.robot.publish(DEPTH, small_depth(stage))
        stage.robot.spin(0.1)
        details.append(stage.publish_image(np.roll(stage.rgb, 12 * step, axis=1))['scale_detail'])
        if 'frozen' in details[-1]:
            break
    assert 'its content has not changed for' in details[-1], details


def test_a_cloud_is_transformed_by_the_extrinsics(stage):
    # The lidar stands 0.2 m behind and 0.1 m above the camera.
    stage.use('cloud', extrinsics='-0.2 0 0.1 0 0 0')
    stage.robot.advertise(CLOUD, PointCloud2, reliable=False)
    points = body_points(stage) + (0.2, 0.0, -0.1)
    check_depth(stage, stage.measure(CLOUD, cloud(points, stage.now_ns, 'lidar')))
    stage.process.wait_for_log("assumed_axes: the frame 'lidar' of the reference is taken as x fo")
    for message, detail in (
            (cloud(np.empty((0, 3)), stage.now_ns, 'lidar'), 'must be at least 1'),
            (cloud(0 * points, stage.now_ns, 'lidar'), 'no measured point'),
            (cloud(points, stage.now_ns, 'lidar', names='xy'), 'must hold x, y and z'),
            (cloud(-points, stage.now_ns, 'lidar'), "projects into the camera's image")):
        stage.tick(0.5)
        message.header = header(stage.now_ns, 'lidar')
        stage.rejection(detail, lambda: stage.robot.publish(CLOUD, message))


def test_no_return_is_no_anchor_where_the_lidar_is_in_view(stage):
    # The lidar stands 0.65 m ahead of the camera; two thirds of its points are zero.
    stage.use('cloud', extrinsics='0.65 0 0 0 0 0')
    points = (body_points(stage) - (0.65, 0.0, 0.0)).reshape(-1, 3)
    points = np.concatenate([points, np.zeros((2 * len(points), 3))])
    check_depth(stage, stage.measure(CLOUD, cloud(points, stage.now_ns, 'lidar')))


def test_a_cloud_in_a_frame_named_optical_is_not_turned(stage):
    stage.use('cloud', extrinsics='0 0 0 0 0 0')
    x, y, z = np.moveaxis(body_points(stage), -1, 0)
    optical = np.stack([-y, -z, x], axis=-1)
    check_depth(stage, stage.measure(CLOUD, cloud(optical, stage.now_ns, 'tof_optical')))
    log = stage.process.wait_for_log("the frame 'tof_optical' of the reference is taken as z fo")
    assert log.count("the frame 'tof_optical'") == 1


def test_a_scan_gives_the_scale(stage):
    stage.use('scan', extrinsics='0 0 0 0 0 0')
    stage.robot.advertise(SCAN, LaserScan, reliable=False)
    angles = np.radians(np.arange(-180, 180, 0.25))
    columns = CX - F * np.tan(angles)
    ahead = (np.abs(angles) < 1.0) & (columns >= 0) & (columns <= 639)
    row = true_depth(stage)[240]
    ranges = np.full(len(angles), np.inf)
    ranges[ahead] = row[np.rint(columns[ahead]).astype(int)] / np.cos(angles[ahead])
    scan = LaserScan(header=header(stage.now_ns, 'laser'), angle_min=float(angles[0]),
                     angle_max=float(angles[-1]), angle_increment=float(np.radians(0.25)),
                     range_min=0.05, range_max=30.0, ranges=ranges.astype(np.float32).tolist())
    check_depth(stage, stage.measure(SCAN, scan), tolerance=0.08)


def test_the_floor_gives_the_scale(stage):
    stage.use('ground_plane', camera_height_m=0.35, camera_pitch_deg=6.0, camera_roll_deg=0.0)
    status = stage.until(lambda status: status['scale_state'] == 'tracking')
    assert status['scale_sources'] == 'ground_plane'
    # The ray through row 440 falls by sin(6) + cos(6) (440 - cy) / f = 0.541 m per metre of z, so
    # that the floor is there at 0.35 / 0.541 m; the embedded checkpoint is not exact.
    assert stage.depth_m()[440, 320] == pytest.approx(0.647, rel=0.3)


def test_invalid_scale_parameters_are_rejected_at_run_time(stage):
    assert 'six numbers' in stage.robot.set_parameter('scale.scan.extrinsics', 'behind it')
    for sources in (['radar'], ['cloud', 'none'], ['cloud', 'cloud']):
        assert '`scale.sources` must be ' in stage.robot.set_parameter('scale.sources', sources)


def test_compressed_depth_is_used_if_no_raw_depth_is_published(stage):
    stage.use('depth', extrinsics='auto')
    stage.robot.retire(DEPTH)
    stage.robot.advertise(f'{DEPTH}/compressedDepth', CompressedImage)
    small_depth(stage)  # for its camera_info
    depth_mm = np.round(1000 * true_depth(stage)[::4, ::4]).astype(np.uint16)
    for codec, stream in (('png', cv2.imencode('.png', depth_mm)[1].tobytes()),
                          ('rvl', encode_rvl(depth_mm))):
        assert stage.robot.reset_scale().success
        message = CompressedImage(header=header(stage.now_ns), data=bytes(12) + stream,
                                  format=f'16UC1; compressedDepth {codec}')
        check_depth(stage, stage.measure(f'{DEPTH}/compressedDepth', message))


def test_a_cloud_whose_transforms_are_late_gives_the_scale(stage):
    stage.use('cloud', extrinsics='auto')
    stage.robot.advertise(CLOUD, PointCloud2, reliable=False)
    points = body_points(stage) + (0.2, 0.0, -0.1)

    def publish_late(late_s: float) -> None:
        """Publish clouds of the last 0.8 s, and the transforms that have arrived by now."""
        for age_s in np.arange(0.8, -0.01, -0.1):
            stamp_ns = stage.now_ns - round(age_s * SECOND)
            stage.robot.publish(CLOUD, cloud(points + 1e-4 * age_s, stamp_ns, 'lidar'))
            if age_s >= late_s - 0.01:
                move(stage, 'camera_link', 'lidar', (-0.2, 0.0, 0.1), stamp_ns)
            stage.robot.spin(0.05)  # the node's queue holds one cloud

    for late_s in (0.1, 0.3):
        stage.tick(30.0)
        assert stage.robot.reset_scale().success
        check_depth(stage, stage.until(lambda status: status['scale_state'] == 'tracking',
                                       lambda: publish_late(late_s)))
    stage.tick(2.0)
    status = stage.rejection('would need extrapolation into the future',
                             lambda: publish_late(9.0))
    assert ' others within scale.hold_s (1 s) of the image' in status['scale_detail']


def test_the_tilt_comes_from_tf_is_held_and_expires(stage):
    stage.use('ground_plane', camera_height_m=0.35, camera_pitch_deg='auto',
              camera_roll_deg='auto', base_frame='odom')
    unknown = stage.until(lambda status: status['scale_state'] == 'rejected')
    assert "TF does not tell the tilt of the camera (frame 'camera_optical_frame') in " in (
        unknown['scale_detail'])
    assert (unknown['scale'], unknown['scale_tilt_origin']) == ('', '')
    stage.diagnosis('no metric depth: the scale is rejected: TF does not tell the tilt')
    found = stage.until(lambda status: status['scale_tilt_origin'] == 'TF', lambda: move(
        stage, 'odom', 'base_link', (9.0, 9.0, 0.0), stage.now_ns + round(0.01 * SECOND)))
    assert (found['scale_state'], found['scale_pitch_deg'], found['scale_roll_deg']) == (
        'tracking', '6.00', '0.00')
    stage.tick(1.5)
    held = stage.publish_image()
    assert (held['scale_state'], held['scale_tilt_origin']) == ('holding', 'TF (held)')
    assert held['scale_age_s'] == held['scale_tilt_age_s'] != '0.000' and held['scale']
    for _ in range(2):  # a jump of 2 s is as far as depth is carried
        stage.tick(1.0)
        expired = stage.publish_image()
    assert (expired['scale_state'], expired['scale']) == ('expired', '')
    assert 'at most scale.expire_s (3 s) older than the image' in expired['scale_detail']
    stage.use('ground_plane', base_frame='base_link')  # a static transform never expires
    for _ in range(2):
        status = stage.until(lambda status: status['scale_state'] == 'tracking')
        assert (status['scale_tilt_origin'], status['scale_tilt_age_s']) == ('TF', '0.000')
        stage.tick(100.0)


def test_invalid_transforms_are_ignored_and_counted(stage):
    before = stage.robot.counters('camera').get('ignored_transforms', 0)
    for _ in range(3):
        move(stage, 'odom', 'base_link', (0.0, 0.0, 0.0), stage.now_ns, (0.0, 0.0, 0.0, 0.0))
    stage.robot.until(
        lambda: stage.robot.counters('camera').get('ignored_transforms', 0) == before + 3)
    values = {each.key: each.value for each in stage.robot.diagnostics(': camera').values}
    assert values['last_ignored_transforms'] == (
        "the transform from 'base_link' to 'odom' is ignored: the rotation must be a finite "
        'quaternion other than 0; got (0.0, 0.0, 0.0, 0.0)')
