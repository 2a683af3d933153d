"""The field on scenes whose error is known: what it corrects, and what it leaves alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.metric import field as field_module
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.field import (
    ANCHOR_SIGMA,
    COARSE_GRID,
    DepthField,
    fit_field,
    GRID,
    MAX_PROCESS_ANCHORS,
    MAX_SPARSE_ANCHORS,
    PRIOR_SIGMA,
)

HEIGHT, WIDTH = 120, 160
K = np.array([[140.0, 0.0, 79.5], [0.0, 140.0, 59.5], [0.0, 0.0, 1.0]])
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
FEW, MANY = 150, 3000
WALL_M = 3.0
# A floor 0.5 m below the camera, up to a wall.
FLOOR = (ROWS - K[1, 2]) / K[1, 1] > 0.5 / WALL_M
TRUE_M = np.where(FLOOR, 0.5 / np.maximum((ROWS - K[1, 2]) / K[1, 1], 1e-6),
                  WALL_M).astype(np.float32)
# Wrong by up to a fifth, smoothly.
WARPED_M = (TRUE_M * np.exp(0.2 * np.sin(COLUMNS / 40.0) * np.cos(ROWS / 50.0))).astype(np.float32)


def anchors_at(where, count=FEW, depth_m=TRUE_M, seed=0):
    chosen = np.random.default_rng(seed).choice(np.flatnonzero(where), count, replace=False)
    rows, columns = np.divmod(chosen, WIDTH)
    return Anchors(rows, columns, depth_m[rows, columns])


def log_error(depth_m, where=...):
    return float(np.mean(np.abs(np.log(depth_m / TRUE_M))[where]))


def test_surfaces_of_other_directions_are_corrected_less(monkeypatch):
    """Anchors on the left of a ridge, whose right side has the same depth, mirrored."""
    depth_m = (2.0 + np.abs(COLUMNS - 79.5) / 40.0).astype(np.float32)
    anchors = anchors_at(COLUMNS < 70, depth_m=np.float32(1.2) * depth_m)
    found = np.log(fit_field(depth_m, K, anchors).factor[30, 60])
    monkeypatch.setattr(field_module, 'LENGTH_NORMAL', 1e6)
    without = np.log(fit_field(depth_m, K, anchors).factor[30, 60])
    assert 0.0 < found < 0.85 * without


@pytest.mark.parametrize('count, share', [(FEW, 0.35), (MANY, 0.1)])
def test_a_smooth_error_is_corrected(count, share):
    field = fit_field(WARPED_M, K, anchors_at(TRUE_M > 0, count))
    assert log_error(field.correct(WARPED_M)) < share * log_error(WARPED_M)


@pytest.mark.parametrize('signs', [(-1, 1), (1,)], ids=['both', 'too far'])
@pytest.mark.parametrize('count', [FEW, MANY])
def test_wrong_anchors_are_found_by_their_neighbours(count, signs):
    anchors = anchors_at(TRUE_M > 0, count)
    rng = np.random.default_rng(1)
    wrong = rng.random(count) < 0.25
    depth_m = anchors.depth_m.copy()
    depth_m[wrong] *= np.exp(rng.uniform(0.7, 2.3, wrong.sum())
                             * rng.choice(signs, wrong.sum())).astype(np.float32)
    field = fit_field(WARPED_M, K, Anchors(anchors.rows, anchors.columns, depth_m))
    assert log_error(field.correct(WARPED_M)) < 0.3 * log_error(WARPED_M)
    assert np.median(field.weight[wrong]) < 0.05 < 0.5 < np.median(field.weight[~wrong])


def spoil(anchors, share=0.3, seed=1):
    """Make a share of the anchors too far, by a factor of 2 to 10."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(anchors.rows)) < share
    factor = np.where(wrong, np.exp(rng.uniform(0.7, 2.3, len(wrong))), 1.0)
    return Anchors(anchors.rows, anchors.columns, anchors.depth_m * factor.astype(np.float32))


def field_before(correction, sigma=0.05):
    """Return the field of a frame before, of a correction [60, 80] or a number."""
    return DepthField(np.broadcast_to(np.exp(correction), GRID).astype(np.float32),
                      np.full(COARSE_GRID, sigma, np.float32), np.ones(FEW, np.float32))


@pytest.mark.parametrize('count', [FEW, MANY])
def test_the_frame_before_tells_which_anchors_are_wrong(count):
    """Wrong ones that agree with each other: alone, the frame cannot tell what is right."""
    anchors = anchors_at(TRUE_M > 0, count)
    wrong = (anchors.columns < 60) & (np.arange(count) % 20 < 11)
    depth_m = anchors.depth_m * np.where(wrong, np.float32(4.0), np.float32(1.0))
    anchors = Anchors(anchors.rows, anchors.columns, depth_m)
    before = fit_field(WARPED_M, K, anchors_at(TRUE_M > 0, count, seed=2))
    alone, started = (log_error(fit_field(WARPED_M, K, anchors, previous).correct(WARPED_M),
                                COLUMNS < 60) for previous in (None, before))
    assert started < 0.05 and started < 0.5 * alone


@pytest.mark.parametrize('share', [0.0, 0.3])
@pytest.mark.parametrize('count', [FEW, MANY])
def test_the_frame_before_costs_no_accuracy(count, share):
    before = fit_field(WARPED_M, K, spoil(anchors_at(TRUE_M > 0, count, seed=2), share, seed=3))
    anchors = spoil(anchors_at(TRUE_M > 0, count), share)
    alone, started = (log_error(fit_field(WARPED_M, K, anchors, previous).correct(WARPED_M))
                      for previous in (None, before))
    assert started < 1.02 * alone + 0.001


# By what a field is wrong, and where: everywhere, or as if an object had moved there.
@pytest.mark.parametrize('factor', [0.5, 1 / 1.3, 1.3, 2.0])
@pytest.mark.parametrize('is_everywhere', [True, False], ids=['everywhere', 'an object'])
@pytest.mark.parametrize('count', [FEW, MANY])
def test_a_wrong_field_of_the_frame_before_is_overcome(count, is_everywhere, factor):
    anchors = anchors_at(TRUE_M > 0, count)
    alone = fit_field(WARPED_M, K, anchors)
    wrong = np.full(GRID, is_everywhere)
    wrong[20:45, 30:60] = True
    before = field_before(np.log(alone.factor) + np.where(wrong, np.log(factor), 0.0))
    started = fit_field(WARPED_M, K, anchors, before)
    assert np.log(started.factor) == pytest.approx(np.log(alone.factor), abs=0.05)
    assert np.mean(np.abs(np.log(started.factor / alone.factor))[wrong]) < 0.005


@pytest.mark.parametrize('factor', [1 / 1.3, 1.3])
def test_a_wrong_field_is_overcome_although_anchors_are_wrong_too(factor):
    anchors = spoil(anchors_at(TRUE_M > 0))
    alone = fit_field(WARPED_M, K, anchors)
    started = fit_field(WARPED_M, K, anchors, field_before(np.log(alone.factor * factor)))
    errors = [log_error(field.correct(WARPED_M)) for field in (alone, started)]
    assert errors[1] < 1.1 * errors[0] < 0.3 * log_error(WARPED_M)


def test_a_field_that_contradicts_most_anchors_is_not_used():
    anchors = anchors_at(TRUE_M > 0)
    alone, started = (fit_field(WARPED_M, K, anchors, previous)
                      for previous in (None, field_before(np.log(5.0))))
    np.testing.assert_array_equal(started.factor, alone.factor)
    np.testing.assert_array_equal(started.weight, alone.weight)


def test_the_frame_before_may_have_other_anchors_and_another_size():
    before = fit_field(WARPED_M, K, anchors_at(TRUE_M > 0, MANY))
    large_m = cv2.resize(WARPED_M, (4 * WIDTH, 4 * HEIGHT))
    few = anchors_at(TRUE_M > 0)
    anchors = Anchors(4 * few.rows + 2, 4 * few.columns + 2, few.depth_m)
    started = fit_field(large_m, 4 * K, anchors, before)
    assert log_error(cv2.resize(started.correct(large_m), (WIDTH, HEIGHT))) < 0.35 * log_error(
        WARPED_M)
    assert np.median(started.weight) > 0.5


@pytest.mark.parametrize('count', [FEW, MANY])
def test_uncertain_anchors_count_less(count):
    anchors = anchors_at(TRUE_M > 0, count)
    uncertain = np.arange(count) % 2 == 1
    depth_m = np.where(uncertain, np.float32(1.15), np.float32(1.0)) * anchors.depth_m
    sigma_log = np.where(uncertain, 0.3, 0.0).astype(np.float32)
    field = fit_field(TRUE_M, K, Anchors(anchors.rows, anchors.columns, depth_m, 0, sigma_log))
    assert np.mean(np.abs(np.log(field.factor))) < 0.02  # 0.07 if they counted alike


@pytest.mark.parametrize('count', [FEW, MANY])
def test_far_from_anchors_nothing_is_corrected_and_depth_is_uncertain(count):
    # A wall so wide that its other end is far away.
    depth_m = np.full((HEIGHT, 20 * WIDTH), WALL_M, np.float32)
    rows, columns = np.divmod(np.random.default_rng(0).choice(HEIGHT * WIDTH, count), WIDTH)
    field = fit_field(depth_m, K, Anchors(rows, columns, np.full(count, 2.4, np.float32)))
    assert field.factor[30, 0] == pytest.approx(0.8, abs=0.01)
    confidence = field.confidence(depth_m.shape)
    assert confidence[60, 80] > 0.99
    assert field.factor[:, -1] == pytest.approx(1.0, abs=0.02)
    prior = np.hypot(PRIOR_SIGMA, ANCHOR_SIGMA)
    assert field.sigma[:, -1] == pytest.approx(prior, rel=0.02)
    assert confidence[60, -1] == pytest.approx(0.62, abs=0.02)


def test_anchors_of_the_wall_correct_the_floor_little():
    wrong_m = np.where(FLOOR, TRUE_M, np.float32(1.3) * TRUE_M)
    field = fit_field(wrong_m, K, anchors_at(~FLOOR))
    corrected_m = field.correct(wrong_m)
    assert log_error(corrected_m, ~FLOOR) < 0.05
    near = FLOOR & (TRUE_M < 1.5)
    assert log_error(corrected_m, near) < 0.1  # of 0.26 on the wall


def test_many_anchors_keep_an_edge():
    """The left half is nearer and too far by a fifth, the right half too near by as much."""
    left = COLUMNS < 80
    depth_m = np.where(left, 1.0, 3.0).astype(np.float32)
    wrong_m = depth_m * np.where(left, 1.2, 1 / 1.2).astype(np.float32)
    corrected_m = fit_field(wrong_m, K, anchors_at(depth_m > 0, MANY, depth_m)).correct(wrong_m)
    beside = np.abs(COLUMNS - 79.5) < 6
    assert np.mean(np.abs(np.log(corrected_m / depth_m))[beside]) < 0.04


def test_sigma_is_as_large_as_the_errors():
    """Residuals drawn from what the process assumes, so most errors are within one sigma."""
    depth_m = np.full((HEIGHT, WIDTH), WALL_M, np.float32)
    rows, columns = (each.ravel() for each in np.mgrid[2:HEIGHT:8, 2:WIDTH:8])
    points = np.stack([columns, rows], axis=-1) / (200 / 640 * WIDTH)
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    within = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        residual = np.linalg.cholesky(PRIOR_SIGMA ** 2 * np.exp(-distance)
                                      + 1e-9 * np.eye(len(rows))) @ rng.standard_normal(len(rows))
        true_m = WALL_M * np.exp(residual)
        known = rng.choice(len(rows), 60, replace=False)
        others = np.setdiff1d(np.arange(len(rows)), known)
        field = fit_field(depth_m, K, Anchors(rows[known], columns[known],
                                              true_m[known].astype(np.float32)))
        error = np.log(field.correct(depth_m)[rows, columns] / true_m)[others]
        sigma = cv2.resize(field.sigma, (WIDTH, HEIGHT))[rows, columns][others]
        within.append(np.mean(np.abs(error) < sigma))
    assert 0.6 < np.mean(within) < 0.76  # 0.68 if it were normally distributed


def test_unknown_depth_stays_unknown_and_its_anchors_do_not_count():
    depth_m = WARPED_M.copy()
    depth_m[:, :40] = np.nan
    anchors = anchors_at(TRUE_M > 0)
    field = fit_field(depth_m, K, anchors)
    assert len(field.weight) == np.sum(anchors.columns >= 40)
    corrected_m = field.correct(depth_m)
    assert np.isnan(corrected_m[:, :40]).all()
    assert log_error(corrected_m, COLUMNS >= 40) < 0.4 * log_error(WARPED_M)
    with pytest.raises(InputError, match='known depth above 0 m; got none of 150'):
        fit_field(np.full_like(depth_m, np.nan), K, anchors)


def test_known_pixels_beside_unknown_ones_are_corrected():
    depth_m = np.full((480, 640), WALL_M, np.float32)
    depth_m[np.random.default_rng(0).random(depth_m.shape) < 0.1] = np.nan
    depth_m[4::8, 4::8] = np.nan  # all centres of the grid
    rows, columns = (each.ravel() for each in np.mgrid[10:480:40, 10:640:40])
    field = fit_field(depth_m, 4 * K, Anchors(rows, columns, np.full(
        len(rows), 1.3 * WALL_M, np.float32)))
    known = np.isfinite(depth_m)
    # Between the anchors and beyond them a little less, but nowhere nothing.
    assert field.correct(depth_m)[known] == pytest.approx(1.3 * WALL_M, rel=0.05)


@pytest.mark.parametrize('count', [FEW, MANY])
@pytest.mark.parametrize('depth_m, sigma', [(np.nan, 0.0), (0.0, 0.0), (-1.0, 0.0),
                                            (np.inf, 0.0), (1.0, np.nan)])
def test_invalid_anchors_are_ignored(count, depth_m, sigma):
    good = anchors_at(TRUE_M > 0, count)
    sigma_log = np.zeros(count, np.float32)
    expected = fit_field(WARPED_M, K, good)
    found = fit_field(WARPED_M, K, Anchors(
        np.append(good.rows, 60), np.append(good.columns, 80),
        np.append(good.depth_m, np.float32(depth_m)), 0,
        np.append(sigma_log, np.float32(sigma))))
    np.testing.assert_array_equal(found.factor, expected.factor)


def test_confidence_is_symmetric_about_symmetric_anchors():
    depth_m = np.full((480, 640), WALL_M, np.float32)
    camera = np.array([[600.0, 0.0, 319.5], [0.0, 600.0, 239.5], [0.0, 0.0, 1.0]])
    rows, columns = np.array([200, 200, 279, 279]), np.array([280, 359, 280, 359])
    field = fit_field(depth_m, camera, Anchors(rows, columns, np.full(4, WALL_M, np.float32)))
    confidence = field.confidence(depth_m.shape)
    np.testing.assert_allclose(confidence, confidence[:, ::-1], atol=0.005)
    np.testing.assert_allclose(confidence, confidence[::-1], atol=0.005)


def test_an_output_array_may_be_the_input():
    field = fit_field(WARPED_M, K, anchors_at(TRUE_M > 0))
    expected, depth_m = field.correct(WARPED_M), WARPED_M.copy()
    assert field.correct(depth_m, out=depth_m) is depth_m
    assert depth_m.dtype == np.float32
    np.testing.assert_array_equal(depth_m, expected)


def test_rows_may_be_corrected_on_their_own():
    field = fit_field(WARPED_M, K, anchors_at(TRUE_M > 0))
    factor = field.resize_factor(WARPED_M.shape)
    assert factor.dtype == np.float32
    np.testing.assert_array_equal(WARPED_M[37:41] * factor[37:41],
                                  field.correct(WARPED_M)[37:41])


@pytest.mark.parametrize('count, used', [
    (1, 1), (MAX_PROCESS_ANCHORS, MAX_PROCESS_ANCHORS),
    (MAX_SPARSE_ANCHORS, MAX_PROCESS_ANCHORS),
    (MAX_SPARSE_ANCHORS + 1, MAX_SPARSE_ANCHORS + 1)])
def test_the_number_of_anchors_decides_how_they_are_used(count, used):
    field = fit_field(WARPED_M, K, anchors_at(TRUE_M > 0, count))
    assert len(field.weight) == used
    assert np.isfinite(field.factor).all() and (field.sigma >= np.float32(ANCHOR_SIGMA)).all()
