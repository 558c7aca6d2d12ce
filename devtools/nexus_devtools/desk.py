"""The operator's judging parts, from reports and probes to the status that is due, without I/O.

Promises engine, prober and planner wired as in the operator, on a clock that stands until it is
moved, with every status checked against the schema before it counts as written. It is for tests,
speaks to no API server, and is NOT part of the product.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nexus_api import Condition, LLMBackend, LLMBackendSpec, LLMBackendStatus, decode_quality_policy
from nexus_api.fingerprint import verdict_fingerprint
from nexus_api.meta import API_VERSION, BACKEND_PLURAL, QUALITY_POLICY_KIND
from nexus_devtools.reports import Counters
from nexus_devtools.schemas import assert_valid_backend_status
from nexus_operator.engine import FleetEngine
from nexus_operator.history import History
from nexus_operator.metrics import Metrics
from nexus_operator.notes import Note
from nexus_operator.plan import Key
from nexus_operator.planner import Planner
from nexus_operator.policy_plans import PolicyPlans
from nexus_operator.probe import Answer
from nexus_operator.prober import Prober
from nexus_operator.problems import Fatal
from nexus_operator.registry import Registry
from nexus_operator.specs import Specs
from nexus_operator.store_keeper import Keeper
from nexus_quality.engine import BackendFacts
from nexus_quality.report import Cell, Pulse, Report, decode_report
from nexus_quality.window import Family

UID = "uid-a"
START = 1_000_000.0
GOOD = Answer(ok=True, reason="ProbeSucceeded", message="GET /health answers 200", latency_ms=5)
BAD = Answer(ok=False, reason="ProbeFailed", message="GET /health answers 503")


class Desk:
    """Engine, prober and planner on a clock of the test's; `write` does what is due."""

    def __init__(self, started: float = START) -> None:
        self.now = started
        self.answers: dict[str, Answer] = {}
        self.late: list[Note] = []
        self._counters: dict[str, Counters] = {}
        self.registry, self.metrics = Registry(), Metrics(lambda: ())
        self.engine = FleetEngine(epoch="e", started=started, random=lambda: 0.0)
        self.prober = Prober(
            ring=self.ring,
            clock=lambda: self.now,
            random=lambda: 0.5,
            turned=lambda uid: None,
            metrics=self.metrics,
        )
        self.engine.doubts = lambda uid: self.prober.findings(uid).health.failures > 0
        policies = PolicyPlans(
            registry=self.registry,
            engine=self.engine,
            clock=lambda: self.now,
            mark=lambda key: None,
        )
        self.planner = Planner(
            registry=self.registry,
            engine=self.engine,
            prober=self.prober,
            metrics=self.metrics,
            clock=lambda: self.now,
            policies=policies,
            history=History(
                engine=self.engine,
                keeper=Keeper(
                    folder=None,
                    engine=self.engine,
                    clock=lambda: self.now,
                    metrics=self.metrics,
                ),
            ),
            specs=Specs(),
            see=lambda plural, stored: None,
            gone=lambda key: None,
            fail=self.fail,
            late=lambda metadata, notes: self.late.extend(notes),
        )

    def fail(self, problem: Fatal) -> None:
        raise AssertionError(f"it stepped down: {problem}")

    async def ring(self, namespace: str, spec: LLMBackendSpec) -> Answer:
        return self.answers.get(spec.url, GOOD)

    def see(self, backend: LLMBackend) -> None:
        """The watch brings a backend."""
        uid = backend.metadata.uid
        known = uid in self.registry.backends.uids()
        self.registry.backends.put(backend)
        self.prober.see(backend)
        facts = BackendFacts(
            uid=uid,
            namespace="shop",
            name=backend.metadata.name,
            fingerprint=verdict_fingerprint(backend.spec),
        )
        self.engine.upsert(facts, self.registry.thresholds(backend), self.now)
        if not known and backend.status.state is not None:
            self.engine.restore(uid, backend.status, self.now)

    def policy(self, **spec: Any) -> None:
        """A QualityPolicy for all backends, in the place of the one before."""
        document = {
            "apiVersion": API_VERSION,
            "kind": QUALITY_POLICY_KIND,
            "metadata": {"name": "p", "namespace": "shop", "uid": "uid-p"},
            "spec": spec,
        }
        self.registry.quality.put(decode_quality_policy(document))
        for backend in self.registry.backends:
            self.see(backend)

    def count(self, reporter: str, *, uid: str = UID, **numbers: Any) -> None:
        """A full report of a proxy that just counted this, beside all that it counted before."""
        counters = self._counters.setdefault(reporter, Counters(clock=lambda: self.now))
        counters.count(uid, **numbers)
        merged = self.engine.merge(reporter, decode_report(counters.full()), self.now)
        assert not merged.answer.refused

    def hear(
        self, reporter: str, *pulses: Pulse, successes: int = 0, uid: str = UID, final: bool = False
    ) -> None:
        """A report that came just now."""
        up = self.now - START + 36_000
        cells = [
            Cell(family=int(f), bucket=int(up // f), uid=uid, model="m", requests=successes)
            for f in Family
        ]
        report = Report(
            incarnation=f"{sum(reporter.encode()):032x}",
            now_ms=int(up * 1000),
            full=True,
            final=final,
            cells=cells if successes else [],
            pulses=list(pulses),
        )
        merged = self.engine.merge(reporter, report, self.now)
        assert not merged.answer.refused

    def write(self, uid: str = UID) -> list[Note]:
        """Writes what is due; the notes that follow."""
        notes: list[Note] = []
        while (plan := self.planner.plan(Key(BACKEND_PLURAL, uid))) is not None:
            status = msgspec.json.decode(msgspec.json.encode(plan.status))
            assert_valid_backend_status(status)
            backend = self.registry.backends.get(uid)
            assert backend is not None
            stored = msgspec.json.decode(msgspec.json.encode(backend)) | {"status": status}
            notes += plan.accepted(stored)
        return notes

    def status(self, uid: str = UID) -> LLMBackendStatus:
        backend = self.registry.backends.get(uid)
        assert backend is not None
        return backend.status

    def said(self, kind: str, uid: str = UID) -> tuple[str, str, str]:
        found: Condition = next(c for c in self.status(uid).conditions if c.type == kind)
        return str(found.status), found.reason, found.message
