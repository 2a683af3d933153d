"""The cloud benchmark, with and without sensor_msgs_py."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.cloud_packing import BASELINE, main, make_synthetic_depth, PACKING, WHOLE


def test_the_synthetic_depth_has_work_for_every_filter():
    relative, confidence = make_synthetic_depth(480, 640)
    assert relative.shape == confidence.shape == (480, 640)
    assert relative.min() > 0 and relative.max() <= 1
    assert (relative > 0.98).any() and 0.05 < (confidence < 0.1).mean() < 0.15


@pytest.mark.parametrize('there', [False, True])
def test_it_measures_with_and_without_sensor_msgs_py(there, tmp_path, monkeypatch, capsys):
    made = []
    point_cloud2 = SimpleNamespace(
        create_cloud=lambda header, fields, points, step: made.append(points))
    monkeypatch.setitem(sys.modules, 'sensor_msgs_py.point_cloud2',
                        point_cloud2 if there else None)
    monkeypatch.setitem(sys.modules, 'sensor_msgs_py', SimpleNamespace() if there else None)
    main(['--size', '64', '48', '--rounds', '1', '--out', str(tmp_path)])
    runs = json.loads((tmp_path / 'cloud_packing.json').read_text())['runs']
    assert {WHOLE, PACKING} < set(runs) and (BASELINE in runs) == there
    assert runs[WHOLE]['rounds'] == 1 and runs[WHOLE]['median_ms'] > 0
    assert ('sensor_msgs_py is not installed' in capsys.readouterr().out) == (not there)
    if there:  # a point a pixel: x, y, z and the colour's bits
        assert all(points.shape == (64 * 48, 4) for points in made)
        assert np.isfinite(made[0][:, :3]).all()
