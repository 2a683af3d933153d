"""ScanNet, as prs-eth/Marigold evaluates on it: `scannet/scannet_val_sampled_800_1.tar`."""

from __future__ import annotations

from marigold_ros.data.datasets.data_set import Rules
from marigold_ros.data.datasets.published_set import png_depth, PublishedSet

SCANNET = PublishedSet(
    'ScanNet val', 800, 'scannet_depth/scannet_val_sampled_list_800_1.txt',
    Rules(1e-3, 10.0, extend_to_farthest=False, processing_resolution=0, b_min_depth_m=0.01,
          b_max_depth_m=10.0, b_masks_edges=False),
    png_depth(1000.0, 1e-3, 10.0))
