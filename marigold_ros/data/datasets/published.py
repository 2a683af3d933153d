"""The data sets of Marigold's published tables, by their names in `evaluate`."""

from __future__ import annotations

from marigold_ros.data.datasets.diode import DIODE
from marigold_ros.data.datasets.eth3d import ETH3D
from marigold_ros.data.datasets.kitti import KITTI
from marigold_ros.data.datasets.nyu import NYU
from marigold_ros.data.datasets.scannet import SCANNET

PUBLISHED_SETS = {'nyu': NYU, 'kitti': KITTI, 'eth3d': ETH3D, 'scannet': SCANNET, 'diode': DIODE}
