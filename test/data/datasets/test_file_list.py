"""Hypersim and Virtual KITTI with the file lists of prs-eth/Marigold."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from marigold_ros.data.datasets.hypersim import open_hypersim
from marigold_ros.data.datasets.virtual_kitti import open_virtual_kitti
from marigold_ros.depth.errors import InputError

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def write_pair(folder, rgb, rgb_name, stored, depth_name):
    for name, pixels in ((rgb_name, rgb[..., ::-1]), (depth_name, stored)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / name), pixels)
    return f'{rgb_name} {depth_name}\n'


def test_hypersim_is_in_millimetres_and_valid_below_65_m(tmp_path):
    rgb = RGB
    stored = np.full((4, 6), 1500, np.uint16)
    stored[0, :3] = 0, 65000, 64999
    line = write_pair(tmp_path, rgb, 'ai_001_001/rgb_cam_00_fr0000.png',
                      stored, 'ai_001_001/depth_plane_cam_00_fr0000.png')
    (tmp_path / 'list.txt').write_text(line + '\n')
    frames = open_hypersim(tmp_path, tmp_path / 'list.txt')
    assert len(frames) == 1
    assert np.array_equal(frames[0].rgb, rgb)
    assert frames[0].depth_m[1, 1] == pytest.approx(1.5)
    assert frames[0].valid[0].tolist() == [False, False, True, True, True, True]


def test_virtual_kitti_is_in_centimetres_and_cropped(tmp_path):
    rgb = np.zeros((375, 1242, 3), np.uint8)
    rgb[23, 13] = 255                                  # becomes the corner: 375 - 352, 26 / 2
    stored = np.full((375, 1242), 1000, np.uint16)
    stored[374, 1228] = 65535                          # sky, in the last corner
    line = write_pair(tmp_path, rgb, 'rgb/Scene01/rgb_00000.png',
                      stored, 'depth/Scene01/depth_00000.png')
    (tmp_path / 'list.txt').write_text(line + 'rgb/Scene01/rgb_00000.png None\n')
    frames = open_virtual_kitti(tmp_path, tmp_path / 'list.txt')
    assert len(frames) == 1
    assert frames[0].rgb.shape == (352, 1216, 3)
    assert frames[0].rgb[0, 0].tolist() == [255] * 3
    assert frames[0].depth_m[0, 0] == pytest.approx(10.0)
    assert not frames[0].valid[-1, -1] and frames[0].valid.sum() == 352 * 1216 - 1


@pytest.mark.parametrize(('text', 'rule'), [
    ('', 'must list at least one image with depth; got none'),
    ('a.png\n', 'line 1 must name an image and its depth'),
    ('a.png b.png\n', r'must name files below .*; .*a\.png does not exist')])
def test_an_invalid_file_list_is_rejected(tmp_path, text, rule):
    (tmp_path / 'list.txt').write_text(text)
    with pytest.raises(InputError, match=rule):
        open_hypersim(tmp_path, tmp_path / 'list.txt')


def test_8_bit_depth_and_small_images_are_rejected(tmp_path):
    rgb = RGB
    line = write_pair(tmp_path, rgb, 'rgb.png', rgb[..., 0], 'depth.png')
    (tmp_path / 'list.txt').write_text(line)
    with pytest.raises(InputError, match=r'depth\.png must be a 16-bit image'):
        open_hypersim(tmp_path, tmp_path / 'list.txt')[0]
    with pytest.raises(InputError, match=r'rgb\.png must be at least 1216 x 352 px; it is 6 x 4'):
        open_virtual_kitti(tmp_path, tmp_path / 'list.txt')[0]
