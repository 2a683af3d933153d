"""Conversion between camera_info messages and calibrations."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from rosbags.typesys import get_typestore, Stores

from marigold_ros.depth.errors import InputError, MessageError
from marigold_ros.geometry.camera import DISTORTION_COUNTS, Rectifier
from marigold_ros.messages.camera_info import (
    camera_from_fields,
    CameraInfoFields,
    fields_from_camera,
)

K = (500.0, 0.0, 320.0, 0.0, 400.0, 240.0, 0.0, 0.0, 1.0)
R = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
P = (450.0, 0.0, 310.0, -50.0, 0.0, 360.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0)
D = (-0.3, 0.1, 0.001, -0.002, 0.0)


def make_fields(**changes):
    """Make the fields of a 640 x 480 camera."""
    fields = {'height': 480, 'width': 640, 'distortion_model': 'plumb_bob',
              'd': D, 'k': K, 'r': R, 'p': P}
    return CameraInfoFields(**(fields | changes))


def test_matrices_are_read_row_by_row():
    camera = camera_from_fields(make_fields())
    assert (camera.width, camera.height, camera.D) == (640, 480, D)
    np.testing.assert_array_equal(camera.K, [[500, 0, 320], [0, 400, 240], [0, 0, 1]])
    np.testing.assert_array_equal(camera.R, [[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(
        camera.P, [[450, 0, 310, -50], [0, 360, 230, 0], [0, 0, 1, 0]])


def test_a_round_trip_keeps_the_fields():
    assert fields_from_camera(camera_from_fields(make_fields())) == make_fields()


def test_fields_may_be_numpy_arrays():
    arrays = make_fields(d=np.array(D), k=np.array(K), r=np.array(R), p=np.array(P))
    assert camera_from_fields(arrays) == camera_from_fields(make_fields())


def test_zero_r_and_p_become_identity_and_k():
    camera = camera_from_fields(make_fields(r=(0.0,) * 9, p=(0.0,) * 12))
    np.testing.assert_array_equal(camera.R, np.eye(3))
    np.testing.assert_array_equal(camera.P, [[500, 0, 320, 0], [0, 400, 240, 0], [0, 0, 1, 0]])


def test_roi_and_binning_change_the_intrinsics():
    camera = camera_from_fields(make_fields(roi=(100, 40, 200, 400), binning_x=2, binning_y=4))
    assert (camera.width, camera.height) == (200, 50)
    np.testing.assert_array_equal(camera.K, [[250, 0, 110], [0, 100, 50], [0, 0, 1]])
    np.testing.assert_array_equal(
        camera.P, [[225, 0, 105, -25], [0, 90, 47.5, 0], [0, 0, 1, 0]])


@pytest.mark.parametrize('changes, match', [
    ({'k': K[:8]}, '`k` must have 9 numbers; got 8'),
    ({'p': P + (0.0,)}, '`p` must have 12 numbers; got 13'),
    ({'k': (0.0,) * 9, 'r': (0.0,) * 9, 'p': (0.0,) * 12, 'd': ()},
     r'camera_info is uncalibrated: K\[0\] is 0'),
    ({'k': (float('nan'), *K[1:])}, 'camera_info is invalid: `K` must be finite'),
    ({'d': (float('inf'),)}, 'camera_info is invalid: `D` must be finite'),
    ({'r': (1.0,) * 9}, 'camera_info is invalid: `R` must be a rotation'),
    ({'width': 0}, 'camera_info is invalid: `width` and `height` must be positive; got 0 x 480'),
])
def test_invalid_messages_are_rejected_with_the_value(changes, match):
    with pytest.raises(MessageError, match=match):
        camera_from_fields(make_fields(**changes))


NUMBER = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, -1.0, 1e300, 1e-300]))
CHANGES = {'k': st.integers(0, 8), 'r': st.integers(0, 8), 'p': st.integers(0, 11),
           'd': st.integers(0, 4)}


@settings(derandomize=True, deadline=None, max_examples=300)
@given(changed_numbers=st.lists(st.sampled_from(sorted(CHANGES)).flatmap(
           lambda name: st.tuples(st.just(name), CHANGES[name], NUMBER)), max_size=3),
       model=st.sampled_from([*DISTORTION_COUNTS, 'double_sphere']),
       count=st.integers(0, 15), width=st.integers(0, 70), height=st.integers(0, 70),
       binning=st.integers(0, 5), roi=st.tuples(*[st.integers(0, 80)] * 4))
@pytest.mark.filterwarnings('error')
def test_any_camera_info_yields_a_camera_or_a_message_error(
        changed_numbers, model, count, width, height, binning, roi):
    numbers = {'k': list(K), 'r': list(np.eye(3).ravel()), 'p': list(P), 'd': list(D)}
    for name, at, value in changed_numbers:
        numbers[name][at] = value
    numbers['d'] = [*numbers['d'], *[0.0] * 10][:count]
    fields = make_fields(width=width, height=height, distortion_model=model, binning_x=binning,
                         binning_y=binning, roi=roi, **numbers)
    try:
        camera = camera_from_fields(fields)
    except MessageError:
        return
    factor = max(binning, 1)
    assert (camera.width, camera.height) == ((roi[3] or width) // factor,
                                             (roi[2] or height) // factor)
    assert camera.rectified().resized(7, 5).width == 7
    try:
        rectifier = Rectifier(camera)
    except InputError:
        return
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    assert rectifier.rectify(image).shape == image.shape


def test_field_names_are_those_of_the_message():
    message = get_typestore(Stores.ROS2_JAZZY).fielddefs['sensor_msgs/msg/CameraInfo'][1]
    names = [name for name, _ in message]
    assert ['header', *CameraInfoFields.__dataclass_fields__] == names
