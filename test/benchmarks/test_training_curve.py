"""Tests of the curve of a training: its points, its promise, wrong folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import training_curve
from benchmarks.training_curve import Curve


def write_run(folder: Path, errors: dict[int, float]) -> Path:
    """Write a run folder with batches of 10 views and these errors by iteration."""
    folder.mkdir()
    (folder / 'config.yaml').write_text('schedule: {batch_size: 10}\n')
    (folder / 'scalars.jsonl').write_text(''.join(
        json.dumps({'iteration': iteration, 'validation/heldout/abs_rel_1': error,
                    'validation/heldout/delta1_1': 0.5}) + '\n'
        for iteration, error in errors.items()))
    return folder


def test_a_power_law_is_extrapolated_exactly() -> None:
    views = np.array([0.0, 1e3, 2e3, 4e3, 8e3, 16e3, 32e3])
    error = np.array([0.5, *(0.1 + 0.2 * (views[1:] / 1e3) ** -0.5)])
    promised = Curve('heldout', views, error).promise(np.array([128e3]))
    assert promised is not None
    # 0.1 + 0.2 / sqrt(128)
    assert promised[0] == pytest.approx(0.1177, abs=5e-4)


@pytest.mark.parametrize('error', [[0.5, 0.3, 0.3, 0.31, 0.32, 0.33], [0.5, 0.3, 0.2, 0.1]],
                         ids=['it rises', 'too few points'])
def test_a_curve_that_cannot_be_fitted_promises_nothing(error: list[float]) -> None:
    views = np.arange(len(error)) * 1e3
    assert Curve('heldout', views, np.array(error)).promise(np.array([1e6])) is None


def test_the_report_has_every_checkpoint_and_what_more_views_promise(tmp_path: Path) -> None:
    # 0.1 + 0.2 / sqrt(thousands of views)
    run = write_run(tmp_path / 'run', {0: 0.4, **{
        100 * 4 ** n: 0.1 + 0.2 * 2 ** -n for n in range(5)}})
    assert training_curve.main(['--run', str(run), '--out', str(tmp_path)]) == 0
    report = (tmp_path / 'training_curve.md').read_text()
    rows = [[cell.strip() for cell in line.split('|')[1:-1]]
            for line in report.splitlines() if line.startswith('|')]
    assert rows[0] == ['views seen', 'AbsRel on heldout, 1 step(s)']
    assert rows[2:5] == [['0', '0.400'], ['1000', '0.300'], ['4000', '0.200']]
    assert rows[8] == ['512000, by the fit', '0.109']
    assert (tmp_path / 'training_curve.png').stat().st_size > 1000


def test_an_iteration_that_was_repeated_counts_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / 'run', {0: 0.4, 100: 0.3})
    with (run / 'scalars.jsonl').open('a') as file:
        file.write(json.dumps({'iteration': 100, 'validation/heldout/abs_rel_1': 0.2}) + '\n')
    curve, = training_curve.read_curves(run)
    np.testing.assert_allclose(curve.error, [0.4, 0.2])
    np.testing.assert_allclose(curve.views, [0, 1000])


def test_a_folder_without_a_run_is_named(tmp_path: Path,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    assert training_curve.main(['--run', str(tmp_path / 'none')]) == 2
    assert '`run` must be a run folder' in capsys.readouterr().err


def test_a_torn_line_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / 'run', {0: 0.4, 100: 0.3})
    with (run / 'scalars.jsonl').open('a') as file:
        file.write('{"iteration": 2')
    assert training_curve.main(['--run', str(run)]) == 2
    assert f'one JSON object a line; got {str(run)!r}' in capsys.readouterr().err
