"""What a report says of how breakers stand at this moment, beside its counters.

Promises a pulse for each breaker that is not quiet, and none for the rest. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from nexus_quality.backend_monitor import BackendMonitor
from nexus_quality.breaker import Breaker, BreakerState, Row
from nexus_quality.recorder import Recorder
from nexus_quality.report import Pulse

_TRIPPED = (BreakerState.OPEN, BreakerState.HALF_OPEN)


def _tells(breaker: Breaker) -> bool:
    """True if the operator should hear of it."""
    return breaker.state in _TRIPPED or breaker.row.length > 0 or breaker.probe_in_flight


def pulses_of(backend: BackendMonitor, recorder: Recorder) -> Iterator[Pulse]:
    """The pulses of a backend and of its models that are not quiet."""
    told = any(map(_tells, backend.breakers()))
    if _tells(backend.breaker) or backend.tells_of_key:
        yield _pulse(backend, recorder, "", backend.breaker)
    for subject in backend.subjects.values():
        # Where one model fails, what the others have in flight counts for the backend.
        if _tells(subject.breaker) or (told and subject.in_flight):
            yield _pulse(backend, recorder, subject.model, subject.breaker)


def _pulse(backend: BackendMonitor, recorder: Recorder, model: str, breaker: Breaker) -> Pulse:
    row: Row = breaker.row
    in_flight = sum(s.in_flight for s in backend.subjects.values() if model in ("", s.model))
    latest = breaker.latest_success
    key, own = backend.key, not model
    return Pulse(
        uid=backend.uid,
        model=model,
        generation=backend.generation,
        in_flight=in_flight,
        row=row.length,
        row_began_ms=int(recorder.elapsed(row.began) * 1000) if row.length else 0,
        success_began_ms=int(recorder.elapsed(latest) * 1000) if latest > 0 else -1,
        open=breaker.state in _TRIPPED,
        probing=breaker.probe_in_flight,
        refused=key.refused if own else 0,
        key=backend.blocked if own else "",
        ca=own and key.facts.ca,
    )
