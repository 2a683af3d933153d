"""Convert quality of service between live topics and bags."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)

# RMW_DURATION_INFINITE, as rosbag2 writes it.
NO_LIMIT = QosTime(9223372036, 854775807)
MIN_PLAYBACK_DEPTH = 10
MAX_PLAYBACK_DEPTH = 1000
RECORDING_DEPTH = 100


def choose_playback_qos(recorded: Sequence[Qos], reliability: str | None = None) -> QoSProfile:
    """
    Choose the QoS to offer when a recorded topic is played.

    Parameters
    ----------
    recorded : sequence of Qos
        QoS that its publishers offered; empty if unknown.
    reliability : {'reliable', 'best_effort'} or None
        Overrides the recorded reliability, except of latched topics: best effort is meant for
        sensors, and a lost static transform is never sent again.

    Returns
    -------
    QoSProfile
        Best effort only if all publishers were: a reliable publisher matches every subscriber.
    """
    latched = any(qos.durability == QosDurability.TRANSIENT_LOCAL for qos in recorded)
    best_effort = bool(recorded) and all(
        qos.reliability == QosReliability.BEST_EFFORT for qos in recorded)
    if reliability is not None and not latched:
        best_effort = reliability == 'best_effort'
    depth = max([MIN_PLAYBACK_DEPTH, *(qos.depth for qos in recorded)])
    return _profile(best_effort, latched, min(depth, MAX_PLAYBACK_DEPTH))


def choose_recording_qos(offered: Sequence[QoSProfile]) -> QoSProfile:
    """
    Choose the QoS to request so that it matches every current publisher of a topic.

    Parameters
    ----------
    offered : sequence of QoSProfile
        QoS of all publishers, at least one.

    Returns
    -------
    QoSProfile
        Reliable or latched only if all publishers offer it.
    """
    best_effort = any(qos.reliability == ReliabilityPolicy.BEST_EFFORT for qos in offered)
    latched = all(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offered)
    return _profile(best_effort, latched, RECORDING_DEPTH)


def to_rosbags_qos(offered: QoSProfile) -> Qos:
    """
    Convert the QoS of a publisher to that of a bag.

    Returns
    -------
    Qos
        History and depth of a remote publisher are unknown; playback uses its own depth.
    """
    return Qos(
        history=QosHistory.UNKNOWN, depth=0,
        reliability=QosReliability(int(offered.reliability)),
        durability=QosDurability(int(offered.durability)),
        deadline=NO_LIMIT, lifespan=NO_LIMIT, liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=NO_LIMIT, avoid_ros_namespace_conventions=False)


def _profile(best_effort: bool, latched: bool, depth: int) -> QoSProfile:
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=(DurabilityPolicy.TRANSIENT_LOCAL if latched
                    else DurabilityPolicy.VOLATILE))
