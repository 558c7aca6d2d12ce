"""The command lines of etcd and kube-apiserver for one instance.

Only what differs from the defaults is said. Everything listens on 127.0.0.1, everything asks for a
certificate or token of this instance, and the only authorizer is RBAC.
"""

from __future__ import annotations

from pathlib import Path

from nexus_devtools.controlplane.certificates import Certificates
from nexus_devtools.controlplane.state import Ports

SERVICE_RANGE = "10.96.0.0/16"
ISSUER = "https://kubernetes.default.svc"


def etcd_arguments(program: Path, *, data: Path, ports: Ports, pki: Certificates) -> list[str]:
    """etcd, for the API server alone, faster than it is safe."""
    client = f"https://127.0.0.1:{ports.etcd_client}"
    peer = f"https://127.0.0.1:{ports.etcd_peer}"
    flags = {
        "name": "nexus",
        "data-dir": data,
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"nexus={peer}",
        "log-level": "warn",
        # The data is thrown away with the instance: it need not survive a power cut.
        "unsafe-no-fsync": "true",
    }
    for prefix in ("", "peer-"):
        flags |= {
            f"{prefix}cert-file": pki.etcd.certificate,
            f"{prefix}key-file": pki.etcd.key,
            f"{prefix}trusted-ca-file": pki.authority.certificate,
            f"{prefix}client-cert-auth": "true",
        }
    return [str(program), *(f"--{name}={value}" for name, value in flags.items())]


def apiserver_arguments(program: Path, *, ports: Ports, pki: Certificates) -> list[str]:
    """kube-apiserver with service account tokens, RBAC and the admission plugins of the default."""
    flags = {
        "bind-address": "127.0.0.1",
        "secure-port": ports.apiserver,
        "tls-cert-file": pki.server.certificate,
        "tls-private-key-file": pki.server.key,
        "client-ca-file": pki.authority.certificate,
        "etcd-servers": f"https://127.0.0.1:{ports.etcd_client}",
        "etcd-cafile": pki.authority.certificate,
        "etcd-certfile": pki.etcd.certificate,
        "etcd-keyfile": pki.etcd.key,
        "authorization-mode": "RBAC",
        "service-account-issuer": ISSUER,
        "service-account-key-file": pki.service_account_key,
        "service-account-signing-key-file": pki.service_account_key,
        "service-cluster-ip-range": SERVICE_RANGE,
        # There is no pod to reach it: no address of this machine is looked for, none is published.
        "advertise-address": "127.0.0.1",
        "endpoint-reconciler-type": "none",
        "profiling": "false",
    }
    return [str(program), *(f"--{name}={value}" for name, value in flags.items())]
