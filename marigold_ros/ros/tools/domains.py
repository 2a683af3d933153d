"""A ROS domain of one's own, for tools that start nodes beside a robot's."""

from __future__ import annotations

import random
import socket

from marigold_ros.depth.errors import ConfigError

# Linux leaves their ports alone, and hardly anybody uses them.
DOMAINS = range(215, 233)


def free_domain() -> int:
    """
    Pick a domain of which no participant lives on this machine.

    Participants listen to their domain's discovery port, 7400 + 250 times its id (RTPS 2.5,
    section 9.6.2.3).

    Raises
    ------
    ConfigError
        If there is none.
    """
    for domain in random.sample(DOMAINS, len(DOMAINS)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(('', 7400 + 250 * domain))
            except OSError:
                continue
            return domain
    raise ConfigError(f'the ROS domains {DOMAINS[0]} to {DOMAINS[-1]} are all in use')
