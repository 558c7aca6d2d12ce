"""Containers as the host sees them: their processes and their cgroups.

For a machine that is the node itself; it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nexus_devtools.node.errors import NodeError
from nexus_devtools.node.layout import CGROUPS


def identifier(pod: Mapping[str, Any], container: str) -> str:
    """The runtime's name of a container of the pod."""
    status = pod["status"]
    every = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    for each in every:
        if each["name"] == container:
            return str(each["containerID"]).partition("//")[2]
    raise NodeError(f"pod {pod['metadata']['name']} has no container {container} that was started")


def processes(identifier: str) -> list[int]:
    """Its processes, the first one first."""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return sorted(pid for pid in numbers if identifier in _membership(pid))


def memory_limit(identifier: str) -> Path:
    """The file that holds the container's limit of memory, with either version of cgroups."""
    (line,) = {
        line for line in _membership(processes(identifier)[0]).splitlines() if _is_memory(line)
    }
    path = line.split(":", 2)[2].lstrip("/")
    if (CGROUPS / "cgroup.controllers").exists():
        return CGROUPS / path / "memory.max"
    return CGROUPS / "memory" / path / "memory.limit_in_bytes"


def _is_memory(line: str) -> bool:
    controllers = line.split(":", 2)[1].split(",")
    return "memory" in controllers or (
        controllers == [""] and (CGROUPS / "cgroup.controllers").exists()
    )


def _membership(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
