"""A rule that holds, and what it says: the evidence recorded with an exclusion.

Promises that the numbers in a reason are those that the rule looked at, and that recorded evidence
can be held against another policy. Which rule holds is for `rules`.
"""

from __future__ import annotations

from dataclasses import dataclass

from nexus_api import quantities
from nexus_api.backend import ExclusionRule
from nexus_quality import words
from nexus_quality.evidence import Sums
from nexus_quality.policy import Policy

REQUESTS, CONNECTIONS = "requests", "connections"


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """A rule that holds. `quorum` False: only together with its worst reporters, `blamed`."""

    rule: ExclusionRule
    errors: int
    requests: int
    reason: str
    suggested_action: str
    quorum: bool = True
    blamed: tuple[str, ...] = ()


def firing_of(
    rule: ExclusionRule,
    sums: Sums,
    policy: Policy,
    *,
    what: str,
    model: str,
    blamed: tuple[str, ...],
) -> Firing:
    errors, requests = sums.errors, sums.requests
    if rule is ExclusionRule.SHORT_WINDOW:
        errors, requests = sums.short_errors, sums.short_requests
    reason = _reason(rule, errors, requests, sums, policy, what)
    return Firing(
        rule=rule,
        errors=errors,
        requests=requests,
        reason=about(model, reason),
        suggested_action=_MODEL_ACTION if model else _WAIT,
        quorum=not blamed,
        blamed=blamed,
    )


def about(model: str, sentence: str) -> str:
    """A sentence on a model names it; `model` "": it is about the backend."""
    return f"Model {model}: {sentence[:1].lower()}{sentence[1:]}" if model else sentence


def _reason(
    rule: ExclusionRule, errors: int, requests: int, sums: Sums, policy: Policy, what: str
) -> str:
    rate = quantities.rate_percent(part=errors, whole=max(requests, 1))
    threshold = quantities.format_percent(policy.threshold_basis_points)
    noun, failures, failed = _NOUNS[what]
    if rule is ExclusionRule.FLEET_ROW:
        before = max(0, errors - sums.row), max(0, requests - sums.row)
        needed = policy.row_needed(errors=before[0], requests=before[1])
        return words.row_reached(failures=sums.row, what=failures, needed=needed)
    if rule is ExclusionRule.OPEN_BREAKERS:
        return words.breakers_open(what=failures, errors=errors, requests=requests, failed=failed)
    short = rule is ExclusionRule.SHORT_WINDOW
    return words.rate_reached(
        what=noun,
        window=f"last {policy.short_window_seconds} s" if short else "hour",
        errors=errors,
        requests=requests,
        rate=rate,
        threshold=threshold,
    )


_NOUNS = {
    REQUESTS: ("Error", "failures", "failed"),
    CONNECTIONS: ("Connection error", "connection failures", "did not reach it"),
}
_WAIT = words.wait_or(words.LOOK)
_MODEL_ACTION = words.wait_or(words.LOOK_AT_MODEL)


def would_fire(rule: ExclusionRule, *, errors: int, requests: int, policy: Policy) -> bool:
    """True if recorded evidence would still exclude under `policy` (after an edit)."""
    if rule is ExclusionRule.ERROR_RATE:
        enough = requests >= policy.min_requests
        return enough and policy.rate_reached(errors=errors, requests=requests)
    if rule is ExclusionRule.SHORT_WINDOW:
        enough = policy.short_window_seconds > 0 and requests >= 2 * policy.min_requests
        return enough and policy.rate_reached(errors=errors, requests=requests)
    if rule in (ExclusionRule.FLEET_ROW, ExclusionRule.OPEN_BREAKERS):
        return 0 < policy.consecutive_failures <= errors
    return True
