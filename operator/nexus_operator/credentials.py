"""How the operator gets to an API server: service account, else kubeconfig.

Promises the search every Kubernetes program does (in-cluster service account, `$KUBECONFIG` with
several files merged, `~/.kube/config`), tokens from files and exec plugins included. Each `load`
reads everything anew, so a renewed token is found. It opens no connection.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nexus_operator.private_files import keep
from nexus_operator.problems import no_cluster

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
EXEC_API_GROUP = "client.authentication.k8s.io/"
EXEC_TIMEOUT_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """One way in. Paths are files that exist; `origin` says where all this was found."""

    server: str
    origin: str
    namespace: str
    ca_path: str | None = None
    insecure: bool = False
    token: str | None = None
    username: str | None = None
    password: str | None = None
    certificate_path: str | None = None
    key_path: str | None = None
    proxy_url: str | None = None
    in_cluster: bool = False

    def headers(self) -> dict[str, str]:
        """The Authorization header, unless a certificate speaks for us."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def ssl_context(self) -> ssl.SSLContext:
        """Trusts the cluster's CA alone."""
        context = ssl.create_default_context(cafile=self.ca_path)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate_path:
            context.load_cert_chain(self.certificate_path, self.key_path)
        return context


def load(environ: Mapping[str, str] | None = None) -> Credentials:
    """The credentials in force now; raises `Fatal` when there is no way to any API server."""
    variables = os.environ if environ is None else environ
    if variables.get("KUBERNETES_SERVICE_HOST") and (SERVICE_ACCOUNT / "token").exists():
        return from_service_account(SERVICE_ACCOUNT, variables)
    return from_kubeconfig(kubeconfig_files(variables))


def from_service_account(folder: Path, environ: Mapping[str, str]) -> Credentials:
    """What every pod is given."""
    host = environ["KUBERNETES_SERVICE_HOST"]
    host = f"[{host}]" if ":" in host else host
    certificate = folder / "ca.crt"
    namespace = folder / "namespace"
    return Credentials(
        server=f"https://{host}:{environ.get('KUBERNETES_SERVICE_PORT', '443')}",
        origin=str(folder / "token"),
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
        ca_path=str(certificate) if certificate.exists() else None,
        token=(folder / "token").read_text().strip(),
        in_cluster=True,
    )


def kubeconfig_files(environ: Mapping[str, str]) -> list[Path]:
    """The files of `$KUBECONFIG`, else `~/.kube/config`, as far as they exist."""
    listed = environ.get("KUBECONFIG") or str(Path(environ.get("HOME", "~")) / ".kube" / "config")
    found = [Path(entry).expanduser() for entry in listed.split(os.pathsep) if entry]
    existing = [path for path in found if path.is_file()]
    if not existing:
        raise no_cluster(f"no service account is mounted, and {listed} does not exist")
    return existing


def from_kubeconfig(paths: list[Path]) -> Credentials:
    """The current context of the merged files, read by pykube-ng."""
    from pykube import KubeConfig  # only outside a cluster: the pod does not pay for it
    from pykube.exceptions import PyKubeError

    origin = os.pathsep.join(str(path) for path in paths)
    try:
        config = KubeConfig(_merged(paths))
        user, cluster = config.user or {}, config.cluster
    except (PyKubeError, KeyError, TypeError, OSError, yaml.YAMLError) as error:
        raise no_cluster(f"kubeconfig {origin} cannot be used ({_one_line(error)})") from None
    token, certificate, key = _identity(user, origin)
    return Credentials(
        server=str(cluster["server"]).rstrip("/"),
        origin=origin,
        namespace=config.namespace or "default",
        ca_path=_filename(cluster.get("certificate-authority")),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        token=token,
        username=user.get("username"),
        password=user.get("password"),
        certificate_path=certificate,
        key_path=key,
        proxy_url=cluster.get("proxy-url"),
    )


def _identity(user: Mapping[str, Any], origin: str) -> tuple[str | None, str | None, str | None]:
    token = user.get("token")
    if not token and user.get("tokenFile"):
        path = Path(origin.split(os.pathsep)[0]).parent / user["tokenFile"]
        token = path.read_text().strip()
    certificate = _filename(user.get("client-certificate"))
    key = _filename(user.get("client-key"))
    if not token and not certificate and user.get("exec"):
        return _run_plugin(user["exec"])
    return token, certificate, key


def _run_plugin(plugin: Mapping[str, Any]) -> tuple[str | None, str | None, str | None]:
    """The credential that an exec plugin prints."""
    request = {
        "apiVersion": plugin.get("apiVersion", EXEC_API_GROUP + "v1"),
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
    environ = os.environ | {"KUBERNETES_EXEC_INFO": json.dumps(request)}
    environ |= {item["name"]: item["value"] for item in plugin.get("env") or []}
    command = [plugin["command"], *(plugin.get("args") or [])]
    try:
        output = subprocess.run(
            command, env=environ, check=True, capture_output=True, timeout=EXEC_TIMEOUT_SECONDS
        ).stdout
        status = json.loads(output)["status"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        raise no_cluster(
            f"exec plugin {command[0]!r} gave no credential ({_one_line(error)})"
        ) from None
    certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
    if certificate and key:
        return status.get("token"), keep(certificate.encode()), keep(key.encode())
    return status.get("token"), None, None


def _merged(paths: list[Path]) -> dict[str, Any]:
    """One document of several files: the first to name something wins, as kubectl has it."""
    merged: dict[str, Any] = {"clusters": [], "users": [], "contexts": []}
    for path in paths:
        document = yaml.safe_load(path.read_text()) or {}
        for section in ("clusters", "users", "contexts"):
            known = {entry["name"] for entry in merged[section]}
            fresh = [entry for entry in document.get(section) or [] if entry["name"] not in known]
            merged[section] += [_absolute(entry, path.parent) for entry in fresh]
        if document.get("current-context"):
            merged.setdefault("current-context", document["current-context"])
    return merged


def _absolute(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    for part in ("cluster", "user"):
        for name in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
            value = (entry.get(part) or {}).get(name)
            if isinstance(value, str):
                entry[part][name] = str(folder / value)
    return entry


def _filename(source: Any) -> str | None:
    # pykube's own filename() would leave inline keys behind in the temporary folder.
    return keep(source.bytes()) if source is not None else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
