"""What the operator says about a backend: its status, built from what is known.

Promises all conditions from the first sight on, transition times kept while a condition's status
stays, and a status that the schema accepts. Without data a figure is absent. Pure: whether it is
worth a write is `material`'s, how it gets there the writer's.
"""

from __future__ import annotations

from msgspec.structs import replace

from nexus_api import (
    Condition,
    ConditionStatus,
    Exclusion,
    LLMBackendStatus,
    Quality,
    SubjectState,
    reasons,
)
from nexus_operator.conditions import CONDITIONS, conditions
from nexus_operator.knowledge import Knowledge, state_of
from nexus_quality.published import exclusion_of, with_verdicts
from nexus_quality.verdicts import Verdicts

LATENCY_FACTOR = 1.5
LATENCY_STEP_MS = 20
TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


def build_status(known: Knowledge, *, now: float) -> LLMBackendStatus:
    """The status to publish; `now` in epoch seconds."""
    backend, before = known.backend, known.backend.status
    state = state_of(known)
    generation = backend.metadata.generation
    said = [judge(known, state) for judge in CONDITIONS]
    return LLMBackendStatus(
        observed_generation=generation,
        conditions=conditions(said, before.conditions, generation=generation, now=now),
        state=state,
        verdict_generation=known.verdicts.generation,
        quality=known.quality,
        model_quality=with_verdicts(known.model_quality, known.verdicts.models),
        models_omitted=known.models_omitted or None,
        models=known.findings.models[:512],
        probe_latency_milliseconds=steady(
            before.probe_latency_milliseconds, known.findings.health.latency_ms
        ),
        exclusion=_exclusion(known, now),
        quality_policy=known.policy,
    )


def keep_what_was_published(
    status: LLMBackendStatus, before: LLMBackendStatus, *, verdicts: Verdicts
) -> LLMBackendStatus:
    """The status of a starting operator that has not heard the fleet yet.

    Figures only grow, and nothing known becomes unknown, until the proxies have replayed.
    """
    kept = {c.type: c for c in before.conditions if c.type in _UNHEARD}
    quality, models = status.quality, status.model_quality
    if lower(quality, before.quality):
        quality = before.quality
        models = with_verdicts(before.model_quality, verdicts.models)
    return replace(
        status,
        quality=quality,
        model_quality=models,
        conditions=tuple(_heard(c, kept.get(c.type)) for c in status.conditions),
    )


def lower(after: Quality | None, before: Quality | None) -> bool:
    """Whether the figures count fewer requests than those published."""
    if before is None:
        return False
    return after is None or (after.requests_24h or 0) < (before.requests_24h or 0)


def steady(before: int | None, now: int | None) -> int | None:
    """A latency that changes only when it changed by half: probes must not cause writes."""
    if before is None or now is None:
        return now if now is not None else before
    small, large = sorted((before, now))
    far = large - small >= LATENCY_STEP_MS and large >= small * LATENCY_FACTOR
    return now if far else before


def _exclusion(known: Knowledge, now: float) -> Exclusion | None:
    """The verdict's, or that of a refused key where the verdict has none."""
    verdict, mending = known.verdict, known.mending
    if mending is None or not mending.rejected or verdict.state is not SubjectState.ACTIVE:
        return exclusion_of(verdict)
    return mending.exclusion(known.backend.status.exclusion, count=verdict.count, now=now)


_UNHEARD = frozenset({reasons.READY, reasons.WITHIN_POLICY})


def _heard(now: Condition, before: Condition | None) -> Condition:
    """What was published of an Active backend stays where only silence would change it."""
    if before is None or now.status == FALSE or before.status == FALSE:
        return now
    silent = now.reason in (reasons.NO_TRAFFIC, reasons.REPORTS_STALE) or now.status == UNKNOWN
    guessed = now.reason == reasons.WITHIN_THRESHOLDS
    if not (silent or guessed):
        return now
    return replace(before, observed_generation=now.observed_generation)
