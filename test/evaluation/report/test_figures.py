"""Plots of long recordings."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from marigold_ros.evaluation.analysis import StreamResult
from marigold_ros.evaluation.report import figures


def analysis(count):
    """Return what the plots read of an evaluation of so many frames."""
    rng = np.random.default_rng(0)
    frames = [SimpleNamespace(
        complexity=rng.random(), num_inference_steps=number % 4, quality={'abs_rel': rng.random()},
        outcome='processed' if number % 9 else 'superseded', latency_s=rng.random())
        for number in range(count)]
    result = SimpleNamespace(frames=frames, frame_results=rng.random((count, 8)), live=None,
                             simulated=StreamResult(frames, 0.2))
    return SimpleNamespace(policies={'novelty': result}, primary='novelty',
                           frames=[SimpleNamespace(stamp_ns=10 ** 8 * number)
                                   for number in range(count)])


@pytest.mark.parametrize('count, drawn', [(90, 'vectors'), (5000, 'pixels')])
def test_plots_of_a_long_recording_stay_small(count, drawn):
    """As vectors, the 5000 frames have 3 MB."""
    plots = [*figures.plot_complexity(analysis(count), 'AbsRel'),
             *figures.plot_timeline(analysis(count), 'AbsRel')]
    assert sum(map(len, plots)) < 1_000_000
    assert all(('<image' in plot) == (drawn == 'pixels') for plot in plots)
