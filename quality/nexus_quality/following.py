"""How a proxy follows the shared verdict: what a status that arrives means to its breakers.

Promises that only a newer generation moves a breaker between following and deciding for itself
(L10, L11, L15, L17, L20), that none does under an audit (L21), and that a model goes by its
backend (S17). Deadlines and orphans are
`monitor`'s.
"""

from __future__ import annotations

from nexus_api.backend import BackendState, SubjectState
from nexus_quality.backend_monitor import BackendMonitor
from nexus_quality.breaker import Breaker, BreakerState, Event, Facts
from nexus_quality.breaker_table import apply
from nexus_quality.shared import SharedVerdict
from nexus_quality.subject import Subject

NEWER = {
    SubjectState.ACTIVE: Event.NEWER_ACTIVE,
    SubjectState.EXCLUDED: Event.NEWER_EXCLUDED,
    SubjectState.PROBATION: Event.NEWER_PROBATION,
}
_FIRST_SIGHT = {
    SubjectState.ACTIVE: BreakerState.CLOSED,
    SubjectState.EXCLUDED: BreakerState.FOLLOW_EXCLUDED,
    SubjectState.PROBATION: BreakerState.FOLLOW_PROBATION,
}
FOLLOWING = (BreakerState.FOLLOW_EXCLUDED, BreakerState.FOLLOW_PROBATION)


def start(breaker: Breaker, shared: SharedVerdict) -> None:
    """What a breaker is at first sight of a verdict (L22)."""
    breaker.start(_FIRST_SIGHT[shared.state])
    breaker.recovered = shared.recovered


def adopt(
    backend: BackendMonitor,
    shared: SharedVerdict,
    *,
    first: bool,
    newer: bool,
    facts: Facts,
) -> None:
    """Take in what the operator decided of a backend. `first`: nothing was known before; `newer`:
    by a later generation than that.
    """
    breaker = backend.breaker
    overlay = breaker.shared
    breaker.shared, breaker.generation = shared, shared.generation
    if overlay.rejected and not shared.rejected:
        backend.key.renew()
    if overlay.overlay is BackendState.UNHEALTHY and shared.overlay is None:
        breaker.recovered = facts.now
    backend.generation = max(0, shared.generation)
    if first:
        start(breaker, shared)
    elif newer:
        _turn(breaker, overlay, facts)
        if shared.active and breaker.shared.turned(overlay):
            backend.active_since = facts.now
    left = not first and newer and shared.active is not overlay.active
    for subject in backend.subjects.values():
        _adopt_model(backend, subject, first=first, left=left, facts=facts)
    if first or newer:
        backend.hurry(suspect=False)


def _turn(breaker: Breaker, before: SharedVerdict, facts: Facts) -> None:
    """Follow a newer generation. One that a model has turned leaves a backend on probation
    where it is, with its probe in flight; a failed one holds under its own generation (L13).
    """
    if breaker.state in FOLLOWING and not breaker.shared.turned(before):
        breaker.spent = False
    else:
        apply(breaker, NEWER[breaker.shared.state], facts)


def _adopt_model(
    backend: BackendMonitor, subject: Subject, *, first: bool, left: bool, facts: Facts
) -> None:
    """`left`: the backend has left Active or come back to it, which its models go by (S17)."""
    breaker, before = subject.breaker, subject.breaker.shared
    breaker.shared = shared = backend.breaker.shared.of(subject.model)
    breaker.generation = shared.generation
    if first:
        start(breaker, shared)
        return
    if left:
        apply(breaker, Event.BACKEND_TURNED, facts)
    if left or shared.turned(before):
        apply(breaker, NEWER[shared.state], facts)
    if shared.active and not before.active:
        backend.active_since = facts.now


def ignore(backend: BackendMonitor, facts: Facts, *, everything: bool) -> None:
    """Under an audit nothing is kept out (L21), whatever an operator that does not know of it yet
    decides. `everything`: the audit begins, and slow starts end, too.
    """
    for breaker in backend.breakers():
        if everything or breaker.state is not BreakerState.CLOSED:
            apply(breaker, Event.AUDIT, facts)


def obey(backend: BackendMonitor, facts: Facts) -> None:
    """An audit has ended. One that the operator never judged by has left the verdict as it was."""
    for breaker in backend.breakers():
        if breaker.state not in FOLLOWING and not breaker.shared.active:
            apply(breaker, NEWER[breaker.shared.state], facts)
