"""A ROS domain of one's own, for tools that start nodes beside a robot's."""

from __future__ import annotations

import random
import socket

from marigold_ros.depth.errors import ConfigError

# Linux leaves their ports alone, and hardly anybody uses them.
DOMAINS = range(215, 233)
# A domain's ports begin at 7400 + 250 times its id: first that for multicast, which participants
# that stay on this machine leave closed, from 10 on two for each participant (RTPS 2.5, 9.6.2.3).
DISCOVERY_PORTS = (0, *range(10, 30, 2))


def in_use(domain: int) -> bool:
    """Say whether a participant of a domain lives on this machine, one of the first ten."""
    for port in DISCOVERY_PORTS:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(('', 7400 + 250 * domain + port))
            except OSError:
                return True
    return False


def free_domain() -> int:
    """
    Pick a domain of which no participant lives on this machine.

    Raises
    ------
    ConfigError
        If there is none.
    """
    for domain in random.sample(DOMAINS, len(DOMAINS)):
        if not in_use(domain):
            return domain
    raise ConfigError(f'the ROS domains {DOMAINS[0]} to {DOMAINS[-1]} are all in use')
