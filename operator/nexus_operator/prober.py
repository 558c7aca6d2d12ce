"""When each backend is probed, and what all probes so far say about its health.

Promises one task for all backends, at most `CONCURRENCY` probes at a time, periods jittered so that
a thousand backends do not ring at one instant, a first probe as soon as a backend is known, and
that the prober's own trouble takes no backend out: many that begin to fail together are suspect.
What a single probe does is `probe`'s; when a backend counts as unhealthy `nexus_quality.health`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from nexus_api import (
    ConditionStatus,
    LLMBackend,
    LLMBackendSpec,
)
from nexus_operator.findings import DISABLED, Findings, place, remembered, shown
from nexus_operator.metrics import Metrics
from nexus_operator.probe import Answer
from nexus_quality.health import (
    SUSPECT_BACKENDS,
    Health,
    Patient,
    Suspicion,
    after_probe,
    eager,
    suspicion,
)

CONCURRENCY = 64
JITTER = 0.1


class Ring(Protocol):
    """Probes a backend once."""

    async def __call__(self, namespace: str, spec: LLMBackendSpec) -> Answer: ...


@dataclass(slots=True)
class _Case:
    namespace: str
    spec: LLMBackendSpec
    findings: Findings
    due: float
    busy: bool = False
    tries: int = 0

    @property
    def probed(self) -> bool:
        """Whether it is probed, and was at least once."""
        health = self.findings.health
        return self.spec.health_check.enabled and bool(health.failures or health.successes)

    def patient(self) -> Patient:
        """It, as one of many."""
        check, findings = self.spec.health_check, self.findings
        out = findings.health.status is ConditionStatus.FALSE and findings.suspect is None
        return Patient(
            failing_since=findings.health.failing_since,
            period_seconds=check.period_seconds,
            timeout_seconds=check.timeout_seconds,
            out=out,
        )


class Prober:
    """`turned` is called with a UID whenever its findings changed in a way worth publishing."""

    def __init__(
        self,
        *,
        ring: Ring,
        clock: Callable[[], float],
        random: Callable[[], float],
        turned: Callable[[str], None],
        metrics: Metrics,
    ) -> None:
        self._ring = ring
        self._clock = clock
        self._random = random
        self._turned = turned
        self._metrics = metrics
        self._cases: dict[str, _Case] = {}
        self._queue: list[tuple[float, str]] = []
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        metrics.prober_suspect.set_function(self._suspects)

    def see(self, backend: LLMBackend) -> None:
        """A backend is new or changed: probe it now if that may change what is known."""
        uid, spec = backend.metadata.uid, backend.spec
        case = self._cases.get(uid)
        if case is None:
            findings = remembered(backend.status)
            case = _Case(backend.metadata.namespace, spec, findings, self._clock())
            self._cases[uid] = case
        elif case.spec.health_check == spec.health_check and place(case.spec) == place(spec):
            case.spec = spec
            return
        elif place(case.spec) != place(spec):
            case.findings = Findings()
            case.tries = 0
        case.spec = spec
        if not spec.health_check.enabled:
            case.findings = replace(case.findings, health=DISABLED)
            return
        if case.findings.health == DISABLED:
            case.findings = replace(case.findings, health=Health())
        self._schedule(uid, case, self._clock())

    def forget(self, uid: str) -> None:
        """A backend is gone."""
        self._cases.pop(uid, None)

    def findings(self, uid: str) -> Findings:
        """What is known about a backend."""
        case = self._cases.get(uid)
        return case.findings if case else Findings()

    async def run(self) -> None:
        """Probes until cancelled; ends its probes before it ends."""
        try:
            while True:
                await self._pause()
                while self._queue and self._queue[0][0] <= self._clock():
                    due, uid = heapq.heappop(self._queue)
                    case = self._cases.get(uid)
                    # An entry that is not the case's own `due` was overtaken by a newer one.
                    if (
                        case
                        and case.due == due
                        and not case.busy
                        and case.spec.health_check.enabled
                    ):
                        await self._start(uid, case)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pause(self) -> None:
        """Sleeps until the next probe is due or something new is scheduled."""
        left = max(0.0, self._queue[0][0] - self._clock()) if self._queue else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._wake.wait()
        self._wake.clear()

    async def _start(self, uid: str, case: _Case) -> None:
        if len(self._tasks) >= CONCURRENCY:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        case.busy = True
        task = asyncio.create_task(self._probe(uid, case), name=f"probe of {uid}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _probe(self, uid: str, case: _Case) -> None:
        spec = case.spec
        try:
            answer = await self._ring(case.namespace, spec)
        finally:
            case.busy = False
        if self._cases.get(uid) is not case:
            return
        if place(case.spec) != place(spec):
            self._schedule(uid, case, self._clock())
            return
        self._metrics.probes.labels(answer.reason).inc()
        soon = None if answer.ok else eager(case.findings.health, case.tries)
        # Of those in quick succession the first failure alone counts: thresholds are in periods.
        if soon is None or case.tries == 0:
            self._learn(uid, case, answer)
        case.tries += 1
        period = case.spec.health_check.period_seconds
        jitter = 1 + JITTER * (2 * self._random() - 1)
        self._schedule(uid, case, self._clock() + min(soon or period, period) * jitter)

    def _learn(self, uid: str, case: _Case, answer: Answer) -> None:
        check, before = case.spec.health_check, case.findings
        # With a single failure nobody could tell yet whether the others fail, too.
        least = 1 if answer.ok or len(self._cases) < SUSPECT_BACKENDS else 2
        health = after_probe(
            before.health,
            ok=answer.ok,
            reason=answer.reason,
            message=answer.message,
            failure_threshold=max(least, check.failure_threshold),
            success_threshold=check.success_threshold,
            latency_ms=answer.latency_ms,
            now=self._clock(),
        )
        models = before.models if answer.models is None else answer.models
        suspect = self._suspicion(case, health)
        case.findings = Findings(health=health, models=models, suspect=suspect)
        # While it fails, time alone may change what is made of it.
        out = health.status is ConditionStatus.FALSE
        if out or shown(before) != shown(case.findings):
            self._turned(uid)

    def _suspicion(self, case: _Case, health: Health) -> Suspicion | None:
        """Whether it fails with too many others; never once it is out on its own account."""
        if health.status is not ConditionStatus.FALSE or case.patient().out:
            return None
        check = case.spec.health_check
        mine = Patient(
            failing_since=health.failing_since,
            period_seconds=check.period_seconds,
            timeout_seconds=check.timeout_seconds,
            out=False,
        )
        others = (one.patient() for one in self._cases.values() if one.probed and one is not case)
        return suspicion(mine, [mine, *others])

    def _suspects(self) -> float:
        """How many backends' failing probes are not believed now."""
        return float(sum(case.findings.suspect is not None for case in self._cases.values()))

    def _schedule(self, uid: str, case: _Case, due: float) -> None:
        case.due = due
        heapq.heappush(self._queue, (due, uid))
        self._wake.set()
