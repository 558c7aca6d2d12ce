"""The sentences of the operator alone that a person reads, each spelled once.

Promises that an answer, a remark and an Event say what is wrong, in numbers, and what to do. What
both sides say is in `nexus_quality.words`, what a probe saw in `probe_words`.
"""

from __future__ import annotations

from nexus_api import BudgetState, BudgetStatus, HardLimitAction
from nexus_api.quantities import format_usd
from nexus_api.routing import Budget

RECOVERED = "It recovered; traffic comes back by slow start"

# Counters

NO_STORE = "there was no --data-dir to keep them in"
STORE_LOST = "the operator's store was lost"
NOT_STORED = "they had not been stored yet"


def at_risk(problem: str) -> str:
    """A remark: counts would not survive this process."""
    return f"; counts are kept in memory alone: {problem}"


def missing(*, requests: int, why: str) -> str:
    """A remark: what an earlier process had published cannot be counted any more."""
    return (
        f"; up to {requests} requests of the last 24 h are missing: the proxies that reported "
        f"them are gone, and {why}"
    )


# Reports that are refused

AWAY = "the API server cannot be asked: try again"
CROWD = "more reports wait than can be taken in time: come again as Retry-After says"
NO_TOKEN = "send Authorization: Bearer with a token"


def too_often(reporter: str) -> str:
    """Beyond its pace."""
    return f"{reporter} reports too often: wait as Retry-After says"


def token_rejected(audience: str) -> str:
    """Nobody vouches for the token."""
    return f"the API server does not accept this token for the audience {audience}"


def may_not_report(refusal: str, reporter: str, place: str) -> str:
    """It may not speak of what is there; `refusal`: the label of that."""
    return f"{refusal}: {reporter} may not report on {place}"


def too_many_namespaces(most: int) -> str:
    """A place: one of those beyond the limit."""
    return f"more than {most} namespaces at once"


def backends_of(namespace: str) -> str:
    """A place: a namespace."""
    return f"llmbackends in namespace {namespace}"


# Budgets

_ACTIONS = {
    HardLimitAction.WARN: "requests go on (hardLimitAction Warn)",
    HardLimitAction.BLOCK_CLOUD: "Open backends are left out (hardLimitAction BlockCloud)",
    HardLimitAction.BLOCK_ALL: "all backends are left out (hardLimitAction BlockAll)",
}


def spent(budget: Budget, wanted: BudgetStatus, nano_usd: int) -> str:
    """How far a budget is spent, and what follows."""
    told = f"{format_usd(nano_usd)} USD spent in {wanted.month}"
    if budget.monthly_limit_usd is None:
        return f"{told}; there is no monthlyLimitUSD"
    told += f" of monthlyLimitUSD {budget.monthly_limit_usd}"
    if wanted.state is BudgetState.HARD_LIMIT:
        return f"{told}: {_ACTIONS[budget.hard_limit_action]}"
    if wanted.state is BudgetState.SOFT_LIMIT:
        return f"{told}, softLimit {budget.soft_limit}: Open backends score half"
    return told
