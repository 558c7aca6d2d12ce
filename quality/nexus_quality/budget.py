"""When a month's budget is spent: the two limits of a RoutingPolicy, as exact integers.

The operator publishes the state these rules give; a proxy asks them about what it spent since.
"""

from __future__ import annotations

from nexus_api import Budget, BudgetState
from nexus_api.quantities import BASIS_POINTS, parse_percent, parse_usd


def state_of(budget: Budget, spent_nano_usd: int) -> BudgetState:
    """How far the budget is spent; Normal without a limit. A limit of 0 is spent from the start."""
    if budget.monthly_limit_usd is None:
        return BudgetState.NORMAL
    limit = parse_usd(budget.monthly_limit_usd)
    if spent_nano_usd >= limit:
        return BudgetState.HARD_LIMIT
    if spent_nano_usd * BASIS_POINTS >= limit * parse_percent(budget.soft_limit):
        return BudgetState.SOFT_LIMIT
    return BudgetState.NORMAL


def headroom(budget: Budget, spent_nano_usd: int) -> int | None:
    """Nano-USD until the state changes, None if it cannot any more."""
    if budget.monthly_limit_usd is None:
        return None
    limit = parse_usd(budget.monthly_limit_usd)
    soft = -(-limit * parse_percent(budget.soft_limit) // BASIS_POINTS)
    return next((edge - spent_nano_usd for edge in (soft, limit) if edge > spent_nano_usd), None)
