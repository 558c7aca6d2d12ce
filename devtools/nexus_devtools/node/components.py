"""The command lines of a cluster's processes, and the order they start in.

A process runs in the network of its node; etcd and what asks it run on the first. Only what differs
from the defaults is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nexus_devtools.controlplane.components import ISSUER
from nexus_devtools.node.layout import (
    API_PORT,
    NodePlace,
    state_folder,
)
from nexus_devtools.node.pki import ClusterPki

ETCD = "http://127.0.0.1:2379"


@dataclass(frozen=True, slots=True)
class Programs:
    """Folders of what was built."""

    control_plane: Path
    kubernetes: Path
    containerd: Path


@dataclass(frozen=True, slots=True)
class Process:
    """One of the cluster's: its name is that of its pid file and its log."""

    name: str
    place: NodePlace
    command: tuple[str, ...]


def etcd(place: NodePlace, programs: Programs) -> Process:
    """etcd, for its node alone, faster than it is safe."""
    flags: dict[str, object] = {
        "data-dir": state_folder() / "etcd",
        "listen-client-urls": ETCD,
        "advertise-client-urls": ETCD,
        "listen-peer-urls": "http://127.0.0.1:2380",
        "log-level": "warn",
        # The data is thrown away with the cluster: it need not survive a power cut.
        "unsafe-no-fsync": "true",
    }
    return _process(place, programs.control_plane, "etcd", flags)


def apiserver(place: NodePlace, programs: Programs, made: ClusterPki) -> Process:
    """kube-apiserver, reached from the host and from pods."""
    pki = made.certificates
    flags: dict[str, object] = {
        "etcd-servers": ETCD,
        "secure-port": API_PORT,
        "bind-address": "0.0.0.0",
        "advertise-address": place.address,
        "tls-cert-file": pki.server.certificate,
        "tls-private-key-file": pki.server.key,
        "client-ca-file": pki.authority.certificate,
        "service-account-issuer": ISSUER,
        "service-account-key-file": pki.service_account_key,
        "service-account-signing-key-file": pki.service_account_key,
        "service-cluster-ip-range": place.site.service_range,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "kubelet-client-certificate": made.kubelet_client.certificate,
        "kubelet-client-key": made.kubelet_client.key,
        "kubelet-certificate-authority": pki.authority.certificate,
        "kubelet-preferred-address-types": "InternalIP",
        "allow-privileged": "true",
    }
    return _process(place, programs.control_plane, "kube-apiserver", flags)


def controller_manager(place: NodePlace, programs: Programs, made: ClusterPki) -> Process:
    """kube-controller-manager. A lost node is noticed within seconds."""
    own = made.kubeconfig("kube-controller-manager")
    pki = made.certificates
    flags: dict[str, object] = {
        "kubeconfig": own,
        "authentication-kubeconfig": own,
        "authorization-kubeconfig": own,
        "service-account-private-key-file": pki.service_account_key,
        "root-ca-file": pki.authority.certificate,
        "cluster-signing-cert-file": pki.authority.certificate,
        "cluster-signing-key-file": pki.authority.key,
        "use-service-account-credentials": "true",
        "leader-elect": "false",
        "bind-address": "127.0.0.1",
        "node-monitor-grace-period": "20s",
    }
    return _process(place, programs.kubernetes, "kube-controller-manager", flags)


def scheduler(place: NodePlace, programs: Programs, made: ClusterPki) -> Process:
    """kube-scheduler."""
    own = made.kubeconfig("kube-scheduler")
    flags: dict[str, object] = {
        "kubeconfig": own,
        "authentication-kubeconfig": own,
        "authorization-kubeconfig": own,
        "leader-elect": "false",
        "bind-address": "127.0.0.1",
    }
    return _process(place, programs.kubernetes, "kube-scheduler", flags)


def containerd(place: NodePlace, programs: Programs) -> Process:
    """The node's container runtime."""
    flags = {"config": place.folder / "containerd.toml"}
    return _process(place, programs.containerd, "containerd", flags)


def kubelet(place: NodePlace, programs: Programs, made: ClusterPki) -> Process:
    """The node's kubelet."""
    flags: dict[str, object] = {
        "config": place.folder / "kubelet.yaml",
        "kubeconfig": made.kubeconfig(place.name),
        "hostname-override": place.name,
        "root-dir": place.folder / "kubelet",
        "node-ip": place.address,
    }
    return _process(place, programs.kubernetes, "kubelet", flags)


def kube_proxy(place: NodePlace, programs: Programs, made: ClusterPki) -> Process:
    """The node's Services, by rules in its own network namespace."""
    flags: dict[str, object] = {
        "kubeconfig": made.kubeconfig("kube-proxy"),
        "cluster-cidr": place.site.pod_range,
        "hostname-override": place.name,
        "proxy-mode": "iptables",
        "conntrack-max-per-core": 0,
    }
    return _process(place, programs.kubernetes, "kube-proxy", flags)


def _process(place: NodePlace, folder: Path, name: str, flags: Mapping[str, object]) -> Process:
    arguments = tuple(f"--{flag}={value}" for flag, value in flags.items())
    return Process(f"{name}-{place.number}", place, (str(folder / name), *arguments))
