"""The budget as a proxy sees it: the published sum, and what it spent since."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from nexus_api import BudgetState, RoutingPolicy
from nexus_api.quantities import parse_time
from nexus_proxy.pricing.limits import Limits, budget_stats, limits
from nexus_quality.spend import Spending

USD = 10**9
NOON = parse_time("2026-01-15T12:00:00Z")
AS_OF = "2026-01-15T11:59:30Z"
NORMAL, SOFT, HARD = BudgetState.NORMAL, BudgetState.SOFT_LIMIT, BudgetState.HARD_LIMIT


def policy(
    *, generation: int = 1, observed: int = 1, limit: str | None = "10", **published: Any
) -> RoutingPolicy:
    budget = {"month": "2026-01", "spentUSD": "0", "state": "Normal", "asOf": AS_OF, **published}
    status = {"observedGeneration": observed, **({"budget": budget} if published else {})}
    document = {
        "metadata": {"name": "r", "namespace": "team", "generation": generation},
        "spec": {"budget": {"monthlyLimitUSD": limit} if limit else {}},
        "status": status,
    }
    return msgspec.convert(document, RoutingPolicy)


@pytest.fixture
def spending() -> Spending:
    """A proxy's spend, on a clock that is UTC."""
    return Spending(lambda now: now)


def test_without_a_policy_or_a_limit_nothing_is_ever_spent(spending: Spending) -> None:
    spending.charge("team", 10**15, NOON)
    assert limits(None, spending, "2026-01") == Limits(NORMAL, math.inf)
    assert limits(policy(limit=None), spending, "2026-01") == Limits(NORMAL, math.inf, 10**15)


def test_without_a_published_sum_the_own_one_counts(spending: Spending) -> None:
    for spent, state in ((7 * USD, NORMAL), (USD // 2, SOFT), (3 * USD, HARD)):
        spending.charge("team", spent, NOON)
        assert limits(policy(), spending, "2026-01").state is state
    assert limits(policy(), spending, "2026-02").state is NORMAL


def test_the_own_spend_since_the_published_sum_is_added(spending: Spending) -> None:
    spending.charge("team", 5 * USD, NOON - 3600)  # in the published sum
    spending.report(NOON - 3500, everything=False)
    spending.acknowledged()
    spending.charge("team", USD, NOON)
    known = policy(spentUSD="6.4")
    assert limits(known, spending, "2026-01") == Limits(NORMAL, 100_000_000, 7_400_000_000)
    spending.charge("team", 100_000_000, NOON)
    assert limits(known, spending, "2026-01") == Limits(SOFT, 2_500_000_000, 7_500_000_000)


def test_what_was_never_told_is_added_however_old(spending: Spending) -> None:
    spending.charge("team", 9 * USD, NOON - 3600)
    assert limits(policy(spentUSD="1"), spending, "2026-01").state is HARD


def test_the_spend_of_others_shows_in_the_published_state(spending: Spending) -> None:
    assert limits(policy(spentUSD="1", state="HardLimit"), spending, "2026-01").state is HARD


def test_a_state_that_an_edit_has_overtaken_is_not_believed_but_its_sum_is(
    spending: Spending,
) -> None:
    raised = policy(generation=2, observed=1, limit="100", spentUSD="12", state="HardLimit")
    assert limits(raised, spending, "2026-01").state is NORMAL
    lowered = policy(generation=2, observed=1, limit="11", spentUSD="12", state="Normal")
    assert limits(lowered, spending, "2026-01").state is HARD


def test_another_months_sum_is_not_ours(spending: Spending) -> None:
    old = policy(spentUSD="12", state="HardLimit")
    assert limits(old, spending, "2026-02").state is NORMAL


def test_a_limit_of_nothing_is_reached_at_once(spending: Spending) -> None:
    assert limits(policy(limit="0"), spending, "2026-01").state is HARD


def test_the_statistics_tell_the_budget_in_the_seeds_names(spending: Spending) -> None:
    assert budget_stats(None, spending, "2026-01") is None
    spending.charge("team", USD, NOON)
    assert budget_stats(policy(spentUSD="1.5"), spending, "2026-01") == {
        "billing_month": "2026-01",
        "current_spending_usd": 2.5,
        "monthly_limit_usd": 10.0,
        "utilization_percent": 25.0,
        "status": "Normal",
        "soft_limit_threshold": 75.0,
        "hard_limit_action": "Warn",
    }
    unlimited = budget_stats(policy(limit=None), spending, "2026-01")
    assert unlimited is not None and "monthly_limit_usd" not in unlimited


def test_what_is_published_is_not_kept(spending: Spending) -> None:
    spending.charge("team", USD, NOON - 3600)
    spending.charge("team", USD, NOON)
    spending.report(NOON, everything=False)
    spending.acknowledged()
    limits(policy(spentUSD="1"), spending, "2026-01")
    told, _ = spending.report(NOON + 1, everything=True)
    assert [spend.slot for spend in told] == [int(NOON) // 30]
