"""Camera calibration, resizing and rectification."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.camera import Camera, Rectification, Rectifier

K = [[500.0, 0.0, 320.0], [0.0, 400.0, 240.0], [0.0, 0.0, 1.0]]
P = [[450.0, 0.0, 310.0, -50.0], [0.0, 360.0, 230.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
BARREL = (-0.3, 0.1, 0.001, -0.002, 0.0)
RATIONAL = (-0.3, 0.1, 0.001, -0.002, 0.05, 0.2, -0.15, 0.03)
FISHEYES = ['equidistant', 'EQUIDISTANT', 'fisheye', 'opencv_fisheye', 'kannala_brandt',
            'Kannala Brandt4', 'KannalaBrandt']


def make_camera(**changes):
    """Build a 640 x 480 camera whose parameters are all different."""
    fields = {'width': 640, 'height': 480, 'K': K, 'D': BARREL, 'distortion_model': 'plumb_bob',
              'R': np.eye(3), 'P': P}
    return Camera(**(fields | changes))


def textured_image():
    """Draw a smooth 640 x 480 image without symmetry."""
    v, u = np.mgrid[:480, :640]
    return np.stack([u % 256, v % 256, (u + 2 * v) // 8 % 256], axis=-1).astype(np.uint8)


def test_resizing_scales_x_by_widths_and_y_by_heights():
    resized = make_camera().resized(320, 120)
    assert (resized.width, resized.height) == (320, 120)
    np.testing.assert_array_equal(resized.K, [[250, 0, 160], [0, 100, 60], [0, 0, 1]])
    np.testing.assert_array_equal(
        resized.P, [[225, 0, 155, -25], [0, 90, 57.5, 0], [0, 0, 1, 0]])
    assert resized.D == BARREL


def test_a_rectified_camera_has_the_same_k_and_p():
    rectified = make_camera().rectified()
    np.testing.assert_array_equal(rectified.K, [[450, 0, 310], [0, 360, 230], [0, 0, 1]])
    np.testing.assert_array_equal(rectified.P, P)
    np.testing.assert_array_equal(rectified.R, np.eye(3))
    assert not rectified.needs_rectification


@pytest.mark.parametrize('D, expected', [((), False), ((0.0,) * 5, False), (BARREL, True),
                                         ((0, 0, 0, 0, 1e-9), True)])
def test_only_nonzero_distortion_needs_rectification(D, expected):
    assert make_camera(D=D).needs_rectification is expected


@pytest.mark.parametrize('model', FISHEYES)
def test_a_fisheye_without_coefficients_needs_rectification(model):
    assert make_camera(distortion_model=model, D=(0.0,) * 4).needs_rectification
    # Its rays have r = f theta: one of 45 degrees is at f pi / 4, not at f.
    straight = np.diag([100.0, 100.0, 1.0]) + [[0, 0, 160], [0, 0, 120], [0, 0, 0]]
    camera = make_camera(width=321, height=241, distortion_model=model, D=(0.0,) * 4, K=straight,
                         P=np.hstack([straight, np.zeros((3, 1))]))
    ramp = np.tile(np.arange(321) - 160, (241, 1)).clip(0).astype(np.uint8)
    seen = Rectifier(camera).rectify(np.dstack([ramp] * 3))
    assert seen[120, 160 + 100, 0] == round(100 * np.pi / 4)


def test_zero_focal_length_means_uncalibrated():
    assert make_camera().is_calibrated
    zero = make_camera(K=np.zeros((3, 3)), P=np.zeros((3, 4)))
    assert not zero.is_calibrated


def test_equal_cameras_have_equal_hashes():
    assert make_camera() == make_camera()
    assert hash(make_camera()) == hash(make_camera())
    assert make_camera() != make_camera(width=641)
    assert make_camera() != make_camera(K=np.array(K) * [[2], [2], [1]])
    assert make_camera() != 'camera'


def test_matrices_are_read_only_copies():
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
    ({'K': np.diag([500.0, 400.0, 2.0])}, r'`K` must have 0 0 1 in its third row; got \[0.0, 0'),
    ({'P': np.array(P) + [[0], [0], [1e-3]]}, '`P` must have 0 0 1 in its third row'),
    ({'R': np.zeros((3, 3))}, '`R` must be a rotation'),
    ({'R': np.diag([1.0, 1.0, -1.0])}, '`R` must be a rotation'),
    ({'R': np.eye(3) * 1.1}, '`R` must be a rotation; got .*1.1'),
])
def test_an_invalid_calibration_is_rejected_with_its_value(changes, match):
    with pytest.raises(InputError, match=match):
        make_camera(**changes)


def test_resizing_to_zero_is_rejected():
    with pytest.raises(InputError, match='must be positive; got 0 x 10'):
        make_camera().resized(0, 10)


def test_rectification_agrees_with_cv2_undistort():
    camera = make_camera(P=np.hstack([K, np.zeros((3, 1))]))
    rgb = textured_image()
    expected = cv2.undistort(rgb, np.array(K), np.array(BARREL))
    assert np.abs(expected.astype(int) - rgb).max() > 100
    np.testing.assert_array_equal(Rectifier(camera).rectify(rgb), expected)


def pinhole(x, y, D):
    """
    Distort with ROS' rational model, which without k4 to k6 is plumb_bob.

    D = k1, k2, p1, p2, k3, k4, k5, k6; see OpenCV's calib3d documentation.
    """
    k1, k2, p1, p2, k3, k4, k5, k6 = (*D, *[0.0] * (8 - len(D)))
    r2 = x * x + y * y
    radial = (1 + k1 * r2 + k2 * r2 ** 2 + k3 * r2 ** 3) / (
        1 + k4 * r2 + k5 * r2 ** 2 + k6 * r2 ** 3)
    return (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y)


def thin_prism(x, y, D):
    """Distort with OpenCV's thin prism model: s1 to s4 follow k6."""
    s1, s2, s3, s4 = D[8:]
    r2 = x * x + y * y
    u, v = pinhole(x, y, D[:8])
    return u + s1 * r2 + s2 * r2 ** 2, v + s3 * r2 + s4 * r2 ** 2


def equidistant(x, y, D):
    """Distort with Kannala and Brandt's model, eq. 6: r = theta (1 + k1 theta^2 + ...)."""
    r = np.maximum(np.hypot(x, y), 1e-12)
    theta = np.arctan(r)
    stretch = theta * (1 + sum(k * theta ** (2 * i) for i, k in enumerate(D, 1))) / r
    return x * stretch, y * stretch


ANGLE = np.deg2rad(4.0)
TILT = np.array([[np.cos(ANGLE), 0, np.sin(ANGLE)], [0, 1, 0], [-np.sin(ANGLE), 0, np.cos(ANGLE)]])


@pytest.mark.parametrize('R', [np.eye(3), TILT])
@pytest.mark.parametrize('model, distort, D', [
    ('plumb_bob', pinhole, BARREL),
    ('plumb_bob', pinhole, BARREL[:4]),
    ('rational_polynomial', pinhole, RATIONAL),
    ('thin_prism', thin_prism, (*RATIONAL, 0.01, -0.02, 0.03, 0.005)),
    ('equidistant', equidistant, (0.02, -0.01, 0.005, -0.001)),
    ('equidistant', equidistant, (0.0,) * 4),
])
def test_rectification_agrees_with_the_distortion_model(model, distort, D, R):
    """Unproject with P, rotate by the inverse of R, distort, project with K."""
    rectifier = Rectifier(make_camera(distortion_model=model, D=D, R=R))
    v, u = np.mgrid[:480, :640].astype(float)
    rays = np.stack([(u - 310) / 450, (v - 230) / 360, np.ones_like(u)], axis=-1) @ R  # R^-1 ray
    x, y = distort(rays[..., 0] / rays[..., 2], rays[..., 1] / rays[..., 2], D)
    raw = {'u': 500 * x + 320, 'v': 400 * y + 240}
    # One grey level per pixel, in windows of 256 levels.
    for axis, grid in (('u', u), ('v', v)):
        for start in (0, 200, 400):
            ramp = np.clip(grid - start, 0, 255).astype(np.uint8)
            seen = rectifier.rectify(np.dstack([ramp] * 3))[..., 0]
            inside = (rectifier.valid & (raw[axis] > start + 2) & (raw[axis] < start + 253)
                      & (raw[axis] < (637 if axis == 'u' else 477)))
            assert inside.sum() > 20000
            # The maps have a resolution of 1/32 px; grey levels are rounded.
            assert np.abs(seen - (raw[axis] - start))[inside].max() < 0.6


def test_pixels_outside_the_raw_image_are_black_and_invalid():
    # P has half the focal length of K: the rectified image exceeds the raw one.
    wide = make_camera(P=[[250, 0, 320, 0], [0, 200, 240, 0], [0, 0, 1, 0]])
    rectifier = Rectifier(wide)
    rectified = rectifier.rectify(np.full((480, 640, 3), 200, np.uint8))
    assert not rectifier.valid[0, 0] and rectifier.valid[240, 320]
    assert (rectified[rectifier.valid] == 200).all()
    assert (rectified[0, 0] == 0).all()


@pytest.mark.parametrize('names', [
    FISHEYES, ['plumb_bob', 'Plumb Bob', 'plumb-bob', 'radtan', 'brown_conrady', 'pinhole',
               'rational_polynomial']])
def test_names_of_one_model_give_the_same_image(names):
    rgb = textured_image()
    images = [Rectifier(make_camera(distortion_model=name, D=BARREL[:4])).rectify(rgb)
              for name in names]
    assert np.abs(images[0].astype(int) - rgb).max() > 100
    for name, seen in zip(names, images):
        np.testing.assert_array_equal(seen, images[0], err_msg=name)


@pytest.mark.parametrize('model, D, meant', [
    ('kannala_brandt', (0.1, 0.2, 0.3, 0.4, 0.0), (0.1, 0.2, 0.3, 0.4)),
    ('equidistant', (), (0.0,) * 4), ('plumb_bob', (), (0.0,) * 4),
    ('plumb_bob', (0.1, 0.2, 0.3, 0.4, 0.0, 0.0), (0.1, 0.2, 0.3, 0.4, 0.0)),
    ('none', (0.0,) * 5, ()), ('', (), ()), ('thin_prism', RATIONAL + (0.0,) * 4,
                                             RATIONAL + (0.0,) * 4)])
def test_zeros_beyond_the_coefficients_of_a_model_are_ignored(model, D, meant):
    assert make_camera(distortion_model=model, D=D).distortion() == meant


@pytest.mark.parametrize('model', ['double_sphere', 'inverse_brown_conrady', 'fov'])
def test_an_unknown_model_is_rejected_by_name_unless_the_image_is_rectified(model):
    for D in ((), (0.0,) * 5, BARREL):
        camera = make_camera(distortion_model=model, D=D)
        with pytest.raises(InputError, match=f"one of none, plumb_bob, .*; got '{model}'"):
            Rectification(rectified=False).find(camera)
        assert Rectification(rectified=True).find(camera) == (camera.rectified(), None)


@pytest.mark.parametrize('changes, match', [
    ({'distortion_model': 'mei'}, "one of none, plumb_bob, .*; got 'mei'"),
    ({'distortion_model': 'equidistant', 'D': (0.1,) * 5},
     "`D` of the model 'equidistant' must have 4 coefficients; got 5"),
    ({'distortion_model': ''}, "`D` of the model '' must have 0 coefficients; got 5"),
    ({'D': (0.1, 0.2, 0.3)}, "`D` of the model 'plumb_bob' must .* 4 or 5 or 8 .*; got 3"),
    ({'K': np.zeros((3, 3))}, 'must be calibrated'),
])
def test_unsupported_cameras_are_rejected(changes, match):
    with pytest.raises(InputError, match=match):
        Rectifier(make_camera(**changes))


def test_an_image_of_another_size_is_rejected():
    with pytest.raises(InputError, match=r'got \(240, 320, 3\)'):
        Rectifier(make_camera()).rectify(np.zeros((240, 320, 3), np.uint8))


def test_a_rectifier_stores_the_camera_of_its_maps():
    rectifier = Rectifier(make_camera())
    assert rectifier.camera == make_camera()
    assert rectifier.camera != replace(make_camera(), D=(0.1,) * 5)
