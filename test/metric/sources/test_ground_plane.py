"""The scale from the floor, on rendered floors of known camera height and tilt."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import ConfigError, InputError
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.fit import fit_scale
from marigold_ros.metric.sources.ground_plane import (
    _refine,
    down_vector,
    find_floor,
    Floor,
    lookup_tilt,
    MAX_ANCHORS,
    tilt_from_down_vector,
)
from marigold_ros.metric.tracker import ScaleTracker
from marigold_ros.metric.types import ScaleFrame, TransformTilt

HEIGHT, WIDTH = 120, 160
K = np.array([[115.0, 0, 79.5], [0, 115, 59.5], [0, 0, 1]])
PITCH = np.radians(6)


def room_depth(height_m: float, pitch: float, roll: float):
    """Compute the depth of a floor, a wall 5 m ahead and a box in front of the floor, [H, W]."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], -1)
    # Camera axes in a level frame with x forward, y left, z up: roll about x, then pitch about y.
    c, s = np.cos(roll), np.sin(roll)
    turn_roll = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    c, s = np.cos(pitch), np.sin(pitch)
    turn_pitch = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    body_from_optical = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    level = rays @ (turn_pitch @ turn_roll @ body_from_optical).T
    with np.errstate(divide='ignore'):
        floor = np.where(level[..., 2] < 0, -height_m / level[..., 2], np.inf)
        wall = np.where(level[..., 0] > 0, 5.0 / level[..., 0], np.inf)
    depth_m = np.minimum(floor, wall)
    depth_m[40:100, 20:75] = np.minimum(depth_m[40:100, 20:75], 1.2)  # the box
    return depth_m


def relative_from(depth_m):
    low, high = np.quantile(depth_m, (0.02, 0.98))
    return np.clip((depth_m - low) / (high - low), 0, 1).astype(np.float32), high - low, low


def see_floor(relative, height_m: float, pitch: float, roll: float = 0.0) -> Anchors:
    return find_floor(relative, K, Floor(down_vector(pitch, roll), height_m))


def fit(relative, anchors: Anchors):
    """Return scale and shift of a frame by its floor."""
    found = fit_scale(relative[anchors.rows, anchors.columns], anchors.depth_m)
    return found.scale, found.shift


@pytest.mark.parametrize(('height_m', 'pitch_deg', 'roll_deg'), [
    (0.35, 6, 0), (0.35, 0, 0), (1.2, 20, -3), (0.25, -4, 2), (1.6, 35, 5)])
def test_scale_and_shift_are_recovered(height_m, pitch_deg, roll_deg):
    pitch, roll = np.radians(pitch_deg), np.radians(roll_deg)
    relative, scale, shift = relative_from(room_depth(height_m, pitch, roll))
    found = fit(relative, see_floor(relative, height_m, pitch, roll))
    assert found == pytest.approx((scale, shift), rel=0.03)


def test_noise_of_the_relative_depth_averages_out():
    relative, scale, shift = relative_from(room_depth(0.35, PITCH, 0.0))
    relative += np.random.default_rng(0).normal(0, 0.005, relative.shape).astype(np.float32)
    found_scale, found_shift = fit(relative, see_floor(relative, 0.35, PITCH))
    for a in (0.1, 0.5):
        assert found_scale * a + found_shift == pytest.approx(scale * a + shift, rel=0.03)


def test_30_percent_outliers_do_not_change_the_fit():
    rng = np.random.default_rng(0)
    relative, scale, shift = relative_from(room_depth(0.35, PITCH, 0.0))
    wrong = rng.random(relative.shape) < 0.3
    relative[wrong] = rng.random(int(wrong.sum()))
    found_scale, found_shift = fit(relative, see_floor(relative, 0.35, PITCH))
    for a in (0.1, 0.5):
        assert found_scale * a + found_shift == pytest.approx(scale * a + shift, rel=0.03)


def test_anchors_lie_on_the_floor_only():
    depth_m = room_depth(0.35, PITCH, 0.0)
    relative, _, _ = relative_from(depth_m)
    anchors = find_floor(relative, K, Floor(down_vector(PITCH, 0.0), 0.35), 7)
    assert len(anchors.rows) == MAX_ANCHORS and anchors.stamp_ns == 7
    true_m = depth_m[anchors.rows, anchors.columns]
    assert (np.abs(anchors.depth_m / true_m - 1) < 0.03).mean() > 0.95  # but at the box's foot
    on_box = (anchors.rows < 95) & (anchors.columns > 20) & (anchors.columns < 75)
    assert not (on_box & (np.abs(true_m - 1.2) < 1e-6)).any()
    assert anchors.depth_m.max() > 2 * anchors.depth_m.min()


def test_anchors_are_less_certain_towards_the_horizon():
    """Half a degree is 0.0087 rad, by the descent of the ray: h / Z."""
    relative, _, _ = relative_from(room_depth(0.35, PITCH, 0.0))
    anchors = see_floor(relative, 0.35, PITCH)
    assert anchors.sigma_log == pytest.approx(0.008727 * anchors.depth_m / 0.35, rel=1e-3)


def test_things_that_stand_on_the_floor_do_not_pull_it():
    """On 40 % of the pixels, up to half as high as the camera."""
    rng = np.random.default_rng(0)
    floor_m = room_depth(1.0, 0.35, 0.0)
    on_it = rng.random(floor_m.shape) < 0.4
    relative, scale, shift = relative_from(np.where(
        on_it, rng.uniform(0.5, 1.0, floor_m.shape), 1.0) * floor_m)
    assert fit(relative, see_floor(relative, 1.0, 0.35)) == pytest.approx((scale, shift), rel=0.03)


def test_what_is_predicted_below_the_floor_counts_against_a_fit():
    """Tables 0.3 m high show more pixels than the floor does, but they are not it."""
    floor_m, table_m = room_depth(1.0, 0.35, 0.0), room_depth(0.7, 0.35, 0.0)
    relative, scale, shift = relative_from(np.where(np.arange(WIDTH) % 20 < 12, table_m, floor_m))
    assert fit(relative, see_floor(relative, 1.0, 0.35)) == pytest.approx((scale, shift), rel=0.03)


def test_a_fit_to_things_on_the_floor_is_drawn_to_what_it_puts_below_the_floor():
    """One of five pixels shows things 9 % above the floor; it is at 3 m * relative + 1 m."""
    floor_m = np.linspace(1.0, 4.0, 100)
    depth_m = np.where(np.arange(100) % 5 < 1, 0.91, 1.0) * floor_m
    found = _refine((depth_m - 1.0) / 3.0, floor_m, 3.0 / 0.91, 1.0 / 0.91, 0.08)
    assert found == pytest.approx((3.0, 1.0), rel=0.01)


def test_carried_depth_below_0_and_of_equal_values_is_no_obstacle():
    """Two pixels of equal relative depth on the floor determine no scale."""
    relative, scale, shift = relative_from(room_depth(0.35, PITCH, 0.0))
    relative[100:] = relative[100]
    found = fit(relative, see_floor(relative - np.float32(0.2), 0.35, PITCH))
    assert found == pytest.approx((scale, shift), rel=0.05)


def test_depth_is_proportional_to_the_height():
    relative, _, _ = relative_from(room_depth(0.35, PITCH, 0.0))
    one, two = see_floor(relative, 0.35, PITCH), see_floor(relative, 0.7, PITCH)
    np.testing.assert_array_equal(one.rows, two.rows)
    np.testing.assert_allclose(two.depth_m, 2 * one.depth_m, rtol=1e-5)


def test_the_floor_is_on_the_side_of_the_down_vector():
    """The camera hangs upside down: the floor fills the upper half of its image."""
    relative, scale, shift = relative_from(room_depth(0.35, 0.0, 0.0))
    upside_down = relative[::-1, ::-1].copy()
    anchors = see_floor(upside_down, 0.35, 0.0, np.pi)
    assert anchors.rows.max() < K[1, 2]
    assert fit(upside_down, anchors) == pytest.approx((scale, shift), rel=0.03)
    with pytest.raises(InputError, match='no floor found'):
        see_floor(upside_down, 0.35, 0.0)


def test_down_vector_and_tilt_are_inverse():
    np.testing.assert_allclose(down_vector(0.0, 0.0), [0, 1, 0])
    np.testing.assert_allclose(down_vector(np.pi / 2, 0.0), [0, 0, 1], atol=1e-12)  # looks down
    assert down_vector(0.0, 0.1)[0] > 0  # its right side is down: the floor lies to its right
    assert tilt_from_down_vector(down_vector(0.3, -0.2)) == pytest.approx((0.3, -0.2))


def test_a_view_without_floor_is_rejected():
    v = np.mgrid[:HEIGHT, :WIDTH][0]
    for relative in (0.5 + 0.3 * np.sin(v / 2.0), np.full((HEIGHT, WIDTH), 0.5)):
        with pytest.raises(InputError, match='no floor'):
            see_floor(relative.astype(np.float32), 0.35, 0.1)


def test_the_floor_needs_50_pixels_below_the_horizon():
    relative, _, _ = relative_from(room_depth(0.35, PITCH, 0.0))
    with pytest.raises(InputError, match='at least 50 pixels below the horizon .*; got 0'):
        see_floor(np.full_like(relative, np.nan), 0.35, PITCH)
    with pytest.raises(InputError, match='at least 50 pixels below the horizon .*; got 0'):
        see_floor(relative, 0.35, np.radians(-60))  # looks up


def test_a_view_with_less_than_a_quarter_of_floor_is_rejected():
    """What stands 0.4 m ahead hides the floor, but for a strip of the image."""
    depth_m = room_depth(0.35, PITCH, 0.0)
    depth_m[:, 30:] = np.minimum(depth_m[:, 30:], 0.3 + 0.001 * np.arange(WIDTH)[30:])
    with pytest.raises(InputError, match='at least 25 % of the pixels below the horizon must lie '
                                         'on a plane 0.35 m below the camera; got'):
        see_floor(relative_from(depth_m)[0], 0.35, PITCH)


SECOND = 10 ** 9


def floor_tracker(**changes) -> ScaleTracker:
    """Track the scale of a camera 0.35 m above the floor; hold_s is 1 s, expire_s 10 s."""
    return ScaleTracker(ScaleConfig(('ground_plane',), camera_height_m=0.35, **changes))


def at(stamp_ns: int, relative, tilt: TransformTilt | None = None, problem: str = ''):
    return ScaleFrame('front', stamp_ns, relative, None, K, tilt=tilt,
                      problems={'ground_plane': InputError(problem)} if problem else {})


@pytest.mark.parametrize(('changes', 'tf', 'origin', 'tilt_deg'), [
    ({'camera_pitch_deg': 6.0, 'camera_roll_deg': 0.0}, (0.5, 0.5), 'parameter', (6, 0)),
    ({}, (PITCH, 0.0), 'TF', (6, 0)),
    ({'camera_roll_deg': 0.0}, (PITCH, 0.5), 'pitch TF, roll parameter', (6, 0)),
    ({'camera_pitch_deg': 6.0}, (0.5, 0.0), 'pitch parameter, roll TF', (6, 0))])
def test_the_tilt_comes_from_parameters_or_tf(changes, tf, origin, tilt_deg):
    relative, scale, shift = relative_from(room_depth(0.35, PITCH, 0.0))
    tracker = floor_tracker(**changes)
    for step in range(6):
        stamp_ns = step * SECOND // 10
        report = tracker.update(at(stamp_ns, relative, TransformTilt(*tf, stamp_ns)))
    assert (report.state, report.tilt.origin) == ('tracking', origin)
    assert np.degrees([report.tilt.pitch, report.tilt.roll]) == pytest.approx(tilt_deg)
    assert report.metric_scale.scale == pytest.approx(scale, rel=0.02)
    assert report.metric_scale.shift == pytest.approx(shift, rel=0.02)
    assert report.metric_scale.sources == ('ground_plane',)


def test_without_an_answer_of_tf_there_is_no_scale():
    relative, _, _ = relative_from(room_depth(0.35, PITCH, 0.0))
    tracker = floor_tracker()
    for step in range(20):
        report = tracker.update(at(step * SECOND, relative, problem='no frame base_link'))
        assert (report.state, report.detail) == ('rejected', 'no frame base_link')
        assert report.metric_scale is report.tilt is None


def test_the_last_answer_of_tf_is_held_and_expires_like_a_measurement():
    relative, scale, _ = relative_from(room_depth(0.35, PITCH, 0.0))
    tracker = floor_tracker()
    told = TransformTilt(PITCH, 0.0, 3 * SECOND)
    for age_s, state, origin in ((0.0, 'tracking', 'TF'), (0.9, 'tracking', 'TF'),
                                 (1.5, 'holding', 'TF (held)'), (9.9, 'holding', 'TF (held)')):
        # Late, or gone altogether.
        report = tracker.update(at(3 * SECOND + round(age_s * SECOND), relative,
                                   told if age_s < 2 else None, 'TF stopped'))
        assert (report.state, report.tilt.origin, report.detail) == (state, origin, '')
        assert report.tilt.age_s == report.age_s == pytest.approx(age_s)
        assert report.metric_scale.scale == pytest.approx(scale, rel=0.02)
    assert report.metric_scale.confidence < 0.02
    expired = tracker.update(at(3 * SECOND + 10_100_000_000, relative, problem='TF stopped'))
    assert (expired.state, expired.metric_scale) == ('expired', None)
    assert 'at most scale.expire_s (10 s) older than the image; got 10.1 s: TF stopped' in (
        expired.detail)
    again = tracker.update(at(20 * SECOND, relative, TransformTilt(PITCH, 0.0, 20 * SECOND)))
    assert (again.state, again.tilt.origin, again.age_s) == ('tracking', 'TF', 0.0)


def test_a_reset_discards_the_answer_of_tf():
    relative, _, _ = relative_from(room_depth(0.35, PITCH, 0.0))
    tracker = floor_tracker()
    tracker.update(at(0, relative, TransformTilt(PITCH, 0.0, 0)))
    tracker.reset()
    assert tracker.update(at(SECOND, relative, problem='gone')).state == 'rejected'


def test_tf_is_asked_only_for_angles_that_need_it():
    def lookup(*arguments):
        asked.append(arguments)
        raise InputError("'nowhere' is not a coordinate frame of TF")
    for changes, count in (({}, 1), ({'camera_pitch_deg': 6.0}, 1),
                           ({'camera_pitch_deg': 6.0, 'camera_roll_deg': 1.0}, 0)):
        asked: list[tuple] = []
        config = ScaleConfig(('ground_plane',), camera_height_m=0.35, base_frame='nowhere',
                             **changes)
        tilt, problem = lookup_tilt(config, lookup, 'camera', 5)
        assert tilt is None and asked == [('nowhere', 'camera', 5)] * count
        assert ("base_frame 'nowhere': 'nowhere' is not a coordinate frame of TF; publish"
                in problem) == bool(count)
    assert lookup_tilt(ScaleConfig(('cloud',)), lookup, 'camera', 5) == (None, '')


def test_the_tilt_follows_from_the_pose_of_the_camera_in_the_base_frame():
    # Looks 0.1 rad down: the z axis of the optical frame, in the base frame, sinks.
    c, s = np.cos(0.1), np.sin(0.1)
    base_from_camera = np.eye(4)
    base_from_camera[:3, :3] = np.array([[0, -s, c], [-1, 0, 0], [0, -c, -s]])
    tilt, problem = lookup_tilt(ScaleConfig(('ground_plane',), camera_height_m=0.35),
                                lambda *_: (base_from_camera, 4), 'camera', 5)
    assert (problem, tilt.stamp_ns) == ('', 4)
    assert (tilt.pitch, tilt.roll) == pytest.approx((0.1, 0.0))
    np.testing.assert_allclose(down_vector(tilt.pitch, tilt.roll),
                               base_from_camera[:3, :3].T @ [0, 0, -1])


@pytest.mark.parametrize('angle', [np.nan, np.inf])
def test_an_angle_is_finite(angle):
    with pytest.raises(ConfigError, match='`scale.camera_roll_deg` must be an angle in degrees or '
                                          f'auto; got {angle!r}'):
        ScaleConfig(('ground_plane',), camera_height_m=0.35, camera_roll_deg=angle)


def test_a_view_without_floor_keeps_the_scale():
    relative, scale, _ = relative_from(room_depth(0.35, PITCH, 0.0))
    tracker = floor_tracker(camera_pitch_deg=6.0, camera_roll_deg=0.0)
    assert tracker.update(at(0, relative)).state == 'tracking'
    blind = tracker.update(at(SECOND // 10, np.full_like(relative, 0.5)))
    assert blind.state == 'rejected' and 'no floor' in blind.detail
    assert blind.metric_scale.scale == pytest.approx(scale, rel=0.02)
    assert tracker.update(at(SECOND // 5, relative)).state == 'tracking'
