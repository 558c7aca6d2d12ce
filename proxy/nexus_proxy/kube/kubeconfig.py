"""How to reach the API server: the pod's service account, else `$KUBECONFIG`, else
`~/.kube/config`.

It reads what a kubeconfig says about one context: server, CA, token or client certificate,
namespace. Exec plugins and other login helpers are refused with a line that says what to do: a
proxy runs no programs. It connects to nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ConfigError(Exception):
    """No usable way to the API server; the message is one line that names the file and what to
    do.
    """


@dataclass(frozen=True, slots=True)
class Access:
    """One way to one API server.

    `ca_pem` None means the system's trust store. Of `token`, `token_file` and the certificate pair
    any may be absent. `source` names where this was read, for messages.
    """

    server: str
    source: str
    namespace: str = "default"
    ca_pem: str | None = None
    insecure: bool = False
    server_name: str | None = None
    token: str | None = None
    token_file: Path | None = None
    certificate_pem: str | None = None
    key_pem: str | None = None

    def __repr__(self) -> str:
        return f"Access(server={self.server!r}, source={self.source!r})"  # never the credentials


def find_access(
    environ: Mapping[str, str],
    *,
    home: Path,
    service_account_dir: Path = SERVICE_ACCOUNT_DIR,
) -> Access:
    """The way to the API server in this environment. Raises ConfigError."""
    host = environ.get("KUBERNETES_SERVICE_HOST")
    if host and (service_account_dir / "token").is_file():
        return _in_cluster(host, environ.get("KUBERNETES_SERVICE_PORT", "443"), service_account_dir)
    listed = [Path(p) for p in environ.get("KUBECONFIG", "").split(":") if p]
    paths = listed or [home / ".kube" / "config"]
    existing = [path for path in paths if path.is_file()]
    if not existing:
        raise ConfigError(
            f"no kubeconfig at {', '.join(map(str, paths))}: set KUBECONFIG, run in a cluster, "
            "or use --manifests DIR for the standalone mode"
        )
    return _from_files(existing)


def _in_cluster(host: str, port: str, folder: Path) -> Access:
    namespace = folder / "namespace"
    ca = folder / "ca.crt"
    return Access(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        source=str(folder),
        namespace=namespace.read_text().strip() if namespace.is_file() else "default",
        ca_pem=ca.read_text() if ca.is_file() else None,
        token_file=folder / "token",
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """A named part of a kubeconfig and the file it stands in, which its relative paths refer to."""

    data: Mapping[str, Any]
    file: Path

    def text(self, name: str) -> str | None:
        value = self.data.get(name)
        return value if isinstance(value, str) and value else None

    def pem(self, name: str) -> str | None:
        """The PEM of `name-data` (base64), else of the file that `name` points to."""
        encoded, path = self.text(f"{name}-data"), self.text(name)
        try:
            if encoded:
                return base64.b64decode(encoded, validate=True).decode("ascii")
            return (self.file.parent / path).read_text() if path else None
        except (binascii.Error, UnicodeDecodeError):
            raise ConfigError(f"{self.file}: {name}-data is not base64 of a PEM file") from None
        except OSError as error:
            raise ConfigError(f"{self.file}: {name}: {error.strerror}: {path}") from None


def _from_files(paths: list[Path]) -> Access:
    documents = [(_load(path), path) for path in paths]
    current = next((d["current-context"] for d, _ in documents if d.get("current-context")), None)
    if not current:
        raise ConfigError(f"{paths[0]}: no current-context: run kubectl config use-context NAME")
    context = _named(documents, "contexts", "context", str(current))
    cluster = _named(documents, "clusters", "cluster", context.text("cluster") or "")
    user = _named(documents, "users", "user", context.text("user") or "")
    _refuse_helpers(user)
    server = cluster.text("server")
    if server is None:
        raise ConfigError(f"{cluster.file}: the cluster of context {current!r} has no server")
    token_file = user.text("tokenFile")
    return Access(
        server=server.rstrip("/"),
        source=str(context.file),
        namespace=context.text("namespace") or "default",
        ca_pem=cluster.pem("certificate-authority"),
        insecure=cluster.data.get("insecure-skip-tls-verify") is True,
        server_name=cluster.text("tls-server-name"),
        token=user.text("token"),
        token_file=user.file.parent / token_file if token_file else None,
        certificate_pem=user.pem("client-certificate"),
        key_pem=user.pem("client-key"),
    )


def _load(path: Path) -> Mapping[str, Any]:
    import yaml  # in a cluster no kubeconfig is read: 1 MB and 20 ms that a sidecar need not pay

    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is not a kubeconfig: it holds no mapping")
    return document


def _named(
    documents: list[tuple[Mapping[str, Any], Path]], plural: str, kind: str, name: str
) -> _Entry:
    for document, path in documents:
        for entry in document.get(plural) or ():
            if isinstance(entry, dict) and entry.get("name") == name:
                return _Entry(entry.get(kind) or {}, path)
    raise ConfigError(f"{documents[0][1]}: no {kind} named {name!r} in {plural}")


def _refuse_helpers(user: _Entry) -> None:
    for helper in ("exec", "auth-provider", "username"):
        if user.data.get(helper):
            raise ConfigError(
                f"{user.file}: the user logs in with {helper!r}, which the proxy cannot: use a "
                "token, tokenFile or client certificate (kubectl create token NAME makes one)"
            )
