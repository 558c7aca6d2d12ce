"""The real operator process against a real API server, under the rights of its manifests alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.reports import full_report
from nexus_devtools.schemas import assert_valid_status
from nexus_quality.report import encode

MANIFESTS = Path(__file__).parents[2] / "manifests"
DEADLINE_SECONDS = 30.0
AUDIENCE = "nexus-operator"
Stored = dict[str, Any]


def eventually(holds: Callable[[], Any], what: str = "") -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {DEADLINE_SECONDS:.0f} s: {what or holds}")


class Operator:
    """A running `nexus-operator`."""

    def __init__(self, *, kubeconfig: Path, log: Path, arguments: list[str]) -> None:
        self.log = log
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.kubeconfig = kubeconfig
        self.arguments = [*arguments, f"--listen={self.address.removeprefix('http://')}"]
        self.process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {"KUBECONFIG": str(self.kubeconfig)}
        command = [sys.executable, "-m", "nexus_operator", *self.arguments]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, env=environment, stderr=log)

    def ready(self) -> Operator:
        eventually(lambda: self.readiness()[0] == 200, f"ready: {self.lines()}")
        return self

    def readiness(self) -> tuple[int, str]:
        try:
            answer = httpx.get(f"{self.address}/readyz")
        except httpx.TransportError as error:
            return 0, str(error)
        return answer.status_code, answer.text

    def lines(self) -> list[Stored]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def said(self, level: str) -> list[str]:
        return [line["message"] for line in self.lines() if line["level"] == level]

    def restart(self, number: int) -> None:
        self.stop(number)
        self.process = self._spawn()
        self.ready()

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=DEADLINE_SECONDS)

    def report(
        self, token: str, uid: str, *, requests: int = 30, errors: int = 0, generation: int = 0
    ) -> httpx.Response:
        report = full_report(uid, requests=requests, errors=errors, generation=generation)
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.post(f"{self.address}/v1/outcomes", content=encode(report), headers=headers)


class Cluster:
    """The administrator's view of one namespace."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane, self.namespace = plane, namespace

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        scope = f"--namespace={self.namespace}"
        return self.plane.run_kubectl(*arguments, scope, input=input, check=True).stdout

    def get(self, kind: str, name: str) -> Stored:
        text = self.kubectl("get", kind, name, "--output=json", "--show-managed-fields")
        found: Stored = json.loads(text)
        if "status" in found:
            assert_valid_status(found["kind"], found["status"])
        return found

    def apply(self, kind: str, name: str, **spec: Any) -> Stored:
        thing = {
            "apiVersion": "nexus.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "labels": {"team": "a"}},
            "spec": spec,
        }
        self.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(thing))
        return self.get(kind, name)

    def backend(self, name: str, **spec: Any) -> Stored:
        check = {"enabled": False}
        return self.apply(
            "LLMBackend", name, url="http://127.0.0.1:9", type="vllm", healthCheck=check, **spec
        )

    def status(self, kind: str, name: str, holds: Callable[[Stored], object]) -> Stored:
        def look() -> Stored | None:
            status: Stored = self.get(kind, name).get("status") or {}
            return status if status and holds(status) else None

        found: Stored = eventually(look, f"status of {kind} {name}")
        return found

    def token(self, account: str = "app", audience: str | None = AUDIENCE) -> str:
        return self.plane.identity(self.namespace, account, audience=audience)


@pytest.fixture(scope="module")
def rights(crds: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig that is the operator's ServiceAccount, with the rights of the manifests."""
    grant(crds)
    path = tmp_path_factory.mktemp("operator") / "kubeconfig"
    return crds.write_kubeconfig(path, "nexus-system", "nexus-operator")


def grant(plane: ControlPlane) -> None:
    plane.run_kubectl("apply", "-k", MANIFESTS / "rbac" / "operator", check=True)


@contextmanager
def operating(
    kubeconfig: Path, folder: Path, *arguments: str, wait: bool = True
) -> Iterator[Operator]:
    operator = Operator(kubeconfig=kubeconfig, log=folder / "log", arguments=list(arguments))
    try:
        yield operator.ready() if wait else operator
    finally:
        operator.stop(signal.SIGTERM)


@pytest.fixture
def operator(rights: Path, namespace: str, tmp_path: Path) -> Iterator[Operator]:
    """The operator of this test's namespace."""
    with operating(rights, tmp_path, f"--namespace={namespace}") as running:
        yield running
        assert running.stop() == 0
        assert not running.said("critical") and not running.said("error")


@pytest.fixture
def cluster(crds: ControlPlane, namespace: str) -> Cluster:
    """This test's namespace."""
    return Cluster(crds, namespace)


def test_every_condition_is_there_at_first_sight(operator: Operator, cluster: Cluster) -> None:
    cluster.backend("a")
    status = cluster.status("llmbackend", "a", lambda status: status["state"])
    assert {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]} == {
        "Ready": ("True", "NoTraffic"),
        "Healthy": ("Unknown", "ProbingDisabled"),
        "WithinPolicy": ("True", "WithinThresholds"),
        "Stalled": ("False", "NothingToMend"),
        "Priced": ("True", "NotCharged"),
    }
    assert "quality" not in status
    cluster.kubectl("wait", "--for=condition=Ready", "llmbackend/a", "--timeout=10s")


def test_nothing_but_status_changes(operator: Operator, cluster: Cluster) -> None:
    kinds = {"llmbackend": "a", "qualitypolicy": "p", "routingpolicy": "r"}
    cluster.backend("a")
    cluster.apply("QualityPolicy", "p")
    cluster.apply("RoutingPolicy", "r")
    for kind, name in kinds.items():
        cluster.status(kind, name, lambda status: status["conditions"])
    after = {kind: cluster.get(kind, name) for kind, name in kinds.items()}
    for found in after.values():
        metadata = found["metadata"]
        assert metadata["labels"] == {"team": "a"}
        assert metadata["generation"] == 1
        assert not {"annotations", "finalizers", "ownerReferences"} & set(metadata)
        entries = [m for m in metadata["managedFields"] if m["manager"] == "nexus-operator"]
        assert [(e["operation"], e["subresource"]) for e in entries] == [("Apply", "status")]
        assert list(entries[0]["fieldsV1"]) == ["f:status"]
    assert after["llmbackend"]["spec"]["url"] == "http://127.0.0.1:9"


def test_policies_are_told_whom_they_serve(operator: Operator, cluster: Cluster) -> None:
    cluster.backend("a")
    cluster.backend("b")
    cluster.apply("QualityPolicy", "everything")
    cluster.apply("QualityPolicy", "team", targetSelector={"matchLabels": {"team": "a"}})
    cluster.apply("RoutingPolicy", "first")
    cluster.apply("RoutingPolicy", "second")
    status = cluster.status("qp", "team", lambda status: status.get("effectiveBackends") == 2)
    assert (status["matchedBackends"], status["excludedBackends"]) == (2, 0)
    lost = cluster.status("qp", "everything", lambda s: s["conditions"][1]["status"] == "False")
    assert lost["conditions"][1]["reason"] == "Overridden"
    assert "team" in lost["conditions"][1]["message"]
    cluster.status("llmb", "a", lambda status: status["qualityPolicy"] == "team")
    second = cluster.status("rp", "second", lambda s: s["conditions"][0]["status"] == "False")
    assert second["conditions"][0]["reason"] == "Superseded"
    assert "first" in second["conditions"][0]["message"]


def test_a_probe_finds_models_and_says_what_is_wrong(operator: Operator, cluster: Cluster) -> None:
    cluster.apply(
        "LLMBackend",
        "dead",
        url="http://127.0.0.1:9",
        type="vllm",
        healthCheck={"failureThreshold": 1, "periodSeconds": 1},
    )
    status = cluster.status("llmb", "dead", lambda status: status["state"] == "Unhealthy")
    healthy = next(c for c in status["conditions"] if c["type"] == "Healthy")
    assert (healthy["status"], healthy["reason"]) == ("False", "ProbeFailed")
    reasons = lambda: cluster.kubectl("get", "events", "--output=jsonpath={.items[*].reason}")  # noqa: E731
    eventually(lambda: "Unhealthy" in reasons())


def test_the_intake_believes_only_tokens_for_it(operator: Operator, cluster: Cluster) -> None:
    uid = cluster.backend("a")["metadata"]["uid"]
    cluster.status("llmb", "a", lambda status: status["state"])
    for token in ("garbage", cluster.token(audience=None)):
        answer = operator.report(token, uid)
        assert answer.status_code == 401
        assert "audience nexus-operator" in answer.json()["error"]
    assert operator.report(cluster.token(), uid).json()["epoch"]


def test_another_namespace_needs_the_verb_report(
    operator: Operator, cluster: Cluster, crds: ControlPlane
) -> None:
    uid = cluster.backend("a")["metadata"]["uid"]
    cluster.status("llmb", "a", lambda status: status["state"])
    elsewhere = f"{cluster.namespace}-apps"
    crds.create_namespace(elsewhere)
    try:
        stranger = Cluster(crds, elsewhere)
        answer = operator.report(stranger.token("stranger"), uid)
        assert answer.status_code == 403
        reason = answer.json()["refused"][0]["reason"]
        assert reason == (
            f"NotAllowed: {elsewhere}/stranger may not report on llmbackends "
            f"in namespace {cluster.namespace}"
        )
        cluster.kubectl(
            "create", "role", "reporter", "--verb=report", "--resource=llmbackends.nexus.dev"
        )
        cluster.kubectl(
            "create", "rolebinding", "x", "--role=reporter", f"--serviceaccount={elsewhere}:app"
        )
        friend = stranger.token("app")
        eventually(lambda: operator.report(friend, uid).status_code == 200)
    finally:
        crds.delete_namespace(elsewhere)


def test_a_report_becomes_columns_and_a_verdict(operator: Operator, cluster: Cluster) -> None:
    cluster.apply("QualityPolicy", "p", minReporters=1)
    uid = cluster.backend("a")["metadata"]["uid"]
    cluster.status("llmb", "a", lambda status: status.get("qualityPolicy") == "p")
    assert operator.report(cluster.token(), uid, requests=40, errors=30).status_code == 200
    status = cluster.status("llmb", "a", lambda status: status["state"] == "Excluded")
    assert (status["verdictGeneration"], status["exclusion"]["count"]) == (1, 1)
    row = cluster.kubectl("get", "llmb", "a", "--no-headers").split()
    assert row[:5] == ["a", "Excluded", "75%", "25%", "40"]
    cluster.status("qp", "p", lambda status: status["excludedBackends"] == 1)
    reason = "--output=jsonpath={.items[*].reason}"
    eventually(lambda: "Excluded" in cluster.kubectl("get", "events", reason))


def test_an_edited_policy_is_followed_without_a_restart(
    operator: Operator, cluster: Cluster
) -> None:
    cluster.apply("QualityPolicy", "p", minReporters=1, errorRateThreshold="90%")
    uid = cluster.backend("a")["metadata"]["uid"]
    cluster.status("llmb", "a", lambda status: status.get("qualityPolicy") == "p")
    operator.report(cluster.token(), uid, requests=40, errors=30)
    edit = '{"spec": {"errorRateThreshold": "%s"}}'
    cluster.kubectl("patch", "qp", "p", "--type=merge", "--patch", edit % "50%")
    cluster.status("llmb", "a", lambda status: status["state"] == "Excluded")
    cluster.kubectl("patch", "qp", "p", "--type=merge", "--patch", edit % "95%")
    status = cluster.status("llmb", "a", lambda status: status["state"] == "Active")
    assert status["exclusion"]["recoveredTime"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_keeps_what_is_known(
    operator: Operator, cluster: Cluster, number: signal.Signals
) -> None:
    cluster.apply("QualityPolicy", "p", minReporters=1)
    uid = cluster.backend("a")["metadata"]["uid"]
    cluster.status("llmb", "a", lambda status: status.get("qualityPolicy") == "p")
    epoch = operator.report(cluster.token(), uid, requests=40, errors=30).json()["epoch"]
    before = cluster.status(
        "llmb", "a", lambda status: status["state"] == "Excluded" and status.get("quality")
    )
    operator.restart(number)
    # The answer proves that the new process has merged, and so judged, what it knows.
    answer = operator.report(cluster.token(), cluster.backend("b")["metadata"]["uid"], errors=0)
    cluster.status("llmb", "b", lambda status: status["state"])
    assert answer.json()["epoch"] != epoch
    after = cluster.get("llmb", "a")["status"]
    for name in ("state", "verdictGeneration", "exclusion", "quality", "conditions"):
        assert after[name] == before[name], name


def test_a_taken_port_is_named_and_ends_the_process(
    operator: Operator, rights: Path, namespace: str, tmp_path: Path
) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    with operating(rights, folder, f"--namespace={namespace}", wait=False) as second:
        second.stop()
        second.arguments[-1] = operator.arguments[-1]
        second.process = second._spawn()
        assert second.process.wait(timeout=DEADLINE_SECONDS) == 1
        (line,) = second.said("critical")
    assert line.startswith(f"cannot listen on {operator.address.removeprefix('http://')}")
    assert "--listen" in line


@pytest.fixture(scope="module")
def bare_plane() -> Iterator[ControlPlane]:
    """An API server of our own that serves none of our kinds and grants no rights yet."""
    with ControlPlane.up(f"operator-{os.getpid()}") as plane:
        yield plane


def test_what_is_missing_is_named_and_waited_for(bare_plane: ControlPlane, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    bare_plane.create_namespace("nexus-system")
    bare_plane.write_kubeconfig(kubeconfig, "nexus-system", "nexus-operator")
    with operating(kubeconfig, tmp_path, "--all-namespaces", wait=False) as operator:
        eventually(lambda: "kubectl apply -f crds/" in operator.readiness()[1])
        bare_plane.apply_crds()
        eventually(
            lambda: "not allowed to list qualitypolicies.nexus.dev" in operator.readiness()[1]
        )
        assert "manifests/rbac/operator" in operator.readiness()[1]
        grant(bare_plane)
        operator.ready()
        said = operator.said("error")
        assert len(said) == len(set(said)) >= 2  # CRDs are served one by one

        cluster = Cluster(bare_plane, "default")
        bare_plane.stop_apiserver()
        assert operator.readiness()[0] == 200
        bare_plane.start_apiserver()
        cluster.backend("a")
        cluster.status("llmb", "a", lambda status: status["state"] == "Active")

        bare_plane.run_kubectl("delete", "crd", "llmbackends.nexus.dev", check=True)
        eventually(lambda: "(llmbackends.nexus.dev)" in operator.readiness()[1])
        bare_plane.apply_crds()
        operator.ready()
        cluster.backend("b")
        cluster.status("llmb", "b", lambda status: status["state"] == "Active")
        assert operator.stop() == 0
