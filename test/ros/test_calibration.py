"""Matching of camera_infos to images by stamp and size, and rectification."""

from __future__ import annotations

from node_harness import camera_info
import numpy as np
from rclpy.serialization import serialize_message

from marigold_ros.depth.types import DepthPrediction
from marigold_ros.ros.calibration import CalibrationCache


def info(stamp_ns: int, **changes) -> bytes:
    return serialize_message(camera_info(stamp_ns, **changes))


def test_a_camera_info_is_matched_by_stamp_else_the_last_is_used():
    cache = CalibrationCache(rectified=False)
    assert cache.find(1, 120, 160).problem == 'no camera_info received'
    cache.put(info(1, f=100.0))
    cache.put(info(2, f=200.0))
    found = {stamp_ns: cache.find(stamp_ns, 120, 160) for stamp_ns in (1, 2, 3)}
    assert {ns: (each.camera.K[0, 0], each.by_stamp) for ns, each in found.items()} == {
        1: (100.0, True), 2: (200.0, True), 3: (200.0, False)}
    # A latched camera_info is sent once and must survive a jump back in time.
    cache.discard_older()
    last = cache.find(1, 120, 160)
    assert (last.camera.K[0, 0], last.by_stamp) == (200.0, False)


def test_only_a_raw_image_is_rectified():
    message = camera_info(1, d=(0.1, 0.0, 0.0, 0.0, 0.0))
    message.p[0] = message.p[5] = 90.0
    raw, rectified = CalibrationCache(rectified=False), CalibrationCache(rectified=True)
    for cache in (raw, rectified):
        cache.put(serialize_message(message))
        assert cache.find(1, 120, 160).camera.K[0, 0] == 90.0
    assert raw.find(1, 120, 160).rectifier is not None
    assert rectified.find(1, 120, 160).rectifier is None
    # The rectifier is reused for other stamps.
    message.header.stamp.sec, message.header.stamp.nanosec = 7, 0
    first = raw.find(1, 120, 160).rectifier
    raw.put(serialize_message(message))
    assert raw.find(7 * 10 ** 9, 120, 160).rectifier is first


def test_a_fisheye_is_rectified_although_its_coefficients_are_zero():
    """The model is r = f theta; the ray of a raw pixel is not that of K."""
    cache = CalibrationCache(rectified=False)
    cache.put(info(1, model='equidistant', d=(0.0,) * 4))
    found = cache.find(1, 120, 160)
    assert found.problem == '' and found.rectifier is not None
    plain = CalibrationCache(rectified=False)
    plain.put(info(1, model='none', d=()))
    assert plain.find(1, 120, 160).rectifier is None


def test_an_unknown_model_matters_only_for_raw_images():
    for rectified in (False, True):
        cache = CalibrationCache(rectified=rectified)
        cache.put(info(1, model='double_sphere', d=(0.0,) * 2))
        problem = cache.find(1, 120, 160).problem
        assert problem.endswith("got 'double_sphere'") is not rectified, problem


def test_binning_and_roi_are_applied_to_a_camera_info():
    """A 160 x 120 image of a 400 x 300 camera: ROI of 320 x 240 at (40, 30), binned by 2."""
    message = camera_info(1, width=400, height=300)
    message.roi.x_offset, message.roi.y_offset = 40, 30
    message.roi.width, message.roi.height = 320, 240
    message.binning_x = message.binning_y = 2
    cache = CalibrationCache(rectified=False)
    cache.put(serialize_message(message))
    found = cache.find(1, 120, 160)
    assert found.problem == ''
    # f / 2; (200 - 40) / 2; (150 - 30) / 2.
    np.testing.assert_array_equal(found.camera.K, [[50, 0, 80], [0, 50, 60], [0, 0, 1]])


def test_a_camera_info_of_another_size_is_rejected():
    """Without binning and roi it is unknown whether the image was scaled or cropped."""
    cache = CalibrationCache(rectified=False)
    cache.put(info(1, width=320, height=240))
    found = cache.find(1, 120, 160)
    assert found.problem == 'camera_info is for 320 x 240 px, but the image is 160 x 120 px'
    assert (found.camera.width, found.camera.height) == (160, 120)
    assert not found.camera.is_calibrated


def test_pixels_that_the_raw_image_does_not_cover_are_masked():
    cache = CalibrationCache(rectified=False)
    cache.put(info(1, d=(0.5, 0.0, 0.0, 0.0, 0.0)))
    calibration = cache.find(1, 120, 160)
    covered = calibration.rectifier.valid
    assert covered.any() and not covered.all()
    depth, confidence = np.full((2, 120, 160), 0.5, np.float32)
    masked = calibration.mask_uncovered(
        DepthPrediction(depth, confidence, None, None, 1, 'schedule', None))
    np.testing.assert_array_equal(masked.affine_invariant_depth,
                                  np.where(covered, np.float32(0.5), np.nan))
    np.testing.assert_array_equal(masked.confidence, np.where(covered, np.float32(0.5), 0))
    assert (depth == 0.5).all() and (confidence == 0.5).all()


def test_a_rectified_image_that_is_covered_everywhere_is_not_masked():
    cache = CalibrationCache(rectified=False)
    cache.put(info(1, d=(-0.2, 0.0, 0.0, 0.0, 0.0)))
    calibration = cache.find(1, 120, 160)
    assert calibration.rectifier.valid.all()
    prediction = DepthPrediction(np.ones((120, 160), np.float32), None, None, None, 1, 'schedule',
                                 None)
    assert calibration.mask_uncovered(prediction) is prediction
