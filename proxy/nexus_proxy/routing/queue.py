"""The queue of requests that wait for a place, and who gets the next one.

Promises: first come, first served among requests of one priority; high before normal, but at most
`HIGH_IN_A_ROW` high ones in a row while a normal one could have had the place; no newcomer before
those who wait; never more than `max_size` requests or `MAX_BYTES` of bodies; an end of every wait
at its deadline. A place that becomes free wakes one request, not all; where nobody knows how many
places there are (a rest is over, the table changed), requests are let go one per `BEAT_SECONDS`
until one finds no place. There is one timer for all of them, and none when nobody waits.

What a request may wait for is `wait`'s business, where it goes the router's.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from typing import Protocol

from nexus_proxy.routing.candidate import Backend, Candidate
from nexus_proxy.routing.choice import Choice
from nexus_proxy.routing.queue_counters import (
    DRAINING,
    FULL,
    LATE,
    LEFT,
    REJECTED,
    SERVED,
    QueueCounters,
)
from nexus_proxy.routing.reason import Rejection
from nexus_proxy.routing.request import Call
from nexus_proxy.routing.wait import Wait, WaitKey

HIGH_IN_A_ROW = 4
BEAT_SECONDS = 0.02
MAX_BYTES = 256 * 1024 * 1024
_COMPACT = 64


class Guest(Protocol):
    """A request that can wait: exactly one of both is called at the end of its wait."""

    @property
    def call(self) -> Call: ...

    def proceed(self, choice: Choice, now: float) -> None:
        """There is a place: make this attempt."""

    def turn_away(self, rejection: Rejection) -> None:
        """There is none, and there will be none in time."""


class Clerk(Protocol):
    """What the queue asks of the router."""

    @property
    def version(self) -> int: ...

    def choose(self, call: Call, now: float) -> Choice | Wait | Rejection: ...

    def resume(self, call: Call, now: float) -> Choice | Wait | Rejection: ...

    def behind(self, call: Call, choice: Choice) -> Wait: ...

    def key(self, call: Call) -> WaitKey: ...

    def refuse(self, call: Call, now: float, why: str, retry_after: float) -> Rejection: ...


class Timer(Protocol):
    """A callback to come."""

    def cancel(self) -> object: ...


Later = Callable[[float, Callable[[], None]], Timer]


class Waiter:
    """A request in the queue; it stays the same object through all its waits.

    `ticket` is the number of this wait, 0 while it does not wait; `rank` that of its first wait,
    which is its seniority; `waited` the seconds of the waits before this one.
    """

    __slots__ = ("began", "deadline", "forgiven", "guest", "line", "rank", "ticket", "waited")

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.began = 0.0
        self.deadline = math.inf
        self.waited = 0.0
        self.rank = self.ticket = 0
        self.forgiven: frozenset[Candidate] = frozenset()
        self.line: Line


Place = tuple[int, int, Waiter]


class Line:
    """Those who may go to the same places. `backends` and `until` are what they wait for;
    `opened`: there may be a place.
    """

    __slots__ = ("backends", "high", "key", "live", "normal", "opened", "until")

    def __init__(self, key: WaitKey) -> None:
        self.key = key
        self.backends: frozenset[Backend] = frozenset()
        self.until = math.inf
        self.opened = False
        self.high: list[Place] = []
        self.normal: list[Place] = []
        self.live = 0

    def take(self, wait: Wait) -> None:
        """What those in this line wait for now: there is no place for them."""
        self.backends, self.until, self.opened = wait.backends, wait.until, False

    def join(self, wait: Wait) -> None:
        """What one more waits for; a place that may be there stays so."""
        self.backends |= wait.backends
        self.until = min(self.until, wait.until)
        self.opened |= wait.free

    def head(self, *, high: bool) -> Place | None:
        """The longest waiting one."""
        places = self.high if high else self.normal
        while places and places[0][2].ticket != places[0][1]:
            heapq.heappop(places)
        return places[0] if places else None

    def push(self, waiter: Waiter) -> None:
        """One more, at the place of its seniority."""
        self.live += 1
        waiter.line = self
        places = self.high if waiter.guest.call.high_priority else self.normal
        heapq.heappush(places, (waiter.rank, waiter.ticket, waiter))

    def pop(self) -> None:
        """One is gone, whoever it was."""
        self.live -= 1
        if len(self.high) + len(self.normal) > _COMPACT + 2 * self.live:
            self.high = [place for place in self.high if place[2].ticket == place[1]]
            self.normal = [place for place in self.normal if place[2].ticket == place[1]]
            heapq.heapify(self.high)
            heapq.heapify(self.normal)


class Queue:
    """The queue of one proxy. `later(seconds, callback)` starts a timer."""

    def __init__(
        self, router: Clerk, *, clock: Callable[[], float], later: Later, counters: QueueCounters
    ) -> None:
        self.depth = 0
        self.closed = False
        self._router = router
        self._clock = clock
        self._later = later
        self._counters = counters
        self._bytes = 0
        self._tickets = 0
        self._lines: dict[WaitKey, Line] = {}
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._freed: dict[Backend, int] = {}
        self._in_a_row: dict[Backend | None, int] = {}
        self._version = -1
        self._beat_at = -math.inf
        self._soon = self._pumping = self._stirred = False
        self._timer: Timer | None = None
        self._timer_at = math.inf

    # What the byte path tells

    def arrive(self, guest: Guest, now: float) -> Choice | Wait | Rejection:
        """The router's answer for a new request, while others wait: those come first."""
        if self._soon:
            self._pump(now)
        result = self._router.choose(guest.call, now)
        if not isinstance(result, Choice) or result.probe:
            return result
        backend = result.candidate.backend
        if not any(backend in line.backends for line in self._lines.values()):
            return result
        wait = self._router.behind(guest.call, result)
        return result if self.depth >= wait.max_size else wait

    def enter(self, guest: Guest, wait: Wait, now: float) -> Rejection | None:
        """Wait from now on; a Rejection if that cannot be."""
        call = guest.call
        waiter = call.waiter
        if waiter is None:
            waiter = call.waiter = Waiter(guest)
        patience = wait.max_wait_seconds - waiter.waited
        why = self._why_not(call, wait, patience, now)
        if why is not None:
            outcome, text = why
            self._counters.refused(outcome)
            return self._router.refuse(call, now, text, wait.max_wait_seconds)
        self._tickets += 1
        waiter.rank = waiter.rank or self._tickets
        waiter.ticket, waiter.began, waiter.deadline = self._tickets, now, now + patience
        waiter.forgiven = wait.forgiven
        self.depth += 1
        self._bytes += len(call.body)
        self._counters.began(high=call.high_priority)
        heapq.heappush(self._deadlines, (waiter.deadline, waiter.ticket, waiter))
        line = self._line(wait.key)
        line.join(wait)
        line.push(waiter)
        self._schedule(now)
        return None

    def leave(self, call: Call) -> None:
        """The client is gone: if it waited, its place is free at once."""
        waiter = call.waiter
        if waiter is not None and waiter.ticket:
            self._end(waiter, LEFT, self._clock())

    def freed(self, backend: Backend) -> None:
        """An attempt on a backend ended: one who waits may go."""
        self._freed[backend] = self._freed.get(backend, 0) + 1
        self._pump_soon()

    def stir(self) -> None:
        """The table or a standing changed: there may be places that nobody knows of."""
        if self.depth:
            self._stirred = True
            self._pump_soon()

    def waiting(self) -> dict[Backend, int]:
        """How many wait for a place at each backend; who may go to either counts at both."""
        found: dict[Backend, int] = {}
        for line in self._lines.values():
            for backend in line.backends:
                found[backend] = found.get(backend, 0) + line.live
        return found

    # Who goes next

    def _pump_soon(self) -> None:
        if not self._soon:
            self._soon = True
            self._later(0.0, self._pumped)

    def _pumped(self) -> None:
        if self._soon:
            self._pump(self._clock())

    def _rang(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._pump(self._clock())

    def _pump(self, now: float) -> None:
        if self._pumping:
            return  # whatever happened meanwhile is looked at as soon as this look is over
        self._soon = False
        self._pumping = True
        try:
            self._expire(now)
            self._open(now)
            self._serve(now)
        finally:
            self._pumping = False
        self._schedule(now)

    def _serve(self, now: float) -> None:
        """One for each place that became free, and one for those that may be there."""
        freed, self._freed = self._freed, {}
        for backend, places in freed.items():
            for _ in range(places):
                able = [line for line in self._lines.values() if backend in line.backends]
                if not self._release(able, backend, now):
                    break
        if now >= self._beat_at:
            opened = [line for line in self._lines.values() if line.opened]
            if opened and self._release(opened, None, now):
                self._beat_at = now + BEAT_SECONDS

    def _open(self, now: float) -> None:
        if self._stirred:
            self._stirred = False
            if self._version != self._router.version:
                self._sort_again()
            for line in self._lines.values():
                line.opened = True
        for line in self._lines.values():
            if line.until <= now:
                line.until, line.opened = math.inf, True

    def _sort_again(self) -> None:
        """Another table: who may go to the same places has changed."""
        self._version = self._router.version
        lines, self._lines = self._lines, {}
        for line in lines.values():
            for place in (*line.high, *line.normal):
                waiter = place[2]
                if waiter.ticket == place[1]:
                    new = self._line(self._router.key(waiter.guest.call))
                    new.backends |= line.backends
                    new.until = min(new.until, line.until)
                    new.push(waiter)

    def _release(self, lines: list[Line], where: Backend | None, now: float) -> bool:
        """Let one of these lines go; False if there is no place for any of them."""
        while lines:
            found = self._next(lines, where)
            if found is None:
                return False
            waiter, contested = found
            line, call = waiter.line, waiter.guest.call
            result = self._router.resume(call, now)
            if isinstance(result, Wait):
                line.take(result)
                waiter.forgiven |= result.forgiven
                lines.remove(line)
            elif isinstance(result, Choice):
                self._end(waiter, SERVED, now)
                line.opened = True  # there may be more where this came from
                if not call.high_priority:
                    self._in_a_row[where] = 0
                elif contested:
                    self._in_a_row[where] = self._in_a_row.get(where, 0) + 1
                waiter.guest.proceed(result, now)
                return True
            else:
                self._end(waiter, REJECTED, now)
                waiter.guest.turn_away(result)
        return False

    def _next(self, lines: Iterable[Line], where: Backend | None) -> tuple[Waiter, bool] | None:
        """Who of these lines is next, and whether both priorities wait."""
        high = min((place for each in lines if (place := each.head(high=True))), default=None)
        normal = min((place for each in lines if (place := each.head(high=False))), default=None)
        if high is None or normal is None:
            place = high or normal
            return None if place is None else (place[2], False)
        in_turn = self._in_a_row.get(where, 0) < HIGH_IN_A_ROW
        return (high if in_turn else normal)[2], True

    # The ends of waits

    def _expire(self, now: float) -> None:
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now:
            _, ticket, waiter = heapq.heappop(deadlines)
            if waiter.ticket == ticket:
                self._end(waiter, LATE, now)
                call, why = waiter.guest.call, f"it waited {waiter.waited:.0f} s for a place"
                refusal = self._router.refuse(call, now, why, math.floor(waiter.waited))
                waiter.guest.turn_away(refusal)

    def _end(self, waiter: Waiter, outcome: str, now: float) -> None:
        call, line = waiter.guest.call, waiter.line
        waited = max(0.0, now - waiter.began)
        waiter.waited += waited
        waiter.ticket = 0
        self.depth -= 1
        self._bytes -= len(call.body)
        self._counters.ended(outcome, waited, high=call.high_priority)
        line.pop()
        if not line.live:
            self._lines.pop(line.key, None)
        if not self.depth:
            self._rest()
        elif len(self._deadlines) > _COMPACT + 2 * self.depth:
            self._deadlines = [each for each in self._deadlines if each[2].ticket == each[1]]
            heapq.heapify(self._deadlines)

    def _rest(self) -> None:
        """Nobody waits: nothing is kept, and no timer runs."""
        self._deadlines.clear()
        self._freed.clear()
        self._in_a_row.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, math.inf

    def _why_not(
        self, call: Call, wait: Wait, patience: float, now: float
    ) -> tuple[str, str] | None:
        if self.closed:
            return DRAINING, "the proxy is shutting down"
        if patience <= 0.0 or wait.soonest > now + patience:
            return LATE, f"there is none within the {wait.max_wait_seconds:g} s it may wait"
        if self.depth >= wait.max_size:
            return FULL, f"the queue is full: {self.depth} requests wait"
        if self._bytes + len(call.body) > MAX_BYTES:
            return FULL, f"the queue is full: the requests that wait hold {self._bytes} bytes"
        return None

    def _line(self, key: WaitKey) -> Line:
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(key)
        return line

    def _schedule(self, now: float) -> None:
        """Have the timer ring when something is due."""
        if not self.depth:
            return
        due = self._deadlines[0][0]
        for line in self._lines.values():
            due = min(due, self._beat_at if line.opened else line.until)
        if due >= self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._later(max(0.0, due - now), self._rang)
