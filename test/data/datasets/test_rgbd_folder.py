"""Folders of RGB-D frames: their contents, and errors of invalid ones."""

from __future__ import annotations

from collections import defaultdict
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from marigold_ros.data.datasets.rgbd_folder import folder_data_set, RgbdFolder
from marigold_ros.data.frames import check_frame
from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.metrics.protocol_a import vertical_ramp
from marigold_ros.evaluation.metrics.protocols import score

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


def test_frames_hold_rgb_and_metric_depth_and_zero_is_invalid(folder):
    frame, = RgbdFolder(folder)
    check_frame(frame, same_size=False)
    assert (frame.rgb.dtype, frame.rgb.shape) == (np.uint8, (2, 4, 3))
    assert (frame.rgb == [200, 0, 0]).all()
    assert frame.depth_m.dtype == np.float32
    np.testing.assert_array_equal(frame.depth_m, np.array([[np.nan, 2.5]], np.float32))
    assert frame.valid.tolist() == [[False, True]]
    assert (frame.set_name, frame.block) == ('desk', 'desk')
    assert frame.K.tolist() == [[3.0, 0.0, 1.5], [0.0, 2.5, 0.5], [0.0, 0.0, 1.0]]


def test_images_are_read_on_access(folder):
    (folder / 'desk' / '0_rgb.png').write_bytes(b'no image')
    frames = RgbdFolder(folder)
    assert len(frames) == 1
    with pytest.raises(InputError, match=r'0_rgb\.png must be an image'):
        frames[0]


def test_unknown_intrinsics_are_none(folder):
    write_index(folder, {'desk': [ENTRY | {'K': None}]})
    assert RgbdFolder(folder)[0].K is None


@pytest.mark.parametrize(('entry', 'message'), [
    ({key: value for key, value in ENTRY.items() if key != 'depth_unit_m'},
     r'frames.json: desk\.0\.depth_unit_m: Field required$'),
    (ENTRY | {'depth_unit_m': 0}, 'depth_unit_m: Input should be greater than 0, got 0'),
    (ENTRY | {'depth_unit_m': '1 mm'}, "depth_unit_m: .* valid number, got '1 mm'"),
    (ENTRY | {'depth_unit_m': True}, 'depth_unit_m: .* valid number, got True'),
    (ENTRY | {'rgb': 'away.png'}, 'must name files that exist; .*away.png does not'),
    (ENTRY | {'rgb_size': [4]}, r'rgb_size\.1: Field required'),
    (ENTRY | {'rgb_size': [4, 2.5]}, r'rgb_size\.1: .* valid integer, got 2.5'),
    (ENTRY | {'K': [3.0, 0.0, 1.5, 0.5]}, r'K\.1: Input should be greater than 0, got 0'),
    (ENTRY | {'name': ''}, "name: String should have at least 1 character, got ''"),
    ('0_rgb.png', r"desk\.0: Input should be an object, got '0_rgb.png'"),
])
def test_the_error_of_an_invalid_entry_has_its_value_and_rule(folder, entry, message):
    write_index(folder, {'desk': [entry]})
    with pytest.raises(InputError, match=message):
        RgbdFolder(folder)


@pytest.mark.parametrize(('content', 'message'), [
    ('{"desk": [', 'Invalid JSON'),
    ('[]', 'Input should be an object, got'),
    ('{"desk": []}', 'must name at least one frame'),
])
def test_an_invalid_index_is_rejected(tmp_path, content, message):
    (tmp_path / 'frames.json').write_text(content)
    with pytest.raises(InputError, match=message):
        RgbdFolder(tmp_path)


def test_a_missing_index_is_rejected(tmp_path):
    with pytest.raises(InputError, match='must hold a readable frames.json; got .*No such file'):
        RgbdFolder(tmp_path / 'away')


@pytest.mark.parametrize(('stored', 'message'), [
    (DEPTH_CM.astype(np.uint8), 'must be a 16-bit image of one channel; got 8 bits'),
    (np.ones((1, 2, 3), np.uint16), r'got 16 bits and 3 channel\(s\)'),
    (np.ones((3, 2), np.uint16), 'must be 2 x 1 px according to frames.json; it is 2 x 3'),
])
def test_depth_of_another_type_or_size_is_rejected(folder, stored, message):
    cv2.imwrite(str(folder / 'desk' / '0_depth_cm.png'), stored)
    with pytest.raises(InputError, match=message):
        RgbdFolder(folder)[0]


@pytest.mark.skipif(not SHARED.is_dir(), reason='the shared frames are missing')
def test_the_shared_frames_are_readable():
    frames = list(RgbdFolder(SHARED))
    assert len(frames) == 47
    assert len({frame.set_name for frame in frames}) == 7
    atrium, = (frame for frame in frames if frame.set_name == 'marigolddc')
    assert atrium.rgb.shape == (480, 640, 3)
    assert np.nanmax(atrium.depth_m) == pytest.approx(30.012)


@pytest.mark.skipif(not SHARED.is_dir(), reason='the shared frames are missing')
def test_scores_of_a_ramp_match_the_readme_of_the_frames():
    data_set = folder_data_set(SHARED)
    by_set = defaultdict(list)
    for frame in data_set.frames():
        by_set[frame.block].append(score(vertical_ramp(*frame.depth_m.shape), frame))
    assert data_set.mean_of_blocks
    found = {metric: [np.mean([each[metric] for each in scores]) for scores in by_set.values()]
             for metric in ('abs_rel', 'delta1')}
    assert found['abs_rel'] == pytest.approx([.088, .294, .327, .116, .323, .300, .595], abs=6e-4)
    assert found['delta1'] == pytest.approx([.924, .240, .320, .923, .550, .424, .276], abs=6e-4)
