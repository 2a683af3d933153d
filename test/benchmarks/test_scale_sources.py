"""The benchmark of scale sources: the reference of each source, and the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.scale_sources import COLUMNS, main, read_drive, true_relative_depth

ROOT = Path(__file__).parents[2]
BAG, SCENE = ROOT / 'sample' / 'living_room', ROOT / 'sample' / 'scene.json'
COSTMAP = ROOT / 'config' / 'nav2_costmap.yaml'


def test_each_source_has_its_references_and_its_mount():
    (frame, found), = read_drive(BAG, max_frames=1)
    assert set(found) == {'depth', 'cloud', 'scan', 'ground_plane'}
    assert found['ground_plane'].anchors is None
    for source in ('depth', 'cloud', 'scan'):
        anchors = found[source].anchors
        true_m = frame.depth_m[anchors.rows, anchors.columns]
        # Noise, and what lies at an edge.
        assert np.nanmedian(np.abs(anchors.depth_m / true_m - 1)) < 0.02, source
    for each in found.values():
        assert each.base_from_camera[2, 3] == pytest.approx(0.35)
    tilt = found['ground_plane'].tilt
    assert np.degrees([tilt.pitch, tilt.roll]) == pytest.approx([6.0, 0.0], abs=1e-3)


def test_true_relative_depth_spreads_over_a_range():
    (frame, _), = read_drive(BAG, max_frames=1)
    own = true_relative_depth(frame)
    known = own[frame.valid]
    assert (known == 0).mean() == pytest.approx(0.02, abs=0.005)
    assert (known == 1).mean() == pytest.approx(0.02, abs=0.005)
    np.testing.assert_allclose(10 * true_relative_depth(frame, (0.0, 10.0))[frame.valid],
                               frame.depth_m[frame.valid], rtol=1e-5)


def test_the_table_has_every_source_with_both_depths(capsys):
    assert main(['--bag', str(BAG), '--scene', str(SCENE), '--costmap', str(COSTMAP),
                 '--max-frames', '2']) == 0
    header, _, *rows = [[cell.strip() for cell in line.strip('|').split('|')]
                        for line in capsys.readouterr().out.splitlines()]
    assert header == ['depth, source', *COLUMNS]
    table = {row[0]: dict(zip(header[1:], row[1:])) for row in rows}
    assert len(table) == 12
    estimated = 'ground_plane, tilt estimated'
    for name, row in table.items():
        assert row['metric frames'] == ('0 of 2' if estimated in name else '2 of 2')
    best = table['true metric depth']
    assert (best['recall'], best['precision']) == ('100 %', '100 %')
    assert float(table['true, cloud'][COLUMNS[1]]) < float(table['predicted, cloud'][COLUMNS[1]])


def test_a_missing_bag_is_reported(tmp_path, capsys):
    assert main(['--bag', str(tmp_path / 'nowhere'), '--scene', str(SCENE), '--costmap',
                 str(COSTMAP)]) == 2
    assert 'nowhere: it does not exist' in capsys.readouterr().err
