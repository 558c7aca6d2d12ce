"""Whether a call should wait, and for what: a place at `maxConcurrency`, or the end of a rest.

`wait_of` answers for a call that no candidate can take now. It is pure and keeps nobody waiting:
that is `queue`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from nexus_proxy.routing.candidate import Backend, Candidate
from nexus_proxy.routing.leg import Leg
from nexus_proxy.routing.plan import Plan
from nexus_proxy.routing.request import Call

WaitKey = tuple[str, int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Wait:
    """A call has to wait: no candidate can take it now, but one of these `backends` soon may.

    Calls of one `key` may go to the same places, so one of them stands for all. `until` is when the
    first rest ends, infinity if only places are missing. `forgiven` are candidates that were tried
    and asked for a rest: after it they may be tried again. `free`: there is a place already, but
    others came first; `soonest`: no place can be there before. `max_size` and `max_wait_seconds`
    are the queue's bounds in force.
    """

    key: WaitKey
    backends: frozenset[Backend]
    until: float = math.inf
    forgiven: frozenset[Candidate] = frozenset()
    free: bool = False
    soonest: float = -math.inf
    max_size: int = 100
    max_wait_seconds: float = 30.0


def key_of(call: Call, plan: Plan, tried: Collection[Candidate]) -> WaitKey:
    """What calls that may go to the same places have in common."""
    return call.model, plan.kind, tuple(sorted(map(id, tried)))


def wait_of(
    call: Call,
    plan: Plan,
    now: float,
    tried: Collection[Candidate],
    *,
    probation: bool,
    max_size: int,
    max_wait_seconds: float,
) -> Wait | None:
    """What a call should wait for, on a backend on `probation` as well, or not; None if there is
    nothing that ends within `max_wait_seconds`.
    """
    backends: set[Backend] = set()
    forgiven: set[Candidate] = set()
    until = soonest = math.inf
    for leg in plan.legs:
        for candidate in _willing(leg, probation):
            rest = candidate.resting_until - now
            again = candidate in tried
            if rest > max_wait_seconds or _missing(candidate, call, now) or (again and rest <= 0.0):
                continue
            if rest > 0.0:
                until = min(until, candidate.resting_until)
                soonest = min(soonest, candidate.resting_until)
            elif _full(candidate.backend):
                soonest = -math.inf
            else:
                continue
            backends.add(candidate.backend)
            if again:
                forgiven.add(candidate)
    if not backends:
        return None
    return Wait(
        key_of(call, plan, [each for each in tried if each not in forgiven]),
        frozenset(backends),
        until,
        frozenset(forgiven),
        soonest=soonest,
        max_size=max_size,
        max_wait_seconds=max_wait_seconds,
    )


def _willing(leg: Leg, probation: bool) -> Iterator[Candidate]:
    """The candidates that would take ordinary traffic."""
    answer = leg.sorted
    yield from answer.admitted
    yield from answer.slow
    alone = len(answer.probing) == answer.configured
    for candidate in answer.probing if probation else ():
        if candidate.traits.least_bad or alone:
            yield candidate


def _full(backend: Backend) -> bool:
    return backend.max_concurrency is not None and backend.in_flight >= backend.max_concurrency


def _missing(candidate: Candidate, call: Call, now: float) -> bool:
    return candidate.missing_until.get(call.endpoint, 0.0) > now
