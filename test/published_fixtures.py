"""Small synthetic files in the layouts of Marigold's evaluation sets, and predictions."""

from __future__ import annotations

from pathlib import Path
import tarfile

import numpy as np
from PIL import Image

# Name of the data set -> (height, width), px: large enough for its crop.
SIZES = {'nyu': (480, 640), 'kitti': (375, 1242), 'eth3d': (20, 30), 'scannet': (24, 32),
         'diode': (18, 24)}
RGB = {'nyu': 'test/kitchen_0004/rgb_0001.png',
       'kitti': '2011_09_26/drive_0002_sync/image_02/data/0000000069.png',
       'eth3d': 'rgb/office/images/dslr_images/DSC_0219.png',
       'scannet': 'scene0406_02/color/000300.png',
       'diode': 'indoors/scene_00021/scan_00189/00021_00189_indoors_200_010.png'}
DEPTH = {'nyu': 'test/kitchen_0004/depth_0001.png',
         'kitti': 'drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png',
         'eth3d': 'depth/office/ground_truth_depth/dslr_images/DSC_0219.JPG',
         'scannet': 'scene0406_02/depth/000300.png',
         'diode': 'indoors/scene_00021/scan_00189/00021_00189_indoors_200_010_depth.npy'}
UNITS = {'nyu': 1000.0, 'kitti': 256.0, 'scannet': 1000.0}
DIODE_MASK = DEPTH['diode'].replace('_depth.npy', '_depth_mask.npy')


def synthetic_depth_m(name: str) -> np.ndarray:
    """
    Create a tilted, rough plane with holes and some out-of-range values, float64 [H, W], m.

    The result is deterministic.
    """
    height, width = SIZES[name]
    rng = np.random.default_rng(sorted(SIZES).index(name))
    rows, columns = np.mgrid[:height, :width]
    far = {'nyu': 9.0, 'kitti': 70.0, 'eth3d': 30.0, 'scannet': 9.0, 'diode': 0.5}[name]
    depth_m = 1.0 + far * (0.6 * rows / height + 0.3 * columns / width)
    roughness = 0.002 if name == 'diode' else 0.03
    depth_m *= rng.uniform(1 - roughness, 1 + roughness, depth_m.shape)
    depth_m[rng.random(depth_m.shape) < 0.1] = 0.0
    depth_m[rng.random(depth_m.shape) < 0.02] = 2.5 * far
    if name == 'diode':
        depth_m[:, width // 2:] += 40.0 * (depth_m[:, width // 2:] > 0)
        depth_m[0, :2] = 0.3, 400.0
    return depth_m


def synthetic_diode_mask() -> np.ndarray:
    """Create a mask, bool [H, W], without the holes and without some valid depth."""
    rng = np.random.default_rng(50)
    return (synthetic_depth_m('diode') > 0) & (rng.random(SIZES['diode']) > 0.1)


def synthetic_prediction(name: str) -> np.ndarray:
    """Create relative depth of the evaluated image, float32 [H, W] in [0, 1]."""
    height, width = (352, 1216) if name == 'kitti' else SIZES[name]
    rng = np.random.default_rng(100 + sorted(SIZES).index(name))
    rows, columns = np.mgrid[:height, :width]
    return (0.7 * rows / height + 0.2 * columns / width
            + 0.1 * rng.random((height, width))).astype(np.float32)


def write_layout(name: str, folder: Path, *, as_tar: bool = False) -> tuple[Path, Path]:
    """
    Write one frame of a data set.

    Returns
    -------
    path : Path
        Folder or tar file of the data set.
    file_list : Path
    """
    root = folder / name
    for path in (RGB[name], DEPTH[name]):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
    height, width = SIZES[name]
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0], rgb[..., 1] = np.arange(width) % 256, np.arange(height)[:, None] % 256
    Image.fromarray(rgb).save(root / RGB[name])
    depth_m = synthetic_depth_m(name)
    words = [RGB[name], DEPTH[name]]
    if name in UNITS:
        Image.fromarray((depth_m * UNITS[name]).round().astype(np.uint16)).save(
            root / DEPTH[name])
        words += {'nyu': [DEPTH[name]], 'kitti': ['721.5377']}.get(name, [])
    elif name == 'eth3d':
        np.where(depth_m == 0, np.inf, depth_m).astype('<f4').tofile(root / DEPTH[name])
    else:
        np.save(root / DEPTH[name], depth_m.astype(np.float32)[..., None])
        np.save(root / DIODE_MASK, synthetic_diode_mask().astype(np.float32))
        words.append(DIODE_MASK)
    file_list = folder / f'{name}.txt'
    file_list.write_text(' '.join(words) + '\n' + (
        f'{RGB[name]} None 721.5377\n' if name == 'kitti' else ''))
    if not as_tar:
        return root, file_list
    with tarfile.open(folder / f'{name}.tar', 'w') as tar:
        tar.add(root, arcname='.')
    return folder / f'{name}.tar', file_list
