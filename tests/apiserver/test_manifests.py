"""What users apply is rendered by kubectl and taken by a real API server, without a warning."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from nexus_devtools.controlplane import ControlPlane

MANIFESTS = Path(__file__).parents[2] / "manifests"
VOLUMES = {
    "base": {"emptyDir": {"sizeLimit": "2Gi"}},
    "overlay": {"persistentVolumeClaim": {"claimName": "nexus-operator"}},
}


@pytest.fixture(params=["base", "overlay"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """`manifests/base` as it is, or an overlay of a user with the claim."""
    if request.param == "base":
        return MANIFESTS / "base"
    made = tmp_path / "overlay"
    made.mkdir()

    def place(name: str) -> str:
        return os.path.relpath(MANIFESTS / name, made.resolve())

    overlay = {"resources": [place("base")], "components": [place("components/pvc")]}
    (made / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    return made


def test_the_operators_manifests_are_taken_by_a_server(crds: ControlPlane, folder: Path) -> None:
    rendered = crds.run_kubectl("kustomize", folder, check=True).stdout
    documents = list(yaml.safe_load_all(rendered))
    (deployment,) = (d for d in documents if d["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert {"name": "data", **VOLUMES[folder.name]} in pod["volumes"]
    # A dry run creates no namespace that the rest could be in.
    crds.run_kubectl("apply", "-k", MANIFESTS / "rbac" / "operator", check=True)
    command = ("apply", "--dry-run=server", "-f", "-")
    taken = crds.run_kubectl(*command, input=rendered, check=True)
    assert "Warning" not in taken.stderr
    lines = taken.stdout.splitlines()
    assert len(lines) == len(documents)
    assert all(line.endswith("(server dry run)") for line in lines), lines


def test_the_gateways_manifests_are_taken_by_a_server(crds: ControlPlane) -> None:
    folder = MANIFESTS / "overlays" / "gateway"
    rendered = crds.run_kubectl("kustomize", folder, check=True).stdout
    samples = (MANIFESTS / "samples" / "gateway-autoscaler.yaml").read_text()
    command = ("apply", "--dry-run=server", "-f", "-")
    taken = crds.run_kubectl(*command, input=f"{rendered}---\n{samples}", check=True)
    assert "Warning" not in taken.stderr
    kinds = [line.split("/")[0].split(".")[0] for line in taken.stdout.splitlines()]
    assert sorted(kinds) == [
        *("deployment", "horizontalpodautoscaler", "networkpolicy", "poddisruptionbudget"),
        *("role", "rolebinding", "service", "serviceaccount"),
    ]
