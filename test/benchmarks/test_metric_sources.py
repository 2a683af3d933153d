"""The benchmark of scale sources: the simulated stereo camera, a run of `evaluate`, the rows."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from benchmarks.metric_sources import (
    add_stereo,
    depth_row,
    found_rows,
    main,
    METRICS,
    obstacle_row,
    run_evaluate,
    simulate_stereo_depth,
    STEREO_TOPIC,
)
from marigold_ros.data.bags.reader import open_bag

ROOT = Path(__file__).parents[2]
BAG, SCENE = ROOT / 'sample' / 'living_room', ROOT / 'sample' / 'scene.json'


def test_the_stereo_camera_is_coarse_noisy_short_sighted_and_has_holes():
    depth_m = np.full((480, 640), 2.0, np.float32)
    depth_m[:, 320:] = 7.0
    found_m = simulate_stereo_depth(depth_m, np.random.default_rng(0))
    assert found_m.shape == depth_m.shape and np.isnan(found_m[:, 320:]).all()
    near_m = found_m[::4, :320:4]
    np.testing.assert_array_equal(found_m[3::4, 3:320:4], near_m)
    assert np.isnan(near_m).mean() == pytest.approx(0.3, abs=0.02)
    assert np.nanstd(near_m) == pytest.approx(0.04, rel=0.1)


def test_a_run_of_evaluate_becomes_a_row_of_both_tables(tmp_path):
    add_stereo(BAG, tmp_path / 'bag', max_frames=2)
    with open_bag(tmp_path / 'bag') as bag:
        assert {topic.name: topic.message_count for topic in bag.topics}[STEREO_TOPIC] == 2
    options = argparse.Namespace(out=tmp_path, scene=SCENE, camera_height_m=0.35, max_frames=2)
    result = run_evaluate('depth,ground_plane', options, '--points-confidence-min', '0.5')
    assert set(result['source_states']) == {'depth', 'ground_plane'}
    row = depth_row('depth,ground_plane', result)
    assert (row['sources'], row['metric frames']) == ('depth + ground_plane', '2 of 2')
    assert float(row[METRICS['AbsRel']]) < 0.12
    assert obstacle_row('both', result['obstacles'])['recall'].endswith(' %')
    row = next(row for row in found_rows({'both': result['obstacles']})
               if row['obstacle'] == 'chair 1')
    assert row['both'].endswith(
        f' of {result["obstacles"]["found"]["chair 1"]["visible"]}')


def test_a_missing_bag_is_reported(tmp_path, capsys):
    assert main(['--bag', str(tmp_path / 'nowhere'), '--out', str(tmp_path)]) == 2
    assert 'nowhere: it does not exist' in capsys.readouterr().err
