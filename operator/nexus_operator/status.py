"""What the operator says about a backend: its status, built from what is known.

Promises all conditions from the first sight on, transition times kept while a condition's status
stays, and a status that the schema accepts. Without data a figure is absent. Pure: whether it is
worth a write is `material`'s, how it gets there the writer's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from msgspec.structs import replace

from nexus_api import (
    BackendState,
    Condition,
    ConditionStatus,
    Exclusion,
    LLMBackend,
    LLMBackendSpec,
    LLMBackendStatus,
    ModelQuality,
    Quality,
    SubjectState,
    reasons,
)
from nexus_api.quantities import format_time
from nexus_api.resolve import endpoint, is_cloud, pricing
from nexus_operator.mending import Mending, of_stall
from nexus_operator.prober import Findings
from nexus_quality import words, words_of_health
from nexus_quality.assessment import WithinPolicy
from nexus_quality.published import exclusion_of, with_verdicts
from nexus_quality.stall import Stall
from nexus_quality.verdict import Verdict
from nexus_quality.verdicts import Verdicts

LATENCY_FACTOR = 1.5
LATENCY_STEP_MS = 20
TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


class Said(NamedTuple):
    """A condition without its bookkeeping."""

    type: str
    status: ConditionStatus
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """All that a status is built from. `traffic`: the reason of Ready while Active.

    `findings` as they are to be judged, not as probes alone would have them. `partly`: what only
    a part of the fleet says is to be mended.
    """

    backend: LLMBackend
    verdicts: Verdicts
    within: WithinPolicy
    traffic: str
    findings: Findings
    mending: Mending | None = None
    partly: Stall | None = None
    policy: str | None = None
    quality: Quality | None = None
    model_quality: tuple[ModelQuality, ...] = ()
    models_omitted: int = 0

    @property
    def verdict(self) -> Verdict:
        """The verdict on the backend itself."""
        return self.verdicts.backend


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


def state_of(known: Knowledge) -> BackendState:
    """The first of the states that holds."""
    if known.backend.spec.suspend:
        return BackendState.SUSPENDED
    if known.findings.health.status is FALSE:
        return BackendState.UNHEALTHY
    if known.mending is not None:
        return BackendState.EXCLUDED
    return BackendState(known.verdict.state.value)


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
