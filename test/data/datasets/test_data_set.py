"""Data sets to evaluate on: the three sources of frames, and how they are averaged."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from marigold_ros.data.datasets.data_set import bag_data_set, folder_data_set, shards_data_set
from marigold_ros.data.shards import write_description, write_shard
from marigold_ros.depth.errors import BagError
from marigold_ros.evaluation.metrics.protocol_a import vertical_ramp
from marigold_ros.evaluation.metrics.protocols import score

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / 'shared' / 'data'


def test_the_sample_bag_gives_posed_rectified_images_with_depth_in_blocks_of_a_second():
    data_set = bag_data_set(ROOT / 'sample' / 'living_room')
    frames = list(data_set.frames())
    assert data_set.count == len(frames) == 80    # 8 s at 10 Hz
    assert [frame.block for frame in frames[::10]] == [f'second {i}' for i in range(8)]
    assert frames[0].rgb.shape == (480, 640, 3)
    assert frames[0].depth_m.shape == (480, 640)
    assert frames[0].K.shape == (3, 3)
    assert frames[0].world_from_camera.shape == (4, 4)
    assert data_set.notes == []
    abs_rel = np.mean([score(vertical_ramp(480, 640), frame)['abs_rel'] for frame in frames[::8]])
    assert abs_rel == pytest.approx(0.293, abs=0.01)    # what the README says of the whole bag


def test_a_bag_without_the_topics_is_named(tmp_path):
    with pytest.raises(BagError, match='does not exist'):
        bag_data_set(tmp_path / 'away')


def test_views_of_one_rendered_scene_are_one_block(tmp_path):
    depth_m = np.full((3, 2, 4), np.inf, np.float32)
    write_description(tmp_path, {'views_per_scene': 2})
    write_shard(tmp_path, 0, np.zeros((3, 2, 4, 3), np.uint8), depth_m, np.zeros((3, 3, 3)),
                ['room'] * 3, 4)
    frames = list(shards_data_set(tmp_path).frames())
    assert [frame.block for frame in frames] == ['scene 2', 'scene 2', 'scene 3']
    assert np.isposinf(frames[0].depth_m).all()


@pytest.mark.skipif(not SHARED.is_dir(), reason='the shared frames are not here')
def test_a_ramp_on_the_shared_frames_scores_what_their_readme_says():
    data_set = folder_data_set(SHARED)
    by_set = defaultdict(list)
    for frame in data_set.frames():
        by_set[frame.block].append(score(vertical_ramp(*frame.depth_m.shape), frame))
    assert data_set.mean_of_blocks
    found = {metric: [np.mean([each[metric] for each in scores]) for scores in by_set.values()]
             for metric in ('abs_rel', 'delta1')}
    assert found['abs_rel'] == pytest.approx([.088, .294, .327, .116, .323, .300, .595], abs=6e-4)
    assert found['delta1'] == pytest.approx([.924, .240, .320, .923, .550, .424, .276], abs=6e-4)
