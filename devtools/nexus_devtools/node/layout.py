"""Names, addresses and folders of the cluster: everything it makes on a machine is named here.

There is one cluster of this kind on a machine at a time, since its addresses are fixed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nexus_devtools.controlplane.paths import REPOSITORY, cache_root, state_root

GO_MODULES = REPOSITORY / "devtools" / "node"
NAME = "nexus-node"
BRIDGE = "nexus0"
HOST_ADDRESS = "10.200.0.1"
POD_RANGE = "10.244.0.0/16"
SERVICE_RANGE = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"
API_PORT = 6443
MOST_NODES = 2
CGROUPS = Path("/sys/fs/cgroup")
NAMESPACES = Path("/run/netns")


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where one node is: network namespace, addresses, folder. The first is number 1."""

    number: int

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def netns(self) -> str:
        return f"{NAME}-{self.number}"

    @property
    def link(self) -> str:
        """The host's end of its cable."""
        return f"nexus0v{self.number}"

    @property
    def address(self) -> str:
        return f"10.200.0.{self.number + 1}"

    @property
    def pods(self) -> str:
        """The range its pods get their addresses from."""
        return f"10.244.{self.number - 1}.0/24"

    @property
    def folder(self) -> Path:
        return state_folder() / self.name

    @property
    def containerd(self) -> Path:
        """containerd's socket."""
        return self.folder / "containerd.sock"

    @property
    def cgroup(self) -> str:
        return f"/{NAME}/{self.number}"


def places(nodes: int) -> tuple[NodePlace, ...]:
    """The first so many nodes."""
    return tuple(NodePlace(number) for number in range(1, nodes + 1))


def state_folder() -> Path:
    """What a running cluster keeps; gone after `down`."""
    return state_root().parent / "node"


def cache_folder() -> Path:
    """What is built once: programs and images."""
    return cache_root().parent / "node"


def is_root() -> bool:
    return os.geteuid() == 0
