"""The processes of the demo: what is started, in which order, with which environment.

Promises: each is ready when its function returns, writes its own log, sees no credentials but its
own, and is ended in reverse order through the exit stack it was given. It is NOT a supervisor: a
process that ends early ends the demo.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx

from nexus_devtools.backends import Child, ChildError, ModelProcess, SimulatedProcess
from nexus_devtools.demo.cluster import Identities
from nexus_devtools.demo.folder import Folder
from nexus_devtools.demo.scenario import BREAKING, CHAT_MODEL, NAMESPACE, PROMPT, SLOWING

_READY_SECONDS = 30.0


class DemoError(RuntimeError):
    """The demo cannot go on; its text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A running proxy: where applications and where operators of it talk to it."""

    url: str
    admin_url: str


class Processes:
    """Starts processes; remembers them so that the early end of one is noticed."""

    def __init__(self, stack: ExitStack, folder: Folder) -> None:
        self._stack = stack
        self._folder = folder
        self._children: list[Child] = []

    def simulated(self) -> dict[str, SimulatedProcess]:
        """The simulated backends, by name."""
        return {name: self._simulated(name) for name in (BREAKING, SLOWING)}

    def _simulated(self, name: str) -> SimulatedProcess:
        backend = SimulatedProcess(
            name=name, models=[CHAT_MODEL], script=PROMPT, log=self._folder.log(name)
        )
        self._stack.callback(backend.stop)
        backend.start()
        self._children.append(backend.child)
        return backend

    def model(self) -> str:
        """The real model's base URL."""
        model = ModelProcess(log=self._folder.log("model-server"))
        self._stack.callback(model.stop)
        model.start()
        self._children.append(model.child)
        return model.url

    def operator(self, kubeconfig: Path) -> str:
        """The operator's base URL."""
        address = free_address()
        self._product(
            "nexus-operator",
            *("-m", "nexus_operator", "--namespace", NAMESPACE, "--listen", address),
            *("--log-format", "text"),
            kubeconfig=kubeconfig,
            ready=f"http://{address}/readyz",
        )
        return f"http://{address}"

    def proxy(self, app: str, identities: Identities, *, operator_url: str) -> Proxy:
        """The proxy at the side of an application."""
        address, admin = free_address(), free_address()
        self._product(
            f"nexus-proxy-{app}",
            *("-m", "nexus_proxy", "--namespace", NAMESPACE, "--listen", address),
            *("--admin-listen", admin, "--operator-url", operator_url),
            *("--report-token-file", str(identities.report_tokens[app]), "--log-format", "text"),
            kubeconfig=identities.proxies[app],
            ready=f"http://{admin}/readyz",
        )
        return Proxy(url=f"http://{address}", admin_url=f"http://{admin}")

    def _product(self, name: str, *arguments: str, kubeconfig: Path, ready: str) -> None:
        child = Child(
            [sys.executable, *arguments],
            log=self._folder.log(name),
            name=name,
            environment=environment(kubeconfig, home=self._folder.path),
        )
        self._stack.callback(child.stop)
        self._children.append(child)
        wait_until_ready(child, ready)

    def check(self) -> None:
        """Raise ``DemoError`` if a process has ended by itself."""
        for child in self._children:
            if child.exit_code is not None:
                raise DemoError(f"{child.name} ended with code {child.exit_code}: {child.tail()}")


def environment(kubeconfig: Path, *, home: Path) -> dict[str, str]:
    """What a product process sees: no credentials but its kubeconfig, no proxies, no other home."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL", "TZ") if key in os.environ}
    return kept | {"KUBECONFIG": str(kubeconfig), "HOME": str(home)}


def free_address() -> str:
    """``127.0.0.1:PORT`` with a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def wait_until_ready(child: Child, url: str) -> None:
    """Wait until the URL answers 200; raises ``ChildError`` if the process ends or is late."""
    deadline = time.monotonic() + _READY_SECONDS
    with httpx.Client(trust_env=False, timeout=2) as client:
        while not _answers(client, url):
            if child.exit_code is not None:
                raise ChildError(f"{child.name} ended with code {child.exit_code}: {child.tail()}")
            if time.monotonic() > deadline:
                raise ChildError(
                    f"{child.name} was not ready after {_READY_SECONDS:g} s: {child.tail()}"
                )
            time.sleep(0.05)


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
