"""Conversion of quality of service between live topics and bags."""

from __future__ import annotations

from bag_fixtures import offered_qos
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from marigold_ros.ros.tools.bag_qos import (
    choose_playback_qos,
    choose_recording_qos,
    to_rosbags_qos,
)

RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.mark.parametrize('recorded, requested, reliable', [
    ([], None, True),
    ([offered_qos(reliable=False)], None, False),
    ([offered_qos(reliable=False), offered_qos()], None, True),
    ([offered_qos()], 'best_effort', False),
    ([offered_qos(reliable=False)], 'reliable', True),
    ([offered_qos(latched=True)], 'best_effort', True)])
def test_playback_offers_the_recorded_or_requested_reliability(recorded, requested, reliable):
    qos = choose_playback_qos(recorded, requested)
    assert (qos.reliability == ReliabilityPolicy.RELIABLE) is reliable


def test_latched_topics_are_played_latched():
    durability = choose_playback_qos([offered_qos(latched=True)]).durability
    assert durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert choose_playback_qos([offered_qos()]).durability == DurabilityPolicy.VOLATILE


@pytest.mark.parametrize('offered, reliable, latched', [
    ([RELIABLE], True, False), ([BEST_EFFORT], False, False),
    ([RELIABLE, BEST_EFFORT], False, False), ([LATCHED], True, True),
    ([LATCHED, RELIABLE], True, False)])
def test_recording_requests_only_what_every_publisher_offers(offered, reliable, latched):
    qos = choose_recording_qos(offered)
    assert (qos.reliability == ReliabilityPolicy.RELIABLE) is reliable
    assert (qos.durability == DurabilityPolicy.TRANSIENT_LOCAL) is latched


@pytest.mark.parametrize('profile', [RELIABLE, BEST_EFFORT, LATCHED])
def test_recorded_qos_is_offered_on_playback(profile):
    played = choose_playback_qos([to_rosbags_qos(profile)])
    assert (played.reliability, played.durability) == (profile.reliability, profile.durability)
