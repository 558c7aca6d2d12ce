"""What a worker tells its parent: gathered at ticks, at once when the parent must act.

Promises that an outcome is told within a tick, that all numbers are totals, and that nothing is
read by the hot path: what changed is found in the journal of backends and the recorder's list.
A parent that does not read is told later, and then everything. It decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping

from nexus_proxy.core import Core
from nexus_proxy.counters import Counters
from nexus_proxy.routing.candidate import Backend, Candidate
from nexus_proxy.routing.queue import Queue
from nexus_proxy.workers.tally import tally_of
from nexus_proxy.workers.wire import Batch, Key, Load, Up, Use
from nexus_quality.report import Cell

TICK_SECONDS = 0.05
LIMITED_TICK_SECONDS = 0.01  # where the others must know soon what is in flight
HEARTBEAT_SECONDS = 1.0


class Outbox:
    """The changes of one worker. `beside` is what it counts at each backend for others; `send`
    sends a message unless `behind` says that the parent has not read the last ones.
    """

    def __init__(
        self,
        core: Core,
        counters: Counters,
        queue: Queue,
        *,
        beside: Mapping[str, int],
        send: Callable[[Up], None],
        behind: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._core = core
        self._counters = counters
        self._queue = queue
        self._beside = beside
        self._send = send
        self._behind = behind
        self._clock = clock
        self._read = 0
        self._epoch = -1
        self._loads: dict[str, Load] = {}
        self._uses: dict[tuple[str, str], Use] = {}
        self._keys: dict[str, Key] = {}
        self._urgent: float | None = None
        self._soon: asyncio.Handle | None = None
        self._told = float("-inf")
        self._pause = TICK_SECONDS
        self._waited = False

    async def run(self) -> None:
        """Tell at each tick until cancelled."""
        while True:
            await asyncio.sleep(self._pause)
            self.tell()

    def urgent(self, seconds: float) -> None:
        """A report should leave within so many seconds: the parent hears of it in time."""
        self._urgent = seconds if self._urgent is None else min(self._urgent, seconds)
        if seconds < TICK_SECONDS and self._soon is None:
            # What made it urgent is still being counted.
            self._soon = asyncio.get_running_loop().call_soon(self.tell)

    def moved(self, uids: Iterable[str]) -> None:
        """The world moved; these backends are no more."""
        table = self._core.control.table
        limited = any(each.max_concurrency is not None for each in table.backends.values())
        self._pause = LIMITED_TICK_SECONDS if limited else TICK_SECONDS
        gone = set(uids)
        self._loads = {uid: load for uid, load in self._loads.items() if uid not in gone}
        self._uses = {key: use for key, use in self._uses.items() if key[0] not in gone}
        self._keys = {uid: key for uid, key in self._keys.items() if uid not in gone}

    def tell(self, *, everything: bool = False) -> None:
        """Send what changed since the last time, if anything did or it is time for a sign of life;
        with `everything` also to a parent that lags behind.
        """
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._behind() and not everything:
            return
        now = self._clock()
        due = everything or now >= self._told + HEARTBEAT_SECONDS
        if self._idle() and not due:
            return  # what no attempt moves, such as connections, has time until the sign of life
        batch = self._batch()
        lists = (batch.cells, batch.loads, batch.uses, batch.keys, batch.spend)
        if any(lists) or batch.urgent is not None or due:
            self._told = now
            self._send(batch)

    def _idle(self) -> bool:
        journal = self._core.router.journal
        unread = (self._epoch, self._read) != (journal.epoch, len(journal.entries))
        waits = self._queue.depth or self._waited
        told = self._urgent is None and not self._core.monitor.recorder.changed
        return told and not unread and not waits

    def _batch(self) -> Batch:
        monitor = self._core.monitor
        # The minute's cells count everything once, and alone have the sketches.
        cells: list[Cell] = [slot.minute for slot in monitor.hand_over()]
        spend, _ = monitor.spending.report(self._clock(), everything=False)
        monitor.spending.acknowledged()
        moved = list(self._moved())
        urgent, self._urgent = self._urgent, None
        return Batch(
            tally=tally_of(self._counters),
            cells=list({id(cell): cell for cell in cells}.values()),
            loads=list(self._new_loads(moved)),
            uses=[use for backend in moved for use in self._new_uses(backend.uid)],
            keys=list(self._new_keys()),
            spend=spend,
            urgent=None if urgent is None else max(0.0, urgent - TICK_SECONDS),
        )

    def _moved(self) -> Iterable[Backend]:
        """The backends of which anything changed since the last look."""
        journal = self._core.router.journal
        entries = journal.entries
        if self._epoch == journal.epoch:
            found: Iterable[Backend] = dict.fromkeys(entries[self._read :])
        else:
            found = self._core.control.table.backends.values()
        self._epoch, self._read = journal.epoch, len(entries)
        return found

    def _new_loads(self, moved: Iterable[Backend]) -> Iterator[Load]:
        waiting = self._queue.waiting() if self._queue.depth else {}
        self._waited = bool(waiting)
        once_waited = (uid for uid, load in self._loads.items() if load.waiting)
        table = self._core.control.table.backends
        again = [table[uid] for uid in once_waited if uid in table]
        for backend in dict.fromkeys((*moved, *waiting, *again)):
            load = Load(
                uid=backend.uid,
                in_flight=backend.in_flight - self._beside.get(backend.uid, 0),
                requests=backend.requests,
                latency_ms=backend.latency_ms,
                waiting=waiting.get(backend, 0),
            )
            if self._loads.get(load.uid) != load:
                self._loads[load.uid] = load
                yield load

    def _new_uses(self, uid: str) -> Iterator[Use]:
        for candidate in self._core.live.candidates(uid):
            use = use_of(candidate)
            key = uid, use.model
            if self._uses.get(key) != use:
                self._uses[key] = use
                yield use

    def _new_keys(self) -> Iterator[Key]:
        for uid, watch in self._core.monitor.key_watches():
            key = Key(uid, watch.refused, watch.untried)
            if self._keys.get(uid) != key:
                self._keys[uid] = key
                yield key


def use_of(candidate: Candidate) -> Use:
    """One (backend, model) as this process uses it."""
    subject = candidate.subject
    return Use(
        uid=subject.uid,
        model=candidate.model,
        in_flight=subject.in_flight,
        latest_success=subject.breaker.latest_success,
        resting_until=candidate.resting_until,
        missing={endpoint.name: until for endpoint, until in candidate.missing_until.items()},
    )
