"""Two real operator processes on one real API server: one leads, the other takes its place."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from nexus_devtools.backends import Child
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.product import Product, environment, free_address
from nexus_quality.report import Cell, Report, encode

DEADLINE_SECONDS = 40.0
TAKEOVER_SECONDS = 20.0
LEASE = ("lease", "nexus-operator", "--namespace=nexus-system")
Stored = dict[str, Any]


def eventually(holds: Callable[[], Any], what: str, *, seconds: float = DEADLINE_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


@dataclass(frozen=True)
class Candidate:
    """A running operator process."""

    address: str
    child: Child
    log: Path

    def get(self, path: str) -> tuple[int, str]:
        try:
            answer = httpx.get(f"http://{self.address}{path}", trust_env=False, timeout=1)
        except httpx.TransportError as error:
            return 0, str(error)
        return answer.status_code, answer.text

    @property
    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def stands_by_for(self, leader: Candidate) -> bool:
        status, text = self.get("/readyz")
        return status == 503 and text.strip().endswith(f"_{leader.address} leads")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.child.pid, number)

    def gauge(self) -> str:
        lines = self.get("/metrics")[1].splitlines()
        return next(line for line in lines if line.startswith("nexus_operator_leader "))

    def said(self, text: str) -> int:
        return self.log.read_text().count(text)

    def post(self, content: bytes, token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        url = f"http://{self.address}/v1/outcomes"
        return httpx.post(url, content=content, headers=headers, trust_env=False)


class Pair:
    """A leader and a standby, and a backend that the leader has excluded."""

    def __init__(self, plane: ControlPlane, product: Product) -> None:
        self.plane, self.product = plane, product
        self.token = plane.identity(product.namespace, "app", audience="nexus-operator")
        self.kubeconfig = product.folder / "operator.kubeconfig"
        product.install("app")
        plane.write_kubeconfig(self.kubeconfig, "nexus-system", "nexus-operator")
        self.leader = self.start("first")
        eventually(lambda: self.leader.ready, "the first leads")
        self.uid = self.exclude()

    def joined(self) -> Pair:
        self.standby = self.start("second")
        eventually(lambda: self.standby.stands_by_for(self.leader), "the second stands by")
        return self

    def start(self, name: str) -> Candidate:
        address, log = free_address(), self.product.folder / f"{name}.log"
        arguments = ("--namespace", self.product.namespace, "--listen", address)
        child = Child(
            [sys.executable, "-m", "nexus_operator", *arguments, "--log-format", "text"],
            log=log,
            name=name,
            environment=environment(self.kubeconfig, home=self.product.folder),
        )
        self.product.stack.callback(child.stop)
        return Candidate(address, child, log)

    def exclude(self) -> str:
        check = {"enabled": False}
        # Longer than any of these tests: what changes is then the doing of an operator.
        recovery = {"baseExclusionSeconds": 300}
        self.apply("QualityPolicy", "p", minReporters=1, recovery=recovery)
        self.apply("LLMBackend", "a", url="http://127.0.0.1:9", type="vllm", healthCheck=check)
        eventually(lambda: self.status().get("qualityPolicy") == "p", "the policy is in force")
        uid = str(self.backend()["metadata"]["uid"])
        assert self.leader.post(report(uid), self.token).status_code == 200
        eventually(lambda: self.status()["state"] == "Excluded", "it is excluded")
        eventually(lambda: self.policy()["status"].get("excludedBackends") == 1, "the policy says")
        return uid

    def apply(self, kind: str, name: str, **spec: Any) -> None:
        body = {
            "apiVersion": "nexus.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        }
        scope = f"--namespace={self.product.namespace}"
        self.plane.run_kubectl("apply", scope, "-f", "-", input=json.dumps(body), check=True)

    def get(self, *what: str) -> Stored:
        found: Stored = json.loads(
            self.plane.run_kubectl("get", *what, "--output=json", check=True).stdout
        )
        return found

    def backend(self) -> Stored:
        return self.get("llmb", "a", f"--namespace={self.product.namespace}")

    def policy(self) -> Stored:
        return self.get("qp", "p", f"--namespace={self.product.namespace}")

    def status(self) -> Stored:
        found: Stored = self.backend().get("status") or {}
        return found


def report(uid: str) -> bytes:
    cells = [
        Cell(
            family=family,
            bucket=36_000 // family,
            uid=uid,
            model="m",
            generation=0,
            requests=40,
            errors=30,
        )
        for family in (10, 60, 3600)
    ]
    return encode(Report(incarnation="0" * 32, now_ms=36_001_000, full=True, cells=cells))


@pytest.fixture
def pair(crds: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Pair]:
    """Two operators, in the places of their processes."""
    with ExitStack() as stack:
        product = Product(plane=crds, namespace=namespace, folder=tmp_path, stack=stack)
        yield Pair(crds, product).joined()


def quiet(pair: Pair, before: Stored, *, seconds: float = 4.0) -> None:
    """Nothing was written to the backend since `before`, nor is it in the next seconds."""
    time.sleep(seconds)  # that something does not happen can only be waited for
    after = pair.backend()
    assert after["status"] == before["status"]
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_one_that_does_not_lead_says_who_does_and_takes_nothing(pair: Pair) -> None:
    assert (pair.leader.gauge(), pair.standby.gauge()) == (
        "nexus_operator_leader 1.0",
        "nexus_operator_leader 0.0",
    )
    answer = pair.standby.post(report(pair.uid), pair.token)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.json()["error"].endswith(f"_{pair.leader.address} leads")
    assert pair.standby.get("/healthz")[0] == 200
    spec = pair.get(*LEASE)["spec"]
    assert spec["holderIdentity"].endswith(f"_{pair.leader.address}")
    assert spec["leaseDurationSeconds"] == 15
    pair.standby.signal(signal.SIGTERM)
    assert eventually(lambda: pair.standby.child.exit_code is not None, "it ends", seconds=5)
    assert pair.standby.child.exit_code == 0 and pair.leader.ready


def test_a_killed_leader_is_replaced_within_twenty_seconds(pair: Pair) -> None:
    before = pair.backend()
    epoch = pair.leader.post(report(pair.uid), pair.token).json()["epoch"]
    pair.leader.child.kill()
    eventually(lambda: pair.standby.ready, "it takes over", seconds=TAKEOVER_SECONDS)
    quiet(pair, before)
    assert pair.standby.post(report(pair.uid), pair.token).json()["epoch"] != epoch
    assert before["status"]["verdictGeneration"] == 1
    assert pair.standby.gauge() == "nexus_operator_leader 1.0"


def test_a_leader_that_is_stopped_is_replaced_at_once(pair: Pair) -> None:
    before = pair.backend()
    pair.leader.signal(signal.SIGTERM)
    eventually(lambda: pair.standby.ready, "it takes over", seconds=8)
    eventually(lambda: pair.leader.child.exit_code is not None, "the first ends")
    assert pair.leader.child.exit_code == 0
    assert pair.standby.said("leading: ") == 1
    quiet(pair, before)


def test_a_leader_that_slept_through_its_lease_wakes_up_as_a_standby(pair: Pair) -> None:
    before = pair.backend()
    pair.leader.signal(signal.SIGSTOP)
    try:
        eventually(lambda: pair.standby.ready, "it takes over", seconds=TAKEOVER_SECONDS)
    finally:
        pair.leader.signal(signal.SIGCONT)
    eventually(lambda: pair.leader.stands_by_for(pair.standby), "the first stands by")
    assert pair.leader.said("stepping down: ") == 1
    assert pair.leader.child.exit_code is None and pair.standby.ready
    quiet(pair, before)
    pair.standby.signal(signal.SIGTERM)
    eventually(lambda: pair.leader.ready, "the first leads again", seconds=8)
    quiet(pair, before)


def test_the_api_server_away_does_not_end_the_term_of_a_single_operator(tmp_path: Path) -> None:
    with ControlPlane.up(f"leader-{os.getpid()}") as plane, ExitStack() as stack:
        plane.apply_crds()
        plane.create_namespace("alone")
        pair = Pair(plane, Product(plane=plane, namespace="alone", folder=tmp_path, stack=stack))
        before, lease = pair.backend(), pair.get(*LEASE)["spec"]
        epoch = pair.leader.post(report(pair.uid), pair.token).json()["epoch"]
        plane.stop_apiserver()
        away = "was not renewed in time"
        eventually(lambda: away in pair.leader.get("/readyz")[1], "it says that it may not write")
        assert pair.leader.gauge() == "nexus_operator_leader 0.0"
        assert pair.leader.get("/v1/stats")[0] == 200
        plane.start_apiserver()
        eventually(lambda: pair.leader.ready, "it leads again")
        assert pair.leader.post(report(pair.uid), pair.token).json()["epoch"] == epoch
        after = pair.get(*LEASE)["spec"]
        assert after["leaseTransitions"] == lease["leaseTransitions"]
        assert (pair.leader.said("not leading: "), pair.leader.said("leading again: ")) == (1, 1)
        assert pair.leader.said("stepping down: ") == 0
        quiet(pair, before)
