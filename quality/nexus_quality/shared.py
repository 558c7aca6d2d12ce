"""The shared verdict as one proxy reads it from a backend's status.

Promises that no wall clock of the proxy is used: the time left of an exclusion is measured by the
API server's clock and clamped, then put on the proxy's own. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from nexus_api import reasons
from nexus_api.backend import (
    BackendState,
    Exclusion,
    ExclusionRule,
    LLMBackendStatus,
    SubjectState,
)
from nexus_api.meta import ConditionStatus
from nexus_api.quantities import BASIS_POINTS, parse_percent, parse_time
from nexus_quality.words import Words, split

CLAMP = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedVerdict:
    """What the operator decided. `until` and `recovered` are on the proxy's own clock.

    `overlay` is Suspended or Unhealthy where the status says so, beside the verdict underneath;
    `rejected` are the words of the overlay CredentialsRejected while the fleet's key is refused.
    `started` tells one exclusion from the next. `models`: the verdicts on those that have a record.
    """

    state: SubjectState = SubjectState.ACTIVE
    generation: int = 0
    until: float | None = None
    share_basis_points: int | None = None
    recovered: float | None = None
    reason: str = ""
    suggested_action: str = ""
    overlay: BackendState | None = None
    rejected: Words | None = None
    started: str = ""
    models: Mapping[str, SharedVerdict] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """True if the verdict lets ordinary traffic through."""
        return self.state is SubjectState.ACTIVE

    def of(self, model: str) -> SharedVerdict:
        """The verdict on one model, Active where nothing is told of it."""
        return self.models.get(model) or SharedVerdict(generation=self.generation)

    def turned(self, before: SharedVerdict) -> bool:
        """True if a transition lies between `before` and this."""
        return (self.state, self.started) != (before.state, before.started)


def shared_from_status(
    status: LLMBackendStatus | None,
    *,
    server_time: float,
    now: float,
    max_exclusion_seconds: int,
) -> SharedVerdict:
    """Translate a status. `server_time`: epoch seconds of the API server's Date header.

    Without a status the backend is Active under generation 0.
    """
    if status is None or status.state is None:
        return SharedVerdict()
    clock = _Clock(server_time, now, CLAMP * max_exclusion_seconds)
    generation = status.verdict_generation or 0
    exclusion = status.exclusion or Exclusion()
    stalled = stalled_by(status)
    shared = _shared(_underneath(status.state, exclusion, stalled), exclusion, generation, clock)
    overlaid = status.state in (BackendState.SUSPENDED, BackendState.UNHEALTHY)
    return replace(
        shared,
        overlay=status.state if overlaid else None,
        rejected=split(stalled[1]) if stalled and stalled[0] == _REJECTED else None,
        models={
            model.name: _shared(model.state, model.exclusion or Exclusion(), generation, clock)
            for model in status.model_quality
            if model.state is not SubjectState.ACTIVE or model.exclusion is not None
        },
    )


class _Clock(NamedTuple):
    """Two clocks read at one moment, and how far ahead an `until` may be."""

    server_time: float
    now: float
    most: float


def _shared(
    state: SubjectState, exclusion: Exclusion, generation: int, clock: _Clock
) -> SharedVerdict:
    return SharedVerdict(
        state=state,
        generation=generation,
        until=_ahead(exclusion.until_time, clock.server_time, clock.now, clock.most),
        share_basis_points=_share(exclusion.probation_share),
        recovered=_ahead(exclusion.recovered_time, clock.server_time, clock.now, 0.0),
        reason=exclusion.reason or "",
        suggested_action=exclusion.suggested_action or "",
        started=exclusion.start_time or "",
    )


_REJECTED = reasons.CREDENTIALS_REJECTED


def stalled_by(status: LLMBackendStatus) -> tuple[str, str] | None:
    """Reason and message of Stalled=True, None if nobody has anything to mend."""
    for condition in status.conditions:
        if condition.type == reasons.STALLED and condition.status is ConditionStatus.TRUE:
            return condition.reason, condition.message
    return None


def _underneath(
    state: BackendState, exclusion: Exclusion, stalled: tuple[str, str] | None
) -> SubjectState:
    if exclusion.rule is ExclusionRule.CREDENTIALS_REJECTED:
        return SubjectState.ACTIVE
    if state is BackendState.EXCLUDED and stalled is None:
        return SubjectState.EXCLUDED
    if state is BackendState.PROBATION:
        return SubjectState.PROBATION
    if state is BackendState.ACTIVE or exclusion.start_time is None or exclusion.recovered_time:
        return SubjectState.ACTIVE
    if exclusion.probation_share is not None:
        return SubjectState.PROBATION
    return SubjectState.EXCLUDED


def _ahead(text: str | None, server_time: float, now: float, most: float) -> float | None:
    if text is None:
        return None
    return now + min(parse_time(text) - server_time, most)


def _share(text: str | None) -> int | None:
    return None if text is None else min(parse_percent(text), BASIS_POINTS)
