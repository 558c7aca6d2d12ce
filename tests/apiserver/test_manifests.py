"""What users apply is rendered by kubectl and taken by a real API server, without a warning."""

from __future__ import annotations

import copy
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import backend, eventually, policy
from nexus_devtools.product import Product

Stored = dict[str, Any]
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


def pod_of(plane: ControlPlane, folder: str, name: str) -> Stored:
    """The pod that a Deployment's controller would make."""
    rendered = plane.run_kubectl("kustomize", MANIFESTS / folder, check=True).stdout
    documents = yaml.safe_load_all(rendered)
    (found,) = (d for d in documents if (d["kind"], d["metadata"]["name"]) == ("Deployment", name))
    template: Stored = found["spec"]["template"]
    metadata = {"generateName": "pod-", "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _as_root(spec: Stored) -> None:
    spec["securityContext"] = {"seccompProfile": {"type": "RuntimeDefault"}}


def _on_the_host(spec: Stored) -> None:
    spec["hostPID"] = True


def _all_calls(spec: Stored) -> None:
    del spec["securityContext"]["seccompProfile"]


def _capable(spec: Stored) -> None:
    del spec["containers"][0]["securityContext"]["capabilities"]


def _host_path(spec: Stored) -> None:
    spec["volumes"] = [*spec.get("volumes", ()), {"name": "h", "hostPath": {"path": "/"}}]


LOOSER = {
    "runAsNonRoot != true": _as_root,
    "host namespaces": _on_the_host,
    "seccompProfile": _all_calls,
    "unrestricted capabilities": _capable,
    "hostPath": _host_path,
}


@pytest.fixture
def confined(crds: ControlPlane, namespace: str) -> str:
    """A namespace that enforces the restricted standard, with both service accounts."""
    standard = "pod-security.kubernetes.io/enforce=restricted"
    crds.run_kubectl("label", "namespace", namespace, standard, check=True)
    for account in ("nexus-operator", "nexus-gateway"):
        crds.run_kubectl("create", "serviceaccount", account, "-n", namespace, check=True)
    return namespace


@pytest.mark.parametrize(
    ("folder", "name"), [("base", "nexus-operator"), ("overlays/gateway", "nexus-gateway")]
)
def test_the_restricted_standard_lets_our_pods_in_and_keeps_looser_ones_out(
    crds: ControlPlane, confined: str, folder: str, name: str
) -> None:
    pod = pod_of(crds, folder, name)
    command = ("create", "--dry-run=server", "-n", confined, "-f", "-")
    crds.run_kubectl(*command, input=yaml.safe_dump(pod), check=True)
    for why, loosen in LOOSER.items():
        looser = copy.deepcopy(pod)
        loosen(looser["spec"])
        refused = crds.run_kubectl(*command, input=yaml.safe_dump(looser))
        assert refused.returncode != 0, f"taken: {why}"
        assert 'violates PodSecurity "restricted' in refused.stderr and why in refused.stderr


def test_the_operators_namespace_enforces_the_restricted_standard(crds: ControlPlane) -> None:
    crds.run_kubectl("apply", "-k", MANIFESTS / "rbac" / "operator", check=True)
    pod = pod_of(crds, "base", "nexus-operator")
    command = ("create", "--dry-run=server", "-n", "nexus-system", "-f", "-")
    crds.run_kubectl(*command, input=yaml.safe_dump(pod), check=True)
    _on_the_host(pod["spec"])
    refused = crds.run_kubectl(*command, input=yaml.safe_dump(pod))
    assert 'violates PodSecurity "restricted' in refused.stderr


def test_a_workload_that_was_patched_gets_in_with_its_sidecar(
    crds: ControlPlane, confined: str, tmp_path: Path
) -> None:
    app = pod_of(crds, "base", "nexus-operator")["spec"]
    app["containers"][0]["name"] = "app"
    del app["serviceAccountName"]
    metadata = {"name": "app", "labels": {"nexus.dev/inject": "true"}}
    spec = {
        "selector": {"matchLabels": {"app": "app"}},
        "template": {"metadata": {"labels": {"app": "app"}}, "spec": app},
    }
    workload = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
    (tmp_path / "app.yaml").write_text(yaml.safe_dump(workload))
    component = os.path.relpath(MANIFESTS / "components" / "sidecar-patch", tmp_path.resolve())
    kustomization = {"resources": ["app.yaml"], "components": [component]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    rendered = crds.run_kubectl("kustomize", tmp_path, check=True).stdout
    patched = yaml.safe_load(rendered)["spec"]["template"]["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"}, "spec": patched}
    command = ("create", "--dry-run=server", "-o", "yaml", "-n", confined, "-f", "-")
    made = yaml.safe_load(crds.run_kubectl(*command, input=yaml.safe_dump(pod), check=True).stdout)
    (sidecar,) = made["spec"]["initContainers"]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("nexus-proxy", "Always")


def everything(plane: ControlPlane) -> set[str]:
    """Every object of every kind there is, but Events, which the API server forgets by itself."""
    kinds = plane.run_kubectl("api-resources", "--verbs=list", "-o", "name", check=True)
    listed = [kind for kind in kinds.stdout.split() if not kind.startswith("events")]
    columns = "custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name"
    command = ("get", ",".join(listed), "--all-namespaces", "--no-headers", "-o", columns)
    lines = plane.run_kubectl(*command, check=True).stdout.splitlines()
    return {" ".join(line.split()) for line in lines}


def installable(plane: ControlPlane) -> Path:
    """What is documented for this server: without injection by policy where there is none."""
    kinds = plane.run_kubectl("api-resources", "-o", "name", check=True).stdout
    newer = "mutatingadmissionpolicies.admissionregistration.k8s.io" in kinds
    return MANIFESTS / ("overlays/default" if newer else "base")


def test_uninstalling_leaves_nothing(empty: ControlPlane, tmp_path: Path) -> None:
    before = everything(empty)
    overlay, crds = installable(empty), MANIFESTS.parent / "crds"
    empty.apply_crds()
    empty.run_kubectl("apply", "-k", MANIFESTS / "rbac" / "operator", check=True)
    empty.run_kubectl("apply", "-k", overlay, check=True)
    empty.create_namespace("shop")
    with ExitStack() as stack:
        product = Product(empty, "shop", tmp_path, stack)
        for document in (backend("a", "http://127.0.0.1:9"), policy("p")):
            text = yaml.safe_dump(document)
            empty.run_kubectl("apply", "-n", "shop", "-f", "-", input=text, check=True)
        product.operator()
        eventually(
            lambda: empty.run_kubectl("get", "llmb", "a", "-n", "shop", "-o", "yaml").stdout,
            lambda text: "observedGeneration" in text,
            what="the operator is at work",
        )
    assert "Lease nexus-system nexus-operator" in everything(empty)
    # As docs/upgrade.md says it; the namespace controller of a whole cluster does what comes last.
    empty.run_kubectl("delete", "-k", overlay, "--wait=false", check=True)
    empty.run_kubectl("delete", "-f", crds, check=True)
    for namespace in ("nexus-system", "shop"):
        empty.delete_namespace(namespace)
    assert everything(empty) - before == set()
