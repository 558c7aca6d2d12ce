"""What a status says happened last, for the Events of a process that died before it told them.

Between a status and its Event a process can die, and the next one finds the status alone. Promises
the latest change of the verdict, of health and of what is to be mended, as notes with the marks
that the dead process would have given them, so that an Event which is there stays the only one. A
row that a status does not name is told in general words. Pure; what is older than `TOLD_SECONDS` is
left out, for by then the API server may have dropped the Event that was there. Not told again: that
a backend is no longer suspended, what became of a budget, and what cannot be told from the return
of a model without slow start, for which a status has no time.
"""

from __future__ import annotations

from nexus_api import (
    BackendState,
    LLMBackend,
    LLMBackendStatus,
    SubjectState,
    reasons,
)
from nexus_api.quantities import parse_time
from nexus_operator import own_words
from nexus_operator.notes import (
    Note,
    health_mark,
    mending_mark,
    suspension_mark,
    told,
    turned_at,
    verdict_mark,
)
from nexus_quality import words
from nexus_quality.assessment import why_out
from nexus_quality.firing import about, would_fire
from nexus_quality.policy import Policy
from nexus_quality.published import verdicts_from_status
from nexus_quality.shared import stalled_by
from nexus_quality.verdict import Verdict
from nexus_quality.verdicts import Verdicts

TOLD_SECONDS = 1800.0


def retold(backend: LLMBackend, policy: Policy, now: float) -> list[Note]:
    """What the status of a backend found at the start tells, at most three notes; `policy`: the one
    in force, `now` in epoch seconds.
    """
    status = backend.status
    found = [
        *_of_verdict(status, policy, now),
        *_of_overlays(status),
        *_of_mending(status),
    ]
    return [note for note in found if note.time is not None and now - note.time <= TOLD_SECONDS]


def _of_verdict(status: LLMBackendStatus, policy: Policy, now: float) -> list[Note]:
    verdicts = verdicts_from_status(status, now)
    if not verdicts.generation:
        return []
    subjects = [*sorted(verdicts.models.items()), ("", verdicts.backend)]
    dated = [
        (round(moment), model, verdict)
        for model, verdict in subjects
        if (moment := _moment(status, model, verdict)) is not None
    ]
    if not dated:
        return []
    if _ambiguous(verdicts):
        return []
    latest = max(moment for moment, _, _ in dated)
    model, verdict = [(m, v) for moment, m, v in dated if moment == latest][-1]
    reason, message = _SAID[verdict.state](status, model, verdict, policy)
    return [Note(reason, message, verdict_mark(verdicts.generation), latest)]


def _ambiguous(verdicts: Verdicts) -> bool:
    """Whether a model came back at a moment that no status tells, maybe as the latest change."""
    backend = verdicts.backend
    later = backend.state is SubjectState.EXCLUDED or backend.recovered is not None
    return not later and any(v.count and v.started is None for v in verdicts.models.values())


def _moment(status: LLMBackendStatus, model: str, verdict: Verdict) -> float | None:
    """When a subject came into its state, as far as a status tells."""
    if verdict.state is SubjectState.EXCLUDED:
        return verdict.started
    if model:
        return verdict.recovered if verdict.state is SubjectState.ACTIVE else verdict.until
    ready = _ready_since(status)
    if verdict.state is SubjectState.PROBATION:
        return verdict.until if ready is None else ready
    if verdict.recovered is not None:
        return verdict.recovered
    # Without slow start only the conditions say that it came back: out of Excluded both turn.
    return ready if _came_back_with(status, reasons.WITHIN_POLICY) else None


def _excluded(status: LLMBackendStatus, model: str, verdict: Verdict, _: Policy) -> tuple[str, str]:
    message = why_out(verdict) if model else told(status, reasons.WITHIN_POLICY)
    return reasons.EVENT_EXCLUDED, message


def _probing(status: LLMBackendStatus, model: str, _: Verdict, __: Policy) -> tuple[str, str]:
    message = about(model, words.TURNED["S7"]) if model else told(status, reasons.WITHIN_POLICY)
    return reasons.EVENT_PROBATION, message


def _back(_: LLMBackendStatus, model: str, verdict: Verdict, policy: Policy) -> tuple[str, str]:
    if verdict.recovered is None:
        if verdict.count:
            return reasons.EVENT_RECOVERED, about(model, words.TURNED["S9"])
        return reasons.EVENT_RELEASED, about(model, words.TURNED["S15"])
    if _excludes_no_more(verdict, policy):
        return reasons.EVENT_RELEASED, about(model, words.TURNED["S16"])
    return reasons.EVENT_RECOVERED, about(model, own_words.RECOVERED)


_SAID = {
    SubjectState.EXCLUDED: _excluded,
    SubjectState.PROBATION: _probing,
    SubjectState.ACTIVE: _back,
}


def _excludes_no_more(verdict: Verdict, policy: Policy) -> bool:
    """Whether the evidence of its exclusion does not suffice under the policy in force."""
    firing = verdict.firing
    return not policy.enforce or (
        firing is not None
        and not would_fire(
            firing.rule, errors=firing.errors, requests=firing.requests, policy=policy
        )
    )


def _of_overlays(status: LLMBackendStatus) -> list[Note]:
    message = told(status, reasons.READY)
    if status.state is BackendState.SUSPENDED:
        mark = suspension_mark(reasons.EVENT_SUSPENDED, status)
        return [Note(reasons.EVENT_SUSPENDED, message, mark, _time(status, reasons.READY))]
    if status.state is BackendState.UNHEALTHY:
        mark = health_mark(reasons.EVENT_UNHEALTHY, status)
        return [Note(reasons.EVENT_UNHEALTHY, message, mark, _time(status, reasons.HEALTHY))]
    if not _came_back_with(status, reasons.HEALTHY):
        return []
    mark, time = health_mark(reasons.EVENT_HEALTHY, status), _time(status, reasons.HEALTHY)
    return [Note(reasons.EVENT_HEALTHY, f"State is {status.state}", mark, time)]


def _of_mending(status: LLMBackendStatus) -> list[Note]:
    time = _time(status, reasons.STALLED)
    if (stalled := stalled_by(status)) is not None:
        return [Note(*stalled, mending_mark(stalled[0], status), time)]
    if not _came_back_with(status, reasons.STALLED):
        return []
    mark = mending_mark(reasons.EVENT_RELEASED, status)
    return [Note(reasons.EVENT_RELEASED, words.MENDED, mark, time)]


def _came_back_with(status: LLMBackendStatus, condition: str) -> bool:
    """Whether it became Ready in the moment in which a condition turned; not at its first sight, in
    which all began.
    """
    moment = turned_at(status, reasons.READY)
    first = min((c.last_transition_time for c in status.conditions if c.type in _OURS), default="")
    together = moment == turned_at(status, condition) != first
    return together and _ready_since(status) is not None


def _ready_since(status: LLMBackendStatus) -> float | None:
    ready = any(c.type == reasons.READY and c.status == "True" for c in status.conditions)
    return _time(status, reasons.READY) if ready else None


def _time(status: LLMBackendStatus, condition: str) -> float | None:
    moment = turned_at(status, condition)
    return parse_time(moment) if moment else None


_OURS = frozenset(
    {reasons.READY, reasons.HEALTHY, reasons.WITHIN_POLICY, reasons.STALLED, reasons.PRICED}
)
