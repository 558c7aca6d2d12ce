"""The one place that writes: statuses, latest wanted value first, each at most once at a time.

Promises that nothing is sent without time left to write, and no answer waited for beyond it (how
long is the leader's to say); that a status is planned at the moment it is sent, so a retry never
sends what is no longer wanted; that a transition is accepted only when its write was; that a
conflict is answered by reading again; and that one object in trouble delays no other. What to
write is the planner's.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any

import httpx
import msgspec

from nexus_api import ObjectMeta
from nexus_operator.events import event, post
from nexus_operator.kube import ApiError, Kube
from nexus_operator.metrics import Metrics
from nexus_operator.plan import Key, Plan, Planner
from nexus_operator.problems import right_missing
from nexus_operator.registry import KIND_OF

log = logging.getLogger(__name__)

CONCURRENCY = 8
BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
FINISH_SECONDS = 5.0
SEND_SECONDS = 60.0
GONE = 404
FORBIDDEN = 403
CONFLICT = 409
INVALID = (400, 422)


class Writer:
    """`mark` says that something about an object may be worth a write; `run` does the rest."""

    def __init__(
        self,
        *,
        kube: Kube,
        planner: Planner,
        metrics: Metrics,
        clock: Callable[[], float],
        random: Callable[[], float],
        time_left: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._kube = kube
        self._planner = planner
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._time_left = time_left
        self._marked: dict[Key, None] = {}
        self._since: dict[Key, float] = {}
        self._wake = asyncio.Event()
        self._busy: dict[Key, asyncio.Task[None]] = {}
        self._failures: dict[Key, int] = {}
        self._later: dict[Key, asyncio.TimerHandle] = {}

    def mark(self, key: Key) -> None:
        """Has an object looked at soon; cheap, any number of times."""
        self._since.setdefault(key, self._clock())
        if key not in self._later:  # a retry is coming, and will send what is wanted by then
            self._marked[key] = None
            self._wake.set()

    def forget(self, key: Key) -> None:
        """The object is gone."""
        self._marked.pop(key, None)
        self._failures.pop(key, None)
        self._since.pop(key, None)

    @property
    def idle(self) -> bool:
        """Nothing marked, waiting for a retry, or being sent."""
        return not (self._marked or self._busy or self._later)

    def pending(self) -> tuple[int, float]:
        """How many objects wait to be looked at or written, and the seconds the oldest has."""
        oldest = min(self._since.values(), default=self._clock())
        return len(self._since), max(0.0, self._clock() - oldest)

    async def run(self) -> None:
        """Writes until cancelled; what is being sent then is finished first."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for key in [key for key in self._marked if key not in self._busy]:
                    if len(self._busy) >= CONCURRENCY:
                        break
                    del self._marked[key]
                    self._start(key)
        finally:
            for timer in self._later.values():
                timer.cancel()
            await self._finish()

    async def _finish(self) -> None:
        """Gives what is being sent a moment, then gives up on it."""
        busy = list(self._busy.values())
        if busy:
            _, late = await asyncio.wait(busy, timeout=FINISH_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _start(self, key: Key) -> None:
        task = asyncio.create_task(self._serve(key), name=f"status of {key.plural} {key.uid}")
        self._busy[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))

    def _ended(self, key: Key, task: asyncio.Task[None]) -> None:
        self._busy.pop(key, None)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("writing the status of %s failed", key.plural, exc_info=task.exception())
            self._retry(key, None)

    async def _serve(self, key: Key) -> None:
        """Writes what is due of one object, one transition after the other."""
        while True:
            if (left := self._time_left()) <= 0:
                self._retry(key, None)
                return
            if (plan := self._planner.plan(key)) is None:
                self._settled(key)
                return
            try:
                async with asyncio.timeout(min(left, SEND_SECONDS)):
                    stored = await self._send(key, plan)
            except ApiError as error:
                await self._refused(key, plan, error)
                return
            except (httpx.HTTPError, TimeoutError) as error:
                log.warning(
                    "status of %s not written: %s", plan.metadata.name, str(error) or "no answer"
                )
                self._count(key, "unreachable")
                self._retry(key, None)
                return
            self._count(key, "written")
            self._metrics.write_seconds.observe(max(0.0, self._clock() - self._wanted_since(key)))
            self._failures.pop(key, None)
            for note in plan.accepted(stored):
                body = event(plan.metadata, note, now=self._clock(), kind=KIND_OF[key.plural])
                await post(self._kube, self._metrics, plan.metadata.namespace, body)

    def _wanted_since(self, key: Key) -> float:
        return self._since.get(key, self._clock())

    def _settled(self, key: Key) -> None:
        """Nothing is wanted of an object, unless it was marked again meanwhile."""
        if key not in self._marked:
            self._since.pop(key, None)

    async def _send(self, key: Key, plan: Plan) -> dict[str, Any]:
        metadata = {
            "namespace": plan.metadata.namespace,
            "name": plan.metadata.name,
            "uid": plan.metadata.uid,
            "resourceVersion": plan.metadata.resource_version,
        }
        return await self._kube.apply_status(
            plural=key.plural,
            kind=KIND_OF[key.plural],
            metadata=metadata,
            status=msgspec.to_builtins(plan.status),
        )

    async def _refused(self, key: Key, plan: Plan, error: ApiError) -> None:
        name = f"{plan.metadata.namespace}/{plan.metadata.name}"
        if error.status in (CONFLICT, GONE):
            self._count(key, "conflict")
            await self._read_again(key, plan.metadata)
        elif error.status in INVALID:
            # The same status would be refused again: wait until another one is wanted.
            self._count(key, "invalid")
            log.error("the API server refuses the status of %s: %s", name, error)
            self._settled(key)
        else:
            self._count(key, "refused")
            log.warning("status of %s not written: %s", name, explained(key, plan, error))
            self._retry(key, error.retry_after)

    async def _read_again(self, key: Key, metadata: ObjectMeta) -> None:
        stored: dict[str, Any] | None
        try:
            stored = await self._kube.get(key.plural, metadata.namespace, metadata.name)
        except ApiError as error:
            if error.status != GONE:
                self._retry(key, error.retry_after)
                return
            stored = None
        except httpx.HTTPError:
            self._retry(key, None)
            return
        if stored is not None and stored["metadata"]["uid"] != key.uid:
            stored = None
        self._planner.reread(key, stored)
        if stored is None:
            return
        if key in self._failures:  # not the first: somebody else writes it all the time
            self._retry(key, None)
        else:
            self._failures[key] = 0
            self.mark(key)

    def _retry(self, key: Key, after: float | None) -> None:
        """Marks an object again later: soon at first, then more and more rarely."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
        delay = max(delay, after or 0.0) * (1 + self._random() / 2)
        if key not in self._later:
            self._later[key] = asyncio.get_running_loop().call_later(delay, self._due, key)

    def _due(self, key: Key) -> None:
        self._later.pop(key, None)
        self.mark(key)

    def _count(self, key: Key, result: str) -> None:
        self._metrics.status_writes.labels(KIND_OF[key.plural], result).inc()


def explained(key: Key, plan: Plan, error: ApiError) -> Exception:
    """The error, or what to do about it where that is known."""
    if error.status != FORBIDDEN:
        return error
    resource = f"{key.plural}/status"
    return right_missing(verb="patch", resource=resource, namespace=plan.metadata.namespace)
