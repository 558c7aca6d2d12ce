"""Audit policies: each backend is asked about by itself, and no status asks for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from nexus_api import LLMBackend, QualityPolicy, QualityPolicyStatus
from nexus_api.meta import QUALITY_POLICY_PLURAL
from nexus_operator.engine import FleetEngine
from nexus_operator.plan import Key
from nexus_operator.policy_plans import PolicyPlans
from nexus_operator.registry import Registry
from nexus_quality.engine import BackendFacts
from nexus_quality.firing import Firing
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.report import Cell, Report

NOW = 1_700_000_000.0
KEY = Key(QUALITY_POLICY_PLURAL, "uid-p")
Build = Callable[..., LLMBackend]
BuildPolicy = Callable[..., QualityPolicy]


class CountingEngine:
    """An engine that knows how often it was asked what a policy would do."""

    def __init__(self, engine: FleetEngine) -> None:
        self._engine = engine
        self.asked = 0

    def firing_under(self, *arguments: Any) -> Firing | None:
        self.asked += 1
        return self._engine.firing_under(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class World:
    """Backends a and b, an audit policy, and what it makes of them."""

    def __init__(self, backend: Build, policy: QualityPolicy) -> None:
        self.registry = Registry()
        self.marked: list[Key] = []
        engine = FleetEngine(epoch="e", started=NOW - 3600, random=lambda: 0.0)
        self.engine = CountingEngine(engine)
        self.plans = PolicyPlans(
            registry=self.registry,
            engine=cast(FleetEngine, self.engine),
            clock=lambda: NOW,
            mark=self.marked.append,
        )
        self.registry.quality.put(policy)
        for name in "ab":
            thing = backend(name)
            self.registry.backends.put(thing)
            uid = thing.metadata.uid
            facts = BackendFacts(uid=uid, namespace="shop", name=name, fingerprint="f")
            self.engine.upsert(facts, DEFAULT_POLICY, NOW)

    def fail(self, uid: str) -> None:
        cells = [
            Cell(family=f, bucket=36_000 // f, uid=uid, model="m", requests=40, errors=4)
            for f in (10, 60, 3600)
        ]
        report = Report(incarnation="0" * 32, now_ms=36_005_000, full=True, cells=cells)
        assert not self.engine.merge("pod", report, NOW).answer.refused

    def would_exclude(self) -> tuple[str, ...]:
        plan = self.plans.quality("uid-p")
        assert plan is not None and isinstance(plan.status, QualityPolicyStatus)
        return plan.status.would_exclude


@pytest.fixture
def world(backend: Build, quality_policy: BuildPolicy) -> World:
    return World(backend, audit(quality_policy))


def audit(quality_policy: BuildPolicy, **more: Any) -> QualityPolicy:
    return quality_policy(enforcement="Audit", minReporters=1, errorRateThreshold="5%", **more)


def test_a_policys_status_asks_the_engine_nothing(world: World) -> None:
    world.fail("uid-a")
    world.plans.audits.look("uid-a")
    world.plans.audits.look("uid-b")
    assert world.engine.asked == 2
    assert world.would_exclude() == ("a",)
    assert world.engine.asked == 2


def test_a_changed_opinion_marks_the_policy_once(world: World) -> None:
    world.plans.audits.look("uid-a")
    world.marked.clear()
    world.plans.audits.look("uid-a")
    assert world.marked == []
    world.fail("uid-a")
    for _ in range(2):
        world.plans.audits.look("uid-a")
    assert world.marked == [KEY]


def test_who_was_not_looked_at_yet_counts_as_published(
    backend: Build, quality_policy: BuildPolicy
) -> None:
    world = World(backend, audit(quality_policy, status={"wouldExclude": ["a", "gone"]}))
    assert world.would_exclude() == ("a",)
    world.plans.audits.look("uid-a")
    assert world.would_exclude() == ()


def test_what_is_asked_for_is_due_until_it_was_looked_at_or_is_gone(world: World) -> None:
    audits = world.plans.audits
    for done in (audits.look, audits.forget):
        audits.ask("uid-a")
        assert audits.asked("uid-a") and not audits.asked("uid-b")
        done("uid-a")
        assert not audits.asked("uid-a")
