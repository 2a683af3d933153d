"""Frames with true depth: the three sources, and the score of a prediction."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from marigold_ros.data.scenes.shards import write_description, write_shard
from marigold_ros.depth.errors import BagError, InputError
from marigold_ros.evaluation.frames import (bag_data_set, folder_data_set, score, shards_data_set)
from marigold_ros.evaluation.metrics import vertical_ramp

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / 'shared' / 'data'


def test_the_sample_bag_gives_rectified_images_with_depth_in_blocks_of_a_second():
    frames = list(bag_data_set(ROOT / 'sample' / 'living_room').frames())
    assert len(frames) == 80    # 8 s at 10 Hz
    assert [frame.block for frame in frames[::10]] == [f'second {i}' for i in range(8)]
    assert frames[0].rgb.shape == (480, 640, 3)
    assert frames[0].depth_m.shape == (480, 640)
    abs_rel = np.mean([score(vertical_ramp(480, 640), frame.depth_m)['abs_rel']
                       for frame in frames[::8]])
    assert abs_rel == pytest.approx(0.293, abs=0.01)    # what the README says of the whole bag


def test_a_bag_without_the_topics_is_named(tmp_path):
    with pytest.raises(BagError, match='does not exist'):
        next(bag_data_set(tmp_path / 'away').frames())


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
        by_set[frame.block].append(score(vertical_ramp(*frame.depth_m.shape), frame.depth_m))
    assert data_set.mean_of_blocks
    found = {metric: [np.mean([each[metric] for each in scores]) for scores in by_set.values()]
             for metric in ('abs_rel', 'delta1')}
    assert found['abs_rel'] == pytest.approx([.088, .294, .327, .116, .323, .300, .595], abs=6e-4)
    assert found['delta1'] == pytest.approx([.924, .240, .320, .923, .550, .424, .276], abs=6e-4)


def test_a_prediction_is_fitted_on_measured_pixels_and_compared_at_the_truths_size():
    depth_m = np.array([[1.0, 2.0], [3.0, np.nan]], np.float32)
    prediction = np.repeat(np.repeat([[0.1, 0.2], [0.3, 9.0]], 2, axis=0), 2, axis=1)
    assert score(prediction, depth_m)['abs_rel'] == pytest.approx(0.0, abs=1e-6)


def test_the_range_reaches_to_80_m_or_to_the_largest_measurement():
    # A flat prediction is fitted by the mean, so a pixel that did not count would show.
    for farthest_m, mean_m in ((50.0, 13.25), (200.0, 50.75)):
        depth_m = np.array([[1.0, 1.0, 1.0, farthest_m]], np.float32)
        expected = (3 * (mean_m - 1) + (farthest_m - mean_m) / farthest_m) / 4
        assert score(np.ones((1, 4)), depth_m)['abs_rel'] == pytest.approx(expected, rel=1e-6)


def test_a_prediction_beyond_the_range_is_clipped_to_it():
    # The fitted line is 19.5, 56.5, 56.5, 93.5 m; its end is clipped to 80 m.
    depth_m = np.array([[1.0, 75.0, 75.0, 75.0]], np.float32)
    expected = (18.5 + 2 * 18.5 / 75 + 5 / 75) / 4
    assert score(np.array([[0.0, 1.0, 1.0, 2.0]]), depth_m)['abs_rel'] == pytest.approx(expected)


def test_sky_counts_in_borders_only():
    depth_m = np.full((3, 3), np.inf, np.float32)
    depth_m[1, 1], depth_m[0, 0] = 1.0, 2.0
    prediction = np.where(np.isfinite(depth_m), depth_m / 10, 0.9)
    found = score(prediction, depth_m)
    assert found['abs_rel'] == pytest.approx(0.0, abs=1e-6)
    assert found['boundary_f1'] == pytest.approx(1.0)    # 9 m behind 1 and 2 m


def test_a_frame_without_any_measurement_is_refused():
    with pytest.raises(InputError, match='must have a valid pixel'):
        score(np.ones((2, 2)), np.full((2, 2), np.nan, np.float32))
