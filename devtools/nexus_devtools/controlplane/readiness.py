"""Waiting until etcd and the API server answer, or saying from their logs why they do not."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

from nexus_devtools.controlplane.errors import ControlPlaneError

POLL_SECONDS = 0.05
LOG_LINES = 12


def wait_for(
    what: str,
    condition: Callable[[], bool],
    *,
    running: Callable[[], bool],
    log: Path,
    timeout_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once the condition holds; a process that ended or a timeout is told with its log."""
    deadline = clock() + timeout_seconds
    while not condition():
        if not running():
            raise ControlPlaneError(f"{what} ended while starting; {tail(log)}")
        if clock() >= deadline:
            raise ControlPlaneError(
                f"{what} did not answer within {timeout_seconds:.0f} s; {tail(log)}"
            )
        sleep(POLL_SECONDS)


def tail(log: Path, lines: int = LOG_LINES) -> str:
    """The last lines of a log, introduced by its path."""
    try:
        content = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return f"it wrote no log ({log})"
    shown = "\n".join(f"    {line[:400]}" for line in content[-lines:]) or "    (empty)"
    return f"the end of {log}:\n{shown}"


def accepts_connections(port: int) -> bool:
    """Whether something listens on the loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
