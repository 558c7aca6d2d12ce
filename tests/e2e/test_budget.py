"""A month's budget on a real API server: two proxies spend, everybody sees it and acts on it, and
an operator that is killed neither loses nor doubles a cent.

The tests share one world and run in order. The long waits pass 20 times as fast; slots of 30 s do
not.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import pytest

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import APPS, MODEL, World, backend, eventually, open_world, policy

Stored = dict[str, Any]
SETTLED_SECONDS = 100.0  # two slots of 30 s, a write and a busy machine
REQUEST = {"model": MODEL, "messages": [{"role": "user", "content": "one two three"}]}
PRICE = {"inputUSDPerMillionTokens": "1000", "outputUSDPerMillionTokens": "10000"}


def routing(limit: str) -> Stored:
    budget = {"monthlyLimitUSD": limit, "softLimit": "50%", "hardLimitAction": "BlockCloud"}
    return {
        "apiVersion": "nexus.dev/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": "team"},
        "spec": {"budget": budget},
    }


@dataclass
class Spenders:
    """A world, and what its clients were told that their requests cost."""

    world: World
    spent: Decimal = Decimal(0)

    def ask(self, app: str) -> tuple[int, str, Stored]:
        url = f"{self.world.proxies[app].url}/v1/chat/completions"
        answer = httpx.post(url, json=REQUEST, trust_env=False, timeout=30)
        told = answer.headers.get("x-nexus-cost-estimated")
        self.spent += Decimal(told or 0)
        return answer.status_code, answer.headers.get("x-nexus-backend", ""), answer.json()

    def spend(self, usd: str) -> None:
        """Both proxies in turn, until so much more is spent."""
        until = self.spent + Decimal(usd)
        for number in range(1000):
            if self.spent >= until:
                return
            status, where, body = self.ask(APPS[number % len(APPS)])
            assert (status, where) == (200, "cloud"), body
        raise AssertionError(f"only {self.spent} of {until} USD spent")

    def served_by(self, expected: str | None) -> None:
        """Every proxy comes to send its requests there; None: it refuses them."""
        for app in APPS:
            what = f"{app} sends requests to {expected}"
            eventually(lambda app=app: self.ask(app)[1] or None, lambda n: n == expected, what=what)

    @property
    def budget(self) -> Stored:
        found = json.loads(self.world.kubectl("get", "rp", "team", "-o", "json"))
        budget: Stored = found.get("status", {}).get("budget", {})
        return budget

    def state(self, expected: str) -> None:
        eventually(lambda: self.budget.get("state"), lambda s: s == expected, what=expected)

    def settled(self) -> None:
        """The published sum comes to be exactly what the clients were told, and no more."""

        def look() -> Decimal:
            published = Decimal(self.budget["spentUSD"])
            assert published <= self.spent
            return published

        eventually(look, lambda s: s == self.spent, what="all costs", seconds=SETTLED_SECONDS)

    def events(self, reason: str) -> list[Stored]:
        found = json.loads(self.world.kubectl("get", "events", "-o", "json"))["items"]
        return [event for event in found if event["reason"] == reason]


@pytest.fixture(scope="module")
def spenders(crds: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spenders]:
    """A dear backend that is preferred, a free one, and a limit of one dollar."""
    namespace = f"budget-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("budget")
        settings = {"NEXUS_TEST_PACE": "20"}
        world = open_world(crds, namespace, folder, stack, settings=settings)
        cloud = backend(
            "cloud", world.backends["alpha"].url, type="openai", priority=0, pricing=PRICE
        )
        local = backend("local", world.backends["beta"].url, priority=50)
        world.apply(policy("default", metricsIntervalSeconds=1), routing("1"), cloud, local)
        for name in ("cloud", "local"):
            world.wait_for_state(name, "Active")
        found = Spenders(world)
        found.served_by("cloud")
        yield found


def test_costs_appear_with_their_month_and_kubectl_shows_them(spenders: Spenders) -> None:
    spenders.spend("0.2")
    spenders.settled()
    assert spenders.budget["state"] == "Normal"
    header, row = spenders.world.kubectl("get", "routingpolicies").splitlines()
    columns = dict(zip(header.split(), row.split(), strict=True))
    assert columns["SPENT-USD"] == spenders.budget["spentUSD"]
    assert (columns["LIMIT-USD"], columns["BUDGET"]) == ("1", "Normal")
    assert spenders.budget["month"] == spenders.budget["asOf"][:7]


def test_at_the_soft_limit_requests_prefer_what_costs_nothing(spenders: Spenders) -> None:
    spenders.spend(str(Decimal("0.51") - spenders.spent))
    spenders.state("SoftLimit")
    spenders.served_by("local")
    (event,) = spenders.events("BudgetSoftLimit")
    assert event["type"] == "Warning" and event["involvedObject"]["kind"] == "RoutingPolicy"
    assert "USD spent in" in event["message"] and "softLimit 50%" in event["message"]


def test_at_the_hard_limit_no_proxy_sends_anything_to_the_cloud(spenders: Spenders) -> None:
    spenders.world.kubectl(
        "patch", "llmb", "local", "--type=merge", "-p", '{"spec":{"suspend":true}}'
    )
    spenders.served_by("cloud")
    spenders.spend(str(Decimal("0.999") - spenders.spent))
    while spenders.spent < 1:
        spenders.ask(APPS[0])
    spenders.state("HardLimit")
    spenders.served_by(None)
    for app in APPS:
        status, _, body = spenders.ask(app)
        reasons = {r["backend"]: r for r in body["error"]["context"]["rejection_reasons"]}
        assert status == 503
        assert reasons["cloud"]["reconciler"] == "BudgetReconciler"
        assert "hardLimitAction BlockCloud" in reasons["cloud"]["reason"]
    spenders.world.kubectl(
        "patch", "llmb", "local", "--type=merge", "-p", '{"spec":{"suspend":false}}'
    )
    spenders.served_by("local")
    assert len(spenders.events("BudgetHardLimit")) == 1
    spenders.settled()


def test_a_killed_operator_loses_and_doubles_nothing(spenders: Spenders) -> None:
    world = spenders.world
    world.apply(routing("100"))
    spenders.state("Normal")
    spenders.served_by("cloud")
    spenders.spend("0.1")  # perhaps reported, not published
    address = world.operator.url.removeprefix("http://")
    world.operator.child.kill()
    spenders.spend("0.1")  # nobody takes reports
    world.operator = world.product.operator(address=address, name="nexus-operator-two")
    spenders.spend("0.1")
    world.operator.child.kill()  # before anything could be complete
    world.operator = world.product.operator(address=address, name="nexus-operator-three")
    spenders.settled()
    # A proxy that leaves in order has told everything; its costs stay.
    spenders.spend("0.1")
    world.proxies[APPS[1]].child.stop()
    spenders.settled()


def test_the_operator_exports_what_is_spent(spenders: Spenders) -> None:
    page = httpx.get(f"{spenders.world.operator.url}/metrics", trust_env=False).text
    label = f'namespace="{spenders.world.product.namespace}"'
    lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if label in line)
    assert float(lines[f"nexus_budget_spending_usd{{{label}}}"]) == pytest.approx(
        float(spenders.spent)
    )
    assert float(lines[f"nexus_budget_limit_usd{{{label}}}"]) == 100.0
    assert float(lines[f"nexus_operator_unpriced_backends{{{label}}}"]) == 0.0
