"""Marigold's evaluation sets: masks, crops, ranges, and errors of invalid files."""

from __future__ import annotations

import numpy as np
from PIL import Image
from published_fixtures import (
    DEPTH,
    DIODE_MASK,
    RGB,
    synthetic_depth_m,
    synthetic_diode_mask,
    write_layout,
)
import pytest

from marigold_ros.data.datasets.published import PUBLISHED_SETS
from marigold_ros.depth.errors import InputError


def only_frame(name, folder, **options):
    data_set = PUBLISHED_SETS[name].data_set(*write_layout(name, folder, **options))
    assert data_set.count == 1    # a line whose depth is None is skipped
    frame, = data_set.frames()
    return frame


def test_nyu_keeps_the_eigen_region_from_1_mm_to_10_m(tmp_path):
    frame = only_frame('nyu', tmp_path)
    depth_m = synthetic_depth_m('nyu')
    expected = (depth_m > 0) & (depth_m < 9.9999)
    expected[:45] = expected[471:] = False
    expected[:, :41] = expected[:, 601:] = False
    np.testing.assert_array_equal(frame.valid, expected)
    np.testing.assert_allclose(frame.depth_m, depth_m, atol=5.1e-4)
    assert frame.rgb.shape == (480, 640, 3)
    assert frame.rgb[7, 9].tolist() == [9, 7, 0]
    assert frame.block == 'test/kitchen_0004'


def test_kitti_is_cropped_and_keeps_the_eigen_region(tmp_path):
    frame = only_frame('kitti', tmp_path)
    # 375 - 352 = 23 rows from above, (1242 - 1216) / 2 = 13 columns from either side.
    assert frame.rgb.shape == (352, 1216, 3)
    assert frame.rgb[0, 0].tolist() == [13, 23, 0]
    depth_m = synthetic_depth_m('kitti')[23:, 13:1229]
    expected = (depth_m > 0) & (depth_m < 79.998)
    # int(0.3324324 * 352) = 117, int(0.91351351 * 352) = 321, int(0.0359477 * 1216) = 43,
    # int(0.96405229 * 1216) = 1172
    expected[:117] = expected[321:] = False
    expected[:, :43] = expected[:, 1172:] = False
    np.testing.assert_array_equal(frame.valid, expected)
    np.testing.assert_allclose(frame.depth_m, depth_m, atol=0.5 / 256 + 1e-5)


def test_eth3d_is_raw_float32_in_which_infinity_is_unknown(tmp_path):
    frame = only_frame('eth3d', tmp_path)
    depth_m = synthetic_depth_m('eth3d')
    np.testing.assert_array_equal(frame.valid, depth_m > 0)
    np.testing.assert_array_equal(frame.depth_m, depth_m.astype(np.float32))


def test_scannet_is_in_millimetres_between_1_mm_and_10_m(tmp_path):
    frame = only_frame('scannet', tmp_path)
    depth_m = synthetic_depth_m('scannet')
    np.testing.assert_array_equal(frame.valid, (depth_m > 0) & (depth_m < 9.9999))


def test_diode_uses_the_given_mask_without_a_range(tmp_path):
    frame = only_frame('diode', tmp_path)
    depth_m = synthetic_depth_m('diode')
    np.testing.assert_array_equal(frame.valid, synthetic_diode_mask())
    np.testing.assert_array_equal(frame.depth_m, depth_m.astype(np.float32))
    assert frame.depth_m[0, :2].tolist() == pytest.approx([0.3, 400.0])


@pytest.mark.parametrize(('name', 'images', 'clipped_m', 'processing_resolution'), [
    ('nyu', 654, (1e-3, 10.0), 0), ('kitti', 652, (1e-5, 80.0), 0),
    ('eth3d', 454, (1e-5, np.inf), 756), ('scannet', 800, (1e-3, 10.0), 0),
    ('diode', 771, (0.6, 350.0), 640)])
def test_ranges_and_resolutions_are_marigolds(
        tmp_path, name, images, clipped_m, processing_resolution):
    published = PUBLISHED_SETS[name]
    assert published.images == images
    assert published.rules.clip_range_m(only_frame(name, tmp_path)) == clipped_m
    assert published.rules.processing_resolution == processing_resolution


def test_a_part_of_a_set_is_noted_as_not_comparable(tmp_path):
    data_set = PUBLISHED_SETS['nyu'].data_set(*write_layout('nyu', tmp_path))
    list(data_set.frames())
    assert data_set.notes == [
        '1 images of the 654 of NYUv2 test: not comparable with published tables']


@pytest.mark.parametrize('as_tar', [False, True])
def test_a_missing_file_is_rejected(tmp_path, as_tar):
    path, file_list = write_layout('scannet', tmp_path, as_tar=as_tar)
    file_list.write_text(f'{RGB["scannet"]} away.png\n')
    with pytest.raises(InputError, match='scannet.* must hold the file away.png'):
        next(PUBLISHED_SETS['scannet'].data_set(path, file_list).frames())


def test_an_unreadable_archive_or_list_is_rejected(tmp_path):
    path, file_list = write_layout('scannet', tmp_path)
    with pytest.raises(InputError, match='scannet.txt must be a folder or a tar file'):
        PUBLISHED_SETS['scannet'].data_set(file_list, file_list)
    with pytest.raises(InputError, match='`file_list` must be a readable text file'):
        PUBLISHED_SETS['scannet'].data_set(path, tmp_path / 'away.txt')


def test_files_of_another_format_are_rejected(tmp_path):
    path, file_list = write_layout('scannet', tmp_path)
    rgb, depth = path / RGB['scannet'], path / DEPTH['scannet']
    depth.write_bytes(b'no image')
    with pytest.raises(InputError, match='000300.png .* must be an image'):
        next(PUBLISHED_SETS['scannet'].data_set(path, file_list).frames())
    depth.write_bytes(rgb.read_bytes())
    with pytest.raises(InputError, match='000300.png must be a 16-bit image of one channel'):
        next(PUBLISHED_SETS['scannet'].data_set(path, file_list).frames())
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(rgb)
    with pytest.raises(InputError, match='must be an image of 8 bits and 3 channels'):
        next(PUBLISHED_SETS['scannet'].data_set(path, file_list).frames())
    path, file_list = write_layout('eth3d', tmp_path)
    (path / DEPTH['eth3d']).write_bytes(b'\0' * 16)
    with pytest.raises(InputError, match='must hold 20 x 30 float32 values.* got 4'):
        next(PUBLISHED_SETS['eth3d'].data_set(path, file_list).frames())
    path, file_list = write_layout('diode', tmp_path)
    file_list.write_text(f'{RGB["diode"]} {DEPTH["diode"]}\n')
    with pytest.raises(InputError, match='must name 3 files; got 2'):
        next(PUBLISHED_SETS['diode'].data_set(path, file_list).frames())
    (path / DIODE_MASK).write_bytes(b'no array')
    file_list.write_text(f'{RGB["diode"]} {DEPTH["diode"]} {DIODE_MASK}\n')
    with pytest.raises(InputError, match='depth_mask.npy .* must be a NumPy array'):
        next(PUBLISHED_SETS['diode'].data_set(path, file_list).frames())
