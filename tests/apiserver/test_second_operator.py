"""A second operator started by mistake: never two writers for longer than it takes to see it.

The second reaches the API server through a gate. In one case it only arrives at the same moment;
in the other the gate shows it a Lease of its own, as an operator installed into another namespace
would have, so that both lead and both serve the same objects.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from nexus_devtools.backends import Child
from nexus_devtools.chronicle import Chronicle
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import backend, eventually, policy
from nexus_devtools.gate import Gate
from nexus_devtools.product import Product, environment, free_address
from nexus_devtools.reports import Counters
from nexus_operator.rivals import ESTABLISHED_SECONDS

Stored = dict[str, Any]
# Start-up lasts 3 s at this pace: only after it does an operator say what nobody told it.
PACE = 20
SETTINGS = {"NEXUS_TEST_PACE": str(PACE)}
OTHER_LEASE = "nexus-operator-other"
FAILING: dict[str, int] = {"requests": 40, "errors": 30}


class Process:
    """An operator of its own, ready or not."""

    def __init__(self, product: Product, name: str, *, gate: Gate | None = None) -> None:
        self.address = free_address()
        kubeconfig = product.folder / f"{name}.kubeconfig"
        product.plane.write_kubeconfig(kubeconfig, "nexus-system", "nexus-operator")
        if gate is not None:
            gate.lead(kubeconfig)
        arguments = ("--namespace", product.namespace, "--listen", self.address)
        self.child = Child(
            [sys.executable, "-m", "nexus_operator", *arguments, "--log-format", "text"],
            log=product.folder / f"{name}.log",
            name=name,
            environment=environment(kubeconfig, home=product.folder) | SETTINGS,
        )
        product.stack.callback(self.child.stop)

    def readiness(self) -> str:
        """ "ready", or why it is not."""
        try:
            answer = httpx.get(f"http://{self.address}/readyz", trust_env=False, timeout=2)
        except httpx.TransportError:
            return "no answer"
        return "ready" if answer.status_code == 200 else answer.text.strip()

    def picture(self) -> Stored:
        """What its page shows at first."""
        url = f"http://{self.address}/page/events"
        client = httpx.Client(trust_env=False, timeout=10)
        with client, client.stream("GET", url) as answer:
            line = next(line for line in answer.iter_lines() if line.startswith("data: "))
        found: Stored = json.loads(line.removeprefix("data: "))
        return found

    def said(self, text: str) -> list[str]:
        return [line for line in self.child.log.read_text().splitlines() if text in line]


class Scene:
    """A namespace with one backend, a proxy's counters, and every version that was stored."""

    def __init__(self, product: Product) -> None:
        self.product, self.plane = product, product.plane
        self.namespace = product.namespace
        product.install("app")
        self.counters = Counters()
        self.token = self.plane.identity(self.namespace, "app", audience="nexus-operator")
        unprobed = backend("a", "http://127.0.0.1:9", healthCheck={"enabled": False})
        recovery = {"baseExclusionSeconds": 300, "slowStartSeconds": 1}
        once = policy("p", minReporters=1, metricsIntervalSeconds=1, recovery=recovery)
        for document in (once, unprobed):
            self.kubectl("apply", "-f", "-", input=json.dumps(document))
        self.uid = self.get()["metadata"]["uid"]
        self.chronicle = Chronicle(self.plane, self.namespace, product.folder, product.stack)

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        scope = f"--namespace={self.namespace}"
        return self.plane.run_kubectl(*arguments, scope, input=input, check=True).stdout

    def get(self) -> Stored:
        found: Stored = json.loads(self.kubectl("get", "llmb", "a", "--output=json"))
        return found

    def status(self) -> Stored:
        return self.get().get("status") or {}

    def until(self, holds: Callable[[Stored], object], what: str) -> Stored:
        return eventually(self.status, lambda status: bool(holds(status)), what=what)

    def report(self, operator: Process, counters: Counters | None = None) -> int:
        """The status of the answer to a full report, 0 if there was none."""
        try:
            return httpx.post(
                f"http://{operator.address}/v1/outcomes",
                content=(counters or self.counters).full(),
                headers={"Authorization": f"Bearer {self.token}"},
                trust_env=False,
            ).status_code
        except httpx.TransportError:
            return 0

    def raise_threshold(self, value: str) -> None:
        change = json.dumps({"spec": {"errorRateThreshold": value}})
        self.kubectl("patch", "qp", "p", "--type=merge", "--patch", change)

    def generations(self) -> list[int]:
        return self.chronicle.generations("a")


@pytest.fixture
def scene(crds: ControlPlane, namespace: str, tmp_path: Any) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(Product(crds, namespace, tmp_path, stack))


def test_of_two_that_start_at_once_one_writes(scene: Scene) -> None:
    both = [Process(scene.product, name) for name in ("one", "two")]
    states = eventually(
        lambda: [process.readiness() for process in both],
        lambda said: (
            sorted(line.startswith("standing by: ") for line in said) == [False, True]
            and "ready" in said
        ),
        what="one leads and one stands by",
    )
    leader = both[states.index("ready")]
    (standby,) = (process for process in both if process is not leader)
    scene.until(lambda status: status.get("qualityPolicy") == "p", "the policy in force")
    scene.counters.count(scene.uid, **FAILING)
    assert [scene.report(process) for process in (standby, leader)] == [503, 200]
    scene.until(lambda status: status["state"] == "Excluded", "excluded")
    scene.raise_threshold("95%")
    scene.until(lambda status: status["state"] == "Active", "released")
    assert scene.generations() == [0, 1, 2]
    page = httpx.get(f"http://{standby.address}/metrics", trust_env=False).text
    assert "nexus_operator_status_writes_total{" not in page
    assert len(standby.said("standing by: ")) == 1
    # The page is on both, and says which of them it is.
    shown = standby.picture()
    assert shown["head"]["problem"].startswith("standing by: ")
    assert (shown["head"]["leading"], shown.get("backends", {})) == (False, {})
    shown = leader.picture()
    assert (shown["head"]["leading"], shown["head"]["problem"]) == (True, None)
    assert [row["state"] for row in shown["backends"].values()] == ["Active"]


@pytest.fixture
def other_lease(scene: Scene) -> Iterator[Gate]:
    """A gate behind which the Lease is another one, which the operator may hold as well."""
    subject = "--serviceaccount=nexus-system:nexus-operator"
    rights = ("--verb=get,create,update,patch", "--resource=leases.coordination.k8s.io")
    name, scope = f"other-{secrets.token_hex(4)}", "--namespace=nexus-system"
    run = scene.plane.run_kubectl
    run("create", "role", name, *rights, scope, check=True)
    run("create", "rolebinding", name, f"--role={name}", subject, scope, check=True)

    def edit(request: bytes) -> bytes:
        head, separator, body = request.partition(b"\r\n\r\n")
        if b"/leases/nexus-operator" not in head:
            return request
        head = head.replace(b"/leases/nexus-operator", f"/leases/{OTHER_LEASE}".encode())
        renamed = body.replace(b'"nexus-operator"', f'"{OTHER_LEASE}"'.encode())
        lines = [
            b"content-length: %d" % len(renamed)
            if line.lower().startswith(b"content-length:")
            else line
            for line in head.split(b"\r\n")
        ]
        return b"\r\n".join(lines) + separator + renamed

    try:
        with Gate(scene.plane, edit=edit) as gate:
            yield gate
    finally:
        for kind in ("rolebinding", "role"):
            run("delete", kind, name, scope, check=True)
        run("delete", "lease", OTHER_LEASE, scope, "--ignore-not-found", check=True)


def ready(*processes: Process) -> None:
    for process in processes:
        eventually(process.readiness, lambda said: said == "ready", what=process.child.name)


def steps_down(process: Process) -> str:
    """The one line with which it ended."""
    eventually(lambda: process.child.exit_code, lambda code: code == 1, what="it steps down")
    (line,) = process.said("CRITICAL")
    return line


def test_one_with_another_lease_steps_down_at_the_first_verdict(
    scene: Scene, other_lease: Gate
) -> None:
    first = Process(scene.product, "first")
    ready(first)
    second = Process(scene.product, "second", gate=other_lease)
    ready(second)
    assert first.readiness() == "ready"
    scene.counters.count(scene.uid, **FAILING)
    assert scene.report(first) == 200
    scene.until(lambda status: status.get("state") == "Excluded", "excluded")
    line = steps_down(second)
    assert f"another writer moved {scene.namespace}/a to verdict generation 1 (ours was 0)" in line
    assert "see that one nexus-operator serves each namespace" in line
    assert scene.status()["state"] == "Excluded"
    assert scene.generations() == [0, 1]
    assert first.readiness() == "ready"


def test_one_with_another_lease_does_not_fight_over_figures(
    scene: Scene, other_lease: Gate
) -> None:
    first = Process(scene.product, "first")
    ready(first)
    scene.counters.count(scene.uid, requests=40)
    assert scene.report(first) == 200
    scene.until(lambda status: "quality" in status, "figures")
    second = Process(scene.product, "second", gate=other_lease)
    ready(second)
    before = scene.chronicle.status_writes("a")
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:  # a proxy goes on reporting
        scene.counters.count(scene.uid, requests=1)
        assert scene.report(first) == 200
        time.sleep(0.5)
    line = steps_down(second)
    assert f"another writer changes the status of {scene.namespace}/a" in line
    assert "see that one nexus-operator serves each namespace" in line
    assert first.readiness() == "ready" and first.said("CRITICAL") == []
    assert scene.chronicle.status_writes("a") - before <= 12
    status = scene.status()
    assert status["quality"]["requests1h"] >= 40
    assert scene.generations() == [0]


def test_the_one_that_was_here_first_stays_where_both_hear_as_much(
    scene: Scene, other_lease: Gate
) -> None:
    first = Process(scene.product, "first")
    ready(first)
    scene.counters.count(scene.uid, requests=40)
    assert scene.report(first) == 200
    scene.until(lambda status: "quality" in status, "figures")
    time.sleep(ESTABLISHED_SECONDS / PACE)
    second = Process(scene.product, "second", gate=other_lease)
    ready(second)
    others = Counters()
    others.count(scene.uid, requests=400)

    def report() -> int | None:
        """Either of two proxies reports to its operator; how the second one ended, if it did."""
        assert scene.report(first) == 200
        scene.report(second, others)
        return second.child.exit_code

    eventually(report, lambda code: code == 1, what="the later one steps down")
    line = "another writer changes the status of "
    assert first.said(f"{line}{scene.namespace}/a, and is expected to step down")
    assert f"{line}{scene.namespace}/a: stepping down" in steps_down(second)
    assert first.readiness() == "ready" and first.said("CRITICAL") == []
    scene.until(lambda status: status["quality"]["requests1h"] == 40, "the older one's figures")
    assert scene.generations() == [0]
