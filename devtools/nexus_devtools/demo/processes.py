"""The processes of the demo: backends, operator, proxies, and which of them ended early.

Promises: each is ready when its method returns, writes its own log, sees no credentials but its
own, and is ended in reverse order through the exit stack it was given. It is NOT a supervisor: a
process that ends early ends the demo.
"""

from __future__ import annotations

from contextlib import ExitStack

from nexus_devtools.backends import Child, ModelProcess, SimulatedProcess
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.demo.folder import Folder
from nexus_devtools.demo.scenario import BREAKING, CHAT_MODEL, NAMESPACE, PROMPT, SLOWING
from nexus_devtools.product import Product, Proxy


class DemoError(RuntimeError):
    """The demo cannot go on; its text says why and what to do."""


class Processes:
    """Starts processes; remembers them so that the early end of one is noticed."""

    def __init__(self, plane: ControlPlane, stack: ExitStack, folder: Folder) -> None:
        self._product = Product(plane, NAMESPACE, folder.path, stack)
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

    def operator(self) -> str:
        """The operator's base URL."""
        operator = self._product.operator()
        self._children.append(operator.child)
        return operator.url

    def proxy(self, app: str, *, operator_url: str) -> Proxy:
        """The proxy at the side of an application."""
        proxy = self._product.proxy(app, operator_url=operator_url)
        self._children.append(proxy.child)
        return proxy

    def check(self) -> None:
        """Raise ``DemoError`` if a process has ended by itself."""
        for child in self._children:
            if child.exit_code is not None:
                raise DemoError(f"{child.name} ended with code {child.exit_code}: {child.tail()}")
