"""The rules that exclude a backend or one of its models, and the quorum they need.

Promises that a rule is a small function over sums and that the quorum is the same for all: a rule
must also hold with those reporters left out that speak loudest for it. A backend of several models
must fail as such: by connect-class failures alone, or with its worst model left out as well. Nor do
those few reporters keep a backend in: where a rule does not hold, it is asked with their claims cut
to the next largest. It changes no state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from nexus_api.backend import ExclusionRule
from nexus_quality import words
from nexus_quality.evidence import Evidence, Share, Sums
from nexus_quality.firing import CONNECTIONS, REQUESTS, Firing, firing_of
from nexus_quality.levelling import levelled
from nexus_quality.policy import Policy

LEAST_ERRORS_OF_REST = 3
ROW_MEMORY_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Case:
    """What a rule looks at: the sums of a part of the fleet, and the volume of all of it."""

    part: Sums
    all: Sums
    policy: Policy
    now: float


def error_rate(case: Case) -> bool:
    """The rate of the hour, once enough requests are in. Attempts in flight count as successes."""
    if case.all.requests < case.policy.min_requests:
        return False
    return case.policy.rate_reached(
        errors=case.part.errors, requests=case.part.requests + case.part.in_flight
    )


def short_window(case: Case) -> bool:
    """The rate of the short window, which believes twice as many requests."""
    if not case.policy.short_window_seconds:
        return False
    if case.all.short_requests < 2 * case.policy.min_requests:
        return False
    return case.policy.rate_reached(
        errors=case.part.short_errors, requests=case.part.short_requests + case.part.in_flight
    )


def fleet_row(case: Case) -> bool:
    """Failures in a row, summed over proxies too quiet to make one alone.

    The sum must reach the scaled number and the attempts the fleet makes in a second, and be at
    least half of the attempts expected since the first of the failures, or known by now: where
    successes are slow, those in flight say more than the usual rate. Rows are taken from the
    latest begin on: one that a success has ended is known here until its reporter's next report,
    and must not stretch the span of those that matter.
    """
    part, policy = case.part, case.policy
    if policy.consecutive_failures <= 0:
        return False
    row = 0
    for began, length in part.rows:
        row += length
        span = case.now - began
        if span > ROW_MEMORY_SECONDS:
            return False
        errors, requests = max(0, part.errors - row), max(0, part.requests - row)
        needed = policy.row_needed(errors=errors, requests=requests)
        expected = max(part.usual * span, row + part.in_flight)
        if row >= max(needed, case.all.usual) and 2 * row >= expected:
            return True
    return False


def open_breakers(case: Case) -> bool:
    """Proxies that make at least half of the usual attempts keep them away already."""
    if case.policy.consecutive_failures <= 0 or case.part.open_usual <= 0.0:
        return False
    return 2 * case.part.open_usual >= case.part.usual


@dataclass(frozen=True, slots=True)
class Rule:
    """`holds` for a part of the fleet; `claim`: how loud one reporter speaks for it; `worst`: the
    errors it looks at, the model of most of which is left out.
    """

    name: ExclusionRule
    holds: Callable[[Case], bool]
    claim: Callable[[Share], float]
    worst: Callable[[Share], int] = lambda share: share.errors


# Ordered by how much a reason tells the reader; any of them suffices.
RULES: tuple[Rule, ...] = (
    Rule(
        ExclusionRule.SHORT_WINDOW,
        short_window,
        lambda share: share.short_errors,
        lambda share: share.short_errors,
    ),
    Rule(ExclusionRule.ERROR_RATE, error_rate, lambda share: share.errors),
    Rule(ExclusionRule.OPEN_BREAKERS, open_breakers, lambda share: share.usual * share.open),
    Rule(ExclusionRule.FLEET_ROW, fleet_row, lambda share: share.row, lambda share: share.row),
)


Without = Callable[["Rule"], tuple[Share, ...]]


def fire(
    shares: tuple[Share, ...],
    policy: Policy,
    now: float,
    *,
    what: str = REQUESTS,
    model: str = "",
    also: Without | None = None,
) -> Firing | None:
    """The first rule that fires with its quorum, else the first that fires without, else None.

    `what` is counted as errors, and `model` named, in the reason. `also`: shares on which the same
    rule must hold, too, each with its own quorum.
    """
    if not any(share.errors for share in shares):
        return None
    found = _fire(shares, policy, now, what=what, model=model, also=also)
    if found is not None and found.quorum:
        return found
    loud = policy.min_reporters - 1
    level = levelled(shares, loud)
    if level is shares:
        return found
    rest = None if also is None else lambda rule: levelled(also(rule), loud)
    again = _fire(level, policy, now, what=what, model=model, also=rest)
    if again is None or not again.quorum:
        return found
    return replace(again, reason=words.levelled(again.reason))


def _fire(
    shares: tuple[Share, ...],
    policy: Policy,
    now: float,
    *,
    what: str,
    model: str,
    also: Without | None,
) -> Firing | None:
    sums = Sums.of(shares)
    if sums.errors <= 0:
        return None
    lonely: Firing | None = None
    for rule in RULES:
        if not rule.holds(Case(sums, sums, policy, now)):
            continue
        blamed = _blamed(rule, shares, policy, now)
        if also is not None:
            rest = also(rule)
            if not rule.holds(Case(Sums.of(rest), Sums.of(rest), policy, now)):
                continue
            blamed = blamed or _blamed(rule, rest, policy, now)
        firing = firing_of(rule.name, sums, policy, what=what, model=model, blamed=blamed)
        if firing.quorum:
            return firing
        lonely = lonely or firing
    return lonely


def fire_model(evidence: Evidence, model: str, policy: Policy, now: float) -> Firing | None:
    """The rule that holds for one model."""
    return fire(evidence.model(model), policy, now, model=model)


def fire_unreached(
    evidence: Evidence, out: frozenset[str], policy: Policy, now: float
) -> Firing | None:
    """The rule that holds for the backend by connect-class failures alone, which no model makes."""
    return fire(evidence.unreached(out), policy, now, what=CONNECTIONS)


def fire_backend(
    evidence: Evidence, out: frozenset[str], policy: Policy, now: float
) -> Firing | None:
    """The rule that holds for the backend without the models that are `out`; where several are in
    use, without the worst of them, too.
    """
    used = evidence.models - out
    if len(used) < 2:
        return fire(evidence.whole(out), policy, now)

    def without_worst(rule: Rule) -> tuple[Share, ...]:
        claims = {m: sum(map(rule.worst, evidence.model(m))) for m in sorted(used)}
        return evidence.whole(out | {max(claims, key=claims.__getitem__)})

    return fire(evidence.whole(out), policy, now, also=without_worst)


def _blamed(rule: Rule, shares: tuple[Share, ...], policy: Policy, now: float) -> tuple[str, ...]:
    """The loudest reporters, if the rule does not hold without them; then there is no quorum."""
    left_out = max(0, min(policy.min_reporters, len(shares)) - 1)
    if not left_out:
        return ()
    loudest = sorted(shares, key=rule.claim, reverse=True)
    rest = Sums.of(loudest[left_out:])
    if rest.errors >= LEAST_ERRORS_OF_REST and rule.holds(Case(rest, Sums.of(shares), policy, now)):
        return ()
    return tuple(share.reporter for share in loudest[:left_out])
