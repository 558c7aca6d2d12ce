"""Sets the stage: API server, kinds, rights, backends, operator, proxies, in this order.

Promises: says what it starts as it starts it; whatever was started is ended by the exit stack, in
reverse. It is NOT asynchronous: the tether of the children is to the thread that starts them.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import httpx

from nexus_devtools.backends import SimulatedProcess
from nexus_devtools.controlplane import ControlPlane, ControlPlaneError
from nexus_devtools.demo import cluster
from nexus_devtools.demo.folder import Folder
from nexus_devtools.demo.processes import DemoError, Processes
from nexus_devtools.demo.scenario import APPS, NAMESPACE, REAL
from nexus_devtools.product import Proxy

VIEWER = "viewer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything that runs."""

    plane: ControlPlane
    processes: Processes
    simulated: Mapping[str, SimulatedProcess]
    operator_url: str
    proxies: Mapping[str, Proxy]
    viewer_token: str


def set_up(stack: ExitStack, folder: Folder, announce: Callable[[str], None]) -> Stage:
    """Start everything; raises ``ControlPlaneError``, ``ChildError`` or ``DemoError``."""
    began = time.monotonic()
    announce("a Kubernetes API server (etcd and kube-apiserver; built once, then cached)")
    plane = stack.enter_context(ControlPlane.start(name=f"demo-{os.getpid()}"))
    if not plane.is_own:
        announce(f"it is the one your environment names: {plane.server}")
        _refuse_if_taken(plane)
        stack.callback(cluster.uninstall, plane)
    announce("the kinds, the RBAC, and a ServiceAccount's token for each process")
    cluster.install(plane)
    processes = Processes(plane, stack, folder)
    announce("two simulated backends, sim-a and sim-b")
    simulated = processes.simulated()
    announce("a real language model, gemma: llama.cpp on this machine's CPU")
    urls = {name: backend.url for name, backend in simulated.items()} | {REAL: processes.model()}
    announce("nexus-operator")
    operator_url = processes.operator()
    announce("two proxies: nexus-proxy at the side of app-one and of app-two")
    proxies = {app: processes.proxy(app, operator_url=operator_url) for app in APPS}
    announce("kubectl apply: three LLMBackends and a QualityPolicy (manifests/samples/demo)")
    cluster.apply_samples(plane, urls)
    announce(f"set up in {time.monotonic() - began:.1f} s")
    return Stage(
        plane=plane,
        processes=processes,
        simulated=simulated,
        operator_url=operator_url,
        proxies=proxies,
        viewer_token=plane.identity(NAMESPACE, VIEWER),
    )


def _refuse_if_taken(plane: ControlPlane) -> None:
    if cluster.is_taken(plane):
        raise DemoError(
            f"the namespace {NAMESPACE} exists in {plane.server} and would be removed at the end: "
            "remove it, or unset KUBECONFIG to have an API server of our own"
        )


def viewer_client(stage: Stage) -> httpx.AsyncClient:
    """A client of the API server with the rights of the demo's own eyes: to look at LLMBackends."""
    try:
        trusted = str(stage.plane.ca_file)
    except ControlPlaneError:
        # A given cluster whose certificate the system's trust store vouches for.
        trusted = None
    verify = ssl.create_default_context(cafile=trusted)
    return httpx.AsyncClient(
        base_url=stage.plane.server,
        verify=verify,
        headers={"Authorization": f"Bearer {stage.viewer_token}"},
        trust_env=False,
        timeout=10,
    )
