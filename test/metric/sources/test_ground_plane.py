"""The scale from the floor, on rendered floors of known camera height and tilt."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.sources.ground_plane import down_vector, fit_floor, tilt_from_down_vector
from marigold_ros.metric.tracker import ScaleTracker
from marigold_ros.metric.types import ScaleFrame

HEIGHT, WIDTH = 120, 160
K = np.array([[115.0, 0, 79.5], [0, 115, 59.5], [0, 0, 1]])


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


@pytest.mark.parametrize(('height_m', 'pitch_deg', 'roll_deg'), [
    (0.35, 6, 0), (0.35, 0, 0), (1.2, 20, -3), (0.25, -4, 2), (1.6, 35, 5)])
@pytest.mark.parametrize('known', [True, False])
def test_scale_shift_and_tilt_are_recovered(height_m, pitch_deg, roll_deg, known):
    pitch, roll = np.radians(pitch_deg), np.radians(roll_deg)
    relative, scale, shift = relative_from(room_depth(height_m, pitch, roll))
    found = fit_floor(relative, K, height_m, **({'pitch': pitch, 'roll': roll} if known else {}))
    assert found.fit.scale == pytest.approx(scale, rel=0.02)
    assert found.fit.shift == pytest.approx(shift, rel=0.02)
    assert np.degrees([found.pitch, found.roll]) == pytest.approx([pitch_deg, roll_deg], abs=0.5)


def test_noise_of_the_relative_depth_averages_out():
    relative, scale, shift = relative_from(room_depth(0.35, np.radians(6), 0.0))
    relative += np.random.default_rng(0).normal(0, 0.005, relative.shape).astype(np.float32)
    found = fit_floor(relative, K, 0.35, pitch=np.radians(6), roll=0.0)
    for a in (0.1, 0.5):
        assert found.fit.scale * a + found.fit.shift == pytest.approx(scale * a + shift, rel=0.03)


@pytest.mark.parametrize('known', [True, False])
def test_30_percent_outliers_do_not_change_the_fit(known):
    pitch, rng = np.radians(6), np.random.default_rng(0)
    relative, scale, shift = relative_from(room_depth(0.35, pitch, 0.0))
    wrong = rng.random(relative.shape) < 0.3
    relative[wrong] = rng.random(int(wrong.sum()))
    found = fit_floor(relative, K, 0.35, **({'pitch': pitch, 'roll': 0.0} if known else {}))
    for a in (0.1, 0.5):
        assert found.fit.scale * a + found.fit.shift == pytest.approx(scale * a + shift, rel=0.03)


def test_down_vector_and_tilt_are_inverse():
    np.testing.assert_allclose(down_vector(0.0, 0.0), [0, 1, 0])
    np.testing.assert_allclose(down_vector(np.pi / 2, 0.0), [0, 0, 1], atol=1e-12)  # looks down
    assert down_vector(0.0, 0.1)[0] > 0  # its right side is down: the floor lies to its right
    assert tilt_from_down_vector(down_vector(0.3, -0.2)) == pytest.approx((0.3, -0.2))


def test_a_view_without_floor_is_rejected():
    v = np.mgrid[:HEIGHT, :WIDTH][0]
    for relative in (0.5 + 0.3 * np.sin(v / 2.0), np.full((HEIGHT, WIDTH), 0.5)):
        with pytest.raises(InputError, match='no floor'):
            fit_floor(relative.astype(np.float32), K, 0.35, pitch=0.1, roll=0.0)
    with pytest.raises(InputError, match='at least 50 pixels'):
        fit_floor(np.full((HEIGHT, WIDTH), np.nan, np.float32), K, 0.35)


def test_the_tilt_comes_from_parameters_tf_or_the_image():
    relative, scale, shift = relative_from(room_depth(0.35, np.radians(6), 0.0))
    for changes, tilt in (({'camera_pitch_deg': 6.0, 'camera_roll_deg': 0.0}, (0.5, 0.5)),
                          ({}, (np.radians(6), 0.0)), ({}, None)):
        source = ScaleTracker(ScaleConfig('ground_plane', camera_height_m=0.35, **changes))
        for step in range(6):
            report = source.update(ScaleFrame('front', step * 10 ** 8, relative, None, K,
                                              tilt=tilt))
        assert report.state == 'tracking', (changes, tilt)
        assert report.metric_scale.scale == pytest.approx(scale, rel=0.02)
        assert report.metric_scale.shift == pytest.approx(shift, rel=0.02)
        assert report.metric_scale.source == 'ground_plane'


def test_an_estimated_tilt_is_the_median_of_several_frames():
    relative, scale, _ = relative_from(room_depth(0.35, np.radians(6), 0.0))
    source = ScaleTracker(ScaleConfig('ground_plane', camera_height_m=0.35))

    def update(step: int, shown):
        return source.update(ScaleFrame('front', step * 10 ** 8, shown, None, K))

    assert [update(step, relative).state for step in range(5)] == ['waiting'] * 4 + ['tracking']
    blind = update(5, np.full_like(relative, 0.5))
    assert blind.state == 'rejected' and 'no floor' in blind.detail
    assert blind.metric_scale.scale == pytest.approx(scale, rel=0.02)
    assert update(6, relative).state == 'tracking'
