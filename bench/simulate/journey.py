"""One request of a client on its way through a proxy: attempts until one answers, or none is left.

It does what the byte path does, in the same order, and knows no policy: a `Gate` says where each
attempt goes. Every journey ends exactly once, as one `Fate`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from bench.simulate.arrivals import Request
from bench.simulate.backends import Job, SimBackend
from bench.simulate.world import World

from nexus_quality.outcome import OUTCOMES, Outcome, OutcomeClass

if TYPE_CHECKING:
    from bench.simulate.measure import Log

QUICK_SECONDS = 1.0  # as in the byte path: a failure this fast leaves the first retry free
# Outcomes that another backend might not have; the rest is the client's to hear.
_FINAL = (Outcome.CLIENT_ERROR, Outcome.CLIENT_GONE, Outcome.SUCCESS)


class Fate(enum.Enum):
    """What the client got."""

    ANSWERED = "answered"
    FAILED = "failed"
    REJECTED = "rejected"  # without a single attempt
    REFUSED = "refused"  # its own fault: a 4xx
    GONE = "gone"


class Attempt(Protocol):
    """One attempt, as the policy that chose its backend sees it."""

    backend: int

    def content(self, now: float) -> None: ...

    def end(self, outcome: Outcome, now: float, retry_after: float | None) -> None: ...


class Waiting:
    """The request waits in its proxy; whoever keeps it there calls `then` once."""

    then: Callable[[Attempt | None], None]

    def leave(self) -> None:
        """The client is gone."""


class Ask(Protocol):
    """The policy's side of one request."""

    def first(self, now: float) -> Attempt | Waiting | None: ...

    def again(self, now: float, *, quick: bool) -> Attempt | Waiting | None: ...


class Gate(Protocol):
    """A proxy's choice of backends."""

    def ask(self, model: str) -> Ask: ...


class Journey:
    """From the arrival of a request to its fate."""

    __slots__ = ("_ask", "_attempt", "_backends", "_began", "_job", "_log", "_proxy", "_request",
                 "_tries", "_waiting", "_world", "over")  # fmt: skip

    def __init__(
        self,
        world: World,
        log: Log,
        backends: Sequence[SimBackend],
        gate: Gate,
        proxy: int,
        request: Request,
    ) -> None:
        self._world, self._log, self._backends = world, log, backends
        self._proxy, self._request = proxy, request
        self._ask = gate.ask(request.model)
        self._attempt: Attempt | None = None
        self._waiting: Waiting | None = None
        self._job: Job | None = None
        self._began = 0.0
        self._tries = 0
        self.over = False

    def start(self) -> None:
        """Make the first attempt."""
        self._log.arrived(self._request)
        if self._request.leaves_after is not None:
            self._world.after(self._request.leaves_after, self._leave)
        self._go(self._ask.first(self._world.now), Fate.REJECTED)

    def _go(self, found: Attempt | Waiting | None, otherwise: Fate) -> None:
        self._waiting = None
        if self.over:
            return
        if found is None:
            self._finish(otherwise)
        elif isinstance(found, Waiting):
            self._waiting = found
            found.then = lambda attempt: self._go(attempt, otherwise)
        else:
            self._begin(found)

    def _begin(self, attempt: Attempt) -> None:
        now = self._world.now
        self._attempt, self._began = attempt, now
        self._tries += 1
        self._job = Job(self._request, self._proxy, now, self._content, self._end)
        self._log.began(attempt.backend, self._request)
        unlucky = self._request.unlucky and self._tries == 1
        self._backends[attempt.backend].submit(self._job, unlucky=unlucky)

    def _content(self) -> None:
        assert self._attempt is not None
        self._attempt.content(self._world.now)
        self._log.first_token(self._request)

    def _end(self, outcome: Outcome, retry_after: float | None) -> None:
        now, attempt = self._world.now, self._attempt
        assert attempt is not None and self._job is not None
        failed = OUTCOMES[outcome].outcome_class is OutcomeClass.FAILURE
        self._log.ended(attempt.backend, self._proxy, self._request, self._began, failed=failed)
        attempt.end(outcome, now, retry_after)
        if outcome in _FINAL or self._job.breaks is not None:
            self._finish(_FATES.get(outcome, Fate.FAILED))
            return
        quick = outcome is Outcome.CONNECT_ERROR or (
            outcome is not Outcome.TIMEOUT and now - self._began < QUICK_SECONDS
        )
        self._go(self._ask.again(now, quick=quick and self._tries == 1), Fate.FAILED)

    def _leave(self) -> None:
        if self._waiting is not None:
            self._waiting.leave()
            self._finish(Fate.GONE)
        elif not self.over and self._attempt is not None and self._job is not None:
            self._backends[self._attempt.backend].leave(self._job)

    def _finish(self, fate: Fate) -> None:
        self.over = True
        self._log.finished(self._request, fate)


_FATES = {
    Outcome.SUCCESS: Fate.ANSWERED,
    Outcome.CLIENT_ERROR: Fate.REFUSED,
    Outcome.CLIENT_GONE: Fate.GONE,
}
