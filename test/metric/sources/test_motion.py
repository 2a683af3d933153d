"""Anchors from motion, on a textured wall whose depth and on poses whose errors are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from marigold_ros.depth.errors import InputError
from marigold_ros.depth.types import Flow
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.sources.ground_plane import Floor
from marigold_ros.metric.sources.motion import (
    _reduce,
    _resize_anchors,
    _triangulate,
    MAX_SIGMA_LOG,
    MotionAnchors,
    PIXEL_SIGMA,
    VIEWS,
)
from marigold_ros.metric.tracker import ScaleTracker
from marigold_ros.metric.types import ScaleFrame, TransformTilt

SIZE = (480, 360)  # width, height, px
K = np.array([[400.0, 0.0, 239.5], [0.0, 400.0, 179.5], [0.0, 0.0, 1.0]])
WALL_M = 3.0
PIXELS_PER_M = 200
PERIOD_NS = 100_000_000


def make_texture():
    noise = np.random.default_rng(0).standard_normal((1600, 2400)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 2.0) + cv2.GaussianBlur(noise, (0, 0), 5.0) * 2
    return np.clip(128 + 60 * blurred / blurred.std(), 0, 255).astype(np.uint8)


TEXTURE = make_texture()


def pose_at(x=0.0, z=0.0, yaw=0.0):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler('y', yaw).as_matrix()
    pose[:3, 3] = x, 0.0, z
    return pose


def see_wall(pose, camera=K, size=SIZE, wall_m=WALL_M):
    """Render the wall, which stands so far ahead of the origin."""
    camera_from_world = np.linalg.inv(pose)
    pixels_per_m = PIXELS_PER_M * WALL_M / wall_m
    texture_m = np.array([[1 / pixels_per_m, 0.0, -1200 / pixels_per_m],
                          [0.0, 1 / pixels_per_m, -800 / pixels_per_m], [0.0, 0.0, 1.0]])
    on_wall = np.column_stack([camera_from_world[:3, 0], camera_from_world[:3, 1],
                               camera_from_world[:3, 3] + wall_m * camera_from_world[:3, 2]])
    return cv2.warpPerspective(TEXTURE, camera @ on_wall @ texture_m, size)


def wall_depth(anchors, pose, camera=K):
    """Return the true depth of anchors, m."""
    rays = np.column_stack([(anchors.columns - camera[0, 2]) / camera[0, 0],
                            (anchors.rows - camera[1, 2]) / camera[1, 1],
                            np.ones(len(anchors.rows))])
    return (WALL_M - pose[2, 3]) / (rays @ pose[2, :3])


def drive(poses, motion=None, told=None, first=0, **options):
    """Pass images from poses; the source is told others, if given.  Return it and the anchors."""
    motion = motion or MotionAnchors()
    for number, pose in enumerate(poses):
        anchors = motion.update(see_wall(pose), K, pose if told is None else told[number],
                                (first + number) * PERIOD_NS, **options)
    return motion, anchors


SIDEWAYS = [pose_at(x=0.04 * step) for step in range(12)]
AHEAD = [pose_at(x=0.01 * step, z=0.05 * step) for step in range(16)]


@pytest.mark.parametrize('poses, error', [(SIDEWAYS, 0.01), (AHEAD, 0.03)])
def test_depth_is_measured_while_the_camera_moves(poses, error):
    motion, anchors = drive(poses)
    assert motion.fresh > 100
    assert len(anchors.rows) > 100
    ratio = anchors.depth_m / wall_depth(anchors, poses[-1])
    assert np.median(np.abs(ratio - 1)) < error
    assert np.quantile(np.abs(np.log(ratio)) / anchors.sigma_log, 0.9) < 2.0
    assert anchors.coverage(SIZE[::-1]) > 0.5


@pytest.mark.parametrize('poses', [
    [pose_at()] * 12, [pose_at(yaw=0.02 * step) for step in range(12)]],
    ids=['stands still', 'turns on the spot'])
def test_without_parallax_there_is_no_depth(poses):
    motion, anchors = drive(poses)
    assert motion.fresh == len(anchors.rows) == 0


def flow_sideways(distance_m, since_ns):
    """Return the flow to an image of the wall from one so far to the left, at half its size."""
    source = np.dstack(np.meshgrid(*(np.arange(each // 2, dtype=np.float32) for each in SIZE)))
    source[..., 0] += distance_m / WALL_M * K[0, 0] / 2
    return Flow(since_ns, source)


@pytest.mark.parametrize('period_s', [0.1, 0.033])
@pytest.mark.parametrize('step_m', [0.04, 0.6])
def test_corners_begin_where_the_flow_takes_them(step_m, period_s):
    """By 80 px, also over images in which they are not tracked."""
    poses = [pose_at(x=step_m * step) for step in range(5)]
    motion, period_ns = MotionAnchors(), round(1e9 * period_s)
    for step, pose in enumerate(poses):
        flow = flow_sideways(step_m, (step - 1) * period_ns)
        motion.update(see_wall(pose), K, pose, step * period_ns, flow=flow)
        tracked = motion._pixels[np.isfinite(motion._observed[:, 0, 0])]
        if step == 2:  # after two steps of 0.1 s, or one of 0.066 s
            assert len(tracked) > (60 if step_m > 0.5 else 250)
            first = motion._observed[np.isfinite(motion._observed[:, 0, 0]), 0]
            assert np.median(first[:, 0] - tracked[:, 0]) == pytest.approx(
                2 * step_m / WALL_M * K[0, 0], abs=0.2)


def test_a_flow_that_begins_elsewhere_is_not_used():
    _, expected = drive(SIDEWAYS)
    _, anchors = drive(SIDEWAYS, flow=flow_sideways(2.0, since_ns=-1))
    np.testing.assert_array_equal(anchors.depth_m, expected.depth_m)


def test_far_points_are_not_measured():
    """Half a pixel of 2.9 px, by which the camera's 0.44 m move them, is not known to 20 %."""
    motion = MotionAnchors()
    for step, pose in enumerate(SIDEWAYS):
        anchors = motion.update(see_wall(pose, wall_m=60.0), K, pose, step * PERIOD_NS)
    assert motion.fresh == len(anchors.rows) == 0


@pytest.mark.parametrize('views', [2, VIEWS])
def test_sigma_is_as_large_as_the_errors(views):
    """Pixels with half the assumed error, in the newest image as well: so are the depths."""
    rng = np.random.default_rng(0)
    depth_m = rng.uniform(1.0, 3.0, 2000)
    rays = np.column_stack([rng.uniform(-0.5, 0.5, (2000, 2)), np.ones(2000)])
    view_from_camera = np.tile(np.eye(4), (VIEWS, 1, 1))
    view_from_camera[:, 0, 3] = np.linspace(0.4, 0.05, VIEWS)
    points = depth_m[:, None] * rays

    def see(points):
        pixels = points[:, :2] / points[:, 2:] * 400.0 + K[:2, 2]
        return (pixels + rng.normal(0.0, PIXEL_SIGMA / 2, pixels.shape)).astype(np.float32)

    observed = np.stack([see(points + pose[:3, 3]) for pose in view_from_camera], axis=1)
    observed[:, views:] = np.nan
    found, sigma_log, _ = _triangulate(see(points), observed, view_from_camera, K)
    known = np.isfinite(sigma_log)
    assert known.mean() > 0.7
    error = np.log(found[known, 2] / depth_m[known]) / sigma_log[known]
    assert 0.4 < np.std(error) < 0.7


def test_standing_still_holds_what_is_known_until_it_is_too_uncertain():
    motion, measured = drive(SIDEWAYS)
    stays = SIDEWAYS[-1:]
    # The views from before have left the window after 2.4 s.
    motion, held = drive(stays * 35, motion, first=12)
    assert motion.fresh == 0
    assert len(held.rows) > 0.8 * len(measured.rows)
    assert np.median(held.sigma_log) > 2 * np.median(measured.sigma_log)
    ratio = held.depth_m / wall_depth(held, stays[0])
    assert np.median(np.abs(ratio - 1)) < 0.01
    _, expired = drive(stays * 40, motion, first=47)
    assert len(expired.rows) == 0


def test_corners_that_are_lost_are_held_by_their_place():
    motion, _ = drive(SIDEWAYS)
    away = [pose_at(x=0.44, yaw=yaw) for yaw in (0.2, 0.4, 0.6, 0.4, 0.2, 0.0)]
    motion, anchors = drive(away, motion, first=12)
    assert len(anchors.rows) > 50
    ratio = anchors.depth_m / wall_depth(anchors, away[-1])
    assert np.median(np.abs(ratio - 1)) < 0.02


def test_wheel_slip_passes_through_as_scale():
    """3 % slip: nothing in the images contradicts it."""
    told = [pose_at(x=1.03 * pose[0, 3]) for pose in SIDEWAYS]
    _, anchors = drive(SIDEWAYS, told=told)
    ratio = anchors.depth_m / wall_depth(anchors, SIDEWAYS[-1])
    assert np.median(ratio) == pytest.approx(1.03, abs=0.01)


def test_poses_that_contradict_the_images_yield_no_depth():
    rng = np.random.default_rng(0)
    told = [pose @ pose_at(yaw=rng.normal(0.0, 0.02)) for pose in SIDEWAYS]  # 8 px
    _, anchors = drive(SIDEWAYS, told=told)
    _, expected = drive(SIDEWAYS)
    assert len(anchors.rows) < 0.1 * len(expected.rows)


@pytest.mark.parametrize('degrees', [0.0, 0.2])
def test_a_rotation_is_refined_where_the_corners_contradict_it(degrees):
    rng = np.random.default_rng(0)
    told = [pose @ pose_at(yaw=rng.normal(0.0, np.radians(degrees))) for pose in AHEAD]
    as_told, _ = drive(AHEAD, told=told)
    refined, anchors = drive(AHEAD, MotionAnchors(refine_rotation=True), told=told)
    if degrees:
        assert refined.fresh > 2 * as_told.fresh
    else:
        assert refined.fresh == pytest.approx(as_told.fresh, rel=0.02)
    # The depths are those in the last camera as it was told.
    ratio = anchors.depth_m / wall_depth(anchors, AHEAD[-1])
    assert np.median(np.abs(ratio - 1)) < 0.04


def test_points_below_the_floor_are_dropped():
    """The lower half of the wall would lie below a floor: it is what shines in it."""
    _, anchors = drive(SIDEWAYS, floor=Floor(np.array([0.0, 1.0, 0.0]), 0.5))
    lowest_m = ((anchors.rows - K[1, 2]) / K[1, 1] * anchors.depth_m).max()
    assert 0.4 < lowest_m < 0.5 * 1.15
    _, without = drive(SIDEWAYS)
    assert ((without.rows - K[1, 2]) / K[1, 1] * without.depth_m).max() > 1.0


def test_what_moves_by_itself_is_not_measured():
    """Where it has come, what is known of the wall behind it is held."""
    motion = MotionAnchors()
    patch = np.ascontiguousarray(TEXTURE[:120, :160])
    for step, pose in enumerate(SIDEWAYS):
        image = see_wall(pose)
        image[100 + 6 * step:220 + 6 * step, 160:320] = patch  # falls while the camera drives
        anchors = motion.update(image, K, pose, step * PERIOD_NS)
    assert motion.fresh > 100
    ratio = anchors.depth_m / wall_depth(anchors, SIDEWAYS[-1])
    assert np.quantile(np.abs(ratio - 1), 0.99) < 0.05


def test_a_wide_image_yields_anchors_in_its_own_pixels():
    camera = np.diag([3.0, 3.0, 1.0]) @ K
    camera[:2, 2] = 3 * K[:2, 2] + 1.0
    motion = MotionAnchors()
    for step, pose in enumerate(SIDEWAYS):
        anchors = motion.update(see_wall(pose, camera, (1440, 1080)), camera, pose,
                                step * PERIOD_NS)
    assert anchors.columns.max() > 1300 and anchors.rows.max() > 900
    ratio = anchors.depth_m / wall_depth(anchors, SIDEWAYS[-1], camera)
    assert np.median(np.abs(ratio - 1)) < 0.01


def test_an_image_of_another_size_starts_afresh():
    motion, _ = drive(SIDEWAYS)
    anchors = motion.update(see_wall(SIDEWAYS[-1])[:240], K, SIDEWAYS[-1], 12 * PERIOD_NS)
    assert len(anchors.rows) == 0


def test_a_stamp_that_is_not_later_starts_afresh():
    motion, _ = drive(SIDEWAYS, first=1000)
    motion, anchors = drive(SIDEWAYS[:1], motion)
    assert len(anchors.rows) == 0
    motion, anchors = drive(SIDEWAYS[1:], motion, first=1)
    assert motion.fresh > 100


def test_a_pose_that_is_not_finite_is_refused_and_changes_nothing():
    motion, _ = drive(SIDEWAYS[:-1])
    with pytest.raises(InputError, match='`world_from_camera` must be finite'):
        motion.update(see_wall(SIDEWAYS[-1]), K, np.full((4, 4), np.nan), 11 * PERIOD_NS)
    _, anchors = drive(SIDEWAYS[-1:], motion, first=11)
    _, expected = drive(SIDEWAYS)
    np.testing.assert_array_equal(anchors.depth_m, expected.depth_m)


def test_the_image_may_be_overwritten_by_its_owner():
    motion, image = MotionAnchors(), np.empty(SIZE[::-1], np.uint8)
    for step, pose in enumerate(SIDEWAYS):
        image[:] = see_wall(pose)
        anchors = motion.update(image, K, pose, step * PERIOD_NS)
    assert len(anchors.rows) > 100


def test_the_centre_of_a_pixel_stays_where_it_is_in_a_reduced_image():
    camera = np.array([[900.0, 0.0, 959.5], [0.0, 900.0, 539.5], [0.0, 0.0, 1.0]])
    reduced, reduced_K = _reduce(np.zeros((1080, 1920), np.uint8), camera)
    assert reduced.shape == (360, 640)
    assert reduced_K == pytest.approx(np.array(
        [[300.0, 0.0, 319.5], [0.0, 300.0, 179.5], [0.0, 0.0, 1.0]]))
    one = Anchors(np.array([0, 359]), np.array([0, 639]), np.ones(2, np.float32))
    resized = _resize_anchors(one, 3.0, (1080, 1920))
    assert (list(resized.rows), list(resized.columns)) == ([1, 1078], [1, 1918])


def test_reset_forgets_everything():
    motion, _ = drive(SIDEWAYS)
    motion.reset()
    _, anchors = drive(SIDEWAYS[-2:], motion, first=12)
    assert motion.fresh == len(anchors.rows) == 0


def test_points_do_not_add_up():
    """Back and forth: as many are known after 150 images as after 50, and most are certain."""
    there = [pose_at(x=0.08 * step) for step in range(12)]
    poses = [*there, *there[-2:0:-1]] * 7
    motion, early = drive(poses[:50])
    motion, late = drive(poses[50:150], motion, first=50)
    assert len(late.rows) < 1.5 * len(early.rows)
    assert len(motion._lost.points) < 2000
    assert (late.sigma_log < MAX_SIGMA_LOG).mean() > 0.9


# The scale of a camera

RELATIVE = np.full(SIZE[::-1], 0.5, np.float32)


def track(tracker, poses, first=0, **changes):
    """Update a tracker with images of the wall; return its reports."""
    return [tracker.update(ScaleFrame(
        'front', (first + number) * PERIOD_NS, RELATIVE, None, K,
        **{'grey': see_wall(pose), 'world_from_camera': pose, **changes}))
        for number, pose in enumerate(poses)]


def test_the_scale_follows_from_motion_and_is_held_while_the_camera_stands_still():
    tracker = ScaleTracker(ScaleConfig(('motion',)))
    moving = track(tracker, SIDEWAYS)
    assert moving[0].state == moving[0].sources['motion'].state == 'waiting'
    for found in moving[4:]:
        assert (found.state, found.sources['motion'].state) == ('tracking', 'used')
        assert found.sources['motion'].age_s == 0.0
    # The views from before have left the window after 2.4 s; 0.1 s later nothing is new.
    still = track(tracker, SIDEWAYS[-1:] * 33, first=12)
    states = [found.sources['motion'].state for found in still]
    held = states.index('holding')
    assert 20 <= held <= 25
    assert states == ['used'] * held + ['holding'] * (33 - held)
    ages_s = [found.sources['motion'].age_s for found in still[held:]]
    assert np.diff(ages_s) == pytest.approx(0.1)
    for found in (moving[-1], *still):
        scale = found.metric_scale
        depth_m = scale.field.correct(scale.to_metric_depth(RELATIVE))
        assert np.median(depth_m) == pytest.approx(WALL_M, rel=0.02)


def test_depth_of_a_camera_that_stands_still_becomes_uncertain_gradually():
    tracker = ScaleTracker(ScaleConfig(('motion',)))
    track(tracker, SIDEWAYS)
    still = track(tracker, SIDEWAYS[-1:] * 40, first=12)
    held = [found.metric_scale for found in still if found.sources['motion'].state == 'holding']
    sigmas = np.array([scale.field.sigma.mean() for scale in held])
    confidences = np.array([scale.field.confidence(RELATIVE.shape).mean() for scale in held])
    assert len(held) >= 10
    assert (np.diff(sigmas) > 0).all() and np.diff(sigmas).max() < 0.02
    assert (np.diff(confidences) < 0).all() and np.diff(confidences).min() > -0.03
    assert sigmas[-1] > 1.2 * sigmas[0]


def test_motion_without_a_pose_says_why():
    tracker = ScaleTracker(ScaleConfig(('motion',)))
    for problem, said in (('there is no odometry', 'there is no odometry'), ('', 'it is unknown')):
        found, = track(tracker, SIDEWAYS[:1], world_from_camera=None, pose_problem=problem)
        assert found.state == 'rejected'
        assert found.detail == ('motion needs the pose of the camera in a fixed coordinate frame: '
                                + said)


def test_with_a_height_motion_drops_points_below_the_floor():
    """A level camera 0.5 m above it."""
    with_floor = ScaleTracker(ScaleConfig(('motion',), camera_height_m=0.5))
    without = ScaleTracker(ScaleConfig(('motion',)))
    tilt = TransformTilt(0.0, 0.0, 0)
    found, expected = (track(each, SIDEWAYS, tilt=tilt)[-1] for each in (with_floor, without))
    assert found.tilt.origin.startswith('TF') and expected.tilt is None
    # The wall is seen 1.35 m below the camera and above it; so about a third is dropped.
    share = (found.sources['motion'].anchor_count
             / expected.sources['motion'].anchor_count)
    assert 0.5 < share < 0.85
