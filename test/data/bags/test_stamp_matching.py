"""Match two topics by their stamps while they are read."""

from __future__ import annotations

import pytest

from marigold_ros.data.bags.stamp_matching import MATCH_WINDOW, StampMatcher

MS = 1_000_000


def match(*messages, tolerance_ms=15):
    """Match messages ('i', ms) and ('d', ms) in the order of arrival; return pairs of ms."""
    matcher = StampMatcher(tolerance_ms * MS)
    pairs = []
    for kind, stamp_ms in messages:
        side = matcher.IMAGE if kind == 'i' else matcher.DEPTH
        pairs += matcher.add(side, stamp_ms * MS, stamp_ms)
    pairs += matcher.flush()
    assert all(stamp == image * MS for stamp, image, _ in pairs)
    return [(image, depth) for _, image, depth in pairs], matcher


def test_of_two_images_the_nearer_one_gets_the_depth():
    # 10 and 11 both are nearest to 11 ms; 60 is 20 ms from any depth.
    pairs, matcher = match(('i', 10), ('d', 11), ('i', 11), ('d', 40), ('i', 60), ('d', 80))
    assert pairs == [(11, 11)]
    assert matcher.unmatched == (2, 2)


def test_of_two_depth_maps_the_nearer_one_is_matched():
    assert match(('d', 0), ('i', 10), ('d', 12), ('i', 43), ('d', 45))[0] == [(10, 12), (43, 45)]


def test_the_tolerance_is_inclusive():
    assert match(('i', 0), ('d', 15))[0] == [(0, 15)]
    assert match(('i', 0), ('d', 16))[0] == []
    assert match(('i', 0), ('d', 16), tolerance_ms=16)[0] == [(0, 16)]


def test_a_repeated_time_is_left_out_and_counted():
    pairs, matcher = match(('i', 0), ('d', 1), ('i', 40), ('d', 40), ('i', 40), ('d', 40),
                           ('i', 0), ('d', 1), ('d', 1))
    assert pairs == [(0, 1), (40, 40)]
    assert (matcher.repeated, matcher.unmatched) == ((2, 3), (0, 0))


def test_the_order_of_arrival_does_not_matter():
    images, depths = [('i', at) for at in (0, 33, 66)], [('d', at) for at in (1, 34, 65)]
    expected = [(0, 1), (33, 34), (66, 65)]
    assert match(*images, *depths)[0] == expected
    assert match(*depths, *images)[0] == expected
    assert match(*reversed(images), *depths)[0] == expected


def test_a_pair_of_equal_stamps_is_returned_at_once():
    matcher = StampMatcher(MS)
    assert list(matcher.add(matcher.IMAGE, 5, 'image')) == []
    assert list(matcher.add(matcher.DEPTH, 5, 'depth')) == [(5, 'image', 'depth')]


def test_unmatched_messages_are_dropped_after_the_window():
    matcher = StampMatcher(MS)
    for number in range(3 * MATCH_WINDOW):
        assert list(matcher.add(matcher.IMAGE, number, number)) == []
    # Only the newest window still waits, so the oldest cannot match any more.
    assert list(matcher.add(matcher.DEPTH, 0, 0)) == []
    pairs = [(image, depth) for _, image, depth in matcher.flush()]
    assert pairs == [(2 * MATCH_WINDOW, 0)]


def test_offsets_are_those_of_the_nearest_depth():
    _, matcher = match(('i', 0), ('i', 100), ('d', 30), ('d', 90), tolerance_ms=1)
    assert matcher.offsets_ns().tolist() == [30 * MS, -10 * MS]
    assert match(('i', 0))[1].offsets_ns().tolist() == []


@pytest.mark.parametrize('depth_ms', [-40, 40])
def test_a_constant_offset_beyond_the_tolerance_matches_nothing(depth_ms):
    messages = [each for at in (0, 200, 400) for each in (('i', at), ('d', at + depth_ms))]
    assert match(*messages)[0] == []
