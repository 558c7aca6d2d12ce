"""What the operator says about policies: whom they match, for whom they are in force.

Promises one winner per backend for quality policies and one per namespace for routing policies,
with every loser told who won. Pure: which backends are excluded is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nexus_api import (
    ConditionStatus,
    Enforcement,
    LLMBackend,
    QualityPolicy,
    QualityPolicyStatus,
    RoutingPolicy,
    RoutingPolicyStatus,
    reasons,
)
from nexus_operator.conditions import Said, conditions
from nexus_quality import words
from nexus_quality.policy import resolve

NAMES_SHOWN = 50
TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE
ACCEPTED = Said(reasons.ACCEPTED, TRUE, reasons.VALID, words.VALID)


def quality_status(
    policy: QualityPolicy,
    *,
    backends: Iterable[LLMBackend],
    policies: Iterable[QualityPolicy],
    excluded: Callable[[str], bool],
    would_exclude: Callable[[LLMBackend], bool],
    now: float,
) -> QualityPolicyStatus:
    """The status of a quality policy among the backends and policies of its namespace.

    `excluded` is asked with a backend's UID, `would_exclude` of an audit alone.
    """
    selector, rivals = policy.spec.target_selector, list(policies)
    matched = [b for b in backends if selector.matches(b.metadata.labels)]
    audit = policy.spec.enforcement is Enforcement.AUDIT
    winners = {} if audit else {b.metadata.uid: resolve(b.metadata.labels, rivals) for b in matched}
    mine = [b for b in matched if _is(winners.get(b.metadata.uid), policy)]
    lost_to = {w.metadata.name for w in winners.values() if w is not None and not _is(w, policy)}
    would = sorted(b.metadata.name for b in matched if audit and would_exclude(b))
    generation = policy.metadata.generation
    said = [
        ACCEPTED,
        _effective(audit=audit, matched=len(matched), mine=len(mine), lost_to=lost_to),
    ]
    return QualityPolicyStatus(
        observed_generation=generation,
        conditions=conditions(said, policy.status.conditions, generation=generation, now=now),
        matched_backends=len(matched),
        effective_backends=len(mine),
        excluded_backends=sum(excluded(b.metadata.uid) for b in mine),
        would_exclude=tuple(would[:NAMES_SHOWN]),
    )


def routing_status(
    policy: RoutingPolicy, *, policies: Iterable[RoutingPolicy], now: float
) -> RoutingPolicyStatus:
    """The status of a routing policy among those of its namespace; its budget stays as it is."""
    winner = in_force(policies) or policy
    said = ACCEPTED
    if winner.metadata.uid != policy.metadata.uid:
        message = words.superseded(winner.metadata.name)
        said = Said(reasons.ACCEPTED, FALSE, reasons.SUPERSEDED, message)
    generation = policy.metadata.generation
    return RoutingPolicyStatus(
        observed_generation=generation,
        conditions=conditions([said], policy.status.conditions, generation=generation, now=now),
        budget=policy.status.budget,
    )


def in_force(policies: Iterable[RoutingPolicy]) -> RoutingPolicy | None:
    """The oldest, then by name."""
    return min(
        policies,
        key=lambda policy: (policy.metadata.creation_timestamp, policy.metadata.name),
        default=None,
    )


def _effective(*, audit: bool, matched: int, mine: int, lost_to: set[str]) -> Said:
    if audit:
        message = words.only_watches(matched=matched)
        return Said(reasons.EFFECTIVE, FALSE, reasons.AUDIT_ONLY, message)
    if not matched:
        return Said(reasons.EFFECTIVE, FALSE, reasons.NO_MATCH, words.NO_MATCH)
    message = words.in_force(mine=mine, matched=matched, others=sorted(lost_to))
    if not mine:
        return Said(reasons.EFFECTIVE, FALSE, reasons.OVERRIDDEN, message)
    return Said(reasons.EFFECTIVE, TRUE, reasons.IN_FORCE, message)


def _is(one: QualityPolicy | None, other: QualityPolicy) -> bool:
    return one is not None and one.metadata.uid == other.metadata.uid
