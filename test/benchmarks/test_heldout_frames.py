"""The held-out frames: table, fixed list of hard frames, and plot."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from benchmarks import heldout_frames
from benchmarks.heldout_frames import HARD_FRAMES, HARD_RAMP_ABS_REL
from marigold_ros.data.frames import DepthFrame
from scenes.bulk import render_frames, render_scene

SEED, WIDTH, HEIGHT = 900, 256, 192


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('frames')
    render_frames(folder, 12, width=64, height=48, seed=5)
    return folder


def test_the_list_names_two_hundred_frames_in_order():
    assert len(HARD_FRAMES) == 200
    assert list(HARD_FRAMES) == sorted(set(HARD_FRAMES))


@pytest.mark.parametrize('place', [0, 99, 199])
def test_a_listed_frame_is_hard_for_a_ramp(place):
    """What bulk renders today is what the list was made from."""
    scene, view = divmod(HARD_FRAMES[place], 4)
    _, rendered = render_scene(scene, seed=SEED, width=WIDTH, height=HEIGHT)[view]
    frame = DepthFrame('listed', rendered.rgb, rendered.depth_m, rendered.depth_m > 0)
    assert heldout_frames.score_ramp([frame])[0]['abs_rel'] >= HARD_RAMP_ABS_REL


def test_table_and_plot_show_every_step_beside_the_ramp(folder, tmp_path, capsys):
    assert heldout_frames.main(
        ['--frames', str(folder), '--limit', '6', '--out', str(tmp_path)]) == 0
    lines = [line.split('|')[1:-1] for line in capsys.readouterr().out.splitlines()
             if line.startswith('|')]
    rows = {cells[0].strip(): [float(cell) for cell in cells[1:]] for cells in lines[2:]}
    assert list(rows) == ['fitted vertical ramp', *(f'tiny, {n} step(s)' for n in (1, 2, 4, 10)),
                          'tiny, its autoencoder alone',
                          'tiny, its autoencoder against its input', heldout_frames.CLIPPING]
    ramp = rows['fitted vertical ramp']
    assert ramp[-1] == 1.0
    for row in rows.values():
        assert row[-1] == pytest.approx(row[0] / ramp[0], abs=0.02)
    assert rows['tiny, its autoencoder alone'][0] < 0.3 * ramp[0]
    for part in ('tiny, its autoencoder against its input', heldout_frames.CLIPPING):
        assert 0 < rows[part][0] < rows['tiny, its autoencoder alone'][0]
    assert cv2.imread(str(tmp_path / 'heldout_frames.png')).std() > 0


def test_frames_other_than_those_of_the_list_are_rejected(folder, capsys, monkeypatch):
    assert heldout_frames.main(['--frames', str(folder), '--hard']) == 2
    assert f'up to number {HARD_FRAMES[-1]}; {folder} has 12' in capsys.readouterr().err
    frames = heldout_frames.load_heldout_frames(folder, 12)
    easy = int(np.argmin([each['abs_rel'] for each in heldout_frames.score_ramp(frames)]))
    monkeypatch.setattr(heldout_frames, 'HARD_FRAMES', (easy,))
    assert heldout_frames.main(['--frames', str(folder), '--hard']) == 2
    assert 'must be those that the list of hard ones was made from' in capsys.readouterr().err
