"""Rules of intrinsics, their resizing, and rectification."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.camera import Camera, Rectifier

K = [[500.0, 0.0, 320.0], [0.0, 400.0, 240.0], [0.0, 0.0, 1.0]]
P = [[450.0, 0.0, 310.0, -50.0], [0.0, 360.0, 230.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
BARREL = (-0.3, 0.1, 0.001, -0.002, 0.0)


def make_camera(**changes):
    """Build a 640 x 480 camera whose every number can be told from the others."""
    fields = {'width': 640, 'height': 480, 'K': K, 'D': BARREL, 'distortion_model': 'plumb_bob',
              'R': np.eye(3), 'P': P}
    return Camera(**(fields | changes))


def textured_image():
    """Draw a smooth 640 x 480 image without symmetry."""
    v, u = np.mgrid[:480, :640]
    return np.stack([u % 256, v % 256, (u + 2 * v) // 8 % 256], axis=-1).astype(np.uint8)


def test_resizing_scales_the_x_row_by_widths_and_the_y_row_by_heights():
    resized = make_camera().resized(320, 120)
    assert (resized.width, resized.height) == (320, 120)
    np.testing.assert_array_equal(resized.K, [[250, 0, 160], [0, 100, 60], [0, 0, 1]])
    np.testing.assert_array_equal(
        resized.P, [[225, 0, 155, -25], [0, 90, 57.5, 0], [0, 0, 1, 0]])
    assert resized.D == BARREL


def test_rectified_camera_tells_readers_of_k_and_readers_of_p_the_same():
    rectified = make_camera().rectified()
    np.testing.assert_array_equal(rectified.K, [[450, 0, 310], [0, 360, 230], [0, 0, 1]])
    np.testing.assert_array_equal(rectified.P, P)
    np.testing.assert_array_equal(rectified.R, np.eye(3))
    assert not rectified.needs_rectification


@pytest.mark.parametrize('D, expected', [((), False), ((0.0,) * 5, False), (BARREL, True),
                                         ((0, 0, 0, 0, 1e-9), True)])
def test_only_nonzero_distortion_asks_for_rectification(D, expected):
    assert make_camera(D=D).needs_rectification is expected


def test_zero_focal_length_means_uncalibrated():
    assert make_camera().is_calibrated
    zero = make_camera(K=np.zeros((3, 3)), P=np.zeros((3, 4)))
    assert not zero.is_calibrated


def test_cameras_of_equal_numbers_are_equal_and_share_a_hash():
    assert make_camera() == make_camera()
    assert hash(make_camera()) == hash(make_camera())
    assert make_camera() != make_camera(width=641)
    assert make_camera() != make_camera(K=np.array(K) * 2)
    assert make_camera() != 'camera'


def test_matrices_are_copies_that_nobody_can_change():
    mine = np.array(K)
    camera = make_camera(K=mine)
    mine[0, 0] = 1.0
    assert camera.K[0, 0] == 500.0
    with pytest.raises(ValueError, match='read-only'):
        camera.K[0, 0] = 2.0


@pytest.mark.parametrize('changes, match', [
    ({'width': 0}, 'must be positive; got 0 x 480'),
    ({'height': -1}, 'must be positive'),
    ({'K': [[np.nan, 0, 0], [0, 1, 0], [0, 0, 1]]}, '`K` must be finite'),
    ({'K': np.eye(4)}, r'`K` must have the shape \(3, 3\); got \(4, 4\)'),
    ({'P': np.full((3, 4), np.inf)}, '`P` must be finite'),
    ({'D': (0.1, np.nan)}, '`D` must be finite'),
    ({'K': np.diag([-500.0, 400.0, 1.0])}, '`K` must have two positive focal lengths'),
    ({'K': np.diag([500.0, 0.0, 1.0])}, '`K` must have two positive focal lengths'),
])
def test_impossible_calibration_is_refused_with_the_value(changes, match):
    with pytest.raises(InputError, match=match):
        make_camera(**changes)


def test_resizing_to_nothing_is_refused():
    with pytest.raises(InputError, match='must be positive; got 0 x 10'):
        make_camera().resized(0, 10)


def test_rectification_agrees_with_cv2_undistort():
    camera = make_camera(P=np.hstack([K, np.zeros((3, 1))]))
    rgb = textured_image()
    expected = cv2.undistort(rgb, np.array(K), np.array(BARREL))
    assert np.abs(expected.astype(int) - rgb).max() > 100
    np.testing.assert_array_equal(Rectifier(camera).rectify(rgb), expected)


@pytest.mark.parametrize('model, D', [
    ('plumb_bob', BARREL),
    ('rational_polynomial', (-0.3, 0.1, 0.001, -0.002, 0.01, 0.02, -0.01, 0.003)),
])
def test_a_rectified_point_lands_where_p_projects_its_ray(model, D):
    camera = make_camera(distortion_model=model, D=D)
    ray = np.array([[0.25, -0.2, 1.0]])
    raw, _ = cv2.projectPoints(ray, np.zeros(3), np.zeros(3), camera.K, np.array(D))
    rgb = np.zeros((480, 640, 3), np.uint8)
    cv2.circle(rgb, tuple(np.rint(raw.ravel()).astype(int)), 6, (255, 255, 255), -1)
    v, u = np.nonzero(Rectifier(camera).rectify(rgb)[..., 0] > 127)
    assert (u.mean(), v.mean()) == pytest.approx((450 * 0.25 + 310, 360 * -0.2 + 230), abs=0.7)


def test_equidistant_rectification_undoes_the_fisheye_projection():
    D = (0.02, -0.01, 0.005, -0.001)
    camera = make_camera(distortion_model='equidistant', D=D)
    ray = np.array([[[0.4, 0.3, 1.0]]])
    raw, _ = cv2.fisheye.projectPoints(ray, np.zeros(3), np.zeros(3), camera.K, np.array(D))
    rgb = np.zeros((480, 640, 3), np.uint8)
    cv2.circle(rgb, tuple(np.rint(raw.ravel()).astype(int)), 6, (255, 255, 255), -1)
    v, u = np.nonzero(Rectifier(camera).rectify(rgb)[..., 0] > 127)
    assert (u.mean(), v.mean()) == pytest.approx((450 * 0.4 + 310, 360 * 0.3 + 230), abs=0.7)


def test_pixels_that_the_raw_image_does_not_cover_are_black_and_not_valid():
    # P half as long as K: the rectified image looks far beyond the borders of the raw one.
    wide = make_camera(P=[[250, 0, 320, 0], [0, 200, 240, 0], [0, 0, 1, 0]])
    rectifier = Rectifier(wide)
    rectified = rectifier.rectify(np.full((480, 640, 3), 200, np.uint8))
    assert not rectifier.valid[0, 0] and rectifier.valid[240, 320]
    assert (rectified[rectifier.valid] == 200).all()
    assert (rectified[0, 0] == 0).all()


@pytest.mark.parametrize('changes, match', [
    ({'distortion_model': 'thin_prism'}, "one of plumb_bob, .*; got 'thin_prism'"),
    ({'distortion_model': 'equidistant'}, r'`D` of equidistant must .*; got 5'),
    ({'D': (0.1, 0.2, 0.3)}, '`D` of plumb_bob must .*; got 3'),
    ({'K': np.zeros((3, 3))}, 'must be calibrated'),
])
def test_cameras_that_cannot_be_rectified_are_refused(changes, match):
    with pytest.raises(InputError, match=match):
        Rectifier(make_camera(**changes))


def test_an_image_of_another_size_is_not_rectified():
    with pytest.raises(InputError, match=r'got \(240, 320, 3\)'):
        Rectifier(make_camera()).rectify(np.zeros((240, 320, 3), np.uint8))


def test_a_rectifier_names_the_camera_that_its_maps_belong_to():
    rectifier = Rectifier(make_camera())
    assert rectifier.camera == make_camera()
    assert rectifier.camera != replace(make_camera(), D=(0.1,) * 5)
