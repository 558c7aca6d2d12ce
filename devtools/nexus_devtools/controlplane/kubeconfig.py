"""Kubeconfig files: written with everything inside, so one can be moved or mounted alone."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nexus_devtools.controlplane.certificates import Certificates
from nexus_devtools.controlplane.errors import ControlPlaneError


@dataclass(frozen=True, slots=True)
class Cluster:
    """How an API server is reached; ``fields`` is the ``cluster`` part of a kubeconfig."""

    server: str
    fields: dict[str, Any]

    @property
    def authority(self) -> bytes | None:
        """The PEM of its CA, or None where the system's trust store or none is used."""
        data = self.fields.get("certificate-authority-data")
        return base64.b64decode(data) if data else None


def own_cluster(port: int, pki: Certificates) -> Cluster:
    """The API server of an instance of ours."""
    server = f"https://127.0.0.1:{port}"
    return Cluster(
        server,
        {"server": server, "certificate-authority-data": _encoded(pki.authority.certificate)},
    )


def admin_user(pki: Certificates) -> dict[str, str]:
    """The ``user`` part for the administrator of an instance of ours."""
    return {
        "client-certificate-data": _encoded(pki.admin.certificate),
        "client-key-data": _encoded(pki.admin.key),
    }


def parse_minified(text: str) -> Cluster:
    """The cluster in what ``kubectl config view --minify --flatten --raw`` prints."""
    document = yaml.safe_load(text) or {}
    clusters = document.get("clusters") or []
    if not clusters or "server" not in (clusters[0].get("cluster") or {}):
        raise ControlPlaneError("the kubeconfig's current context names no cluster with a server")
    fields = dict(clusters[0]["cluster"])
    return Cluster(str(fields["server"]), fields)


def write_kubeconfig(
    path: Path, cluster: Cluster, *, user: dict[str, str], user_name: str, namespace: str
) -> None:
    """Write a kubeconfig with one context, readable by its owner alone, replacing the file in one
    step.
    """
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "nexus", "cluster": cluster.fields}],
        "users": [{"name": user_name, "user": user}],
        "contexts": [
            {
                "name": "nexus",
                "context": {"cluster": "nexus", "user": user_name, "namespace": namespace},
            }
        ],
        "current-context": "nexus",
    }
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.touch(mode=0o600)
    fresh.write_text(yaml.safe_dump(document, sort_keys=False))
    fresh.replace(path)


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
