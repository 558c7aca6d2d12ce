"""Verdicts as a status carries them: what is published, and what a starting operator reads back.

Promises that reading what was published gives back state, generation, count, times and evidence;
the runs and rates that a status does not carry begin anew, and every subject's last transition is
taken to be the latest of all. It writes no status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from msgspec import structs

from nexus_api.backend import (
    Exclusion,
    ExclusionRule,
    LLMBackendStatus,
    ModelQuality,
    SubjectState,
)
from nexus_api.quantities import format_percent, format_time, parse_percent, parse_time
from nexus_quality.figures import MAX_MODELS
from nexus_quality.firing import Firing
from nexus_quality.shared import SharedVerdict, shared_from_status
from nexus_quality.verdict import Verdict
from nexus_quality.verdicts import Verdicts

TEXT_LIMIT = 1024


def exclusion_of(verdict: Verdict) -> Exclusion | None:
    """The latest exclusion, as far as it still means something; None of a clean record."""
    out = verdict.state is not SubjectState.ACTIVE
    # Readers tell an exclusion under an overlay by a start without a recovery.
    told = out or verdict.recovered is not None
    firing = verdict.firing if told else None
    exclusion = Exclusion(
        start_time=_time(verdict.started) if told else None,
        until_time=_time(verdict.until) if out else None,
        rule=firing.rule if firing else None,
        errors=firing.errors if firing else None,
        requests=firing.requests if firing else None,
        reason=firing.reason[:TEXT_LIMIT] if firing else None,
        suggested_action=firing.suggested_action[:TEXT_LIMIT] if firing else None,
        count=verdict.count or None,
        probation_share=_share(verdict),
        recovered_time=None if out else _time(verdict.recovered),
    )
    return None if exclusion == Exclusion() else exclusion


def verdicts_from_status(status: LLMBackendStatus, now: float) -> Verdicts:
    """The verdicts that a status published; what it does not carry is as after a start."""
    shared = shared_from_status(status, server_time=now, now=now, max_exclusion_seconds=2**31)
    entries = {model.name: model.exclusion for model in status.model_quality}
    return Verdicts(
        generation=shared.generation,
        backend=_verdict(shared, status.exclusion, now),
        models={m: _verdict(one, entries[m], now) for m, one in shared.models.items()},
    )


def shared_of(verdicts: Verdicts, *, offset: float = 0.0) -> SharedVerdict:
    """What a proxy would read of verdicts; its clock is `offset` seconds behind theirs."""
    backend = _seen(verdicts.backend, verdicts.generation, offset)
    models = {m: _seen(v, verdicts.generation, offset) for m, v in verdicts.models.items()}
    return replace(backend, models=models)


def _seen(verdict: Verdict, generation: int, offset: float) -> SharedVerdict:
    firing = verdict.firing
    return SharedVerdict(
        state=verdict.state,
        generation=generation,
        until=None if verdict.until is None else verdict.until - offset,
        share_basis_points=verdict.share_basis_points,
        recovered=None if verdict.recovered is None else verdict.recovered - offset,
        reason=firing.reason if firing else "",
        suggested_action=firing.suggested_action if firing else "",
        started="" if verdict.started is None else str(verdict.started),
    )


def with_verdicts(
    known: Sequence[ModelQuality], models: Mapping[str, Verdict]
) -> tuple[ModelQuality, ...]:
    """For `status.modelQuality`: the figures of models with their verdicts, at most 32.

    Those not Active come first, then those with a record, then as they came.
    """
    found = {model.name: model for model in known}
    for name in models:
        found.setdefault(name, ModelQuality(name=name, state=SubjectState.ACTIVE))
    told = [_with_verdict(model, models.get(model.name, _CLEAN)) for model in found.values()]
    told = [model for model in told if model != _said_nothing(model.name)]
    told.sort(key=lambda model: (model.state is SubjectState.ACTIVE, model.exclusion is None))
    return tuple(told[:MAX_MODELS])


def _with_verdict(model: ModelQuality, verdict: Verdict) -> ModelQuality:
    return structs.replace(model, state=verdict.state, exclusion=exclusion_of(verdict))


def _said_nothing(name: str) -> ModelQuality:
    return ModelQuality(name=name, state=SubjectState.ACTIVE)


_CLEAN = Verdict()


def _verdict(shared: SharedVerdict, exclusion: Exclusion | None, now: float) -> Verdict:
    verdict = Verdict(
        state=shared.state,
        generation=shared.generation,
        calm_since=now,
        probing_since=now if shared.state is SubjectState.PROBATION else None,
    )
    if exclusion is None:
        return verdict
    if exclusion.rule is ExclusionRule.CREDENTIALS_REJECTED:
        return replace(verdict, count=exclusion.count or 0)  # an overlay's, not the verdict's
    started, share = exclusion.start_time, exclusion.probation_share
    return replace(
        verdict,
        count=exclusion.count or 0,
        started=None if started is None else parse_time(started),
        until=shared.until,
        firing=_firing(exclusion),
        share_basis_points=None if share is None else parse_percent(share),
        recovered=shared.recovered,
    )


def _firing(exclusion: Exclusion) -> Firing | None:
    if exclusion.rule is None:
        return None
    return Firing(
        rule=ExclusionRule(exclusion.rule),
        errors=exclusion.errors or 0,
        requests=exclusion.requests or 0,
        reason=exclusion.reason or "",
        suggested_action=exclusion.suggested_action or "",
    )


def _share(verdict: Verdict) -> str | None:
    if verdict.state is not SubjectState.PROBATION or verdict.share_basis_points is None:
        return None
    return format_percent(verdict.share_basis_points)


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else format_time(seconds)
