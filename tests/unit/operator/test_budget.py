"""Budgets: each cost counted once, whatever happens to reports, proxies and operators."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_api import BudgetState, RoutingPolicy
from nexus_api.quantities import format_time, parse_time, parse_usd
from nexus_operator.budget import HELD_SECONDS, SILENT_SECONDS, Budgets
from nexus_operator.budget_status import budget_notes, budget_status, worth_writing
from nexus_quality.monitor import Monitor
from nexus_quality.report import Answer, Report, decode_report, encode
from nexus_quality.spend import month_slot, slot_at, slot_time

START = parse_time("2026-01-31T20:00:00Z")
USD = 10**9
TEAM = "team"


def policy(limit: str | None = "100", **spec: Any) -> RoutingPolicy:
    budget = {"monthlyLimitUSD": limit} if limit is not None else {}
    document = {
        "metadata": {"name": "r", "namespace": TEAM, "uid": "uid-r", "generation": 1},
        "spec": {"budget": {**budget, **spec}},
    }
    return msgspec.convert(document, RoutingPolicy)


@dataclass
class Fleet:
    """Proxies, one operator after another, and what the API server holds of the budget."""

    now: float = START
    epoch: int = 0
    proxies: list[Monitor] = field(default_factory=list)
    spent: dict[str, int] = field(default_factory=dict)
    stored: RoutingPolicy = field(default_factory=policy)
    budgets: Budgets = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """The operator is killed; another one starts from the status."""
        self.epoch += 1
        self.budgets = Budgets(self.now)
        known = self.stored.status.budget
        if known is None:
            self.budgets.open(TEAM, self.now)
        else:
            self.budgets.open(
                TEAM,
                self.now,
                month=known.month,
                spent=parse_usd(known.spent_usd),
                as_of=parse_time(known.as_of),
            )

    def proxy(self) -> Monitor:
        nothing: Callable[..., None] = lambda *_: None  # noqa: E731
        made = Monitor(
            incarnation=f"{len(self.proxies):032x}",
            started=self.now,
            random=lambda: 0.5,
            on_change=nothing,
            on_urgent=nothing,
        )
        self.proxies.append(made)
        return made

    def charge(self, proxy: Monitor, nano_usd: int) -> None:
        proxy.spending.charge(TEAM, nano_usd, self.now)
        month = format_time(self.now)[:7]
        self.spent[month] = self.spent.get(month, 0) + nano_usd

    def report(self, proxy: Monitor, *, full: bool = True, final: bool = False) -> bytes | None:
        report = proxy.report(self.now, full=full, final=final)
        return None if report is None else encode(report)

    def take(self, body: bytes) -> Report:
        report = decode_report(body)
        self.budgets.take(report.incarnation, report, self.now)
        return report

    def talk(self, proxy: Monitor, *, full: bool = True, final: bool = False) -> None:
        """A report that is taken and answered, and the replay it may ask for."""
        for _ in range(2):
            body = self.report(proxy, full=full, final=final)
            if body is None:
                return
            if not proxy.acknowledged(self.take(body), Answer(epoch=str(self.epoch)), self.now):
                return

    def publish(self) -> None:
        """The status is written, and every proxy sees it."""
        budget = budget_status(self.stored, self.account)
        self.stored = msgspec.structs.replace(
            self.stored, status=msgspec.structs.replace(self.stored.status, budget=budget)
        )
        if budget is not None:
            for proxy in self.proxies:
                proxy.spending.settle(TEAM, slot_at(parse_time(budget.as_of)))

    def wait(self, seconds: float, alive: list[Monitor]) -> None:
        """Time passes; every proxy is heard by the operator there is."""
        for proxy in alive:
            self.talk(proxy)
        self.now += seconds

    @property
    def account(self) -> Any:
        return self.budgets.account(TEAM, self.now)

    @property
    def oracle(self) -> int:
        return self.spent.get(format_time(self.now)[:7], 0)


def test_costs_are_known_as_soon_as_they_are_reported_and_published_once_complete() -> None:
    fleet = Fleet()
    proxy = fleet.proxy()
    fleet.charge(proxy, 3 * USD)
    fleet.talk(proxy)
    assert (fleet.account.spent, fleet.account.settled) == (3 * USD, 0)
    fleet.now += HELD_SECONDS
    fleet.talk(proxy)
    assert (fleet.account.spent, fleet.account.settled) == (3 * USD, 3 * USD)
    assert fleet.account.as_of == slot_at(fleet.now)


def test_as_of_waits_for_every_proxy_that_is_heard() -> None:
    fleet = Fleet()
    one, other = fleet.proxy(), fleet.proxy()
    fleet.now += HELD_SECONDS
    for proxy in (one, other):
        fleet.charge(proxy, USD)
        fleet.talk(proxy)
    told = fleet.now
    fleet.now += 60.0
    fleet.talk(one)
    assert fleet.account.as_of == slot_at(told)
    fleet.now += SILENT_SECONDS - 59.0
    fleet.talk(one)
    assert fleet.account.as_of == slot_at(fleet.now)  # the other one is silent for too long


def test_what_a_silent_proxy_tells_late_is_still_counted() -> None:
    fleet = Fleet()
    one, other = fleet.proxy(), fleet.proxy()
    fleet.now += HELD_SECONDS
    fleet.charge(other, USD)
    fleet.talk(other)
    for _ in range(60):  # an hour in which the other is cut off, and spends
        fleet.now += 60.0
        fleet.charge(one, 1)
        fleet.charge(other, 7)
        fleet.talk(one)
        fleet.publish()
    assert fleet.account.spent == USD + 60
    assert fleet.account.as_of == slot_at(fleet.now)
    fleet.talk(other)
    assert fleet.account.spent == fleet.oracle
    assert fleet.account.settled <= fleet.oracle
    fleet.now += 60.0
    for proxy in (one, other):
        fleet.talk(proxy)
    assert fleet.account.settled == fleet.oracle


def test_a_restart_neither_loses_nor_doubles() -> None:
    fleet = Fleet()
    proxy = fleet.proxy()
    fleet.now += HELD_SECONDS
    for _ in range(10):
        fleet.now += 20.0
        fleet.charge(proxy, 3)
        fleet.talk(proxy)
        fleet.publish()
        fleet.restart()
        fleet.talk(proxy)
        assert fleet.account.spent == fleet.oracle
    assert fleet.account.settled <= fleet.oracle


def test_what_a_proxy_that_is_gone_had_spent_survives_in_the_published_sum() -> None:
    fleet = Fleet()
    leaving, staying = fleet.proxy(), fleet.proxy()
    fleet.now += HELD_SECONDS
    fleet.publish()
    begin = slot_at(fleet.now)
    for proxy in (leaving, staying):
        fleet.charge(proxy, USD)
    fleet.talk(leaving, final=True)
    fleet.talk(staying)
    assert not fleet.account.orphaned(begin)  # not complete yet
    fleet.now += 60.0
    fleet.talk(staying)
    assert fleet.account.orphaned(begin)
    wanted = budget_status(fleet.stored, fleet.account)
    assert worth_writing(fleet.stored, wanted, since_write=0.0, orphaned=True)
    fleet.publish()
    assert not fleet.account.orphaned(slot_at(fleet.now))
    fleet.restart()
    fleet.talk(staying)
    assert fleet.account.spent == 2 * USD


def test_a_new_operator_holds_as_of_until_the_proxies_could_speak() -> None:
    fleet = Fleet()
    one, other = fleet.proxy(), fleet.proxy()
    fleet.now += HELD_SECONDS
    for proxy in (one, other):
        fleet.charge(proxy, USD)
        fleet.talk(proxy)
    fleet.restart()
    fleet.talk(one)
    fleet.publish()
    fleet.restart()  # killed again before the other was heard
    for proxy in (one, other):
        fleet.talk(proxy)
    assert fleet.account.spent == 2 * USD


def test_the_month_turns_at_midnight_utc() -> None:
    fleet = Fleet()
    proxy = fleet.proxy()
    fleet.charge(proxy, 5)
    fleet.talk(proxy)
    fleet.now = slot_time(month_slot("2026-02")) - 1
    fleet.charge(proxy, 3)
    fleet.now += 2
    fleet.charge(proxy, 4)
    fleet.talk(proxy)
    assert (fleet.account.month, fleet.account.spent) == ("2026-02", 4)
    fleet.publish()
    budget = fleet.stored.status.budget
    assert budget is not None and budget.month == "2026-02"
    assert budget.as_of >= "2026-02-01T00:00:00Z"
    fleet.restart()
    fleet.talk(proxy)
    assert fleet.account.spent == 4


def test_a_slot_of_the_future_is_not_believed() -> None:
    fleet = Fleet()
    proxy = fleet.proxy()
    proxy.spending.charge(TEAM, USD, fleet.now + 3600.0)
    fleet.talk(proxy)
    assert fleet.account.spent == 0
    fleet.now += HELD_SECONDS
    assert fleet.account.as_of <= slot_at(fleet.now)


def test_memory_is_bounded_behind_as_of() -> None:
    fleet = Fleet()
    proxy = fleet.proxy()
    fleet.now += HELD_SECONDS
    for _ in range(400):
        fleet.now += 30.0
        fleet.charge(proxy, 1)
        fleet.talk(proxy)
    account = fleet.account
    assert account.spent == fleet.oracle
    assert sum(len(life.slots) for life in account.lives.values()) < 30


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_sum_equals_an_oracles_whatever_happens(seed: int) -> None:
    """Reports lost, late, twice and out of order; operators killed; proxies that come and leave in
    order; the turn of a month in the middle. Each proxy reaches each operator within its time.
    """
    chance = random.Random(seed)
    fleet = Fleet()
    alive = [fleet.proxy() for _ in range(3)]
    letters: list[tuple[Monitor, bytes]] = []
    fleet.wait(80.0, alive)
    for _ in range(250):
        proxy = chance.choice(alive)
        match chance.randrange(14):
            case 0 | 1 | 2:
                fleet.charge(proxy, chance.randrange(1, 1000))
            case 3 | 4:
                fleet.talk(proxy, full=chance.random() < 0.5)
            case 5:  # delivered, the answer lost
                body = fleet.report(proxy, full=chance.random() < 0.5)
                if body is not None:
                    fleet.take(body)
                    letters.append((proxy, body))
                    proxy.unanswered(fleet.now)
            case 6:  # lost, and perhaps delivered later
                body = fleet.report(proxy)
                assert body is not None
                letters.append((proxy, body))
                proxy.unanswered(fleet.now)
            case 7:
                late = [body for sender, body in letters if sender in alive]
                if late:
                    fleet.take(chance.choice(late))
            case 8:
                fleet.publish()
            case 9:
                if chance.random() < 0.3:
                    fleet.publish()
                    fleet.restart()
            case 10:
                if chance.random() < 0.3:
                    fleet.restart()
            case 11:
                if len(alive) > 1 and chance.random() < 0.3:
                    # A goodbye whose costs are in the published sum before anybody is killed.
                    leaving = alive.pop()
                    fleet.talk(leaving, final=True)
                    for _ in range(3):
                        fleet.wait(80.0, alive)
                    fleet.publish()
                    alive.append(fleet.proxy())
            case _:
                fleet.wait(chance.choice((1.0, 10.0, 45.0, 80.0)), alive)
    assert fleet.account.spent <= fleet.oracle  # never more, at any moment
    for proxy in alive:
        fleet.talk(proxy)
    assert fleet.account.spent == fleet.oracle
    for _ in range(4):
        fleet.wait(80.0, alive)
    assert fleet.account.settled == fleet.account.spent == fleet.oracle


def state(limit: str | None, spent: int, **spec: Any) -> Any:
    fleet = Fleet(stored=policy(limit, **spec))
    proxy = fleet.proxy()
    fleet.charge(proxy, spent)
    fleet.talk(proxy)
    return fleet, budget_status(fleet.stored, fleet.account)


def test_the_state_is_of_all_that_is_known_and_the_sum_of_what_is_complete() -> None:
    _, wanted = state("10", 8 * USD)
    assert (wanted.state, wanted.spent_usd) == (BudgetState.SOFT_LIMIT, "0")
    assert wanted.as_of == "2026-01-01T00:00:00Z"
    _, wanted = state("10", 10 * USD)
    assert wanted.state is BudgetState.HARD_LIMIT


def test_without_a_limit_only_costs_are_published_and_without_either_nothing() -> None:
    assert state(None, 0)[1] is None
    _, wanted = state(None, USD)
    assert wanted.state is BudgetState.NORMAL


@pytest.mark.parametrize(
    ("before", "after", "since", "worth"),
    [
        (None, {}, 0.0, True),
        ({}, {}, 1e9, False),
        ({}, {"asOf": "2026-01-31T21:00:00Z"}, 1e9, False),
        ({}, {"state": "SoftLimit"}, 0.0, True),
        ({}, {"month": "2026-02"}, 0.0, True),
        ({"spentUSD": "5"}, {"spentUSD": "6"}, 14.0, False),
        ({"spentUSD": "5"}, {"spentUSD": "6"}, 15.0, True),
        ({"spentUSD": "50"}, {"spentUSD": "50.9"}, 15.0, False),
        ({"spentUSD": "50"}, {"spentUSD": "51"}, 15.0, True),
        ({"spentUSD": "50"}, {"spentUSD": "50.1"}, 300.0, True),
    ],
)
def test_only_what_matters_is_written(
    before: dict[str, str] | None, after: dict[str, str], since: float, worth: bool
) -> None:
    base = {"month": "2026-01", "spentUSD": "0", "state": "Normal", "asOf": "2026-01-31T20:00:00Z"}
    known = policy()
    if before is not None:
        known = with_budget(known, {**base, **before})
    wanted = with_budget(known, {**base, **after}).status.budget
    assert worth_writing(known, wanted, since_write=since) is worth


def with_budget(known: RoutingPolicy, budget: dict[str, str]) -> RoutingPolicy:
    document = msgspec.to_builtins(known)
    document["status"] = {"budget": budget}
    return msgspec.convert(document, RoutingPolicy)


@pytest.mark.parametrize(
    ("spent", "action", "reason", "words"),
    [
        (8, "Warn", "BudgetSoftLimit", "softLimit 75%: Open backends score half"),
        (10, "Warn", "BudgetHardLimit", "requests go on (hardLimitAction Warn)"),
        (11, "BlockCloud", "BudgetHardLimit", "Open backends are left out"),
        (10, "BlockAll", "BudgetHardLimit", "all backends are left out"),
    ],
)
def test_a_change_of_state_is_an_event(spent: int, action: str, reason: str, words: str) -> None:
    fleet, wanted = state("10", spent * USD, hardLimitAction=action)
    (note,) = budget_notes(fleet.stored, wanted, fleet.account.spent)
    assert note.reason == reason and words in note.message
    assert f"{spent} USD spent in 2026-01 of monthlyLimitUSD 10" in note.message
    fleet.publish()
    assert budget_notes(fleet.stored, wanted, fleet.account.spent) == []
