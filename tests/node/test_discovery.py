"""The documented configuration finds proxies on a real API server, with the documented rights.

Pods that no kubelet runs stand for those of a node, at the addresses of proxies that are processes;
the operator, whose address an EndpointSlice may not have here, is found in test_prometheus.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import yaml

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import APPS, World, eventually, open_world
from nexus_devtools.node.programs import PROMETHEUS, built
from nexus_devtools.prometheus import (
    RIGHTS,
    Prometheus,
    documented,
    found,
    outside,
    quick,
    rule_file,
)

IMAGE = "example.invalid/never-run"
SYSTEM = "monitoring"


def pod(name: str, containers: list[dict[str, Any]], *sidecars: dict[str, Any]) -> dict[str, Any]:
    body = {"containers": containers, "initContainers": list(sidecars)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}


def container(name: str, port_name: str, port: int, **more: Any) -> dict[str, Any]:
    ports = [{"name": port_name, "containerPort": port}]
    return {"name": name, "image": IMAGE, "ports": ports, **more}


def run(world: World, phase: str, made: dict[str, Any]) -> None:
    """A pod that has an address, as a kubelet would say of it."""
    world.apply(made)
    status = {"phase": phase, "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
    patch = yaml.safe_dump({"status": status})
    name = made["metadata"]["name"]
    world.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", patch)


@pytest.fixture
def world(crds: ControlPlane, tmp_path: Any) -> Iterator[World]:
    with ExitStack() as stack:
        world = open_world(crds, f"found-{secrets.token_hex(4)}", tmp_path, stack)
        ports = {app: int(p.admin_url.rpartition(":")[2]) for app, p in world.proxies.items()}
        sidecar, gateway = (ports[app] for app in APPS)
        main = container("main", "http", 9)
        restarted = {"restartPolicy": "Always"}
        beside = container("nexus-proxy", "nexus-admin", sidecar, **restarted)
        run(world, "Running", pod("checkout", [main], beside))
        run(world, "Running", pod("gateway", [container("nexus-proxy", "nexus-admin", gateway)]))
        done = container("nexus-proxy", "nexus-admin", 9, **restarted)
        run(world, "Succeeded", pod("done", [main], done))
        run(world, "Running", pod("other", [main]))
        yield world


@pytest.fixture
def rights(crds: ControlPlane) -> Iterator[None]:
    """The documented rights, and their namespace."""
    crds.create_namespace(SYSTEM)
    crds.run_kubectl("apply", "-f", RIGHTS, check=True)
    yield
    crds.run_kubectl("delete", "-f", RIGHTS, check=True)
    crds.delete_namespace(SYSTEM)


def test_sidecars_and_gateways_are_found_and_finished_pods_are_not(
    crds: ControlPlane, world: World, rights: None, tmp_path: Any
) -> None:
    kubeconfig = crds.write_kubeconfig(tmp_path / "prometheus.kubeconfig", SYSTEM, "prometheus")
    operator = world.operator.url.removeprefix("http://")
    meta = {"service_name": "nexus-operator", "endpointslice_port_name": "http"}
    config = found(quick(documented()), "nexus-operator", (operator, meta))
    rules = yaml.safe_load(rule_file())
    folder = tmp_path / "prometheus"
    folder.mkdir()
    program = built(PROMETHEUS) / "prometheus"
    prometheus = Prometheus(folder, outside(config, kubeconfig), rules, program=program)
    try:
        targets = eventually(
            prometheus.targets,
            lambda seen: len(seen) == 3 and {each["health"] for each in seen} == {"up"},
            what="operator, sidecar and gateway",
            seconds=60,
        )
        labels = [each["labels"] for each in targets if each["labels"]["job"] == "nexus-proxy"]
        assert {each["pod"] for each in labels} == {"checkout", "gateway"}
        assert {each["namespace"] for each in labels} == {world.product.namespace}
        world.kubectl("delete", "pod", "gateway", "--now")
        eventually(prometheus.targets, lambda seen: len(seen) == 2, what="one target less")
    finally:
        prometheus.stop()
