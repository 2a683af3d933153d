"""Do sources contradict each other where they see the same part of a wall 2 m ahead?"""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.metric.agreement import Agreement
from marigold_ros.metric.anchors import Anchors

SECOND = 10 ** 9
RELATIVE = np.full((120, 160), 0.5, np.float32)
# The middle of each of the 15 x 20 parts.
ROWS, COLUMNS = (each.ravel() for each in np.mgrid[4:120:8, 4:160:8])
ALL = np.ones(300, bool)
# Errors of up to 20 %, which no scale and no shift explains.
ROUGH = np.random.default_rng(0).uniform(0.8, 1.2, 300)


def see(depth_m, seen=ALL) -> Anchors:
    return Anchors(ROWS, COLUMNS, np.broadcast_to(depth_m, 300).astype(np.float32)).select(seen)


def refuse(first: Anchors, second: Anchors, agreement=None, seconds: float = 0.0):
    """Return what is refused of cloud and scan, in this order in `scale.sources`."""
    agreement = agreement or Agreement(('cloud', 'scan'))
    return agreement.find_refused({'cloud': first, 'scan': second}, RELATIVE, 0.3,
                                  round(seconds * SECOND))


def test_sources_that_agree_are_used():
    assert refuse(see(2.0), see(2.0 * 1.1)) == {}  # log 1.1 = 0.095


def test_of_two_sources_that_are_1_m_apart_the_later_is_refused_and_both_are_named():
    assert refuse(see(2.0), see(3.0)) == {
        'scan': 'scan contradicts cloud: where both see, depth differs by 50 %; check the '
                'extrinsics, the height and the tilt of both'}


@pytest.mark.parametrize('cloud, scan, refused', [
    (3.0 * ROUGH, 2.0, 'cloud'), (2.0, 3.0 * ROUGH, 'scan'), (3.0, 2.0 * ROUGH, 'scan')])
def test_the_source_that_fits_the_prediction_less_is_refused_wherever_it_is_in_the_list(
        cloud, scan, refused):
    assert list(refuse(see(cloud), see(scan))) == [refused]


def test_the_order_of_the_list_decides_and_not_that_of_the_measurements():
    found = Agreement(('scan', 'cloud')).find_refused(
        {'cloud': see(2.0), 'scan': see(3.0)}, RELATIVE, 0.3, 0)
    assert list(found) == ['cloud']


@pytest.mark.parametrize('wrong', ['depth', 'cloud', 'scan'])
@pytest.mark.parametrize('wall_m', [3.0, 3.0 * ROUGH])
def test_one_wrong_source_of_three_is_refused_and_the_others_are_not(wrong, wall_m):
    """Also if the prediction fits it better."""
    sources = ('depth', 'cloud', 'scan')
    anchors = dict.fromkeys(sources, see(2.0 if isinstance(wall_m, float) else 2.0 * ROUGH))
    found = Agreement(sources).find_refused({**anchors, wrong: see(3.0)}, RELATIVE, 0.3, 0)
    assert list(found) == [wrong]
    others = [source for source in sources if source != wrong]
    assert found[wrong].startswith(f'{wrong} contradicts {" and ".join(others)}: ')


def test_sources_that_contradict_each_other_a_while_ago_are_used():
    """What was refused is used again once both have seen nothing in common for 5 s."""
    agreement, left = Agreement(('cloud', 'scan')), COLUMNS < 80
    assert list(refuse(see(2.0), see(3.0), agreement)) == ['scan']
    assert list(refuse(see(2.0, left), see(2.0, ~left), agreement, 4.9)) == ['scan']
    assert refuse(see(2.0, left), see(2.0, ~left), agreement, 5.1) == {}


def test_sources_that_see_different_parts_are_not_compared():
    left = COLUMNS < 80
    assert refuse(see(2.0, left), see(3.0, ~left)) == {}


@pytest.mark.parametrize('shared, refused', [(7, []), (8, ['scan'])])
def test_sources_are_compared_from_8_shared_parts_on(shared, refused):
    assert list(refuse(see(2.0), see(3.0, np.arange(300) < shared))) == refused


def test_what_one_source_sees_beside_the_other_does_not_count():
    """They agree in the left half; in the right half only the second one sees something."""
    left = COLUMNS < 80
    assert refuse(see(2.0, left), see(np.where(left, 2.0, 5.0))) == {}


def test_a_third_of_the_shared_parts_may_differ_as_where_one_sees_through_glass():
    assert refuse(see(2.0), see(np.where(np.arange(300) < 100, 10.0, 2.0))) == {}


def test_one_noisy_frame_does_not_refuse_a_source():
    agreement = Agreement(('cloud', 'scan'))
    assert refuse(see(2.0), see(2.0), agreement, 0.0) == {}
    assert refuse(see(2.0), see(3.0), agreement, 0.1) == {}
    assert refuse(see(2.0), see(2.0), agreement, 0.2) == {}


def test_a_difference_refuses_when_its_mean_is_too_large_and_no_longer():
    """The mean, log 1.5 * (1 - exp(-t / 1 s)), is 0.13 after 0.4 s and 0.16 after 0.5 s."""
    agreement = Agreement(('cloud', 'scan'))
    refuse(see(2.0), see(2.0), agreement, 0.0)
    found = [bool(refuse(see(2.0), see(3.0), agreement, 0.1 * step)) for step in range(1, 7)]
    assert found == [False] * 4 + [True] * 2
    # From 0.18 it falls to 0.15 in 0.2 s.
    found = [bool(refuse(see(2.0), see(2.0), agreement, 0.6 + 0.1 * step)) for step in range(1, 4)]
    assert found == [True, False, False]


def test_a_source_that_is_not_seen_for_a_frame_stays_refused():
    agreement = Agreement(('cloud', 'scan'))
    nothing = see(3.0, ~ALL)
    assert refuse(see(2.0), see(3.0), agreement, 0.0)
    refuse(see(2.0), nothing, agreement, 0.1)
    assert list(refuse(see(2.0), see(3.0), agreement, 0.2)) == ['scan']
