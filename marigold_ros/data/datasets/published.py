"""
NYUv2, KITTI, ETH3D, ScanNet and DIODE, as prs-eth/Marigold evaluates on them.

Each is a tar file or the folder that it unpacks to, beside a file list of Marigold's `data_split`.
Masks, crops, ranges and resolutions: `src/dataset/*.py`, `config/dataset_depth/data_*.yaml` and
`script/depth/eval/*.sh` (b1dffaa); ranges and sizes of protocol B: `evaluation/depth/eval.py` of
huawei-bayerlab/marigold-v2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from marigold_ros.data.datasets.archive import Archive, open_archive
from marigold_ros.data.datasets.data_set import DataSet, Rules
from marigold_ros.data.datasets.file_list import NO_DEPTH, read_list
from marigold_ros.data.datasets.virtual_kitti import benchmark_crop
from marigold_ros.data.frames import check_frame, DepthFrame
from marigold_ros.depth.errors import InputError

# Part of the height and of the width that Eigen et al. 2014 evaluate of KITTI.
KITTI_EIGEN = ((0.3324324, 0.91351351), (0.0359477, 0.96405229))
NYU_EIGEN = (slice(45, 471), slice(41, 601))

Words = list[str]
DepthAndMask = tuple[NDArray[np.float32], NDArray[np.bool_]]


@dataclass(frozen=True)
class Benchmark:
    """
    One data set of Marigold's evaluation.

    Attributes
    ----------
    title : str
    images : int
        In the published list; with another list or fewer files the table is another.
    archive : str
        The tar file below Marigold's base directory.
    file_list : str
        The list below Marigold's `data_split`.
    rules : Rules
    read : callable
        From an archive, the words of a line and the image's height and width to depth, m, and
        where it is valid, both [H, W].
    crop : callable
        Cuts image, depth and mask before anything else looks at them.
    """

    title: str
    images: int
    archive: str
    file_list: str
    rules: Rules
    read: Callable[[Archive, Words, tuple[int, int]], DepthAndMask]
    crop: Callable[[NDArray[Any], str], NDArray[Any]] = lambda image, name: image


def benchmark_data_set(name: str, path: Path, file_list: Path) -> DataSet:
    """
    Describe a data set in the layout of Marigold's evaluation.

    Parameters
    ----------
    name : str
        Key of `BENCHMARKS`.
    path : Path
        Its tar file, or the folder that this unpacks to.
    file_list : Path
        Marigold's `data_split` list of it, or a part of that.

    Returns
    -------
    DataSet
        Every image counts the same in a mean; a block is a scene.

    Raises
    ------
    InputError
        If the name is unknown, or the archive or the list cannot be read; while frames are read,
        if a file is missing or not as described.
    """
    if name not in BENCHMARKS:
        raise InputError(f'the data set must be one of {", ".join(BENCHMARKS)}; got {name!r}')
    benchmark = BENCHMARKS[name]
    lines = [words for words in read_list(file_list) if words[1:2] != [NO_DEPTH]]
    with open_archive(path):
        pass
    notes: list[str] = []

    def frames() -> Iterator[DepthFrame]:
        notes.clear()
        if len(lines) != benchmark.images:
            notes.append(f'{len(lines)} images of the {benchmark.images} of {benchmark.title}: '
                         'not comparable with published tables')
        with open_archive(path) as archive:
            for words in lines:
                yield _frame(benchmark, archive, words)

    return DataSet(benchmark.title, 'scene', False, frames, count=len(lines),
                   rules=benchmark.rules, notes=notes)


def _frame(benchmark: Benchmark, archive: Archive, words: Words) -> DepthFrame:
    name = words[0]
    rgb = _image(archive, name)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise InputError(f'{name} must be an image of 8 bits and 3 channels; '
                         f'got {rgb.dtype} {list(rgb.shape)}')
    depth_m, valid = benchmark.read(archive, words, rgb.shape[:2])
    rgb, depth_m, valid = (benchmark.crop(array, name) for array in (rgb, depth_m, valid))
    frame = DepthFrame(name, rgb, depth_m, valid,
                       set_name=benchmark.title, block=name.rpartition('/')[0])
    check_frame(frame)
    return frame


def _image(archive: Archive, name: str) -> NDArray[Any]:
    """Decode by Pillow as Marigold does: other decoders of JPEG differ by a grey level."""
    try:
        return np.asarray(Image.open(BytesIO(archive.read(name))))
    except (UnidentifiedImageError, OSError) as err:
        raise InputError(f'{name} of {archive.path} must be an image; {err}') from err


def _png_reader(unit: float, low_m: float, high_m: float,
                mask: Callable[[NDArray[np.bool_]], NDArray[np.bool_]],
                ) -> Callable[[Archive, Words, tuple[int, int]], DepthAndMask]:
    """Make a reader of 16-bit PNG that holds `unit` steps a metre."""
    def read(archive: Archive, words: Words, size: tuple[int, int]) -> DepthAndMask:
        stored = _image(archive, _word(words, 1))
        if stored.ndim != 2 or stored.dtype.kind not in 'ui' or stored.dtype.itemsize < 2:
            raise InputError(f'{words[1]} must be a 16-bit image of one channel; '
                             f'got {stored.dtype} {list(stored.shape)}')
        depth_m = (stored / unit).astype(np.float32)
        return depth_m, mask((depth_m > np.float32(low_m)) & (depth_m < np.float32(high_m)))
    return read


def _everywhere(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return valid


def _nyu_eigen(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    mask = np.zeros_like(valid)
    mask[NYU_EIGEN] = True
    return valid & mask


def _kitti_eigen(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the region of Eigen et al. within the benchmark's crop, which lies in the middle."""
    mask = np.zeros_like(valid)
    cropped = benchmark_crop(mask, 'depth')
    rows, columns = (slice(int(low * edge), int(high * edge))
                     for (low, high), edge in zip(KITTI_EIGEN, cropped.shape))
    cropped[rows, columns] = True
    return valid & mask


def _read_eth3d(archive: Archive, words: Words, size: tuple[int, int]) -> DepthAndMask:
    """Read float32 without a header, of the image's size, in which inf is unknown."""
    values = np.frombuffer(archive.read(_word(words, 1)), '<f4')
    if values.size != size[0] * size[1]:
        raise InputError(f'{words[1]} must hold {size[0]} x {size[1]} numbers of 32 bits, as its '
                         f'image has pixels; got {values.size}')
    depth_m = np.where(np.isposinf(values), np.float32(0), values).reshape(size)
    return depth_m.astype(np.float32), (depth_m > np.float32(1e-5)) & (depth_m < np.inf)


def _read_diode(archive: Archive, words: Words, size: tuple[int, int]) -> DepthAndMask:
    """Read .npy files of depth and mask; the range does not take part in the mask."""
    depth_m, mask = (_array(archive, _word(words, place)).squeeze() for place in (1, 2))
    return depth_m.astype(np.float32), mask.astype(bool)


def _array(archive: Archive, name: str) -> NDArray[Any]:
    try:
        return np.asarray(np.load(BytesIO(archive.read(name))))
    except (ValueError, EOFError) as err:
        raise InputError(f'{name} of {archive.path} must be a NumPy array; {err}') from err


def _word(words: Words, place: int) -> str:
    if len(words) <= place:
        raise InputError(f'the line of {words[0]} must name {place + 1} files; got {len(words)}')
    return words[place]


BENCHMARKS = {
    'nyu': Benchmark(
        'NYUv2 test', 654, 'nyuv2/nyu_labeled_extracted.tar',
        'nyu_depth/labeled/filename_list_test.txt',
        Rules(1e-3, 10.0, reaches_farthest=False, processing_resolution=0, b_min_depth_m=0.1,
              b_max_depth_m=10.0, b_masks_edges=False),
        _png_reader(1000.0, 1e-3, 10.0, _nyu_eigen)),
    'kitti': Benchmark(
        'KITTI Eigen test', 652, 'kitti/kitti_eigen_split_test.tar',
        'kitti_depth/eigen_test_files_with_gt.txt',
        Rules(1e-5, 80.0, reaches_farthest=False, processing_resolution=0, b_min_depth_m=0.1,
              b_max_depth_m=80.0, b_masks_edges=False),
        _png_reader(256.0, 1e-5, 80.0, _kitti_eigen), crop=benchmark_crop),
    'eth3d': Benchmark(
        'ETH3D', 454, 'eth3d/eth3d.tar', 'eth3d_depth/eth3d_filename_list.txt',
        Rules(1e-5, np.inf, reaches_farthest=False, alignment_max_res=1024,
              processing_resolution=756, b_min_depth_m=0.01, b_size=(1360, 2048),
              b_masks_edges=False), _read_eth3d),
    'scannet': Benchmark(
        'ScanNet val', 800, 'scannet/scannet_val_sampled_800_1.tar',
        'scannet_depth/scannet_val_sampled_list_800_1.txt',
        Rules(1e-3, 10.0, reaches_farthest=False, processing_resolution=0, b_min_depth_m=0.01,
              b_max_depth_m=10.0, b_masks_edges=False),
        _png_reader(1000.0, 1e-3, 10.0, _everywhere)),
    'diode': Benchmark(
        'DIODE val', 771, 'diode/diode_val.tar', 'diode_depth/diode_val_all_filename_list.txt',
        Rules(0.6, 350.0, reaches_farthest=False, processing_resolution=640, b_min_depth_m=0.6,
              b_max_depth_m=350.0), _read_diode),
}
