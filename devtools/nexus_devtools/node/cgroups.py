"""The cgroups the cluster's pods live in: one tree of our own, that can be emptied and removed.

Both versions of cgroups are served. It sets no limits; the kubelet does.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

from nexus_devtools.controlplane.processes import SYSTEM
from nexus_devtools.node.errors import NodeError
from nexus_devtools.node.layout import CGROUPS, NodePlace, site

GONE_SECONDS = 20.0
_INHERITED = ("cpuset.cpus", "cpuset.mems")


def hierarchies() -> list[Path]:
    """The roots of all hierarchies: one with version 2, one per controller with version 1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [folder for folder in sorted(CGROUPS.iterdir()) if (folder / "cgroup.procs").exists()]


def create(place: NodePlace) -> None:
    """The node's cgroup in every hierarchy, with the processors of the machine."""
    for root in hierarchies():
        folder = root
        for part in Path(place.cgroup.lstrip("/")).parts:
            folder = folder / part
            folder.mkdir(exist_ok=True)
            for name in _INHERITED:
                # Version 1: no process may enter a cpuset that is empty, and a new one is.
                if (folder / name).exists() and not (folder / name).read_text().strip():
                    (folder / name).write_text((folder.parent / name).read_text())


def trees() -> list[Path]:
    """Our trees, in every hierarchy."""
    name = site().name
    return [root / name for root in hierarchies() if (root / name).is_dir()]


def members() -> set[int]:
    """The processes in our trees."""
    return {
        int(pid)
        for tree in trees()
        for procs in tree.rglob("cgroup.procs")
        for pid in procs.read_text().split()
    }


def remove() -> None:
    """Kill what is left in our trees and remove them."""
    deadline = time.monotonic() + GONE_SECONDS
    while pids := members():
        if time.monotonic() > deadline:
            raise NodeError(f"processes {sorted(pids)} of pods do not end")
        for pid in pids:
            SYSTEM.signal(pid, signal.SIGKILL)
        time.sleep(0.05)
    for tree in trees():
        folders = sorted((f for f in tree.rglob("*") if f.is_dir()), key=lambda f: -len(f.parts))
        for folder in (*folders, tree):
            folder.rmdir()
