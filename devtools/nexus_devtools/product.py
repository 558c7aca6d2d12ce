"""The product's own processes, for demo, end-to-end tests and benchmarks.

Promises: an operator and proxies run as their real ServiceAccounts with tokens and nothing more;
each is ready when its method returns, writes its own log and dies with its parent. It is NOT a
supervisor and starts no API server.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import yaml

from nexus_devtools.backends import Child, ChildError
from nexus_devtools.controlplane import ControlPlane

READY_SECONDS = 30.0
REPORT_AUDIENCE = "nexus-operator"
REPOSITORY = Path(__file__).resolve().parents[2]
RBAC = REPOSITORY / "manifests" / "rbac"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A running operator."""

    url: str
    child: Child


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A running proxy: where applications and where people who look after it talk to it."""

    url: str
    admin_url: str
    child: Child


@dataclass(slots=True)
class Product:
    """Starts operators and proxies for one namespace; `stack` ends them in reverse order.

    `settings` are variables that its processes see; `way` gets each kubeconfig before it is used.
    """

    plane: ControlPlane
    namespace: str
    folder: Path
    stack: ExitStack = field(default_factory=ExitStack)
    settings: Mapping[str, str] = field(default_factory=dict)
    way: Callable[[Path], None] = lambda kubeconfig: None

    def install(self, *service_accounts: str) -> None:
        """Apply the operator's RBAC, and the proxies' for these ServiceAccounts."""
        self.plane.run_kubectl("apply", "-k", RBAC / "operator", check=True)
        for name in service_accounts:
            self.plane.identity(self.namespace, name)
        manifests = proxy_rbac(self.plane, self.namespace, service_accounts)
        self.plane.run_kubectl(
            "apply", "-n", self.namespace, "-f", "-", input=manifests, check=True
        )

    def operator(
        self, *arguments: str, address: str | None = None, name: str = "nexus-operator"
    ) -> Operator:
        """Start an operator for the namespace; returns once it is ready."""
        address = address or free_address()
        kubeconfig = self.folder / "operator.kubeconfig"
        self.plane.write_kubeconfig(kubeconfig, "nexus-system", "nexus-operator")
        self.way(kubeconfig)
        child = self._start(
            name,
            *("nexus_operator", "--namespace", self.namespace, "--listen", address),
            *("--log-format", "text", *arguments),
            kubeconfig=kubeconfig,
        )
        wait_until_ready(child, f"http://{address}/readyz")
        return Operator(url=f"http://{address}", child=child)

    def credentials(self, service_account: str) -> tuple[Path, Path]:
        """A kubeconfig and a report token of a ServiceAccount, as files; made once."""
        kubeconfig = self.folder / f"{service_account}.kubeconfig"
        token = self.folder / f"{service_account}.report-token"
        if not token.exists():
            self.plane.write_kubeconfig(kubeconfig, self.namespace, service_account)
            self.way(kubeconfig)
            bearer = self.plane.identity(self.namespace, service_account, audience=REPORT_AUDIENCE)
            token.touch(mode=0o600)
            token.write_text(bearer)
        return kubeconfig, token

    def proxy(self, service_account: str, *arguments: str, operator_url: str) -> Proxy:
        """Start a proxy that runs as a ServiceAccount of the namespace; returns once ready."""
        address, admin = free_address(), free_address()
        kubeconfig, token = self.credentials(service_account)
        child = self._start(
            f"nexus-proxy-{service_account}",
            *("nexus_proxy", "--namespace", self.namespace, "--listen", address),
            *("--admin-listen", admin, "--operator-url", operator_url),
            *("--report-token-file", str(token), "--log-format", "text", *arguments),
            kubeconfig=kubeconfig,
        )
        wait_until_ready(child, f"http://{admin}/readyz")
        return Proxy(url=f"http://{address}", admin_url=f"http://{admin}", child=child)

    def _start(self, name: str, module: str, *arguments: str, kubeconfig: Path) -> Child:
        child = Child(
            [sys.executable, "-m", module, *arguments],
            log=self.folder / f"{name}.log",
            name=name,
            environment=environment(kubeconfig, home=self.folder) | dict(self.settings),
        )
        self.stack.callback(child.stop)
        return child


def proxy_rbac(plane: ControlPlane, namespace: str, service_accounts: tuple[str, ...]) -> str:
    """The proxies' Role and RoleBinding of `manifests/rbac/proxy`, bound to these accounts."""
    rendered = plane.run_kubectl("kustomize", RBAC / "proxy", check=True).stdout
    documents = list(yaml.safe_load_all(rendered))
    for document in documents:
        if document["kind"] == "RoleBinding":
            document["subjects"] = [
                {"kind": "ServiceAccount", "name": name, "namespace": namespace}
                for name in service_accounts
            ]
    return yaml.safe_dump_all(documents)


def environment(kubeconfig: Path, *, home: Path) -> dict[str, str]:
    """What a product process sees: no credentials but its kubeconfig, no proxies, no other home."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL", "TZ") if key in os.environ}
    return kept | {"KUBECONFIG": str(kubeconfig), "HOME": str(home)}


def free_address() -> str:
    """``127.0.0.1:PORT`` with a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def wait_until_ready(child: Child, url: str, *, seconds: float = READY_SECONDS) -> None:
    """Wait until the URL answers 200; raises ``ChildError`` if the process ends or is late."""
    deadline = time.monotonic() + seconds
    with httpx.Client(trust_env=False, timeout=2) as client:
        while not answers(client, url):
            if child.exit_code is not None:
                raise ChildError(f"{child.name} ended with code {child.exit_code}: {child.tail()}")
            if time.monotonic() > deadline:
                raise ChildError(f"{child.name} was not ready after {seconds:g} s: {child.tail()}")
            time.sleep(0.05)


def answers(client: httpx.Client, url: str) -> bool:
    """True if the URL answers 200 now."""
    try:
        return client.get(url).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
