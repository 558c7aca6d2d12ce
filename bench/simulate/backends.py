"""Backends: so many requests at once, a queue for the rest, and what goes wrong.

Promises that a place is held from the begin of a request's work to its end, that the queue is first
come first served, and that every job ends exactly once. A fault answers without taking a place, as
a broken front end does; what a policy thinks of the backend never reaches it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from bench.simulate.arrivals import Request
from bench.simulate.world import World

from nexus_quality.outcome import Outcome

FIRST_TOKEN_SECONDS = 120.0
QUICK_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong on some backends from `begin` to `end`, in seconds of the measured part.

    `outcome`: what an attempt comes to after `after` seconds, None: nothing, it is only `slow`er to
    its first token. `share`: how many of the attempts; `period`: it comes and goes, bad in the
    first half; `models` and `proxies`: only theirs, empty is all; `limit`: so many attempts and no
    more. `late`: the stream begins well, stops in the middle and comes to its outcome `after` that.
    """

    outcome: Outcome | None = None
    backends: tuple[int, ...] = (1,)
    begin: float = 0.0
    end: float = math.inf
    share: float = 1.0
    after: float = QUICK_SECONDS
    retry_after: float | None = None
    slow: float = 0.0
    period: float = 0.0
    models: tuple[str, ...] = ()
    proxies: tuple[int, ...] = ()
    limit: int | None = None
    late: bool = False

    def holds(self, job: Job, now: float) -> bool:
        """True if it concerns an attempt at `now` seconds of the measured part."""
        return (
            self.begin <= now < self.end
            and (not self.period or (now - self.begin) % self.period < self.period / 2)
            and (not self.models or job.request.model in self.models)
            and (not self.proxies or job.proxy in self.proxies)
        )


class Job:
    """One attempt at a backend; `content` and `end` tell the proxy what comes of it."""

    __slots__ = ("began", "breaks", "content", "end", "over", "placed", "proxy", "request", "slow")

    def __init__(
        self,
        request: Request,
        proxy: int,
        began: float,
        content: Callable[[], None],
        end: Callable[[Outcome, float | None], None],
    ) -> None:
        self.request, self.proxy, self.began = request, proxy, began
        self.content, self.end = content, end
        self.placed = self.over = False
        self.breaks: Fault | None = None
        self.slow = 0.0


class SimBackend:
    """One backend with `slots` places and a queue of at most `queue` requests."""

    def __init__(self, world: World, number: int, *, slots: int, queue: int) -> None:
        self.number, self.slots, self.queue = number, slots, queue
        self.running = 0
        self.waiting: deque[Job] = deque()
        self._world = world
        self._chance = world.chance(f"backend/{number}")
        self._faults: list[Fault] = []
        self._since = 0.0
        self._hits: dict[int, int] = {}

    def break_by(self, faults: tuple[Fault, ...]) -> None:
        """From now on these faults apply, counted from this moment."""
        self._faults = [fault for fault in faults if self.number in fault.backends]
        self._since = self._world.now

    def submit(self, job: Job, *, unlucky: bool) -> None:
        """Take a job, or refuse it; whichever, it will end."""
        for number, fault in enumerate(self._faults):
            if self._strikes(number, fault, job):
                if fault.outcome is None:
                    job.slow += fault.slow
                elif fault.late:
                    job.breaks = fault
                else:
                    self._end_later(job, fault.outcome, fault.after, fault.retry_after)
                    return
        if unlucky:
            self._end_later(job, Outcome.SERVER_ERROR, QUICK_SECONDS, None)
        elif self.running < self.slots:
            self._start(job)
        elif len(self.waiting) < self.queue:
            self.waiting.append(job)
            self._world.after(FIRST_TOKEN_SECONDS, lambda: self._impatient(job))
        else:
            self._end_later(job, Outcome.THROTTLED, 0.01, None)

    def leave(self, job: Job) -> None:
        """The client went away: whatever was going on for it ends here."""
        if not job.over:
            self._end(job, Outcome.CLIENT_GONE, None)

    def _strikes(self, number: int, fault: Fault, job: Job) -> bool:
        if not fault.holds(job, self._world.now - self._since):
            return False
        if fault.limit is not None and self._hits.get(number, 0) >= fault.limit:
            return False
        struck = fault.share >= 1.0 or self._chance.random() < fault.share
        self._hits[number] = self._hits.get(number, 0) + struck
        return struck

    def _start(self, job: Job) -> None:
        self.running += 1
        job.placed = True
        prefill = job.request.prefill + job.slow
        waited = self._world.now - job.began
        if waited + prefill > FIRST_TOKEN_SECONDS:
            self._end_later(job, Outcome.TIMEOUT, FIRST_TOKEN_SECONDS - waited, None)
        else:
            self._world.after(prefill, lambda: self._content(job))

    def _content(self, job: Job) -> None:
        if job.over:
            return
        job.content()
        fault = job.breaks
        if fault is not None and fault.outcome is not None:
            self._end_later(job, fault.outcome, job.request.decode / 2 + fault.after, None)
        else:
            self._end_later(job, Outcome.SUCCESS, job.request.decode, None)

    def _impatient(self, job: Job) -> None:
        if not job.over and not job.placed:
            self._end(job, Outcome.TIMEOUT, None)

    def _end_later(
        self, job: Job, outcome: Outcome, delay: float, retry_after: float | None
    ) -> None:
        def end() -> None:
            if not job.over:
                self._end(job, outcome, retry_after)

        self._world.after(delay, end)

    def _end(self, job: Job, outcome: Outcome, retry_after: float | None) -> None:
        job.over = True
        if job.placed:
            self.running -= 1
        elif job in self.waiting:
            self.waiting.remove(job)
        while self.waiting and self.running < self.slots:
            self._start(self.waiting.popleft())
        job.end(outcome, retry_after)
