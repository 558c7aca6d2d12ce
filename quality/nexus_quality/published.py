"""A verdict as a status carries it: what is published, and what a starting operator reads back.

Promises that reading what was published gives back state, generation, count, times and evidence;
the runs and rates that a status does not carry begin anew. It writes no status.
"""

from __future__ import annotations

from dataclasses import replace

from nexus_api.backend import Exclusion, ExclusionRule, LLMBackendStatus, SubjectState
from nexus_api.quantities import format_percent, format_time, parse_percent, parse_time
from nexus_quality.rules import Firing
from nexus_quality.shared import shared_from_status
from nexus_quality.verdict import Verdict

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


def verdict_from_status(status: LLMBackendStatus, now: float) -> Verdict:
    """The verdict that a status published; what it does not carry is as after a start."""
    shared = shared_from_status(status, server_time=now, now=now, max_exclusion_seconds=2**31)
    exclusion = status.exclusion
    verdict = Verdict(state=shared.state, generation=shared.generation, calm_since=now)
    if exclusion is None:
        return verdict
    if exclusion.rule is ExclusionRule.CREDENTIALS_REJECTED:
        return replace(verdict, count=exclusion.count or 0)  # an overlay's, not the verdict's
    started = exclusion.start_time
    firing = None
    if exclusion.rule is not None:
        firing = Firing(
            rule=ExclusionRule(exclusion.rule),
            errors=exclusion.errors or 0,
            requests=exclusion.requests or 0,
            reason=exclusion.reason or "",
            suggested_action=exclusion.suggested_action or "",
        )
    share = exclusion.probation_share
    return replace(
        verdict,
        count=exclusion.count or 0,
        started=None if started is None else parse_time(started),
        until=shared.until,
        firing=firing,
        share_basis_points=None if share is None else parse_percent(share),
        recovered=shared.recovered,
    )


def _share(verdict: Verdict) -> str | None:
    if verdict.state is not SubjectState.PROBATION or verdict.share_basis_points is None:
        return None
    return format_percent(verdict.share_basis_points)


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else format_time(seconds)
