"""How kstatus, Flux's expressions and Argo CD's health checks read what the operator says.

The expressions of docs/examples/gitops/flux are evaluated by the API server, whose CEL is Flux's
too: as validations that warn, on status patches that change nothing.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from nexus_devtools.controlplane import ControlPlane

Stored = dict[str, Any]
Reader = Callable[[Mapping[str, Any]], str]
GITOPS = Path(__file__).parents[2] / "docs" / "examples" / "gitops"
NOW = "2026-01-31T12:00:00Z"
POLICY = "gitops-health"
PLURALS = {
    "LLMBackend": "llmbackends",
    "QualityPolicy": "qualitypolicies",
    "RoutingPolicy": "routingpolicies",
}
SPECS: dict[str, Stored] = {
    "LLMBackend": {"url": "http://127.0.0.1:9"},
    "QualityPolicy": {},
    "RoutingPolicy": {},
}


def conditions(**said: str) -> list[Stored]:
    """Conditions by type: the status and the reason, as `True/Active`."""
    found = []
    for kind, value in said.items():
        status, reason = value.split("/")
        found.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": "because",
                "lastTransitionTime": NOW,
            }
        )
    return found


def judged(state: str, ready: str, stalled: str = "False/NothingToMend", seen: int = 1) -> Stored:
    return {
        "observedGeneration": seen,
        "state": state,
        "verdictGeneration": 0,
        "conditions": conditions(Ready=ready, Stalled=stalled),
    }


def accepted(said: str, **more: str) -> Stored:
    return {"observedGeneration": 1, "conditions": conditions(Accepted=said, **more)}


STALLED = "True/SecretNotFound"
# kind, status; then what kstatus, Argo CD and Flux's expressions make of it.
CASES: dict[str, tuple[str, Stored, str, str, str]] = {
    "active": (
        *("LLMBackend", judged("Active", "True/Active")),
        *("Current", "Healthy", "Current"),
    ),
    "no traffic": (
        *("LLMBackend", judged("Active", "True/NoTraffic")),
        *("Current", "Healthy", "Current"),
    ),
    "probation": (
        *("LLMBackend", judged("Probation", "True/Probation")),
        *("Current", "Healthy", "Current"),
    ),
    "excluded": (
        *("LLMBackend", judged("Excluded", "False/Excluded")),
        *("InProgress", "Progressing", "Current"),
    ),
    "unhealthy": (
        *("LLMBackend", judged("Unhealthy", "False/Unhealthy")),
        *("InProgress", "Progressing", "Current"),
    ),
    "suspended": (
        *("LLMBackend", judged("Suspended", "False/Suspended")),
        *("InProgress", "Suspended", "Current"),
    ),
    "stalled": (
        *("LLMBackend", judged("Active", "True/Active", STALLED)),
        *("Failed", "Degraded", "Failed"),
    ),
    "suspended and stalled": (
        *("LLMBackend", judged("Suspended", "False/Suspended", STALLED)),
        *("Failed", "Suspended", "Current"),
    ),
    "an older version": (
        *("LLMBackend", judged("Active", "True/Active", seen=0)),
        *("InProgress", "Progressing", "InProgress"),
    ),
    "a policy in force": (
        *("QualityPolicy", accepted("True/Valid", Effective="True/InForce")),
        *("Current", "Healthy", "Current"),
    ),
    "a policy that another overrides": (
        *("QualityPolicy", accepted("True/Valid", Effective="False/Overridden")),
        *("Current", "Healthy", "Current"),
    ),
    "routing in force": (
        *("RoutingPolicy", accepted("True/Valid")),
        *("Current", "Healthy", "Current"),
    ),
    "routing that is one too many": (
        *("RoutingPolicy", accepted("False/Superseded")),
        *("Current", "Degraded", "Failed"),
    ),
}


class Server:
    """Objects with statuses that no operator wrote, and Flux's expressions about them."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane, self.namespace = plane, namespace

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        scoped = ("-n", self.namespace, *arguments)
        return self.plane.run_kubectl(*scoped, input=input, check=True).stdout

    def create(self, kind: str, status: Stored) -> Stored:
        document = {
            "apiVersion": "nexus.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": "it"},
            "spec": SPECS[kind],
        }
        self.kubectl("apply", "-f", "-", input=json.dumps(document))
        if status:
            whole = json.dumps({"status": status})
            self.kubectl("patch", kind, "it", "--subresource=status", "--type=merge", f"-p={whole}")
        found: Stored = json.loads(self.kubectl("get", kind, "it", "-o", "json"))
        return found

    def warnings(self, kind: str) -> set[str]:
        """Which of Flux's expressions are true of the object: the server warns of those."""
        command = ("patch", kind, "it", "--subresource=status", "--type=merge", "--dry-run=server")
        scoped = ("-n", self.namespace, *command, "-p={}")
        said = self.plane.run_kubectl(*scoped, check=True).stderr
        return set(re.findall(r"expression (\w+) holds", said))

    def flux(self, found: Mapping[str, Any]) -> str:
        """As Flux does it: the generation, then failed, then current; else in progress."""
        status = found.get("status") or {}
        generation = found["metadata"]["generation"]
        if status.get("observedGeneration", generation) != generation:
            return "InProgress"
        if "conditions" not in status:
            return "InProgress"  # an expression about a field that is not there is no answer
        true = self.warnings(found["kind"])
        return next((name for name in ("Failed", "Current") if name.lower() in true), "InProgress")


def flux_checks() -> list[Stored]:
    text = (GITOPS / "flux" / "models.yaml").read_text(encoding="utf-8")
    checks: list[Stored] = yaml.safe_load(text)["spec"]["healthCheckExprs"]
    return checks


def admission(check: Stored) -> list[Stored]:
    """Flux's expressions about a kind as a policy that warns where they hold."""
    plural = PLURALS[check["kind"]]
    name = f"{POLICY}-{plural}"

    def validation(which: str) -> Stored:
        holds = re.sub(r"(?<![\w.'])status\.", "object.status.", check[which])
        known = "has(object.status) && has(object.status.conditions)"
        return {
            "expression": f"!({known} && ({holds}))",
            "message": f"expression {which} holds",
        }

    rule = {
        "apiGroups": ["nexus.dev"],
        "apiVersions": ["*"],
        "operations": ["UPDATE"],
        "resources": [f"{plural}/status"],
    }
    group = "admissionregistration.k8s.io/v1"
    return [
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [rule]},
                "validations": [validation("failed"), validation("current")],
            },
        },
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Warn"]},
        },
    ]


@pytest.fixture(scope="module")
def asked(crds: ControlPlane) -> Iterator[ControlPlane]:
    """The API server with Flux's expressions among its policies."""
    documents = [document for check in flux_checks() for document in admission(check)]
    text = yaml.safe_dump_all(documents)
    crds.run_kubectl("apply", "-f", "-", input=text, check=True)
    yield crds
    crds.run_kubectl("delete", "-f", "-", input=text, check=True)


@pytest.fixture
def server(asked: ControlPlane, namespace: str) -> Server:
    """A namespace in which the expressions are in force."""
    server = Server(asked, namespace)
    deadline = time.monotonic() + 30
    for kind, status in (
        ("LLMBackend", judged("Active", "True/Active")),
        ("QualityPolicy", accepted("True/Valid")),
        ("RoutingPolicy", accepted("True/Valid")),
    ):
        server.create(kind, status)
        while server.warnings(kind) != {"current"}:
            assert time.monotonic() < deadline, f"the expressions about {kind} are not in force"
            time.sleep(0.2)
        server.kubectl("delete", kind, "it")
    return server


def test_each_status_is_read_as_the_contract_says(
    server: Server, kstatus: Reader, argo_health: Reader
) -> None:
    for what, (kind, status, generic, argo, flux) in CASES.items():
        found = server.create(kind, status)
        read = (kstatus(found), argo_health(found), server.flux(found))
        assert read == (generic, argo, flux), what
        server.kubectl("delete", kind, "it")


def test_an_object_that_nobody_has_seen_is_in_progress(server: Server, argo_health: Reader) -> None:
    for kind in PLURALS:
        found = server.create(kind, {})
        assert (argo_health(found), server.flux(found)) == ("Progressing", "InProgress"), kind
        server.kubectl("delete", kind, "it")


def test_the_config_map_of_argo_cd_has_the_scripts_that_are_tested() -> None:
    data = yaml.safe_load((GITOPS / "argocd" / "argocd-cm.yaml").read_text(encoding="utf-8"))[
        "data"
    ]
    scripts = {"LLMBackend": "llmbackend", "QualityPolicy": "policy", "RoutingPolicy": "policy"}
    assert data == {
        f"resource.customizations.health.nexus.dev_{kind}": (
            GITOPS / "argocd" / f"{name}.lua"
        ).read_text(encoding="utf-8")
        for kind, name in scripts.items()
    }
