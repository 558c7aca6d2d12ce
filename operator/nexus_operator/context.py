"""The life of the operator: what kopf hands to every handler as its memo.

Promises that all tasks of ours are known here, start in `start`, end in `stop`, and that the death
of one ends the process with a reason. What was learned (engine, objects) outlives a restart of
kopf within the process. The parts are put together in `assembly`; none of their work is done here.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from nexus_operator import credentials as found
from nexus_operator.assembly import Parts
from nexus_operator.credentials import Credentials
from nexus_operator.plan import Key
from nexus_operator.preflight import check, list_all, until
from nexus_operator.problems import Fatal, Problem
from nexus_operator.settings import Settings
from nexus_operator.vitals import watch_loop
from nexus_operator.wires import Wires

log = logging.getLogger(__name__)

CLOCK_TOLERANCE_SECONDS = 2.0
STARTING = "starting: the objects are being listed"


class Context(Parts):
    """One operator, from standing by to leading and no further: `deposed` says that it led.

    `load` finds credentials; `own_slot`: whether a lease in our name is one we may take over;
    `failure` is why it had to end, if it had to.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        load: Callable[[], Credentials] = found.load,
        own_slot: bool = True,
    ) -> None:
        self.stop_flag, self.life_flag = asyncio.Event(), asyncio.Event()
        self.failure: Fatal | None = None
        self.problem: str | None = STARTING
        self._tasks: list[asyncio.Task[None]] = []
        self._election: asyncio.Task[None] | None = None
        self._timed = self._recalled = False
        self.stopped = self.deposed = False
        wires = Wires(
            load=load,
            deposed=self._step_down,
            fail=self.fail,
            replaced=self.watch_again,
            why_not_ready=lambda: self.why_not_ready,
        )
        super().__init__(settings, wires, own_slot=own_slot)

    def __copy__(self) -> Context:
        """kopf copies its memo for each object: this one is shared."""
        return self

    @property
    def why_not_ready(self) -> str | None:
        """The line for `/readyz`: a standby says who leads, a new leader that it is listing."""
        if self.problem in (None, STARTING):
            return self.leader.problem or self.problem
        return self.problem

    async def start(self) -> None:
        """Listens, waits until it can work and leads, reads all objects, sets everything going."""
        try:
            await self.server.start()
            await self._until(self._rehearse)
            self.problem = STARTING
            await self.leader.elected()
            await self.keeper.open()
            await self._until(self._first_look)
            await self._recall()
        except BaseException:
            await self.stop()
            raise
        for name, work in self._work().items():
            task = asyncio.create_task(work, name=f"nexus {name}")
            task.add_done_callback(self._ended)
            self._tasks.append(task)
        self._timed, self.problem = True, None
        gc.freeze()  # what the start has made stays: the collector need not look at it
        log.info(
            "ready: %d backends in %s, listening on port %d",
            len(self.registry.backends),
            places(self.namespaces),
            self.server.port,
        )

    async def stop(self) -> None:
        """Takes no more reports, then ends every task; statuses being written are finished."""
        self.problem = "stopping"
        await self.server.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def elect(self) -> None:
        """Takes part in the election from now on, from one life of kopf to the next."""
        self._election = asyncio.create_task(self.leader.run(), name="nexus leader")
        self._election.add_done_callback(self._ended)

    def ask_to_stop(self) -> None:
        """A signal: this process is to end."""
        self.stopped = True
        self._end()

    def watch_again(self) -> None:
        """The life of kopf ends, and another begins: it keeps the certificates it began with."""
        self.life_flag.set()

    def _end(self) -> None:
        """No other life of kopf begins."""
        self.stop_flag.set()
        self.life_flag.set()

    async def close(self) -> None:
        """Gives up the lease and closes the connections, once and for all."""
        if self._election is not None:
            self._election.cancel()
            await asyncio.gather(self._election, return_exceptions=True)
        await self.keeper.close()
        await self.leader.release()
        await self.kube.close()
        await self.doorbell.close()

    def fail(self, problem: Fatal) -> None:
        """Ends the process, for the first reason given."""
        if self.failure is None:
            self.failure = problem
        self._end()

    def take(self, plural: str, event: Mapping[str, Any]) -> None:
        """An event of kopf's watch."""
        stored = event["object"]
        self.sightings.heard(plural)
        if event["type"] == "DELETED":
            self.observer.gone(Key(plural, stored["metadata"]["uid"]))
            return
        if event["type"] is None:
            self.rollcall.relisted()
        self.observer.see(plural, stored)

    async def accepted_credentials(self) -> Credentials:
        """The client's credentials, after the API server accepted them."""
        await self._until(lambda: check(self.kube))
        return self.kube.credentials

    async def _until(self, attempt: Callable[[], Awaitable[None]]) -> None:
        await until(attempt, trouble=self._trouble, clock=self.clock)

    async def _rehearse(self) -> None:
        """Reads everything and keeps nothing: one that could not work must not lead."""
        await check(self.kube)
        await list_all(self.kube, self.namespaces, see=lambda *_: None, gone=lambda *_: None)

    async def _first_look(self) -> None:
        """Reads everything, while no watch runs that could know better."""
        await check(self.kube)
        self._agree_on_time()
        await list_all(self.kube, self.namespaces, see=self.observer.see, gone=self._missing)

    async def _recall(self) -> None:
        """Takes over what an earlier process counted, once, when all backends are known."""
        if not self._recalled:
            self._recalled = True
            await self.keeper.begin()

    def _agree_on_time(self) -> None:
        """Takes the API server's time where ours is off: `until` is compared with its clock."""
        if self._timed:
            return
        off = (self.kube.server_time or self.clock()) - self.clock()
        if abs(off) > CLOCK_TOLERANCE_SECONDS:
            log.warning(
                "this machine's clock is %.0f s off the API server's: its time is used", off
            )
            self.clock.correct(off)
        self.engine.begin(self.clock())

    def _step_down(self) -> None:
        self.deposed = True
        self._end()

    def _missing(self, plural: str, there: set[str]) -> None:
        for uid in self.registry.shelf(plural).uids() - there:
            self.observer.gone(Key(plural, uid))

    def _trouble(self, problem: Problem | None) -> None:
        if problem is not None:
            self.problem = str(problem)
        elif self._tasks:
            self.problem = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s died", task.get_name(), exc_info=error)
            self.fail(Fatal(f"{task.get_name()} died: {error!r}"))

    def _work(self) -> dict[str, Coroutine[Any, Any, None]]:
        return {
            "writer": self.writer.run(),
            "herald": self.herald.run(),
            "evaluator": self.evaluator.run(),
            "prober": self.prober.run(),
            "roll call": self.rollcall.run(),
            "store": self.keeper.run(),
            "loop watch": watch_loop(self.metrics.loop_lag.observe),
        }


def places(namespaces: Sequence[str | None]) -> str:
    """The namespaces that are served, in words."""
    names = [name for name in namespaces if name is not None]
    if not names:
        return "all namespaces"
    return f"namespace{'s' * (len(names) > 1)} {', '.join(names)}"
