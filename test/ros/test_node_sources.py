"""Several scale sources at once in the running node, and how certain its metric depth is."""

from __future__ import annotations

from itertools import islice
import math

from diagnostic_msgs.msg import DiagnosticStatus
from node_harness import floats, stamp_of
import numpy as np
import pytest
from scale_stage import (
    body_points,
    check_depth,
    CLOUD,
    cloud,
    DEPTH,
    move,
    run_stage,
    SAMPLE,
    SECOND,
    small_depth,
    Stage,
    true_depth,
)
from scipy.special import erf
from sensor_msgs.msg import Image, PointCloud2

from marigold_ros.data.bags.bag_frames import BagTopics, read_bag_frames

pytestmark = pytest.mark.node
SIGMA, CONFIDENCE = '/camera/depth/sigma', '/camera/confidence'
# The lidar stands 0.2 m behind and 0.1 m above the camera.
LIDAR = (-0.2, 0.0, 0.1)
EXTRINSICS = f'{LIDAR[0]} 0 {LIDAR[2]} 0 0 0'


@pytest.fixture(scope='module')
def stage(tmp_path_factory):
    with run_stage(tmp_path_factory.mktemp('node')) as stage:
        stage.use('cloud', 'depth')
        stage.robot.advertise(CLOUD, PointCloud2, reliable=False)
        stage.robot.listen_all({SIGMA: Image, CONFIDENCE: Image})
        yield stage


@pytest.fixture(autouse=True)
def same_image(stage):
    """Show the same image at the end of a test as at its begin."""
    rgb, relative = stage.rgb, stage.relative
    yield
    if stage.rgb is not rgb:
        see(stage, rgb)
    stage.relative = relative


def see(stage: Stage, rgb: np.ndarray) -> None:
    """Show another image until the networks have run on it."""
    stage.rgb = rgb
    stage.tick(0.5)
    stage.until(lambda status: status['num_inference_steps'] != '0')
    stage.relative = floats(stage.robot.find('/camera/depth_relative/image', stage.now_ns))


def publish_cloud(stage: Stage, factor: float = 1.0) -> None:
    """Publish a lidar's cloud of the image, with noise, as no two clouds are the same."""
    noise = 1e-4 * np.random.default_rng(stage.now_ns % SECOND).random()
    points = (factor + noise) * body_points(stage) - LIDAR
    stage.robot.publish(CLOUD, cloud(points, stage.now_ns, 'lidar'))


def publish_both(stage: Stage, depth_factor: float = 1.0) -> None:
    """Publish a cloud, and a depth image whose depth is wrong by a factor."""
    stage.robot.publish(DEPTH, small_depth(stage, factor=depth_factor))
    publish_cloud(stage)


def states(status: dict[str, str], *sources: str) -> list[str]:
    return [status[f'scale_{source}_state'] for source in sources]


def use_both(stage: Stage) -> dict[str, str]:
    """Measure the scale with a cloud and a depth image."""
    stage.use('cloud', 'depth', extrinsics=EXTRINSICS)
    return stage.until(lambda status: states(status, 'cloud', 'depth') == ['used', 'used'],
                       lambda: publish_both(stage))


def publish_place(stage: Stage, seconds: float = 0.0) -> None:
    """Let the robot stand still in `odom` from now on for some seconds."""
    for tenth in range(math.ceil(10 * seconds) + 1):
        move(stage, 'odom', 'base_link', (0.0, 0.0, 0.0), stage.now_ns + tenth * SECOND // 10)
        stage.robot.spin(0.01)


def sources_of(values: dict[str, str]) -> dict[str, str]:
    """Return what is reported of single sources."""
    return {key: value for key, value in values.items()
            if key.startswith(('scale_cloud_', 'scale_depth_'))}


def test_two_references_give_one_scale_and_each_has_its_own_state(stage):
    status = use_both(stage)
    check_depth(stage, status)
    assert (status['scale_sources'], status['scale_detail']) == ('cloud, depth', '')
    anchors = [int(status[f'scale_{source}_anchors']) for source in ('cloud', 'depth')]
    assert min(anchors) > 100 and anchors[0] != anchors[1]
    assert int(status['scale_anchors']) == sum(anchors)
    camera = stage.robot.diagnostics(': camera')
    assert len(sources_of(status)) == 8
    assert sources_of({each.key: each.value for each in camera.values}) == sources_of(status)


@pytest.mark.parametrize(('factor', 'detail'), [
    (1000.0, 'publishes millimetres as metres'),
    (1.5, 'depth contradicts cloud: where both see, depth differs by ')])
def test_a_reference_that_becomes_wrong_is_rejected_and_the_other_goes_on(stage, factor, detail):
    use_both(stage)
    stage.tick(1.5)
    status = stage.until(
        lambda status: states(status, 'cloud', 'depth') == ['used', 'rejected'],
        lambda: publish_both(stage, factor))
    check_depth(stage, status)
    assert status['scale_sources'] == 'cloud'
    assert detail in status['scale_depth_detail'] and status['scale_cloud_detail'] == ''
    assert status['scale_detail'] == f'depth: {status["scale_depth_detail"]}'
    assert (status['scale_depth_anchors'], status['scale_depth_age_s']) == ('0', '')
    camera = stage.diagnosis('; scale_rejections', lambda: publish_both(stage, factor))
    values = {each.key: each.value for each in camera.values}
    assert camera.level == DiagnosticStatus.WARN
    assert (values['scale_state'], values['scale_depth_state']) == ('tracking', 'rejected')
    assert detail in values['scale_depth_detail'] and detail in values['last_scale_rejections']


def test_a_frozen_reference_is_rejected_and_depth_follows_the_other(stage):
    """The image and the cloud turn; the depth image stays as it was."""
    use_both(stage)
    frozen, frozen_m = small_depth(stage), true_depth(stage)
    see(stage, stage.rgb[::-1])
    assert np.median(np.abs(np.log(frozen_m / true_depth(stage)))) > 0.1

    def publish() -> None:
        stage.tick(0.5)
        small_depth(stage)  # for its camera_info
        frozen.header.stamp.sec, frozen.header.stamp.nanosec = divmod(stage.now_ns, SECOND)
        stage.robot.publish(DEPTH, frozen)
        publish_cloud(stage)

    status = stage.until(lambda status: 'frozen' in status['scale_depth_detail']
                         and states(status, 'cloud', 'depth') == ['used', 'rejected'], publish)
    assert 'its content has not changed for' in status['scale_depth_detail']
    np.testing.assert_allclose(stage.depth_m(), true_depth(stage), rtol=0.03)


def test_of_two_references_that_differ_a_little_the_weightier_one_decides(stage):
    """The cloud is 8 % too far, which is no contradiction yet."""
    ratios = {}
    for weight in (0.01, 100.0):
        stage.use('cloud', 'depth', **{'cloud.extrinsics': EXTRINSICS, 'cloud.weight': weight})
        stage.until(lambda status: 'waiting' not in states(status, 'cloud', 'depth'), lambda: (
            publish_cloud(stage, 1.08), stage.robot.publish(DEPTH, small_depth(stage))))
        ratios[weight] = float(np.median(stage.depth_m() / true_depth(stage)))
    assert stage.robot.set_parameter('scale.cloud.weight', 1.0) == ''
    assert ratios == pytest.approx({0.01: 1.0, 100.0: 1.08}, abs=0.02)


def test_without_one_of_two_references_the_scale_goes_on(stage):
    stage.use('cloud', 'depth', extrinsics=EXTRINSICS)
    status = stage.until(lambda status: status['scale_cloud_state'] == 'used',
                         lambda: publish_cloud(stage))
    check_depth(stage, status)
    assert (status['scale_depth_state'], status['scale_sources']) == ('waiting', 'cloud')
    assert (status['scale_depth_anchors'], status['scale_depth_age_s']) == ('0', '')


def test_a_cloud_and_the_floor_are_used_together_and_each_has_its_own_age(stage):
    """The floor is as old as the tilt of the camera."""
    topics = BagTopics('/camera/image_raw', '/camera/depth_gt/image_rect')
    frame, = islice(read_bag_frames(SAMPLE, topics), 1)
    stage.relative = (frame.depth_m - 1.0) / 3.0
    stage.use('cloud', 'ground_plane', extrinsics=EXTRINSICS, camera_height_m=0.35,
              base_frame='odom')
    stage.until(lambda status: states(status, 'cloud', 'ground_plane') == ['used', 'used'],
                lambda: (publish_place(stage), publish_cloud(stage)))
    publish_place(stage)
    placed_ns = stage.now_ns
    stage.tick(0.5)
    publish_cloud(stage)
    stage.tick(0.01)
    status = stage.publish_image()
    assert status['scale_sources'] == 'cloud, ground_plane', status['scale_detail']
    assert (status['scale_pitch_deg'], status['scale_state']) == ('6.00', 'tracking')
    age_s = (stage.now_ns - placed_ns) / SECOND
    assert float(status['scale_ground_plane_age_s']) == pytest.approx(age_s, abs=0.002)
    assert float(status['scale_cloud_age_s']) <= 0.02  # s; the cloud's is 0.01
    assert min(int(status[f'scale_{source}_anchors']) for source in ('cloud', 'ground_plane')) > 20
    ratio = (stage.depth_m() / frame.depth_m)[frame.valid]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1)


def test_sigma_is_in_metres_and_larger_far_from_anchors(stage):
    """The cloud covers the left quarter of the image."""
    stage.use('cloud', extrinsics='0 0 0 0 0 0')
    stage.measure(CLOUD, cloud(body_points(stage)[:, :10], stage.now_ns, 'lidar'))
    message = stage.robot.find(SIGMA, stage.now_ns)
    assert message.header.frame_id == 'camera_optical_frame'
    sigma_log = floats(message) / stage.depth_m()
    near, far = np.median(sigma_log[:, 20:140]), np.median(sigma_log[:, 500:])
    assert 0.02 < near < 0.1 and 0.2 < far < 0.3


def test_confidence_is_the_probability_that_sigma_tells(stage):
    stage.use('cloud', extrinsics='0 0 0 0 0 0')
    stage.measure(CLOUD, cloud(body_points(stage)[:, :10], stage.now_ns, 'lidar'))
    sigma_log = floats(stage.robot.find(SIGMA, stage.now_ns)) / stage.depth_m()
    confidence = floats(stage.robot.find(CONFIDENCE, stage.now_ns))
    assert 0.0 <= confidence.min() < 0.7 < 0.9 < confidence.max() <= 1.0
    # Both are interpolated on their own between the cells of a grid.
    np.testing.assert_allclose(confidence, erf(math.log(1.25) / (math.sqrt(2.0) * sigma_log)),
                               atol=0.05)


def test_confidence_min_leaves_out_depth_far_from_anchors(stage):
    stage.use('cloud', extrinsics='0 0 0 0 0 0')
    assert stage.robot.set_parameter('confidence_min', 0.8) == ''
    stage.measure(CLOUD, cloud(body_points(stage)[:, :10], stage.now_ns, 'lidar'))
    known = np.isfinite(stage.depth_m())
    assert stage.robot.set_parameter('confidence_min', 0.0) == ''
    assert known[:, 20:140].mean() > 0.9 and known[:, 500:].mean() < 0.1


def test_an_assumed_scale_has_no_sigma(stage):
    stage.use('fixed', min_depth_m=1.0, max_depth_m=4.0)
    assert stage.publish_image()['scale_sources'] == 'fixed (assumed)'
    confidence = floats(stage.robot.find(CONFIDENCE, stage.now_ns))  # of the prediction
    assert 0.0 <= confidence.min() < confidence.max() <= 1.0
    stage.depth_m()
    stage.robot.spin(0.5)
    assert stage.now_ns not in [stamp_of(each.header) for each in stage.robot.messages[SIGMA]]
    assert 'the scale' not in stage.robot.diagnostics(': camera').message  # that is no fault
    stage.process.wait_for_log('no_sigma: depth/sigma needs a measured scale')


def hold(stage: Stage) -> dict[str, str]:
    """Measure once where the camera's place is known, and return a status 2 s later."""
    stage.use('depth')
    publish_place(stage, 6.0)
    stage.measure(DEPTH, small_depth(stage))
    stage.wait(2.0)
    return stage.until(lambda status: status['scale_depth_state'] == 'holding')


def test_what_a_reference_has_measured_is_held_where_the_camera_is_known(stage):
    status = hold(stage)
    np.testing.assert_allclose(stage.depth_m(), true_depth(stage), rtol=0.03)
    assert (status['pose'], status['scale_state']) == ('odom', 'holding')
    assert int(status['scale_depth_anchors']) > 100
    assert 2.0 <= float(status['scale_depth_age_s']) < 3.0
    assert status['scale_depth_age_s'] == status['scale_age_s']


def test_a_reset_discards_what_is_held(stage):
    hold(stage)
    response = stage.robot.reset_scale()
    assert (response.success, response.message) == (True, 'the scale is reset')
    stage.tick(0.1)
    status = stage.publish_image()
    assert (status['pose'], status['scale_state'], status['scale']) == ('odom', 'waiting', '')
    assert (status['scale_depth_state'], status['scale_depth_anchors']) == ('waiting', '0')


def test_a_jump_back_in_time_discards_what_is_held(stage):
    hold(stage)
    stage.tick(-60.0)
    status = stage.publish_image()
    assert (status['scale_state'], status['scale_depth_state']) == ('waiting', 'waiting')
    assert status['scale_depth_anchors'] == '0'
