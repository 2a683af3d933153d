"""Shards of frames as a data set."""

from __future__ import annotations

import numpy as np

from marigold_ros.data.shards import ShardFrames, shards_data_set, write_description, write_shard


def test_indices_span_shards_and_sky_is_valid(tmp_path):
    for number in range(2):
        depth_m = np.full((3, 4, 6), number + 1, np.float32)
        depth_m[:, 0, :2] = np.inf, np.nan
        write_shard(tmp_path, number, np.full((3, 4, 6, 3), number, np.uint8), depth_m,
                    np.zeros((3, 3, 3)), ['room'] * 3, 3 * number)
    frames = ShardFrames(tmp_path)
    assert len(frames) == 6
    assert [int(frames[index].rgb[0, 0, 0]) for index in range(6)] == [0, 0, 0, 1, 1, 1]
    assert frames[5].valid[0].tolist() == [True, False, True, True, True, True]


def test_views_of_a_rendered_scene_form_a_block(tmp_path):
    depth_m = np.full((3, 2, 4), np.inf, np.float32)
    write_description(tmp_path, {'views_per_scene': 2})
    write_shard(tmp_path, 0, np.zeros((3, 2, 4, 3), np.uint8), depth_m, np.zeros((3, 3, 3)),
                ['room'] * 3, 4)
    frames = list(shards_data_set(tmp_path).frames())
    assert [frame.block for frame in frames] == ['scene 2', 'scene 2', 'scene 3']
    assert np.isposinf(frames[0].depth_m).all()
