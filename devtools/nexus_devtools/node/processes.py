"""Processes of the cluster that no pid file names: containerd's shims, which outlive it.

They are known by their command line, which holds our containerd's socket.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from nexus_devtools.controlplane.processes import SYSTEM
from nexus_devtools.node.errors import NodeError

GONE_SECONDS = 10.0


def naming(text: str) -> list[int]:
    """The processes whose command line has this text, but for this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if text.encode() in line:
                found.append(int(entry.name))
    return sorted(found)


def end_all(text: str) -> None:
    """Kill them; returns once they are gone."""
    deadline = time.monotonic() + GONE_SECONDS
    while pids := naming(text):
        if time.monotonic() > deadline:
            raise NodeError(f"processes {pids} do not end")
        for pid in pids:
            SYSTEM.signal(pid, signal.SIGKILL)
        time.sleep(0.05)
