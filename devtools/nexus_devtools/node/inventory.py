"""Everything on the machine that a cluster could leave behind, listed without asking the cluster.

Mounts, network namespaces, links, routes, firewall rules, cgroups and processes: what is there
after and was not before was left. It removes nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from nexus_devtools.node import cgroups
from nexus_devtools.node.commands import run
from nexus_devtools.node.layout import MOST_CLUSTERS, NAMESPACES, Site, site, state_folder


def inventory() -> set[str]:
    """One line for each thing; those of clusters with other numbers are left out."""
    found = {f"mount {line.split()[4]}" for line in _text("/proc/self/mountinfo").splitlines()}
    if NAMESPACES.is_dir():
        found |= {f"namespace {entry.name}" for entry in NAMESPACES.iterdir()}
    found |= {f"link {line.split()[1]}" for line in run("ip", "-o", "link").splitlines()}
    found |= {f"route {line}" for line in run("ip", "route").splitlines()}
    found |= {f"rule {line}" for line in run("iptables-save").splitlines() if line.startswith("-A")}
    found |= {f"cgroup {folder}" for root in cgroups.hierarchies() for folder in _folders(root)}
    found |= {f"process {line}" for line in _processes()}
    others = [Site(number) for number in range(MOST_CLUSTERS) if number != site().number]
    return {line for line in found if not any(_names(line, other) for other in others)}


def _names(line: str, other: Site) -> bool:
    return any(
        f"{text}{end}" in line
        for text in (other.name, other.bridge)
        for end in ("-", "/", "v", ":", "@", " ")
    )


def _folders(root: Path) -> list[Path]:
    return [entry for entry in root.iterdir() if entry.is_dir()]


def _processes() -> list[str]:
    """Those in a cgroup of ours, and those that name our state folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("latin-1")
                membership = (entry / "cgroup").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if f"/{site().name}/" in membership or f"{state_folder()}/" in line:
                found.append(f"{entry.name} {line[:100]}")
    return found


def _text(path: str) -> str:
    return Path(path).read_text()
