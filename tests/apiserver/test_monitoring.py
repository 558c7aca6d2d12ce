"""The monitoring component against the Prometheus Operator's published kinds, on a real server."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.monitoring import GROUP, PLURALS, published_crds

Stored = dict[str, Any]
Change = Callable[[Stored], object]
MANIFESTS = Path(__file__).parents[2] / "manifests"
KINDS = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
STRICT = ("apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", "-")

WRONG: dict[str, tuple[str, Change, str]] = {
    "a field that is none": (
        "ServiceMonitor",
        lambda spec: spec.update(selectors={}),
        "unknown field",
    ),
    "a field that is none, deeper": (
        "PodMonitor",
        lambda spec: spec["podMetricsEndpoints"][0].update(portName="x"),
        "unknown field",
    ),
    "no endpoints": (
        "ServiceMonitor",
        lambda spec: spec.pop("endpoints"),
        "missing required field",
    ),
    "a time that is none": (
        "PodMonitor",
        lambda spec: spec["podMetricsEndpoints"][0].update(interval="15 seconds"),
        "should match",
    ),
    "an alert that waits for nothing known": (
        "PrometheusRule",
        lambda spec: spec["groups"][1]["rules"][0].update({"for": "a minute"}),
        "should match",
    ),
    "two groups of one name": (
        "PrometheusRule",
        lambda spec: spec["groups"][1].update(name=spec["groups"][0]["name"]),
        "duplicate entries",
    ),
}


@pytest.fixture(scope="module")
def plane(crds: ControlPlane) -> Iterator[ControlPlane]:
    """The server with the three kinds, and the namespace of the operator."""
    files = [part for path in published_crds() for part in ("-f", str(path))]
    crds.run_kubectl("apply", "--server-side", *files, check=True)
    names = [f"crd/{plural}.{GROUP}" for plural in PLURALS]
    crds.run_kubectl("wait", "--for=condition=Established", *names, "--timeout=30s", check=True)
    crds.run_kubectl("apply", "-k", MANIFESTS / "rbac" / "operator", check=True)
    yield crds
    crds.run_kubectl("delete", *names, check=True)


@pytest.fixture
def rendered(plane: ControlPlane, tmp_path: Path) -> list[Stored]:
    """What a user gets who adds the component to the default overlay, as the documents show."""
    made = tmp_path / "overlay"
    made.mkdir()

    def place(name: str) -> str:
        return os.path.relpath(MANIFESTS / name, made.resolve())

    overlay = {
        "resources": [place("overlays/default")],
        "components": [place("components/monitoring")],
    }
    (made / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    text = plane.run_kubectl("kustomize", made, check=True).stdout
    return list(yaml.safe_load_all(text))


def of_kind(rendered: list[Stored], kind: str) -> Stored:
    (found,) = (document for document in rendered if document["kind"] == kind)
    return copy.deepcopy(found)


def apply(plane: ControlPlane, *documents: Stored) -> subprocess.CompletedProcess[str]:
    everything = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
    return plane.run_kubectl(*STRICT, input=json.dumps(everything))


def test_all_that_the_component_adds_is_taken_strictly(
    plane: ControlPlane, rendered: list[Stored]
) -> None:
    added = [of_kind(rendered, kind) for kind in KINDS]
    taken = apply(plane, *added)
    assert taken.returncode == 0, taken.stderr
    assert "Warning" not in taken.stderr
    assert len(taken.stdout.splitlines()) == len(added)
    assert {document["apiVersion"] for document in added} == {f"{GROUP}/v1"}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_refused(plane: ControlPlane, rendered: list[Stored], what: str) -> None:
    kind, change, words = WRONG[what]
    document = of_kind(rendered, kind)
    change(document["spec"])
    refused = apply(plane, document)
    assert refused.returncode != 0, what
    assert words in refused.stderr


def test_the_monitors_name_ports_that_the_product_has(rendered: list[Stored]) -> None:
    service = of_kind([d for d in rendered if d["kind"] == "Service"], "Service")
    monitor = of_kind(rendered, "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    pods = of_kind(rendered, "PodMonitor")
    (pod_endpoint,) = pods["spec"]["podMetricsEndpoints"]
    for file in ("gateway/deployment.yaml", "sidecar/injection.yaml", "sidecar-patch/sidecar.yaml"):
        text = (MANIFESTS / "components" / file).read_text()
        assert f"name: {pod_endpoint['port']}" in text.replace("'", ""), file
