"""The benchmark of processing resolutions: a row each, compared with the checkpoint's own."""

from __future__ import annotations

from benchmarks import resolution
from marigold_ros.depth.engine import DepthEngine


def test_each_candidate_has_a_row_and_the_own_resolution_is_the_reference(
        tmp_path, monkeypatch, capsys):
    frames = list(resolution.bag_data_set(resolution.SAMPLE).frames())[:2]

    class TwoFrames:
        def frames(self):
            return iter(frames)

    monkeypatch.setattr(resolution, 'bag_data_set', lambda path: TwoFrames())
    monkeypatch.setattr(resolution, 'RESOLUTIONS_PX', (64, 192))
    monkeypatch.setattr(resolution, 'FINER_RESOLUTIONS_PX', (64,))
    assert resolution.main(['--rounds', '2', '--out', str(tmp_path)]) == 0
    _, _, small, own, finer = ([cell.strip() for cell in line.split('|')[1:-1]]
                               for line in capsys.readouterr().out.splitlines())
    assert (small[0], own[0]) == ('64', '192')
    assert own[2] == '1.00 [1.00, 1.00]'
    assert float(small[3]) > float(own[3])
    assert finer[0] == '64' + resolution.FINER
    assert finer[3:] == ['', '', '']


def test_a_cell_of_the_finer_latents_covers_4x4_pixels(tmp_path):
    engine = DepthEngine.load(str(resolution.save_finer_checkpoint(tmp_path)), device='cpu')
    assert engine.checkpoint_info.vae_scale_factor == 4
