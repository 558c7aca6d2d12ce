"""What is published of a budget, and when: `status.budget` of the RoutingPolicy in force.

Promises a write at once when the month or the state changes, or for costs that only this process
knows; otherwise only for an amount that moved noticeably, at most once per `WRITE_SECONDS`, or at
all after `LONG_SECONDS`; time alone writes nothing. Pure; sums are `budget`'s.
"""

from __future__ import annotations

from nexus_api import BudgetState, BudgetStatus, RoutingPolicy, reasons
from nexus_api.quantities import format_time, format_usd, parse_usd
from nexus_operator import own_words
from nexus_operator.budget import Account
from nexus_operator.notes import Note
from nexus_quality.budget import state_of
from nexus_quality.spend import slot_time

WRITE_SECONDS = 15.0
LONG_SECONDS = 300.0
PART = 10  # of what was published last
LIMIT_PART = 100

_EVENTS = {
    BudgetState.NORMAL: reasons.EVENT_BUDGET_NORMAL,
    BudgetState.SOFT_LIMIT: reasons.EVENT_BUDGET_SOFT_LIMIT,
    BudgetState.HARD_LIMIT: reasons.EVENT_BUDGET_HARD_LIMIT,
}


def budget_status(policy: RoutingPolicy, account: Account) -> BudgetStatus | None:
    """What could be published now; None where there is neither a limit nor a cost."""
    spent = account.spent
    if policy.spec.budget.monthly_limit_usd is None and not spent and policy.status.budget is None:
        return None
    return BudgetStatus(
        month=account.month,
        spent_usd=format_usd(account.settled),
        state=state_of(policy.spec.budget, spent),
        as_of=format_time(slot_time(account.as_of)),
    )


def worth_writing(
    policy: RoutingPolicy,
    wanted: BudgetStatus | None,
    *,
    since_write: float,
    orphaned: bool = False,
) -> bool:
    """Whether it should be published; `since_write`: seconds since the last time. `orphaned`: it
    holds costs that only this process knows.
    """
    known = policy.status.budget
    if known is None or wanted is None:
        return known is not wanted
    if (known.month, known.state) != (wanted.month, wanted.state):
        return True
    before, after = parse_usd(known.spent_usd), parse_usd(wanted.spent_usd)
    moved = abs(after - before)
    if not moved or orphaned or since_write < WRITE_SECONDS:
        return bool(moved and orphaned)
    limit = policy.spec.budget.monthly_limit_usd
    noticeable = moved * PART >= before or (
        limit is not None and moved * LIMIT_PART >= parse_usd(limit)
    )
    return noticeable or since_write >= LONG_SECONDS


def budget_notes(policy: RoutingPolicy, wanted: BudgetStatus | None, spent: int) -> list[Note]:
    """The Event of a change of state that was written; a beginning in Normal is nothing to tell.

    `spent`: nano-USD of the month, later than `spentUSD`.
    """
    known = policy.status.budget
    before = known.state if known is not None else BudgetState.NORMAL
    if wanted is None or wanted.state is before:
        return []
    return [Note(_EVENTS[wanted.state], budget_message(policy, wanted, spent))]


def budget_message(policy: RoutingPolicy, wanted: BudgetStatus, spent: int) -> str:
    """How far the budget is spent, in own_words."""
    return own_words.spent(policy.spec.budget, wanted, spent)
