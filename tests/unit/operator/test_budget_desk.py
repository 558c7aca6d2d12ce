"""Reports, accounts and RoutingPolicies, put together: who is looked at, and what is planned."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nexus_api import LLMBackend, RoutingPolicy
from nexus_api.quantities import parse_time
from nexus_operator.budget_desk import BudgetDesk
from nexus_operator.engine import FleetEngine
from nexus_operator.metrics import Metrics
from nexus_operator.plan import Key, Plan
from nexus_operator.policy_plans import PolicyPlans
from nexus_operator.registry import Registry
from nexus_quality.report import Report
from nexus_quality.spend import Spend, slot_at

START = parse_time("2026-01-15T12:00:00Z")
USD = 10**9


class World:
    """A registry, a desk, and the plans for its policies."""

    def __init__(self) -> None:
        self.now = self.started = START
        self.registry = Registry()
        self.marked: list[Key] = []
        self.metrics = Metrics(lambda: ())
        self.open()

    def open(self) -> None:
        self.desk = BudgetDesk(
            registry=self.registry,
            started=lambda: self.started,
            clock=lambda: self.now,
            mark=self.marked.append,
        )
        self.plans = PolicyPlans(
            registry=self.registry,
            engine=FleetEngine(epoch="e", started=self.started, random=lambda: 0.5),
            clock=lambda: self.now,
            mark=self.marked.append,
            budgets=self.desk,
        )

    def policy(self, name: str, *, created: str = "2026-01-01T00:00:00Z", **parts: Any) -> None:
        metadata = {"name": name, "namespace": "team", "uid": name, "creationTimestamp": created}
        document = {"metadata": metadata, **parts}
        self.registry.routing.put(msgspec.convert(document, RoutingPolicy))

    def report(self, nano_usd: int, *, incarnation: str = "ab" * 16, final: bool = False) -> None:
        slot = slot_at(self.now)
        spend = [Spend(namespace="team", slot=slot, nano_usd=nano_usd)]
        now_ms = int((self.now - START) * 1000)
        report = Report(incarnation=incarnation, now_ms=now_ms, spend=spend, spend_slot=slot)
        self.desk.heard("app", msgspec.structs.replace(report, final=final))

    def write(self, name: str = "r") -> list[str] | None:
        """What would be written now, written; the reasons of its Events."""
        plan: Plan | None = self.plans.routing(name)
        if plan is None:
            return None
        policy = self.registry.routing.get(name)
        assert policy is not None
        stored = msgspec.to_builtins(policy) | {"status": msgspec.to_builtins(plan.status)}
        return [note.reason for note in plan.accepted(stored)]

    def budget(self, name: str = "r") -> Any:
        policy = self.registry.routing.get(name)
        assert policy is not None
        return policy.status.budget

    def sample(self, name: str) -> float | None:
        self.desk.show(self.metrics)
        return self.metrics.registry.get_sample_value(name, {"namespace": "team"})


@pytest.fixture
def world() -> World:
    """With one policy of ten dollars a month."""
    made = World()
    made.policy("r", spec={"budget": {"monthlyLimitUSD": "10"}})
    made.write()
    return made


def test_a_policy_with_a_limit_shows_a_budget_from_the_start(world: World) -> None:
    budget = world.budget()
    assert (budget.month, budget.spent_usd, budget.state) == ("2026-01", "0", "Normal")


def test_a_report_that_turns_the_state_has_the_policy_looked_at_and_others_do_not(
    world: World,
) -> None:
    world.report(7 * USD)
    assert world.marked == []
    world.report(8 * USD)
    assert world.marked == [Key("routingpolicies", "r")]
    assert world.write() == ["BudgetSoftLimit"]
    world.marked.clear()
    world.report(9 * USD)
    assert world.marked == [] and world.write() is None


def test_only_the_policy_in_force_has_a_budget(world: World) -> None:
    limit = {"budget": {"monthlyLimitUSD": "1"}}
    world.policy("late", created="2026-01-02T00:00:00Z", spec=limit)
    world.report(2 * USD)
    assert world.write("late") == []
    assert world.budget("late") is None


def test_a_raised_limit_is_judged_with_the_next_write(world: World) -> None:
    world.report(11 * USD)
    assert world.write() == ["BudgetHardLimit"]
    status = msgspec.to_builtins(world.registry.routing.get("r"))["status"]
    world.policy("r", spec={"budget": {"monthlyLimitUSD": "100"}}, status=status)
    assert world.write() == ["BudgetNormal"]


def test_a_new_reign_begins_with_what_is_published_and_nothing_else(world: World) -> None:
    world.now += 600.0
    world.report(3 * USD)
    world.now += 60.0
    world.report(1 * USD)
    assert world.write() == [] and world.budget().spent_usd == "3"
    world.started = world.now
    world.marked.clear()
    world.report(8 * USD)  # 3 published, 8 in a slot not published yet
    assert world.marked and world.write() == ["BudgetHardLimit"]


def test_what_is_spent_and_what_has_no_price_can_be_scraped(world: World) -> None:
    world.report(USD // 2)
    for name, spec in {
        "priced": {"pricing": {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "2"}},
        "bare": {},
        "half": {"models": [{"name": "m"}]},
        "inside": {"type": "vllm"},
    }.items():
        metadata = {"name": name, "namespace": "team", "uid": name}
        document = {"metadata": metadata, "spec": {"url": "http://x", "type": "openai", **spec}}
        world.registry.backends.put(msgspec.convert(document, LLMBackend))
    assert world.sample("nexus_budget_spending_usd") == 0.5
    assert world.sample("nexus_budget_limit_usd") == 10.0
    assert world.sample("nexus_operator_unpriced_backends") == 2.0


def test_without_a_policy_costs_wait_for_one(world: World) -> None:
    world.registry.routing.remove("r")
    world.report(3 * USD)
    assert world.marked == []
    world.policy("next", spec={"budget": {"monthlyLimitUSD": "3"}})
    assert world.write("next") == ["BudgetHardLimit"]
