"""The benchmark of the flying-pixel filter."""

from __future__ import annotations

import numpy as np

from benchmarks import flying_pixels
from benchmarks.flying_pixels import removed_shares
from marigold_ros.data.frames import DepthFrame


def test_only_the_flying_pixels_of_a_soft_edge_are_removed():
    """A box 1 m away before a wall at 4 m; the wall ends at the sky."""
    depth_m = np.full((48, 64), 4.0, np.float32)
    depth_m[:, :30] = 1.0
    depth_m[:5] = np.inf
    K = np.array([[50.0, 0.0, 32.0], [0.0, 50.0, 24.0], [0.0, 0.0, 1.0]])
    frame = DepthFrame('a box', np.zeros((48, 64, 3), np.uint8), depth_m,
                       np.ones((48, 64), bool), K=K)
    removed, lost = removed_shares(frame, 1.0, 5.0)
    assert removed > 0.5
    assert lost < 0.05


def test_the_sample_drive_makes_a_row_per_angle(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(flying_pixels, 'ANGLES_DEG', (2.0,))
    monkeypatch.setattr(flying_pixels, 'EDGES_PX', (1.0,))
    flying_pixels.main(['--out', str(tmp_path)])
    row = capsys.readouterr().out.splitlines()[-1].split('|')
    assert row[1].strip() == '2' and float(row[2].strip(' %')) > 75
    assert float(row[3].strip(' %')) < 0.1
