"""One scale from several sources: their weights, what each reports, and what is held."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.filter import FilterConfig
from marigold_ros.metric.tracker import ScaleTracker
from marigold_ros.metric.types import ScaleFrame

SECOND = 10 ** 9
SIZE = (120, 160)
K = np.array([[100.0, 0.0, 79.5], [0.0, 100.0, 59.5], [0.0, 0.0, 1.0]])
RELATIVE = np.tile(np.linspace(0, 1, 160, dtype=np.float32), (120, 1))
TRUE_M = 3 * RELATIVE + 1
ROWS, COLUMNS = np.mgrid[:120, :160]
EVERYWHERE = np.ones(SIZE, bool)
POSE = np.eye(4)


def see(depth_m=TRUE_M, seen=EVERYWHERE, every: int = 4, stamp_ns: int = 0) -> Anchors:
    """Return the depth of the pixels that are seen, of every few ones of a row and a column."""
    chosen = seen & (ROWS % every == 0) & (COLUMNS % every == 0)
    return Anchors(ROWS[chosen], COLUMNS[chosen], depth_m[chosen].astype(np.float32), stamp_ns)


def update(tracker, seconds: float = 0.0, pose=None, problems=None, camera: str = 'front',
           **anchors: Anchors):
    """Update a tracker with a frame whose anchors have the stamp of the image."""
    stamp_ns = round(seconds * SECOND)
    return tracker.update(ScaleFrame(camera, stamp_ns, RELATIVE, None, K, {
        name: Anchors(each.rows, each.columns, each.depth_m, stamp_ns)
        for name, each in anchors.items()}, {
            name: InputError(text) for name, text in (problems or {}).items()},
        world_from_camera=pose))


def track(*sources: str, **changes) -> ScaleTracker:
    return ScaleTracker(ScaleConfig(sources or ('cloud', 'scan'), **changes))


def correct(scale):
    return scale.field.correct(scale.to_metric_depth(RELATIVE))


def states(report) -> dict[str, str]:
    return {name: each.state for name, each in report.sources.items()}


# One scale from all

def test_one_scale_follows_from_sources_that_see_different_parts():
    """Neither tells the shift, as relative depth varies by less than 0.1 in what it sees."""
    near, far = see(TRUE_M, RELATIVE < 0.08), see(TRUE_M, RELATIVE > 0.92)
    alone = update(track(), cloud=near)
    assert alone.fit.scale_only
    assert alone.metric_scale.scale != pytest.approx(3.0, rel=0.1)
    both = update(track(), cloud=near, scan=far)
    assert (both.metric_scale.scale, both.metric_scale.shift) == pytest.approx((3.0, 1.0),
                                                                               rel=0.01)
    assert both.metric_scale.sources == ('cloud', 'scan')
    assert (both.state, both.detail, states(both)) == (
        'tracking', '', {'cloud': 'used', 'scan': 'used'})


@pytest.mark.parametrize('weights, scale', [({}, 3.0), ({'scan': 4.0}, 3.3),
                                            ({'scan': 4.0, 'cloud': 4.0}, 3.0)])
def test_a_source_counts_by_what_it_covers_and_by_its_weight(weights, scale):
    """The scan has ten times as many anchors in half of the image; they are 10 % farther."""
    few, many = see(every=8), see(1.1 * TRUE_M, ROWS < 60, every=2)
    assert len(many) > 7 * len(few)
    report = update(track(weights=weights), cloud=few, scan=many)
    assert report.metric_scale.scale == pytest.approx(scale, rel=0.01)


def test_the_weight_of_a_source_decides_where_both_correct_depth_locally():
    """Both see everything; where they differ by 10 %, depth follows the heavier one."""
    for weights, factor in (({'cloud': 10.0}, 1.0), ({'scan': 10.0}, 1.1)):
        report = update(track(weights=weights), cloud=see(every=16),
                        scan=see(1.1 * TRUE_M, every=16))
        ratio = correct(report.metric_scale) / TRUE_M
        assert np.median(ratio) == pytest.approx(factor, abs=0.02)


# Sources that are refused

def test_a_source_in_millimetres_does_not_stop_the_other():
    report = update(track(), cloud=see(1000 * TRUE_M), scan=see())
    assert (report.state, states(report)) == ('tracking', {'cloud': 'rejected', 'scan': 'used'})
    assert 'between 0.05 and 200 m; got 2472 m: check whether' in report.sources['cloud'].detail
    assert report.detail == f'cloud: {report.sources["cloud"].detail}'
    assert report.metric_scale.scale == pytest.approx(3.0, rel=0.01)
    assert report.metric_scale.sources == ('scan',)


def test_a_problem_of_one_reference_does_not_stop_the_other():
    report = update(track(), problems={'scan': 'no transform'}, cloud=see())
    assert (report.state, report.detail) == ('tracking', 'scan: no transform')
    assert states(report) == {'cloud': 'used', 'scan': 'rejected'}
    assert report.sources['scan'].age_s is None


def test_a_change_of_unit_of_one_source_does_not_stop_the_other():
    """A median of 125, which would be plausible."""
    tracker, near_m = track(), 0.05 * TRUE_M
    update(tracker, cloud=see(near_m), scan=see(near_m))
    report = update(tracker, 0.1, cloud=see(1000 * near_m), scan=see(near_m))
    assert states(report) == {'cloud': 'rejected', 'scan': 'used'}
    assert 'jumped to 1e+03 times the previous depth' in report.sources['cloud'].detail
    assert report.metric_scale.scale == pytest.approx(0.15, rel=0.01)


def test_with_two_sources_1_m_apart_the_other_goes_on_with_its_scale():
    report = update(track(), cloud=see(), scan=see(TRUE_M + 1))
    assert (report.state, states(report)) == ('tracking', {'cloud': 'used', 'scan': 'rejected'})
    assert report.detail.startswith('scan: scan contradicts cloud: where both see')
    assert (report.metric_scale.scale, report.metric_scale.shift) == pytest.approx((3.0, 1.0),
                                                                                   rel=0.01)
    assert report.metric_scale.sources == ('cloud',)


def test_if_every_source_is_invalid_the_state_is_rejected_and_the_scale_is_kept():
    tracker = track()
    update(tracker, cloud=see(), scan=see())
    report = update(tracker, 0.5, problems={'cloud': 'frozen', 'scan': 'frozen'})
    assert (report.state, report.detail) == ('rejected', 'cloud: frozen; scan: frozen')
    assert report.metric_scale.scale == pytest.approx(3.0, rel=0.01)


def test_a_fit_that_fails_is_the_problem_of_all_its_sources():
    report = update(track(), cloud=see(seen=(ROWS == 0) & (COLUMNS < 12)))
    assert states(report) == {'cloud': 'rejected', 'scan': 'waiting'}
    assert 'at least 10 anchors with relative and metric depth; got 3' in report.detail


def test_a_floor_out_of_view_is_no_problem_of_a_scale_that_another_source_measures():
    """This scene has none: depth does not depend on the row."""
    floor = {'camera_height_m': 0.35, 'camera_pitch_deg': 0.0, 'camera_roll_deg': 0.0}
    report = update(track('cloud', 'ground_plane', **floor), cloud=see())
    assert states(report) == {'cloud': 'used', 'ground_plane': 'rejected'}
    assert 'no floor found' in report.sources['ground_plane'].detail
    assert (report.state, report.detail) == ('tracking', '')
    alone = update(track('ground_plane', **floor))
    assert alone.state == 'rejected' and 'no floor found' in alone.detail


# Sources that are weighed down

@pytest.mark.parametrize('share, state', [(0.0, 'used'), (0.1, 'used'), (0.3, 'weighed down')])
def test_wrong_anchors_are_weighed_down_and_depth_is_right(share, state):
    rng = np.random.default_rng(0)
    right = see(every=8)
    wrong = rng.permutation(300) < 300 * share
    measured_m = right.depth_m * np.where(wrong, rng.choice([0.5, 2.0], 300), 1.0)
    report = update(track('cloud'), cloud=replace(right, depth_m=measured_m.astype(np.float32)))
    assert (report.state, states(report)) == ('tracking', {'cloud': state})
    assert report.sources['cloud'].anchor_count == 300
    assert report.sources['cloud'].detail == (
        '' if share < 0.3 else '30 % of its anchors are contradicted by their neighbours')
    assert report.detail == ''
    error = np.abs(correct(report.metric_scale) / TRUE_M - 1)
    assert np.quantile(error, 0.95) < 0.05


# What is held

def test_each_source_has_its_own_age():
    tracker = track()
    update(tracker, 0.0, POSE, cloud=see(), scan=see(seen=ROWS < 30))
    report = update(tracker, 0.5, POSE, scan=see(seen=ROWS < 30))
    assert states(report) == {'cloud': 'holding', 'scan': 'used'}
    assert [each.age_s for each in report.sources.values()] == [0.5, 0.0]
    assert (report.state, report.age_s) == ('tracking', 0.0)


def test_what_is_held_still_corrects_depth_locally():
    """The upper half of the scene is 15 % farther than scale and shift say."""
    local_m = np.where(ROWS < 60, 1.15, 1.0) * TRUE_M
    with_poses, without = track('cloud'), track('cloud')
    update(with_poses, 0.0, POSE, cloud=see(local_m))
    update(without, 0.0, cloud=see(local_m))
    held, gone = update(with_poses, 0.5, POSE), update(without, 0.5)
    inner = (slice(10, 50), slice(10, 150))
    assert np.median(correct(held.metric_scale)[inner] / local_m[inner]) == pytest.approx(
        1.0, abs=0.02)
    assert abs(np.median(correct(gone.metric_scale)[inner] / local_m[inner]) - 1.0) > 0.05


def test_without_anchors_depth_is_not_corrected_and_less_certain():
    tracker = track('cloud')
    known = update(tracker, 0.0, cloud=see(1.1 * TRUE_M)).metric_scale
    none = update(tracker, 0.5).metric_scale
    later = update(tracker, 5.0).metric_scale
    assert (none.scale, none.shift) == (known.scale, known.shift)
    assert (none.field.factor == 1.0).all() and len(none.field.weight) == 0
    assert none.field.sigma.mean() > 2 * known.field.sigma.mean()
    # 5 % a second are added to the 25 % by which predictions differ, and the 3 % of an anchor.
    assert later.field.sigma == pytest.approx(np.sqrt(0.25 ** 2 + 0.03 ** 2 + 0.25 ** 2), rel=1e-3)


def test_held_anchors_become_less_certain_gradually():
    tracker = track('cloud')
    update(tracker, 0.0, POSE, cloud=see())
    sigmas = [float(update(tracker, 0.1 * step, POSE).metric_scale.field.sigma.mean())
              for step in range(1, 30)]
    assert (np.diff(sigmas) > 0).all()
    assert np.diff(sigmas).max() < 0.02
    assert sigmas[-1] > 1.5 * sigmas[0]


def test_that_too_few_anchors_are_still_held_is_no_problem():
    """The camera turns right by 0.15 rad, away from two columns of anchors of three."""
    tracker, turned = track('cloud'), POSE.copy()
    update(tracker, 0.0, POSE, cloud=see(seen=COLUMNS < 40, every=16))
    c, s = np.cos(0.15), np.sin(0.15)
    turned[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    report = update(tracker, 0.1, turned)
    assert (report.state, report.detail, states(report)) == ('tracking', '', {'cloud': 'waiting'})


@pytest.mark.parametrize('forget', [
    lambda tracker: tracker.reset(), lambda tracker: tracker.discard('front')],
    ids=['reset', 'discard'])
def test_a_reset_and_a_discard_forget_what_is_held(forget):
    tracker = track('cloud')
    update(tracker, 0.0, POSE, cloud=see())
    forget(tracker)
    report = update(tracker, 0.1, POSE)
    assert (report.state, states(report)) == ('waiting', {'cloud': 'waiting'})


def test_a_discard_leaves_the_other_cameras():
    tracker = track('cloud')
    for camera in ('front', 'rear'):
        update(tracker, 0.0, POSE, camera=camera, cloud=see())
    tracker.discard('front')
    assert states(update(tracker, 0.1, POSE, camera='rear')) == {'cloud': 'holding'}


def test_the_cameras_hold_their_own_anchors():
    tracker = track('cloud')
    update(tracker, 0.0, POSE, cloud=see())
    assert states(update(tracker, 0.1, POSE, camera='rear')) == {'cloud': 'waiting'}


# Problems of a source that has measured before

def test_late_transforms_do_not_end_the_local_correction():
    """The left half of the wall is seen 20 % too near by scale and shift alone."""
    measured_m = TRUE_M * np.where(COLUMNS < 80, 1.2, 1.0)
    tracker = track('cloud')
    before = correct(update(tracker, pose=POSE, cloud=see(measured_m)).metric_scale)
    report = update(tracker, 0.1, pose=POSE, problems={'cloud': 'TF is late'})
    assert states(report) == {'cloud': 'rejected'} and report.detail == 'TF is late'
    difference = np.abs(correct(report.metric_scale) / before - 1)
    assert np.mean(difference) < 0.02 and difference[:, 40].max() < 0.02


def test_wrong_content_forgets_what_is_held():
    tracker = track('cloud')
    update(tracker, pose=POSE, cloud=see())
    report = update(tracker, 0.1, pose=POSE, cloud=see(1000 * TRUE_M))
    assert 'got 2472 m: check whether the sensor' in report.detail
    assert states(update(tracker, 0.2, pose=POSE)) == {'cloud': 'waiting'}


def test_what_is_held_does_not_keep_a_scale_that_has_expired():
    tracker = track('cloud', filter=FilterConfig(hold_s=0.5, expire_s=1.5))
    update(tracker, pose=POSE, cloud=see())
    reports = [update(tracker, seconds, pose=POSE) for seconds in (1.0, 1.4, 1.6, 2.0)]
    assert [each.state for each in reports] == ['holding', 'holding', 'expired', 'expired']
    assert reports[-1].metric_scale is None


def test_an_unknown_tilt_is_told_though_another_source_measures():
    report = update(track('cloud', 'ground_plane', camera_height_m=0.35), cloud=see(),
                    problems={'ground_plane': 'TF does not tell the tilt'})
    assert (report.state, report.detail) == ('tracking',
                                             'ground_plane: TF does not tell the tilt')
