"""The checks of layers: every form of every layer that a checkpoint has, on each executor."""

from __future__ import annotations

import json

from engine_fixtures import MINIATURE
import pytest

from benchmarks import engine_layers
from benchmarks.engine_candidates import ARCHITECTURES


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Run the benchmark with given executors; return its rows by check."""
    def run(executors, *arguments):
        monkeypatch.setattr(engine_layers, 'list_executors',
                            lambda device, compiled: (executors, {'X': 'no X'}))
        engine_layers.main(['--device', 'cpu', '--rounds', '2', '--out', str(tmp_path),
                            *arguments])
        report, = (json.loads(path.read_text()) for path in tmp_path.glob('*.json'))
        return report['rows']

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'caches'))
    monkeypatch.setitem(ARCHITECTURES, 'miniature', MINIATURE)
    return run


def test_all_layers_of_a_kl_checkpoint_are_compared(measure, capsys):
    executors = [('OpenVINO', 'float32'), ('torch eager', 'float32')]
    rows = measure(executors, '--architecture', 'miniature', '--vae', 'kl')
    layers = rows['Nearest upsampling and convolution']
    assert {(row['executor'], row['dtype']) for row in layers} == set(executors)
    # A 64x48 image has latents of 8x6: one upsampling in the U-Net, three in the decoder.
    assert list(dict.fromkeys(row['what'] for row in layers)) == [
        'step: 64 to 64 channels, 8x6 px', *(f'decode: 32 to 32 channels, {size} px' for size in
                                             ('16x12', '32x24', '64x48'))]
    stages = rows['Stages with folded convolutions']
    assert [(row['what'], row['form']) for row in stages[:2]] == [
        ('stage decode', form) for form in ('as it is', 'upsampling folded')]
    last = rows["The decoder's last convolution"]
    assert [row['form'] for row in last[:3]] == [
        '3 channels, mean', '1 channel', '1 channel in float32']
    attention = rows['Attention of the KL decoder']
    assert attention[0]['what'] == 'attention of 48 tokens, 32 channels, 1 head(s)'
    assert [row['form'] for row in attention] == ["torch's choice", 'math', 'flash_attention']
    assert [row['form'] for row in rows['Memory format']] == ['contiguous', 'channels_last'] * 3
    assert rows["cuDNN's search for kernels"] == []
    assert all(row['speedup']['ratio'] > 0.0 for of_check in rows.values() for row in of_check)
    assert 'it needs a GPU' in capsys.readouterr().out


def test_an_odd_size_is_not_folded_and_said(measure, capsys):
    """The embedded U-Net at 64 px has latents of 8x6, 4x3 and 2x2."""
    rows = measure([('torch eager', 'float32')], '--processing-resolution', '64')
    sizes = [row['what'] for row in rows['Nearest upsampling and convolution'][::2]]
    assert sizes == ['step: 128 to 128 channels, 8x6 px', *(
        f'decode: 48 to 48 channels, {size} px' for size in ('16x12', '32x24', '64x48'))]
    forms = [(row['what'], row['form']) for row in rows['Stages with folded convolutions']]
    assert forms == [
        ('stage encode', 'as it is'), ('stage encode', 'pair folded'),
        *(('stage decode', form) for form in
          ('as it is', 'upsampling folded', 'pair folded', 'both folded'))]
    assert rows['Attention of the KL decoder'] == []
    printed = capsys.readouterr()
    assert 'upsamples to 3x4, which cannot be folded' in printed.err
    assert '- left out: X: no X' in printed.out
