"""One line of the page for each backend: pure, from the object and the figures.

Promises that a line says the state, why, since when, and figures that are absent without data, as
in the status; a reason is a condition's or a rule's, never made up here. It keeps nothing: since
when a state lasts is handed in. No credential is on it, nor the name of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from nexus_api import (
    BackendState,
    Condition,
    ConditionStatus,
    LLMBackend,
    LLMBackendStatus,
    Quality,
    reasons,
)
from nexus_quality.figures import Figures

NOT_LOOKED_AT = "NotSeen"


class Figured(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Figures of a backend or of a model. None: no data; milliseconds; rates as in the status."""

    requests: int | None = None
    errors: int | None = None
    error_rate: str | None = None
    throttled: int | None = None
    p50: int | None = None
    p95: int | None = None
    requests_24h: int | None = None
    success_24h: str | None = None
    reporters: int | None = None


class Row(Figured, frozen=True, omit_defaults=True, kw_only=True):
    """A backend. `since`: epoch seconds; `models_out`: how many of its models are left out;
    `mend`: a person has to do something.
    """

    namespace: str
    name: str
    type: str
    state: str
    reason: str = ""
    message: str = ""
    since: int | None = None
    policy: str | None = None
    models_out: int = 0
    mend: bool = False


class Why(NamedTuple):
    """A reason and the sentence that goes with it."""

    reason: str
    message: str


def row(
    backend: LLMBackend, *, figures: Figures, models_out: int = 0, since: float | None = None
) -> Row:
    """The line of a backend; `figures` as they are now, `since` in epoch seconds."""
    status, metadata = backend.status, backend.metadata
    reason, message = why(status)
    return Row(
        namespace=metadata.namespace,
        name=metadata.name,
        type=backend.spec.type.value,
        state=status.state.value if status.state else "",
        reason=reason,
        message=message,
        since=None if since is None else int(since),
        policy=status.quality_policy,
        models_out=models_out,
        mend=_is(condition(status, reasons.STALLED), ConditionStatus.TRUE),
        **figured(figures.quality()),
    )


def figured(quality: Quality | None) -> dict[str, Any]:
    """The fields of `Figured` out of published figures."""
    if quality is None:
        return {}
    return {
        "requests": quality.requests_1h,
        "errors": quality.errors_1h,
        "error_rate": quality.error_rate_1h,
        "throttled": quality.throttled_1h,
        "p50": quality.p50_ttft_milliseconds,
        "p95": quality.p95_ttft_milliseconds,
        "requests_24h": quality.requests_24h,
        "success_24h": quality.success_rate_24h,
        "reporters": quality.reporters,
    }


def why(status: LLMBackendStatus) -> Why:
    """Why a backend is in its state, as its status has it."""
    stalled = condition(status, reasons.STALLED)
    if stalled is not None and stalled.status is ConditionStatus.TRUE:
        return Why(stalled.reason, stalled.message)
    if status.state is None:
        return Why(NOT_LOOKED_AT, "Nothing was said of it yet")
    return _WHY[status.state](status)


def condition(status: LLMBackendStatus, kind: str) -> Condition | None:
    """The condition of a type, if it is there."""
    return next((each for each in status.conditions if each.type == kind), None)


def _is(found: Condition | None, status: ConditionStatus) -> bool:
    return found is not None and found.status is status


def _by(kind: str) -> Callable[[LLMBackendStatus], Why]:
    def told(status: LLMBackendStatus) -> Why:
        found = condition(status, kind)
        return Why(found.reason, found.message) if found is not None else Why("", "")

    return told


def _excluded(status: LLMBackendStatus) -> Why:
    """The rule where there is one; the condition's own reason says only how far its probes are."""
    reason, message = _by(reasons.WITHIN_POLICY)(status)
    rule = status.exclusion.rule if status.exclusion is not None else None
    return Why(rule.value if rule is not None else reason, message)


def _active(status: LLMBackendStatus) -> Why:
    within = condition(status, reasons.WITHIN_POLICY)
    if within is not None and within.reason in _WORTH_SAYING:
        return Why(within.reason, within.message)
    return _by(reasons.READY)(status)


_WORTH_SAYING = frozenset({reasons.FAILING_FOR_SOME, reasons.WOULD_BE_EXCLUDED})
_WHY: dict[BackendState, Callable[[LLMBackendStatus], Why]] = {
    BackendState.SUSPENDED: _by(reasons.READY),
    BackendState.UNHEALTHY: _by(reasons.HEALTHY),
    BackendState.EXCLUDED: _excluded,
    BackendState.PROBATION: _excluded,
    BackendState.ACTIVE: _active,
}
