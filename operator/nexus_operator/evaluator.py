"""When backends are judged: at once when something was heard, at `until`, and each interval.

Promises that everything touched is judged as soon as the process has a moment, each backend once
however often it was touched meanwhile, and that intake and probes are served in between. What a
judgement says is the engine's, whether it is written the planner's.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable

from nexus_api.meta import BACKEND_PLURAL
from nexus_operator.engine import FleetEngine
from nexus_operator.identity import Reporter
from nexus_operator.metrics import Metrics
from nexus_operator.plan import Key
from nexus_operator.planner import Planner
from nexus_operator.policy_plans import PolicyPlans
from nexus_operator.registry import Registry, full_name
from nexus_operator.slices import Slice
from nexus_quality.engine import STARTING_SECONDS
from nexus_quality.evidence import ALIVE_SECONDS
from nexus_quality.report import Answer, Report

ROUND_SECONDS = 1.0
EXPIRE_SECONDS = 10.0


class Evaluator:
    """`mark` is the writer's."""

    def __init__(
        self,
        *,
        registry: Registry,
        engine: FleetEngine,
        planner: Planner,
        policies: PolicyPlans,
        metrics: Metrics,
        clock: Callable[[], float],
        mark: Callable[[Key], None],
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._planner = planner
        self._policies = policies
        self._metrics = metrics
        self._clock = clock
        self._mark = mark
        self._touched: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._looked: dict[str, float] = {}
        self._expired = clock()
        self._whole_since = -math.inf  # when listening began that is known to be complete
        self._heard: dict[str, float] = {}

    def touch(self, uid: str) -> None:
        """Something about a backend changed."""
        self._touched[uid] = None
        self._wake.set()

    def merge(self, reporter: Reporter, report: Report) -> Answer:
        """Takes a report in; all it touched is judged at once."""
        now = self._clock()
        merged = self._engine.merge(reporter.key, report, now)
        if report.final:
            self._heard.pop(reporter.key, None)
        else:
            self._heard[reporter.key] = now
        self._metrics.reports.labels(kind_of(report)).inc()
        for seen in self._engine.drain_observations():
            backend = self._registry.backends.get(seen.uid)
            if backend is not None:
                name = full_name(backend.metadata)
                self._metrics.ttft.observe(name, seen.milliseconds, seen.count)
        for uid in merged.touched:
            self.touch(uid)
        return merged.answer

    def reporters(self) -> int:
        """How many reporters are alive: heard from lately, and not to say goodbye."""
        latest = self._clock() - ALIVE_SECONDS
        self._heard = {key: heard for key, heard in self._heard.items() if heard >= latest}
        return len(self._heard)

    async def run(self) -> None:
        """Judges until cancelled."""
        next_round = self._clock()
        while True:
            await self._pause(next_round)
            await self._judge(self.take_touched())
            if self._clock() >= next_round:
                next_round = self._clock() + ROUND_SECONDS
                await self._round()

    async def _pause(self, next_round: float) -> None:
        """Sleeps until something is touched, an exclusion ends, or the next round is due."""
        now = self._clock()
        end = min(next_round, self._engine.next_end(now) or next_round)
        if not self._touched and end > now:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(end - now):
                    await self._wake.wait()
        self._wake.clear()

    def take_touched(self) -> list[str]:
        """What is to be judged now; each is told once."""
        touched, self._touched = self._touched, {}
        return list(touched | dict.fromkeys(self._engine.ended(self._clock())))

    async def _judge(self, uids: Iterable[str]) -> None:
        piece = Slice()
        for uid in uids:
            if self._planner.urgent(uid):
                self._mark(Key(BACKEND_PLURAL, uid))
            await piece.turn()

    async def _round(self) -> None:
        """Looks at the backends whose interval is over, and lets old buckets go."""
        now, piece = self._clock(), Slice()
        if now - self._expired >= EXPIRE_SECONDS:
            self._expired = now
            for _ in self._engine.expiring(now):
                await self._turn(piece)
        since = self._engine.listening
        if self._whole_since < since <= now - STARTING_SECONDS:
            self._whole_since = since
            self._looked.clear()
        namespaces = set()
        for backend in self._registry.backends:
            uid = backend.metadata.uid
            # Deleted while this round was at another: the engine does not know it any more.
            if self._registry.backends.get(uid) is None:
                continue
            due = now >= self._next_look(uid)
            if not due and not self._policies.audits.asked(uid):
                continue
            self._policies.audits.look(uid)
            if due:
                namespaces.add(backend.metadata.namespace)
                self._look(uid, now)
            await self._turn(piece)
        for namespace in namespaces:
            self._policies.mark(namespace)
        self._looked = {
            uid: t for uid, t in self._looked.items() if self._registry.backends.get(uid)
        }

    def _look(self, uid: str, now: float) -> None:
        """Has a backend written if its figures are worth it."""
        self._looked[uid] = now
        with self._metrics.recompute_seconds.time():
            due = self._planner.due(uid)
        if due:
            self._mark(Key(BACKEND_PLURAL, uid))

    async def _turn(self, piece: Slice) -> None:
        """Between two steps of a round: what was touched meanwhile does not wait for its end."""
        if await piece.turn() and self._touched:
            await self._judge(self.take_touched())

    def _next_look(self, uid: str) -> float:
        """An interval after the last look or write, whichever is later."""
        last = max(self._looked.get(uid, 0.0), self._planner.last_written(uid))
        return last + self._engine.policy(uid).metrics_interval_seconds


def kind_of(report: Report) -> str:
    """What a report is, for the counter."""
    if report.final:
        return "final"
    if report.replay:
        return "replay"
    return "full" if report.full else "change"
