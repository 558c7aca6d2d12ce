"""The operator killed at every row that moves the verdict, right before and right after its write.

Between operator and API server stands a gate that kills the process when a chosen status write
arrives, or when it has been accepted and the operator does not know. What the next process makes of
it must be what the first would have made. All cases share one namespace and one line of operators.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from nexus_api.quantities import parse_time
from nexus_devtools.chronicle import Chronicle
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import backend, eventually, policy
from nexus_devtools.gate import Call, Gate, Moment
from nexus_devtools.product import Operator, Product, free_address
from nexus_devtools.reports import Counters

Stored = dict[str, Any]
# Start-up lasts 6 s at this pace, and a row that waits for its end does not wait for a minute.
SETTINGS = {"NEXUS_TEST_PACE": "10"}
SHORT, LONG = 2, 1200  # far longer than all cases take together
FAILING = {"requests": 40, "errors": 30}
QUIET = {"healthCheck": {"enabled": False}}


class Scene:
    """One namespace: its operator behind a gate, a proxy's counters, and every stored version."""

    def __init__(self, product: Product, gate: Gate) -> None:
        self.product, self.gate = product, gate
        self.plane, self.namespace = product.plane, product.namespace
        product.install("app", "calm")
        # One proxy to which all happens, and one that finds nothing wrong, and is heard first.
        self.counters, self.calm = Counters(), Counters()
        self.proxies = {
            self.plane.identity(self.namespace, name, audience="nexus-operator"): counters
            for name, counters in (("calm", self.calm), ("app", self.counters))
        }
        self.address, self.lives = free_address(), 0
        self.flags: tuple[str, ...] = ()
        self.operator = self.start()
        self.chronicle = Chronicle(self.plane, self.namespace, product.folder, product.stack)
        self.expected: dict[str, int] = {}
        self.told: dict[str, list[str]] = {}

    def start(self) -> Operator:
        self.lives += 1
        return self.product.operator(
            *self.flags, address=self.address, name=f"operator-{self.lives}"
        )

    def revive(self) -> None:
        """A case that failed must not take those after it along."""
        if self.operator.child.exit_code is not None:
            self.operator = self.start()

    def restart(self) -> None:
        eventually(lambda: self.operator.child.exit_code, lambda code: code is not None, what="end")
        self.operator = self.start()

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        scope = f"--namespace={self.namespace}"
        return self.plane.run_kubectl(*arguments, scope, input=input, check=True).stdout

    def create(self, name: str, **spec: Any) -> str:
        """A backend and a policy of its own; the backend's UID, once the policy is in force."""
        labelled = backend(name, "http://127.0.0.1:9", **QUIET)
        labelled["metadata"]["labels"] = {"row": name}
        selector = {"matchLabels": {"row": name}}
        numbers = {"minReporters": 1, "metricsIntervalSeconds": 1}
        thresholds = policy(name, targetSelector=selector, **numbers | spec)
        for document in (thresholds, labelled):
            self.kubectl("apply", "-f", "-", input=json.dumps(document))
        self.wait(name, lambda status: status.get("qualityPolicy") == name, "its policy in force")
        uid: str = self.get(name)["metadata"]["uid"]
        return uid

    def edit(self, kind: str, name: str, **spec: Any) -> None:
        self.kubectl("patch", kind, name, "--type=merge", "--patch", json.dumps({"spec": spec}))

    def get(self, name: str) -> Stored:
        found: Stored = json.loads(self.kubectl("get", "llmb", name, "--output=json"))
        return found

    def wait(self, name: str, holds: Callable[[Stored], object], what: str) -> Stored:
        return eventually(
            lambda: self.get(name).get("status") or {},
            lambda status: bool(holds(status)),
            what=f"{name}: {what}",
        )

    def wait_for(self, name: str, state: str, generation: int) -> Stored:
        wanted = (state, generation)
        return self.wait(
            name, lambda s: (s.get("state"), s.get("verdictGeneration")) == wanted, f"{wanted}"
        )

    def events(self, name: str) -> list[tuple[str, str]]:
        """Reason and message of each Event about a backend."""
        items = json.loads(self.kubectl("get", "events", "--output=json"))["items"]
        ours = [item for item in items if item["involvedObject"]["name"] == name]
        return [(item["reason"], item["message"]) for item in ours]

    def report(
        self, uid: str = "", *, generation: int = 0, model: str = "m", **numbers: int
    ) -> None:
        """Count this, and send all there is; that the operator dies of it is no error here."""
        if uid:
            self.counters.count(uid, generation=generation, model=model, **numbers)
        for token, counters in self.proxies.items():
            try:
                answer = httpx.post(
                    f"{self.operator.url}/v1/outcomes",
                    content=counters.full(),
                    headers={"Authorization": f"Bearer {token}"},
                    trust_env=False,
                    timeout=5,
                )
            except httpx.TransportError:
                return
            assert answer.status_code == 200, answer.text

    def kill_at(self, name: str, row: Row, moment: Moment) -> Assassin:
        return Assassin(self, name, row, moment)


class Assassin:
    """Kills the operator at the write that takes a backend through a row, once."""

    def __init__(self, scene: Scene, name: str, row: Row, moment: Moment) -> None:
        self._pid = scene.operator.child.pid
        self._wanted, self._row = (name, moment), row
        self._done = threading.Event()
        self.status: Stored = {}
        scene.gate.judge = self.judge

    def judge(self, call: Call, moment: Moment) -> bool:
        status = call.status
        if status is None or "verdictGeneration" not in status or self._done.is_set():
            return True
        if (call.target, moment) != self._wanted or not self._row.in_(status):
            return True
        os.kill(self._pid, signal.SIGKILL)
        self.status = status
        self._done.set()
        return False

    def wait(self) -> Stored:
        assert self._done.wait(20), f"no write of {self._wanted}"
        return self.status


@pytest.fixture(scope="module")
def scene(crds: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    namespace = f"killed-{secrets.token_hex(4)}"
    crds.create_namespace(namespace)
    with ExitStack() as stack:
        stack.callback(crds.delete_namespace, namespace)
        gate = stack.enter_context(Gate(crds))
        folder = tmp_path_factory.mktemp("killed")
        yield Scene(Product(crds, namespace, folder, stack, SETTINGS, gate.lead), gate)


@dataclass(frozen=True)
class Row:
    """A row of the table: how to come before it, what sets it off, where it leads.

    `told`: the reasons of all Events until then; `length`: seconds of the exclusion it begins;
    `model`: whose row it is, "" for the backend; `shows`: what tells a row without a generation;
    `retold`: whether a status says enough for its Event, if its writer did not live to tell it.
    """

    prepare: Callable[[Scene, str], str]
    trigger: Callable[[Scene, str, str], None]
    state: str
    generation: int
    count: int | None
    told: tuple[str, ...]
    length: int | None = None
    model: str = ""
    shows: Callable[[Stored], bool] = lambda status: True
    retold: bool = True

    def in_(self, status: Stored) -> bool:
        """Whether a status is that of one who went through the row."""
        reached = (status["verdictGeneration"], status["state"]) == (self.generation, self.state)
        return reached and self.shows(status)

    def subject(self, status: Stored) -> Stored:
        """What a status says of the row's subject."""
        if not self.model:
            return status
        return next(m for m in status["modelQuality"] if m["name"] == self.model)


def recovery(base: int) -> Stored:
    return {"baseExclusionSeconds": base, "maxExclusionSeconds": 3600, "slowStartSeconds": 1}


def active(scene: Scene, name: str) -> str:
    uid = scene.create(name, recovery=recovery(LONG))
    scene.wait_for(name, "Active", 0)
    return uid


def active_with_models(scene: Scene, name: str) -> str:
    uid = active(scene, name)
    scene.edit("llmb", name, models=[{"name": "good"}, {"name": "bad"}])
    scene.wait(name, lambda status: status["observedGeneration"] == 2, "its models seen")
    return uid


def excluded(scene: Scene, name: str, **spec: Any) -> str:
    uid = scene.create(name, **{"recovery": recovery(LONG), **spec})
    scene.report(uid, **FAILING)
    status = scene.wait_for(name, "Excluded", 1)
    # The times of a status have whole seconds: what comes next is told from its first sight.
    began = parse_time(status["exclusion"]["startTime"])
    time.sleep(max(0.0, began + 1.0 - time.time()))
    return uid


def excluded_shortly(scene: Scene, name: str) -> str:
    return excluded(scene, name, recovery=recovery(SHORT))


def excluded_for_good(scene: Scene, name: str) -> str:
    return excluded(scene, name, recovery={"enabled": False})


def on_probation(scene: Scene, name: str) -> str:
    uid = excluded_shortly(scene, name)
    scene.wait_for(name, "Probation", 2)
    scene.edit("qp", name, recovery=recovery(LONG))
    return uid


def excluded_while_nobody_looked(scene: Scene, name: str) -> str:
    """Its end passes while there is no operator, and with it a bucket of 10 s: what is counted
    from then on was surely after the end.
    """
    uid = excluded_shortly(scene, name)
    until = parse_time(scene.get(name)["status"]["exclusion"]["untilTime"])
    scene.operator.child.kill()
    time.sleep(max(0.0, (until // 10 + 1) * 10 + 0.1 - time.time()))
    scene.restart()
    return uid


def nothing(scene: Scene, name: str, uid: str) -> None:
    """Time alone."""


def tell(generation: int, **numbers: Any) -> Callable[[Scene, str, str], None]:
    return lambda scene, name, uid: scene.report(uid, generation=generation, **numbers)


def one_model_fails(scene: Scene, name: str, uid: str) -> None:
    scene.counters.count(uid, model="good", requests=40)
    scene.report(uid, model="bad", **FAILING)


def mend_the_url(scene: Scene, name: str, uid: str) -> None:
    scene.edit("llmb", name, url="http://127.0.0.1:19")


def fails_for_one_of_two(scene: Scene, name: str, uid: str) -> None:
    scene.calm.count(uid, requests=40)
    scene.report(uid, requests=400, errors=390)


def active_for_two(scene: Scene, name: str) -> str:
    return scene.create(name, minReporters=2)


def watched_only(scene: Scene, name: str) -> str:
    return scene.create(name, enforcement="Audit")


def used_and_left(scene: Scene, name: str) -> str:
    uid = active(scene, name)
    scene.report(uid, requests=40)
    scene.wait(name, lambda status: "quality" in status, "figures")
    return uid


def out_with_a_model(scene: Scene, name: str) -> str:
    """On probation itself, while a model of it is out for long."""
    uid = active_with_models(scene, name)
    one_model_fails(scene, name, uid)
    scene.wait_for(name, "Active", 1)
    scene.edit("qp", name, recovery=recovery(SHORT))
    scene.report(uid, generation=1, model="good", requests=40, errors=40)
    scene.wait_for(name, "Probation", 3)
    scene.edit("qp", name, recovery=recovery(LONG))
    return uid


def condition(reason: str) -> Callable[[Stored], bool]:
    """Whether WithinPolicy has this reason."""
    return lambda status: (
        reason in (c["reason"] for c in status["conditions"] if c["type"] == "WithinPolicy")
    )


def shared_out(status: Stored) -> bool:
    """Whether only a part of the eligible requests probe."""
    return bool(status["exclusion"]["probationShare"] != "100%")


def raise_the_threshold(scene: Scene, name: str, uid: str) -> None:
    scene.edit("qp", name, errorRateThreshold="95%")


ONE_PROBED = {"requests": 1, "probes": 1, "probe_successes": 1}
PROBED = {"requests": 2, "probes": 2, "probe_successes": 2}
FAILED_PROBE = {"requests": 1, "errors": 1, "probes": 1, "probe_failures": 1}
E, P, R = "Excluded", "ProbationStarted", "Recovered"
ROWS = {
    "s1": Row(active, tell(0, **FAILING), "Excluded", 1, 1, (E,), length=LONG),
    "s1-model": Row(
        active_with_models, one_model_fails, "Active", 1, 1, (E,), length=LONG, model="bad"
    ),
    "s2": Row(
        active_for_two,
        fails_for_one_of_two,
        "Active",
        0,
        None,
        (),
        shows=condition("FailingForSome"),
    ),
    "s3": Row(
        watched_only,
        tell(0, **FAILING),
        "Active",
        0,
        None,
        (),
        shows=condition("WouldBeExcluded"),
    ),
    "s5": Row(used_and_left, nothing, "Active", 0, None, (), shows=condition("ReportsStale")),
    "s7": Row(excluded_shortly, nothing, "Probation", 2, 1, (E, P)),
    "s8": Row(excluded_while_nobody_looked, tell(1, requests=20), "Active", 2, 1, (E, R)),
    "s9": Row(excluded_for_good, tell(1, requests=900), "Active", 2, 1, (E, R)),
    "s10": Row(
        on_probation, tell(2, **ONE_PROBED), "Probation", 2, 1, (E, P), shows=condition("Probation")
    ),
    "s11": Row(on_probation, tell(2, **PROBED), "Active", 3, 1, (E, P, R)),
    "s12": Row(on_probation, tell(2, **FAILED_PROBE), "Excluded", 3, 2, (E, P, E), length=2 * LONG),
    "s14": Row(on_probation, tell(2, eligible=400), "Probation", 2, 1, (E, P), shows=shared_out),
    "s15": Row(excluded, mend_the_url, "Active", 2, None, (E, "Released")),
    "s16": Row(excluded, raise_the_threshold, "Active", 2, 1, (E, "Released")),
    "s17": Row(
        out_with_a_model,
        tell(3, model="bad", eligible=40),
        "Probation",
        4,
        1,
        (E, E, P, "Released"),
        model="bad",
        retold=False,
    ),
}


def verdict(case: Row, status: Stored) -> tuple[Any, ...]:
    subject = case.subject(status)
    exclusion = subject.get("exclusion") or {}
    parts = ("startTime", "untilTime", "rule", "errors", "requests", "count", "recoveredTime")
    return subject["state"], status["verdictGeneration"], *map(exclusion.get, parts)


# A row that changes a condition alone is cut after its write: before, nothing had happened yet.
CASES = [
    pytest.param(row, moment, id=f"{row}-{moment.value}")
    for row in ROWS
    for moment in Moment
    if moment is Moment.ANSWERED or row not in ("s2", "s3", "s5", "s14")
]


@pytest.mark.parametrize(("row", "moment"), CASES)
def test_a_kill_at_a_row_loses_nothing_and_repeats_nothing(
    scene: Scene, row: str, moment: Moment
) -> None:
    case, name = ROWS[row], f"{row}-{moment.value}"
    scene.revive()
    uid = case.prepare(scene, name)
    killer = scene.kill_at(name, case, moment)
    case.trigger(scene, name, uid)
    written = killer.wait()
    accepted = moment is Moment.ANSWERED
    stored = scene.get(name)["status"]
    assert case.in_(stored) is accepted
    scene.restart()
    scene.report()  # as every proxy does when it hears of a new operator
    status = scene.wait(name, case.in_, f"{case}")
    exclusion = case.subject(status).get("exclusion") or {}
    assert exclusion.get("count") == case.count
    if accepted:
        assert verdict(case, status) == verdict(case, written)
    if case.length is not None:
        span = parse_time(exclusion["untilTime"]) - parse_time(exclusion["startTime"])
        assert 0.9 * case.length <= span <= case.length + 2
    scene.expected[name] = case.generation
    untold = accepted and not case.retold
    scene.told[name] = sorted(case.told[:-1] if untold else case.told)
    eventually(
        lambda: sorted(reason for reason, _ in scene.events(name)),
        lambda reasons: reasons == scene.told[name],
        what=f"{name}: its Events",
    )


def counted(scene: Scene, name: str) -> int:
    """Requests of a day that the operator itself knows of, whatever was published."""
    stats = httpx.get(f"{scene.operator.url}/v1/stats", trust_env=False).json()
    wanted = f"{scene.namespace}/{name}"
    found: int = next(b["requests"] for b in stats["backends"] if b["id"] == wanted)
    return found


@pytest.fixture
def kept(scene: Scene, tmp_path: Path) -> Iterator[Scene]:
    """The scene with operators that keep a store."""
    scene.flags = ("--data-dir", str(tmp_path))
    scene.operator.child.kill()
    scene.restart()
    scene.report()
    yield scene
    scene.flags = ()


@pytest.mark.parametrize("moment", list(Moment), ids=lambda moment: moment.value)
def test_with_a_store_a_kill_at_a_row_loses_no_count_either(kept: Scene, moment: Moment) -> None:
    """The next process knows what was counted before anybody has repeated it."""
    case, name = ROWS["s12"], f"s12-kept-{moment.value}"
    uid = case.prepare(kept, name)
    time.sleep(2.0)  # two batches: what was counted until now is in the file
    killer = kept.kill_at(name, case, moment)
    case.trigger(kept, name, uid)
    written = killer.wait()
    kept.restart()
    before = FAILING["requests"]
    assert counted(kept, name) in (before, before + FAILED_PROBE["requests"])
    kept.report()
    status = kept.wait_for(name, case.state, case.generation)
    assert status["exclusion"]["count"] == case.count
    if moment is Moment.ANSWERED:
        assert verdict(case, status) == verdict(case, written)
    assert counted(kept, name) == before + FAILED_PROBE["requests"]
    kept.expected[name] = case.generation


def test_none_of_them_has_moved_since(scene: Scene) -> None:
    for name, generation in scene.expected.items():
        assert scene.get(name)["status"]["verdictGeneration"] == generation, name
        assert scene.chronicle.generations(name) == list(range(generation + 1)), name


def test_every_change_was_told_once(scene: Scene) -> None:
    for name, reasons in scene.told.items():
        events = scene.events(name)
        assert sorted(reason for reason, _ in events) == reasons, name
        assert all(message for _, message in events), name
