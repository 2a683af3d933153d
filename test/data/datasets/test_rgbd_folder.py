"""Folders of RGB-D frames: what is read, and what each mistake in them is called."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from marigold_ros.data.datasets.rgbd_folder import read_rgbd_folder
from marigold_ros.depth.errors import InputError

SHARED = Path(__file__).parents[4] / 'shared' / 'data'
ENTRY = {'name': '0', 'rgb': '0_rgb.png', 'depth': '0_depth_cm.png', 'depth_unit_m': 0.01,
         'rgb_size': [4, 2], 'depth_size': [2, 1], 'K': [3.0, 2.5, 1.5, 0.5]}
DEPTH_CM = np.array([[0, 250]], np.uint16)


@pytest.fixture
def folder(tmp_path):
    """One set of one frame: a red image of 4x2 px, depth of 2x1 px in centimetres."""
    (tmp_path / 'desk').mkdir()
    bgr = np.zeros((2, 4, 3), np.uint8)
    bgr[..., 2] = 200
    cv2.imwrite(str(tmp_path / 'desk' / '0_rgb.png'), bgr)
    cv2.imwrite(str(tmp_path / 'desk' / '0_depth_cm.png'), DEPTH_CM)
    write_index(tmp_path, {'desk': [ENTRY]})
    return tmp_path


def write_index(folder, content):
    """Replace frames.json."""
    (folder / 'frames.json').write_text(json.dumps(content))


def test_every_field_of_the_index_is_read(folder):
    frame, = read_rgbd_folder(folder)
    assert (frame.set_name, frame.name) == ('desk', '0')
    assert frame.depth_unit_m == 0.01
    assert (frame.rgb_size, frame.depth_size) == ((2, 4), (1, 2))    # height, width
    assert frame.K.tolist() == [[3.0, 0.0, 1.5], [0.0, 2.5, 0.5], [0.0, 0.0, 1.0]]


def test_pixels_come_as_rgb_and_metres_with_nan_for_no_measurement(folder):
    frame, = read_rgbd_folder(folder)
    rgb, depth_m = frame.read_rgb(), frame.read_depth_m()
    assert (rgb.dtype, rgb.shape) == (np.uint8, (2, 4, 3))
    assert (rgb == [200, 0, 0]).all()
    assert depth_m.dtype == np.float32
    np.testing.assert_array_equal(depth_m, np.array([[np.nan, 2.5]], np.float32))


def test_pixels_are_not_read_before_they_are_asked_for(folder):
    (folder / 'desk' / '0_rgb.png').write_bytes(b'no image')
    frame, = read_rgbd_folder(folder)
    with pytest.raises(InputError, match=r'0_rgb\.png must be an image'):
        frame.read_rgb()


def test_unknown_intrinsics_are_none(folder):
    write_index(folder, {'desk': [ENTRY | {'K': None}]})
    assert read_rgbd_folder(folder)[0].K is None


@pytest.mark.parametrize(('entry', 'message'), [
    ({key: value for key, value in ENTRY.items() if key != 'depth_unit_m'},
     r'frame 0 of desk must have the key `depth_unit_m`; it has name, rgb'),
    (ENTRY | {'depth_unit_m': 0}, '`depth_unit_m` must be a positive number of metres; got 0'),
    (ENTRY | {'depth_unit_m': '1 mm'}, "`depth_unit_m` must be .*; got '1 mm'"),
    (ENTRY | {'rgb': 'away.png'}, '`rgb` must be a file that exists; .*away.png does not'),
    (ENTRY | {'rgb_size': [4]}, r'`rgb_size` must be a width and a height in px; got \[4\]'),
    (ENTRY | {'K': [3.0, 0.0, 1.5, 0.5]}, r'`K` must be .* got \[3.0, 0.0, 1.5, 0.5\]'),
    (ENTRY | {'name': ''}, "`name` must be text; got ''"),
    ('0_rgb.png', "must be an object; got '0_rgb.png'"),
])
def test_a_wrong_entry_is_named_with_its_value_and_rule(folder, entry, message):
    write_index(folder, {'desk': [entry]})
    with pytest.raises(InputError, match=message):
        read_rgbd_folder(folder)


@pytest.mark.parametrize(('content', 'message'), [
    ('{"desk": [', 'must be JSON'),
    ('[]', 'must map the name of each set to a list of frames'),
    ('{"desk": []}', 'must name at least one frame'),
])
def test_a_wrong_index_is_named(tmp_path, content, message):
    (tmp_path / 'frames.json').write_text(content)
    with pytest.raises(InputError, match=message):
        read_rgbd_folder(tmp_path)


def test_a_missing_index_is_named(tmp_path):
    with pytest.raises(InputError, match='must hold a readable frames.json; got .*No such file'):
        read_rgbd_folder(tmp_path / 'away')


@pytest.mark.parametrize(('stored', 'message'), [
    (DEPTH_CM.astype(np.uint8), 'must be a 16-bit image of one channel; got 8 bits'),
    (np.ones((1, 2, 3), np.uint16), r'got 16 bits and 3 channel\(s\)'),
    (np.ones((3, 2), np.uint16), 'must be 2 x 1 px as frames.json says; it is 2 x 3'),
])
def test_depth_of_another_kind_or_size_is_refused(folder, stored, message):
    cv2.imwrite(str(folder / 'desk' / '0_depth_cm.png'), stored)
    frame, = read_rgbd_folder(folder)
    with pytest.raises(InputError, match=message):
        frame.read_depth_m()


@pytest.mark.skipif(not SHARED.is_dir(), reason='the shared frames are not here')
def test_the_shared_frames_are_read_whole():
    frames = read_rgbd_folder(SHARED)
    assert len(frames) == 47
    assert len({frame.set_name for frame in frames}) == 7
    atrium, = (frame for frame in frames if frame.set_name == 'marigolddc')
    assert atrium.read_rgb().shape == (480, 640, 3)
    assert np.nanmax(atrium.read_depth_m()) == pytest.approx(30.012)
