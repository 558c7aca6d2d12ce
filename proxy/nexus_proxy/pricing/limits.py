"""How far the month's budget is spent, as a proxy sees it: what the operator published, and what
this proxy spent since.

Promises never to be below the published state of this month, and never to need a published one:
without any, what this process spent in the month is all that counts, and that is what standalone
mode has. A published state that an edited policy has overtaken is not believed, its sum is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nexus_api import BudgetState, BudgetStatus, RoutingPolicy
from nexus_api.quantities import NANO, parse_percent, parse_time, parse_usd
from nexus_quality.budget import headroom, state_of
from nexus_quality.spend import Spending, month_slot, slot_at

_ORDER = (BudgetState.NORMAL, BudgetState.SOFT_LIMIT, BudgetState.HARD_LIMIT)


@dataclass(frozen=True, slots=True)
class Limits:
    """The state in force, how much this proxy may spend before it changes, and what is spent in the
    month as far as it knows; both in nano-USD.
    """

    state: BudgetState = BudgetState.NORMAL
    headroom: float = math.inf
    spent: int = 0


def limits(policy: RoutingPolicy | None, spending: Spending, month: str) -> Limits:
    """The limits in `month` (UTC, `2026-01`); what is published already need not be kept."""
    if policy is None:
        return Limits()
    namespace, budget = policy.metadata.namespace, policy.spec.budget
    published = policy.status.budget
    if published is not None and published.month != month:
        published = None
    begin = month_slot(month)
    if published is not None:
        begin = max(begin, slot_at(parse_time(published.as_of)))
    spending.settle(namespace, begin)
    known = parse_usd(published.spent_usd) if published else 0
    spent = known + spending.since(namespace, begin, month)
    state, left = state_of(budget, spent), headroom(budget, spent)
    if published is not None and _believed(policy, published):
        state = max(state, published.state, key=_ORDER.index)
    return Limits(state, math.inf if left is None else left, spent)


def budget_stats(
    policy: RoutingPolicy | None, spending: Spending, month: str
) -> dict[str, Any] | None:
    """The budget as it stands in `/v1/stats`, in the seed's names; None without a policy."""
    if policy is None:
        return None
    found, budget = limits(policy, spending, month), policy.spec.budget
    told: dict[str, Any] = {
        "billing_month": month,
        "current_spending_usd": found.spent / NANO,
        "status": found.state.value,
        "soft_limit_threshold": parse_percent(budget.soft_limit) / 100,
        "hard_limit_action": budget.hard_limit_action.value,
    }
    if budget.monthly_limit_usd is not None:
        limit = parse_usd(budget.monthly_limit_usd)
        told["monthly_limit_usd"] = limit / NANO
        if limit:
            told["utilization_percent"] = round(100 * found.spent / limit, 2)
    return told


def _believed(policy: RoutingPolicy, published: BudgetStatus) -> bool:
    """The state was computed from the spec as it is now."""
    observed = policy.status.observed_generation
    return observed is None or observed >= policy.metadata.generation
