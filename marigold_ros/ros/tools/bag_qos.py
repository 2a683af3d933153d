"""Quality of service between live topics and bags."""

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

# rosbag2's spelling of "no limit": RMW_DURATION_INFINITE.
NO_LIMIT = QosTime(9223372036, 854775807)
PLAYED_DEPTH = 10
MAX_PLAYED_DEPTH = 1000
RECORDED_DEPTH = 100


def playback_qos(recorded: Sequence[Qos], reliability: str | None = None) -> QoSProfile:
    """
    Choose what to offer when a recorded topic is played.

    Parameters
    ----------
    recorded : sequence of Qos
        What its publishers offered; empty if unknown.
    reliability : {'reliable', 'best_effort'} or None
        Instead of what was recorded.  A latched topic stays as it was: who asks for best effort
        means the sensors, and a lost static transform never comes again.

    Returns
    -------
    QoSProfile
        Best effort only where all publishers were, since a reliable offer serves everybody.
    """
    latched = any(qos.durability == QosDurability.TRANSIENT_LOCAL for qos in recorded)
    best_effort = bool(recorded) and all(
        qos.reliability == QosReliability.BEST_EFFORT for qos in recorded)
    if reliability is not None and not latched:
        best_effort = reliability == 'best_effort'
    depth = max([PLAYED_DEPTH, *(qos.depth for qos in recorded)])
    return _profile(best_effort, latched, min(depth, MAX_PLAYED_DEPTH))


def recording_qos(offered: Sequence[QoSProfile]) -> QoSProfile:
    """
    Choose what to ask for so that every present publisher of a topic is heard.

    Parameters
    ----------
    offered : sequence of QoSProfile
        Of all publishers, at least one.

    Returns
    -------
    QoSProfile
        Reliable and latched only where all publishers offer that.
    """
    best_effort = any(qos.reliability == ReliabilityPolicy.BEST_EFFORT for qos in offered)
    latched = all(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offered)
    return _profile(best_effort, latched, RECORDED_DEPTH)


def to_rosbags_qos(offered: QoSProfile) -> Qos:
    """
    Describe what a publisher offers in the words of a bag.

    Returns
    -------
    Qos
        History and depth are not known from afar, so playing falls back on its own depth.
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
