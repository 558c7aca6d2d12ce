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

ADMIN: tuple[str, str | None] = ("nexus-admin", "system:masters")
COMPONENTS: dict[str, tuple[str, str | None]] = {
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


def complete(nodes: Sequence[NodePlace], *, now: datetime.datetime) -> ClusterPki:
    """Create what is missing of the CA, everything it signs, and the kubeconfigs."""
    made = pki()
    # The last that a node gets is its kubeconfig: with it, all is there.
    if not made.kubeconfig(nodes[0].name).exists():
        _write_control_plane(made, nodes[0], now)
    for place in nodes:
        if not made.kubeconfig(place.name).exists():
            _write_node(made, place, nodes[0], now)
    return made


def _write_control_plane(made: ClusterPki, first: NodePlace, now: datetime.datetime) -> None:
    write_certificates(made.folder, now=now)
    authority, server = made.certificates.authority, made.certificates.server
    addresses = [first.address, first.site.api_address]
    issue(authority, server, common_name="kube-apiserver", addresses=addresses, now=now)
    who = "kube-apiserver-kubelet-client"
    issue(authority, made.kubelet_client, common_name=who, organization="system:masters", now=now)
    for name, identity in {"admin": ADMIN, **COMPONENTS}.items():
        _client(made, name, identity, first, now)


def _write_node(
    made: ClusterPki, place: NodePlace, first: NodePlace, now: datetime.datetime
) -> None:
    authority, pair = made.certificates.authority, made.kubelet_server(place)
    issue(authority, pair, common_name=place.name, addresses=[place.address], now=now)
    _client(made, place.name, (f"system:node:{place.name}", "system:nodes"), first, now)


def _client(
    made: ClusterPki,
    name: str,
    identity: tuple[str, str | None],
    first: NodePlace,
    now: datetime.datetime,
) -> None:
    common_name, organization = identity
    pair = _pair(made.folder, f"client-{name}")
    authority = made.certificates.authority
    issue(authority, pair, common_name=common_name, organization=organization, now=now)
    _kubeconfig(made, name, pair, first.address)


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
