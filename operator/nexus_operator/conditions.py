"""The conditions of a backend: what each says of what is known, and since when.

Promises all of them whatever is known, and that a transition time stays while the status does.
The sentences are `nexus_quality.words`'.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from nexus_api import (
    BackendState,
    Condition,
    ConditionStatus,
    LLMBackendSpec,
    SubjectState,
    reasons,
)
from nexus_api.quantities import format_time
from nexus_api.resolve import endpoint, is_cloud, pricing
from nexus_operator.knowledge import Knowledge
from nexus_operator.mending import of_stall
from nexus_quality import words, words_of_health

TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE


class Said(NamedTuple):
    """A condition without its bookkeeping."""

    type: str
    status: ConditionStatus
    reason: str
    message: str


def conditions(
    said: Iterable[Said], before: Iterable[Condition], *, generation: int, now: float
) -> tuple[Condition, ...]:
    """Conditions with transition times: those of `before` where the status is the same."""
    known = {condition.type: condition for condition in before}
    made = []
    for one in said:
        old = known.get(one.type)
        same = old is not None and old.status == one.status
        made.append(
            Condition(
                type=one.type,
                status=one.status,
                reason=one.reason,
                message=one.message,
                last_transition_time=old.last_transition_time if old and same else format_time(now),
                observed_generation=generation,
            )
        )
    return tuple(made)


def _routed(known: Knowledge) -> str:
    """What is to be said of an Active backend."""
    if known.backend.spec.models is None and not known.findings.models:
        return words.NO_MODELS
    unprobed = known.findings.health.reason == reasons.AWAITING_FIRST_PROBE
    remarks = [words_of_health.NOT_PROBED.lower()] if unprobed else []
    remarks += [words.UNVERIFIED.message] if _unverified(known.backend.spec) else []
    return "; ".join((_READY[known.traffic], *remarks))


def _unverified(spec: LLMBackendSpec) -> bool:
    """Whether nobody verifies who answers there, though it is TLS."""
    return endpoint(spec).tls and spec.tls is not None and spec.tls.insecure_skip_verify


def _ready(known: Knowledge, state: BackendState) -> Said:
    if state is BackendState.ACTIVE:
        return Said(reasons.READY, TRUE, known.traffic, _routed(known))
    status = TRUE if state is BackendState.PROBATION else FALSE
    within = known.within.message
    texts = {
        BackendState.SUSPENDED: words.SUSPENDED.message,
        BackendState.UNHEALTHY: known.findings.health.message,
        BackendState.EXCLUDED: known.mending.words.message if known.mending else within,
        BackendState.PROBATION: within,
    }
    return Said(reasons.READY, status, state.value, texts[state])


def _healthy(known: Knowledge, _: BackendState) -> Said:
    health = known.findings.health
    return Said(reasons.HEALTHY, health.status, health.reason, health.message)


def _within_policy(known: Knowledge, _: BackendState) -> Said:
    within = known.within
    calm = known.verdict.state is SubjectState.ACTIVE
    if known.mending is not None and known.mending.rejected and calm:
        message = known.mending.words.message
        return Said(reasons.WITHIN_POLICY, FALSE, known.mending.reason, message)
    partly = of_stall(known.backend.spec, known.partly)
    if partly is not None and known.partly is not None and calm and within.status is not FALSE:
        message = words.key_rejected_for_some(partly.words, known.partly.reporters)
        return Said(reasons.WITHIN_POLICY, TRUE, reasons.FAILING_FOR_SOME, message)
    return Said(reasons.WITHIN_POLICY, within.status, within.reason, within.message)


def _stalled(known: Knowledge, _: BackendState) -> Said:
    mending = known.mending
    if mending is not None:
        return Said(reasons.STALLED, TRUE, mending.reason, mending.words.message)
    return Said(reasons.STALLED, FALSE, reasons.NOTHING_TO_MEND, words.NOTHING_TO_MEND)


def _priced(known: Knowledge, _: BackendState) -> Said:
    spec = known.backend.spec
    if not is_cloud(spec):
        return Said(reasons.PRICED, TRUE, reasons.NOT_CHARGED, words.NOT_CHARGED)
    models = [model.name for model in spec.models or ()]
    bare = [name for name in models if pricing(spec, name) is None]
    if spec.pricing is None and (bare or not models):
        return Said(reasons.PRICED, FALSE, reasons.NO_PRICE, words.no_price(bare))
    return Said(reasons.PRICED, TRUE, reasons.PRICE_KNOWN, words.PRICED)


CONDITIONS = (_ready, _healthy, _within_policy, _stalled, _priced)
_READY = {
    reasons.ACTIVE: words.ROUTED,
    reasons.NO_TRAFFIC: words.NO_TRAFFIC,
    reasons.REPORTS_STALE: words.REPORTS_STALE,
}
