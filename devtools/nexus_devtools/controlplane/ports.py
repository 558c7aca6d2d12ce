"""Free loopback ports for an instance, and ones that stay free while its API server is stopped.

They lie below the range from which systems take the ports of outgoing connections: otherwise any
client could sit on the API server's port when it is to come back. Nothing is reserved with the
system.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
from collections.abc import Callable, Collection

from nexus_devtools.controlplane.errors import ControlPlaneError
from nexus_devtools.controlplane.state import Ports

LOWEST, HIGHEST = 20_000, 29_999


def is_free(port: int) -> bool:
    """Whether a server could listen on the loopback port now."""
    with contextlib.closing(socket.socket()) as probe:
        # As servers do it: a connection of the past in TIME_WAIT is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def choose_ports(
    taken: Collection[int],
    *,
    free: Callable[[int], bool] = is_free,
    chance: random.Random | None = None,
) -> Ports:
    """Three different free ports that no other instance (``taken``) lays claim to."""
    source = random.Random() if chance is None else chance
    everywhere = range(LOWEST, HIGHEST + 1)
    candidates = (
        port
        for port in source.sample(everywhere, len(everywhere))
        if port not in taken and free(port)
    )
    chosen = list(itertools.islice(candidates, 3))
    if len(chosen) == 3:
        return Ports(*chosen)
    raise ControlPlaneError(
        f"no three free ports between {LOWEST} and {HIGHEST} on 127.0.0.1: close some programs"
    )
