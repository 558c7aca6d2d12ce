"""The page's content, kept up to date while somebody looks: what changed, for all at once.

Promises at most two messages a second whatever happens, the first within a `PAUSE_SECONDS` of a
change of state; figures are read again every `FIGURES_SECONDS` or, with many backends, as often as
a tenth of the time allows. One picture is made for all who look. While nobody does, it only notes
turns of states. What a line says is `rows`', who gets it the `feed`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from nexus_operator.engine import FleetEngine
from nexus_operator.page.changes import Changes
from nexus_operator.page.detail import Detail, detail
from nexus_operator.page.feed import Feed, Listener, message
from nexus_operator.page.policies import Matches, matches, quality_row, routing_row
from nexus_operator.page.rows import Row, row
from nexus_operator.page.sparks import Sparks
from nexus_operator.page.timeline import Timelines
from nexus_operator.registry import Registry
from nexus_operator.slices import Slice

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
FIGURES_SECONDS = 4.0
WORK_SECONDS = 0.05


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The operator itself. `places`: its namespaces, none for all of them; `problem`: why it is not
    ready, in a line; `started`: epoch seconds.
    """

    places: tuple[str, ...]
    version: str
    started: int
    leading: bool = False
    problem: str | None = None
    reporters: int = 0


class Board:
    """`head` says how the operator is; it is asked twice a second while somebody looks."""

    def __init__(
        self,
        *,
        registry: Registry,
        engine: FleetEngine,
        clock: Callable[[], float],
        head: Callable[[], Head],
        feed: Feed,
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._clock = clock
        self._head = head
        self.feed = feed
        self.timelines = Timelines()
        self._sparks = Sparks(engine.minutes)
        self._whole = Changes()
        self._dirty: dict[str, None] = {}
        self._looked: dict[str, float] = {}
        self._number = 0
        self._picture = b""
        self._lock = asyncio.Lock()
        self._awake = False
        self._task: asyncio.Task[None] | None = None
        registry.backends.changed = self._backend_changed
        registry.quality.changed = registry.routing.changed = self._note

    async def join(self) -> Listener | None:
        """A listener that has the whole picture; None if there are too many."""
        if self.feed.full:
            return None
        async with self._lock:
            if self._task is None or self._task.done():
                await self._begin()
            listener = self.feed.join(self._snapshot())
        if listener is not None and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name="nexus page")
            self._task.add_done_callback(self._ended)
        return listener

    @property
    def busy(self) -> bool:
        """Whether anything is kept up to date, because somebody looks."""
        return self._awake

    async def close(self) -> None:
        """Lets everybody go; nobody may come until the feed opens again."""
        self.feed.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._rest()

    def detail(self, namespace: str, name: str) -> Detail | None:
        """One backend in full, None if there is none of that name."""
        backend = self._registry.backends.named(namespace, name)
        if backend is None:
            return None
        uid = backend.metadata.uid
        return detail(
            backend,
            line=self._row(uid),
            figures=self._engine.figures(uid, self._clock()),
            verdicts=self._engine.verdicts(uid),
            timeline=self.timelines.of(uid),
        )

    async def matches(self, namespace: str, name: str) -> Matches | None:
        """Whom a QualityPolicy matches, None if there is none of that name."""
        policy = self._registry.quality.named(namespace, name)
        if policy is None:
            return None
        return await matches(
            policy,
            backends=self._registry.backends.of(namespace),
            policies=self._registry.quality.of(namespace),
        )

    def _backend_changed(self, uid: str) -> None:
        backend = self._registry.backends.get(uid)
        if backend is None:
            self.timelines.forget(uid)
        else:
            self.timelines.see(backend, self._clock())
        self._note(uid)

    def _note(self, uid: str) -> None:
        if self._awake:
            self._dirty[uid] = None

    async def _run(self) -> None:
        while len(self.feed):
            await asyncio.sleep(PAUSE_SECONDS)
            async with self._lock:
                await self._turn()
        self._rest()

    async def _turn(self) -> None:
        """Looks at what changed, then at what was not looked at for long."""
        changes, began, piece = Changes(), time.monotonic(), Slice()
        dirty, self._dirty = self._dirty, {}
        for uid in dirty:
            self._look(uid, changes)
            await piece.turn()
        while time.monotonic() - began < WORK_SECONDS:
            uid, looked = next(iter(self._looked.items()), ("", self._clock()))
            if self._clock() - looked < FIGURES_SECONDS:
                break
            self._look(uid, changes)
            await piece.turn()
        self._see_head(changes)
        if changes.any:
            self._whole.take(changes)
            self._number, self._picture = self._number + 1, b""
            self.feed.publish(message("delta", self._number, changes.encoded(self._clock())))

    async def _begin(self) -> None:
        """Looks at everything; what changes meanwhile is noted."""
        self._rest()
        self._awake = True
        changes, piece = Changes(), Slice()
        for shelf in (self._registry.backends, self._registry.quality, self._registry.routing):
            for uid in shelf.uids():
                self._look(uid, changes)
                await piece.turn()
        self._see_head(changes)
        self._whole.take(changes)

    def _snapshot(self) -> bytes:
        if not self._picture:
            body = self._whole.encoded(self._clock())
            self._picture = message("snapshot", self._number, body)
        return self._picture

    def _look(self, uid: str, changes: Changes) -> None:
        """Puts into `changes` what is new about an object."""
        if self._registry.backends.get(uid) is not None:
            # Last in the order of those that wait to be looked at again.
            self._looked.pop(uid, None)
            self._looked[uid] = self._clock()
            self._put(changes, "backends", uid, self._row(uid))
            spark = self._sparks.renew(uid, self._clock())
            if spark is not None:
                self._put(changes, "sparks", uid, spark)
        elif (quality := self._registry.quality.get(uid)) is not None:
            self._put(changes, "quality", uid, quality_row(quality))
        elif (routing := self._registry.routing.get(uid)) is not None:
            self._put(changes, "routing", uid, routing_row(routing))
        else:
            self._looked.pop(uid, None)
            self._sparks.forget(uid)
            changes.remove(uid)

    def _put(self, changes: Changes, table: str, uid: str, line: msgspec.Struct) -> None:
        encoded = msgspec.json.encode(line)
        if self._whole.get(table, uid) != encoded:
            changes.put(table, uid, encoded)

    def _see_head(self, changes: Changes) -> None:
        encoded = msgspec.json.encode(self._head())
        if encoded != self._whole.head:
            changes.head = encoded

    def _row(self, uid: str) -> Row:
        backend = self._registry.backends.get(uid)
        assert backend is not None
        return row(
            backend,
            figures=self._engine.figures(uid, self._clock()),
            models_out=len(self._engine.verdicts(uid).out),
            since=self.timelines.since(uid),
        )

    def _rest(self) -> None:
        """Nobody looks: nothing is kept but the timelines."""
        self._whole, self._picture = Changes(), b""
        self._sparks = Sparks(self._engine.minutes)
        self._dirty, self._looked = {}, {}
        self._awake = False

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the page's content ended: %r", error, exc_info=error)
            self._rest()
            self.feed.drop_all()
