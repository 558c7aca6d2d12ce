"""What a candidate writes into a Lease: its name and the time, for people to read.

Promises a name that no other candidate has at the same time.
"""

from __future__ import annotations

import socket
import time

from nexus_api.quantities import format_time_micro


def slot(*, in_cluster: bool, host: str, port: int) -> str:
    """The name of a candidate: the pod's, else that of the one process that can listen there."""
    name = socket.gethostname()
    return name if in_cluster else f"{name}_{host}:{port}"


def stamp() -> str:
    """Now, as a MicroTime."""
    return format_time_micro(time.time())
