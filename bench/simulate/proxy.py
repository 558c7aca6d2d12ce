"""A proxy of the product in a simulated world: the real Monitor, Router, Control and Reporter.

Only what touches the world is replaced: the clock, the network between proxy and operator, and the
byte path, whose order of calls `journey` and the attempts here repeat. No decision is made here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from dataclasses import replace
from typing import Any

from bench.simulate.journey import Waiting
from bench.simulate.measure import Log
from bench.simulate.objects import uid_of
from bench.simulate.operator import Operator
from bench.simulate.world import Clock, World

from nexus_api import LLMBackend
from nexus_proxy.control import Control, Objects
from nexus_proxy.counters import Counters
from nexus_proxy.intake import Undelivered
from nexus_proxy.reporting import Reporter
from nexus_proxy.routing.choice import Choice
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.live import LiveBackends
from nexus_proxy.routing.queue import Queue
from nexus_proxy.routing.reason import Rejection
from nexus_proxy.routing.request import Call
from nexus_proxy.routing.router import Router
from nexus_proxy.routing.wait import Wait
from nexus_proxy.secrets import NoSecrets
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome
from nexus_quality.policy import Policy
from nexus_quality.report import Answer
from nexus_quality.shared import SharedVerdict
from nexus_quality.subject import Standing

TICK_SECONDS = 1.0
_IN = (Standing.ADMITTED, Standing.SLOW_START)


class _Letter:
    """A report on its way: awaiting it hands the coroutine's fate to the world."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def __await__(self) -> Generator[_Letter, Answer, Answer]:
        return (yield self)


class _Timer:
    """A callback that can be taken back."""

    def __init__(self, world: World, seconds: float, action: Callable[[], None]) -> None:
        self._action: Callable[[], None] | None = action
        world.after(seconds, self._ring)

    def _ring(self) -> None:
        if self._action is not None:
            self._action()

    def cancel(self) -> None:
        """It rings no more."""
        self._action = None


class NexusProxy:
    """One proxy process. A restart is a new object of the same `number`."""

    def __init__(
        self,
        world: World,
        log: Log,
        operator: Operator,
        objects: Objects,
        number: int,
        *,
        life: int = 0,
        skew: float = 0.0,
    ) -> None:
        chance = world.chance(f"proxy/{number}/{life}")
        self.number, self.gone = number, False
        self.chance = chance
        self.clock = clock = Clock(world, skew)
        self._world, self._log, self._operator, self._objects = world, log, operator, objects
        self.router = Router(random=chance.random)
        self.queue = Queue(
            self.router,
            clock=lambda: clock.now,
            later=lambda seconds, action: _Timer(world, seconds, action),
            counters=self.router.counters.queue,
        )
        self.router.woken = self.queue.stir
        self.monitor = Monitor(
            incarnation=f"{number:016x}{life:016x}",
            started=clock.now,
            random=chance.random,
            on_change=self._changed,
            on_urgent=self._urgent,
        )
        self.reporter = Reporter(
            deliver=self._deliver,
            clock=lambda: clock.now,
            random=chance.random,
            counters=Counters(),
        )
        self.reporter.attach(self.monitor)
        self._verdicts: dict[str, SharedVerdict] = {
            uid: self._on_own_clock(verdict) for uid, verdict in operator.published.items()
        }
        self._standings: dict[tuple[str, str], bool] = {}
        self._sending = False
        self._wake_at = float("inf")
        self.control = Control(
            monitor=self.monitor,
            router=self.router,
            live=LiveBackends(
                subject=self.monitor.subject, secrets=NoSecrets(), journal=self.router.journal
            ),
            shared=self._shared,
            utc_month=lambda: "2026-01",
        )
        self.control.apply(objects, clock.now)
        operator.watch(number, self._observed)
        world.every(TICK_SECONDS, self._tick, first=chance.random())
        self._schedule()

    def ask(self, model: str) -> NexusAsk:
        """The policy's side of a request."""
        return NexusAsk(self, model)

    def stop(self) -> None:
        """The process is killed: no goodbye, nothing it knew survives."""
        self.gone = True

    # Verdicts

    def _shared(self, backend: LLMBackend, _policy: Policy, _now: float) -> SharedVerdict:
        return self._verdicts.get(backend.metadata.uid, SharedVerdict())

    def _observed(self, uid: str, verdict: SharedVerdict) -> None:
        if not self.gone:
            self._verdicts[uid] = self._on_own_clock(verdict)
            backend = next(b for b in self._objects.backends if b.metadata.uid == uid)
            self.control.configure(backend, self.clock.now)

    def _on_own_clock(self, verdict: SharedVerdict) -> SharedVerdict:
        of, models = self.clock.of, verdict.models
        return replace(
            verdict,
            until=of(verdict.until),
            recovered=of(verdict.recovered),
            models={model: self._on_own_clock(one) for model, one in models.items()},
        )

    def _tick(self) -> None:
        if not self.gone:
            self.monitor.tick(self.clock.now)

    def _changed(self) -> None:
        self.router.invalidate()
        for members in self.router.table.candidates.values():
            for candidate in members:
                key = (candidate.backend.uid, candidate.model)
                inside = candidate.subject.standing in _IN
                if self._standings.get(key, True) is not inside:
                    self._standings[key] = inside
                    self._log.moved(self.number, *key, inside=inside)

    # Reports

    def _urgent(self, delay: float) -> None:
        self.reporter.urgent(delay)
        self._schedule()

    def _schedule(self) -> None:
        due = self.reporter.next_due()
        if not self._sending and due < self._wake_at:
            self._wake_at = due
            self._world.at(self.clock.ahead(due), lambda: self._woken(due))

    def _woken(self, due: float) -> None:
        if self.gone or self._sending or due != self._wake_at:
            return
        self._wake_at = float("inf")
        if self.reporter.next_due() <= self.clock.now:
            self._sending = True
            self._go_on(self.reporter.send_due(), lambda coroutine: coroutine.send(None))
        else:
            self._schedule()

    def _go_on(
        self,
        coroutine: Coroutine[Any, Any, None],
        resume: Callable[[Coroutine[Any, Any, None]], Any],
    ) -> None:
        """Let the reporter run until its next letter, or to its end."""
        try:
            letter = resume(coroutine)
        except StopIteration:
            self._sending = False
            self._schedule()
            return
        self._operator.post(self.number, letter.body, lambda a: self._answered(coroutine, a))

    def _answered(self, coroutine: Coroutine[Any, Any, None], answer: Answer | None) -> None:
        if self.gone:
            coroutine.close()
        elif answer is None:
            self._go_on(coroutine, lambda c: c.throw(Undelivered("the operator is away")))
        else:
            self._go_on(coroutine, lambda c: c.send(answer))

    async def _deliver(self, body: bytes) -> Answer:
        return await _Letter(body)


class NexusAsk(Waiting):
    """The router's side of one request, and a guest of the queue."""

    __slots__ = ("_proxy", "call", "last", "then")

    def __init__(self, proxy: NexusProxy, model: str) -> None:
        self._proxy = proxy
        self.call = Call(Endpoint.CHAT, model, stream=True)
        self.last: Choice | None = None

    def first(self, now: float) -> NexusAttempt | Waiting | None:
        """The first attempt."""
        queue, now = self._proxy.queue, self._proxy.clock.now
        if queue.depth:
            return self._taken(queue.arrive(self, now), now)
        return self._taken(self._proxy.router.choose(self.call, now), now)

    def again(self, now: float, *, quick: bool) -> NexusAttempt | Waiting | None:
        """The attempt after one that failed."""
        assert self.last is not None
        self.call.tried.append((self.last, "failed"))
        now = self._proxy.clock.now
        found = self._proxy.router.again(self.call, now, first_retry_free=quick)
        return self._taken(found, now)

    def proceed(self, choice: Choice, now: float) -> None:
        """The wait is over."""
        self.last = choice
        self.then(NexusAttempt(choice, now, self._proxy))

    def turn_away(self, rejection: Rejection) -> None:
        """The wait was in vain."""
        self.then(None)

    def leave(self) -> None:
        """The client is gone."""
        self._proxy.queue.leave(self.call)

    def _taken(self, found: Choice | Wait | Rejection, now: float) -> NexusAttempt | Waiting | None:
        if isinstance(found, Rejection):
            return None
        if isinstance(found, Wait):
            return None if self._proxy.queue.enter(self, found, now) else self
        self.last = found
        return NexusAttempt(found, now, self._proxy)


class NexusAttempt:
    """One attempt; the order of calls is the byte path's."""

    __slots__ = ("_attempt", "_began", "_choice", "_first", "_proxy", "backend", "probe")

    def __init__(self, choice: Choice, now: float, proxy: NexusProxy) -> None:
        candidate = choice.candidate
        self._choice, self._began, self._first, self._proxy = choice, now, 0.0, proxy
        self._attempt = candidate.subject.begin(
            now, probe=choice.probe, last_resort=choice.last_resort
        )
        candidate.backend.in_flight += 1
        self._attempt.sent(now)
        self.backend = _NUMBERS[candidate.backend.uid]
        self.probe = choice.probe

    def content(self, now: float) -> None:
        """The first token."""
        self._first = now = self._proxy.clock.now
        self._attempt.content(now)

    def end(self, outcome: Outcome, now: float, retry_after: float | None) -> None:
        """The outcome."""
        candidate, now = self._choice.candidate, self._proxy.clock.now
        if outcome is Outcome.SUCCESS:
            candidate.backend.observe_latency((self._first - self._began) * 1000.0)
        elif outcome is Outcome.THROTTLED:
            candidate.rest(now, retry_after, random=self._proxy.chance.random)
        candidate.backend.in_flight -= 1
        self._attempt.end(outcome, now)
        if self._proxy.queue.depth:
            self._proxy.queue.freed(candidate.backend)


_NUMBERS = {uid_of(number): number for number in range(64)}
