"""What happened: counters of one run, from `reset` on.

Promises that every request that arrived in the measured part is in exactly one of the fates, and
that nothing here is seen by any policy. A request belongs to the part in which it arrived.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.simulate.arrivals import Request
from bench.simulate.journey import Fate
from bench.simulate.world import EPOCH, World

if TYPE_CHECKING:
    from nexus_quality.engine import Transition

SLOW_SECONDS = 3.0
BIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Move:
    """A proxy let a backend in (or put it out) of ordinary traffic; `at` in measured seconds."""

    at: float
    proxy: int
    backend: str
    model: str
    inside: bool
    failures: int


@dataclass(frozen=True, slots=True)
class Turn:
    """A transition of the shared verdict; `until` in measured seconds."""

    at: float
    backend: str
    row: str
    state: str
    rule: str
    until: float | None


@dataclass(slots=True)
class Result:
    """The measured part of one run, ready to be sent between processes."""

    seconds: float
    fates: Counter[str] = field(default_factory=Counter)
    arrived: int = 0
    slow: int = 0
    slow_by_model: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    failed_attempts: Counter[int] = field(default_factory=Counter)
    failed_by_proxy: Counter[tuple[int, int]] = field(default_factory=Counter)
    moves: list[Move] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    wasted: list[float] = field(default_factory=list)
    bins: Counter[tuple[int, int, bool]] = field(default_factory=Counter)
    refused_reports: int = 0
    miscounted: int = 0
    fifth: dict[tuple[int, int], float] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Requests that the client saw fail: failed or turned away."""
        return self.fates[Fate.FAILED.value] + self.fates[Fate.REJECTED.value]

    @property
    def rejected(self) -> int:
        """Requests turned away without an attempt."""
        return self.fates[Fate.REJECTED.value]

    @property
    def failures(self) -> int:
        """Failed attempts on all backends."""
        return self.failed_attempts.total()


class Log:
    """Takes notes while a world runs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._since = 0.0
        self.result = Result(0.0)
        self.open = 0
        self.refused = 0

    def reset(self) -> None:
        """The measured part begins now."""
        self._since = self._world.now
        self.result = Result(0.0)
        self.open = self.refused = 0

    def close(self, seconds: float) -> Result:
        """The measured part was so long; requests still open at its end have ended by now."""
        self.result.seconds = seconds
        self.result.refused_reports = self.refused
        return self.result

    @property
    def now(self) -> float:
        """Seconds of the measured part."""
        return self._world.now - self._since

    def _ours(self, request: Request) -> bool:
        return request.at >= self._since

    def arrived(self, request: Request) -> None:
        """A client asks."""
        self.result.arrived += 1
        self.open += 1

    def began(self, backend: int, request: Request) -> None:
        """An attempt begins."""
        if self._ours(request):
            self.result.attempts[backend] += 1
            self.result.bins[backend, int(self.now // BIN_SECONDS), True] += 1

    def first_token(self, request: Request) -> None:
        """The client sees its first token."""
        if self._ours(request) and self._world.now - request.at > SLOW_SECONDS:
            self.result.slow += 1
            self.result.slow_by_model[request.model] += 1

    def ended(
        self, backend: int, proxy: int, request: Request, began: float, *, failed: bool
    ) -> None:
        """An attempt ends."""
        if failed and self._ours(request):
            result = self.result
            result.failed_attempts[backend] += 1
            result.failed_by_proxy[proxy, backend] += 1
            if result.failed_by_proxy[proxy, backend] == 5:
                result.fifth[proxy, backend] = self.now
            result.wasted.append(began - self._since)
            result.bins[backend, int((began - self._since) // BIN_SECONDS), False] += 1

    def finished(self, request: Request, fate: Fate) -> None:
        """A client has got its fate."""
        if self._ours(request):
            self.open -= 1
            self.result.fates[fate.value] += 1
            if fate in (Fate.FAILED, Fate.REJECTED):
                self.result.losses.append(request.at - self._since)

    def moved(self, proxy: int, backend: str, model: str, *, inside: bool) -> None:
        """A proxy's own decision, or what it heard."""
        number = int(backend.rpartition("-")[2])
        failures = self.result.failed_by_proxy[proxy, number]
        self.result.moves.append(Move(self.now, proxy, backend, model, inside, failures))

    def transition(self, backend: str, transition: Transition) -> None:
        """The shared verdict turned."""
        after = transition.after
        rule = str(after.firing.rule) if after.firing else ""
        until = None if after.until is None else after.until - EPOCH - self._since
        turn = Turn(self.now, backend, transition.row, after.state.value, rule, until)
        self.result.turns.append(turn)
