"""Names, addresses and folders of the cluster: everything it makes on a machine is named here.

`$NEXUS_NODE_CLUSTER` is the cluster's number, 0 unless it says else. Clusters of different numbers
share nothing but what is built once, and so run beside each other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nexus_devtools.controlplane.paths import REPOSITORY, cache_root, state_root
from nexus_devtools.node.errors import NodeError

GO_MODULES = REPOSITORY / "devtools" / "node"
VARIABLE = "NEXUS_NODE_CLUSTER"
API_PORT = 6443
MOST_NODES = 2
MOST_CLUSTERS = 8
CGROUPS = Path("/sys/fs/cgroup")
NAMESPACES = Path("/run/netns")


@dataclass(frozen=True, slots=True)
class Site:
    """Where one cluster is, by its number."""

    number: int

    @property
    def name(self) -> str:
        return f"nexus-node{self.number or ''}"

    @property
    def bridge(self) -> str:
        return f"nexus{self.number}"

    @property
    def cable_range(self) -> str:
        """The first three numbers of the addresses on the bridge."""
        return f"10.{200 + self.number}.0"

    @property
    def host_address(self) -> str:
        return f"{self.cable_range}.1"

    @property
    def pod_range(self) -> str:
        return f"10.{244 + self.number}.0.0/16"

    @property
    def service_range(self) -> str:
        return f"10.{96 + self.number}.0.0/16"

    @property
    def api_address(self) -> str:
        """The API server's as a Service."""
        return f"10.{96 + self.number}.0.1"

    @property
    def dns_address(self) -> str:
        return f"10.{96 + self.number}.0.10"


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where one node is: network namespace, addresses, folder. The first is number 1."""

    number: int
    site: Site

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def netns(self) -> str:
        return f"{self.site.name}-{self.number}"

    @property
    def link(self) -> str:
        """The host's end of its cable."""
        return f"{self.site.bridge}v{self.number}"

    @property
    def address(self) -> str:
        return f"{self.site.cable_range}.{self.number + 1}"

    @property
    def pods(self) -> str:
        """The range its pods get their addresses from."""
        return f"10.{244 + self.site.number}.{self.number - 1}.0/24"

    @property
    def folder(self) -> Path:
        return state_folder() / self.name

    @property
    def containerd(self) -> Path:
        """containerd's socket."""
        return self.folder / "containerd.sock"

    @property
    def cgroup(self) -> str:
        return f"/{self.site.name}/{self.number}"


def site() -> Site:
    """That of the cluster the environment means. Raises NodeError."""
    told = os.environ.get(VARIABLE) or "0"
    if not told.isdecimal() or int(told) >= MOST_CLUSTERS:
        raise NodeError(f"${VARIABLE} is {told!r}: give a number from 0 to {MOST_CLUSTERS - 1}")
    return Site(int(told))


def places(nodes: int) -> tuple[NodePlace, ...]:
    """The first so many nodes."""
    return tuple(NodePlace(number, site()) for number in range(1, nodes + 1))


def state_folder() -> Path:
    """What a running cluster keeps; gone after `down`."""
    return state_root().parent / f"node{site().number or ''}"


def cache_folder() -> Path:
    """What is built once: programs and images."""
    return cache_root().parent / "node"


def is_root() -> bool:
    return os.geteuid() == 0
