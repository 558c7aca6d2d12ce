"""The certificates of a cluster with nodes: those of a control plane, and one per component.

The components' kubeconfigs have everything inside. It revokes nothing: the cluster is thrown away.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nexus_devtools.controlplane.certificates import (
    Certificates,
    Pair,
    certificates_in,
    issue,
    write_certificates,
)
from nexus_devtools.controlplane.kubeconfig import Cluster, write_kubeconfig
from nexus_devtools.node.layout import API_PORT, NodePlace, state_folder

ADMIN = ("nexus-admin", "system:masters")
COMPONENTS = {
    "kube-controller-manager": ("system:kube-controller-manager", None),
    "kube-scheduler": ("system:kube-scheduler", None),
    "kube-proxy": ("system:kube-proxy", None),
}


@dataclass(frozen=True, slots=True)
class ClusterPki:
    """What `write` has put into the folder."""

    certificates: Certificates
    kubelet_client: Pair
    folder: Path

    def kubelet_server(self, place: NodePlace) -> Pair:
        return _pair(self.folder, f"kubelet-{place.name}")

    def kubeconfig(self, name: str) -> Path:
        """Of a component, of `admin`, or of a node by its name."""
        return self.folder / f"{name}.kubeconfig"


def pki() -> ClusterPki:
    """The paths, whether there is something or not."""
    folder = state_folder() / "pki"
    return ClusterPki(certificates_in(folder), _pair(folder, "kubelet-client"), folder)


def write(nodes: Sequence[NodePlace], *, now: datetime.datetime) -> ClusterPki:
    """Create the CA, everything it signs, and the kubeconfigs."""
    made = pki()
    write_certificates(made.folder, now=now)
    authority = made.certificates.authority
    first = nodes[0].address
    server = made.certificates.server
    issue(authority, server, common_name="kube-apiserver", addresses=[first], now=now)
    who = "kube-apiserver-kubelet-client"
    issue(authority, made.kubelet_client, common_name=who, organization="system:masters", now=now)
    for place in nodes:
        pair = made.kubelet_server(place)
        issue(authority, pair, common_name=place.name, addresses=[place.address], now=now)
    for name, (common_name, organization) in _identities(nodes).items():
        client = _pair(made.folder, f"client-{name}")
        issue(authority, client, common_name=common_name, organization=organization, now=now)
        _kubeconfig(made, name, client, first)
    return made


def _identities(nodes: Sequence[NodePlace]) -> dict[str, tuple[str, str | None]]:
    kubelets: dict[str, tuple[str, str | None]] = {
        place.name: (f"system:node:{place.name}", "system:nodes") for place in nodes
    }
    return {"admin": ADMIN, **COMPONENTS, **kubelets}


def _kubeconfig(made: ClusterPki, name: str, client: Pair, address: str) -> None:
    server = f"https://{address}:{API_PORT}"
    authority = _encoded(made.certificates.authority.certificate)
    write_kubeconfig(
        made.kubeconfig(name),
        Cluster(server, {"server": server, "certificate-authority-data": authority}),
        user={
            "client-certificate-data": _encoded(client.certificate),
            "client-key-data": _encoded(client.key),
        },
        user_name=name,
        namespace="default",
    )


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _pair(folder: Path, name: str) -> Pair:
    return Pair(folder / f"{name}.crt", folder / f"{name}.key")
