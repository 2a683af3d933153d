"""The benchmark of upsampling: a row per method, with gain, harm and time."""

from __future__ import annotations

import numpy as np

from benchmarks import upsampling
from benchmarks.upsampling import filter_at_full_size, textured_planes
from marigold_ros.data.datasets.data_set import Rules


def test_each_method_has_a_row_and_guided_depth_has_sharper_boundaries(
        tmp_path, monkeypatch, capsys):
    frames = list(upsampling.bag_data_set(upsampling.SAMPLE).frames())[:2]

    class TwoFrames:
        rules = Rules()

        def frames(self):
            return iter(frames)

    monkeypatch.setattr(upsampling, 'bag_data_set', lambda path: TwoFrames())
    assert upsampling.main(['--rounds', '2', '--out', str(tmp_path)]) == 0
    _, _, bilinear, guided, plain = ([cell.strip() for cell in line.split('|')[1:-1]]
                                     for line in capsys.readouterr().out.splitlines())
    assert [row[0] for row in (bilinear, guided, plain)] == [
        'bilinear', 'guided', 'plain guided filter']
    assert float(guided[1]) > float(bilinear[1]) + 0.01
    flat = [float(row[5]) for row in (bilinear, guided, plain)]
    assert flat[0] < flat[1] < flat[2]
    assert flat[1] < flat[0] + 0.01  # the limit for floors and walls with strong textures
    of_predicted = [float(row[6]) for row in (bilinear, guided)]
    assert of_predicted[1] < 1.01 * of_predicted[0]
    assert bilinear[7].endswith('(1)')


def test_the_planes_are_planes_with_strong_textures():
    """Inverse depth of a plane is linear in the columns and rows of the image."""
    for frame in textured_planes():
        inverse = 1.0 / frame.depth_m.astype(float)
        for axis in (0, 1):
            assert np.abs(np.diff(inverse, 2, axis=axis)).max() < 1e-6
        assert frame.rgb.std() > 20.0


def test_the_plain_filter_keeps_depth_that_is_a_function_of_the_image():
    """The case in which a guided filter is exact, but for its regularization."""
    image = np.where(np.arange(96) < 50, 60, 180).astype(np.uint8)
    rgb = np.dstack([np.tile(image, (96, 1))] * 3)
    depth = np.tile((image / 255.0).astype(np.float32), (96, 1))
    assert np.abs(filter_at_full_size(depth, rgb) - depth).max() < 0.01
