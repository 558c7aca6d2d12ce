"""The manifests: the rights are the contract's and no more, and every file is part of something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nexus_api import decode_object

MANIFESTS = Path(__file__).parents[3] / "manifests"


def load(*path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(MANIFESTS.joinpath(*path).read_text())
    return found


def test_the_operator_may_do_what_the_contract_says_and_nothing_else() -> None:
    kinds = ["llmbackends", "qualitypolicies", "routingpolicies"]
    assert load("rbac", "operator", "cluster-role.yaml")["rules"] == [
        {"apiGroups": ["nexus.dev"], "resources": kinds, "verbs": ["get", "list", "watch"]},
        {
            "apiGroups": ["nexus.dev"],
            "resources": [f"{kind}/status" for kind in kinds],
            "verbs": ["patch"],
        },
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
        {
            "apiGroups": ["authentication.k8s.io"],
            "resources": ["tokenreviews"],
            "verbs": ["create"],
        },
        {
            "apiGroups": ["authorization.k8s.io"],
            "resources": ["subjectaccessreviews"],
            "verbs": ["create"],
        },
    ]
    (lease,) = load("rbac", "operator", "leader-role.yaml")["rules"]
    assert (lease["resources"], lease["resourceNames"]) == (["leases"], ["nexus-operator"])


def test_a_proxy_reads_the_three_kinds_of_its_namespace_and_nothing_else() -> None:
    role = load("rbac", "proxy", "role.yaml")
    assert role["kind"] == "Role"
    assert role["rules"] == [
        {
            "apiGroups": ["nexus.dev"],
            "resources": ["llmbackends", "qualitypolicies", "routingpolicies"],
            "verbs": ["get", "list", "watch"],
        }
    ]


def test_the_deployment_fits_the_restricted_pod_security_standard() -> None:
    spec = load("base", "deployment.yaml")["spec"]["template"]["spec"]
    pod, (container,) = spec["securityContext"], spec["containers"]
    assert pod["runAsNonRoot"] and pod["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["readOnlyRootFilesystem"]
    assert (container["image"], container["name"]) == ("nexus-operator", "nexus-operator")
    labels = load("rbac", "operator", "namespace.yaml")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_gateway_is_as_confined_and_knows_no_more_than_a_sidecar() -> None:
    gateway, operator = (
        load(*path, "deployment.yaml")["spec"]["template"]["spec"]
        for path in (("components", "gateway"), ("base",))
    )
    assert gateway["securityContext"] == operator["securityContext"]
    assert (
        gateway["containers"][0]["securityContext"] == operator["containers"][0]["securityContext"]
    )
    rights = load("components", "gateway", "role.yaml")["rules"]
    assert rights == load("rbac", "proxy", "role.yaml")["rules"]


def test_names_and_ports_are_the_contracts() -> None:
    service, deployment = load("base", "service.yaml"), load("base", "deployment.yaml")
    for thing in (service, deployment):
        assert thing["metadata"]["name"] == "nexus-operator"
        assert thing["metadata"]["namespace"] == "nexus-system"
    assert service["spec"]["ports"] == [{"name": "http", "port": 8080, "targetPort": "http"}]
    selector = service["spec"]["selector"]
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_what_was_counted_is_kept_in_a_volume_of_the_pod_or_in_a_claim() -> None:
    spec = load("base", "deployment.yaml")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (path,) = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == "data"]
    assert f"--data-dir={path}" in container["args"]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "data"]
    assert "emptyDir" in volume
    patch = load("components", "pvc", "volume.yaml")
    (other,) = patch["spec"]["template"]["spec"]["volumes"]
    assert (patch["kind"], other["name"], other["emptyDir"]) == ("Deployment", "data", None)
    claim = load("components", "pvc", "claim.yaml")["metadata"]
    assert other["persistentVolumeClaim"]["claimName"] == claim["name"]
    assert claim["namespace"] == patch["metadata"]["namespace"] == "nexus-system"


FOLDERS = sorted(
    str(path.parent.relative_to(MANIFESTS))
    for kind in ("base", "rbac", "components", "namespace", "overlays")
    for path in (MANIFESTS / kind).rglob("kustomization.yaml")
)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_of_a_folder_is_in_its_kustomization(folder: str) -> None:
    files = {path.name for path in (MANIFESTS / folder).glob("*.yaml")}
    kustomization = load(folder, "kustomization.yaml")
    patches = [p["path"] for p in kustomization.get("patches", []) if "path" in p]
    listed = kustomization.get("resources", []) + kustomization.get("components", []) + patches
    assert {name for name in listed if name.endswith(".yaml")} == files - {"kustomization.yaml"}
    for name in listed:
        assert (MANIFESTS / folder / name).exists()


def test_every_sample_is_valid() -> None:
    samples = [p for p in (MANIFESTS / "samples").glob("*.yaml") if "nexus.dev/" in p.read_text()]
    assert len(samples) >= 5
    for path in samples:
        decode_object(yaml.safe_load(path.read_text()))
