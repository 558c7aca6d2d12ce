"""Keeps what the engine counted in the store: what changed, about once a second, in a thread.

Promises that the event loop never waits for a disk, that trouble with the store costs nothing but
the store (the counters stay in memory, one line is logged, it is tried again), and that at most
what was reported since the last batch is not in the file. It decides nothing and counts nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

from nexus_operator import own_words
from nexus_operator.engine import FleetEngine
from nexus_operator.metrics import Metrics
from nexus_operator.slices import through
from nexus_operator.specs import Specs
from nexus_operator.store import FILE, Store, move_aside
from nexus_operator.store_trouble import StoreProblem, Trouble
from nexus_quality.journal import Journal
from nexus_quality.ledger import Ledger
from nexus_quality.refilling import refilling
from nexus_quality.saved import Batch

log = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
RETRY_SECONDS = 10.0
OPEN_ATTEMPTS = 3
MOST_KEYS = 200_000
# Saving takes at most this part of the time, so that a storm of reports is not slowed down.
SHARE = 0.2
_T = TypeVar("_T")


class Keeper:
    """`folder` None: nothing is kept. `problem`: why nothing can be kept now, None if all is well.

    `lost`: what an earlier process had counted was not found. `specs` is kept beside the counters.
    `open_store` makes the store.
    """

    def __init__(
        self,
        *,
        folder: Path | None,
        engine: FleetEngine,
        clock: Callable[[], float],
        metrics: Metrics,
        open_store: Callable[[Path], Store] = Store,
    ) -> None:
        self.problem: str | None = None
        self.specs = Specs()
        self.lost = True
        self._path = folder / FILE if folder is not None else None
        self._engine = engine
        self._clock = clock
        self._metrics = metrics
        self._open_store = open_store
        self._store: Store | None = None
        self._opened = False
        self._retry_at = 0.0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nexus store")

    @property
    def why_lost(self) -> str:
        """Why something counted by an earlier process may be missing."""
        if self._path is None:
            return own_words.NO_STORE
        return own_words.STORE_LOST if self.lost else own_words.NOT_STORED

    async def open(self) -> None:
        """Opens the store, once, and reads the specs that were judged."""
        if self._opened:
            return
        self._opened = True
        if self._path is None:
            log.info("counters are kept in memory and in the proxies: no --data-dir was given")
            return
        for attempt in range(1, OPEN_ATTEMPTS + 1):
            try:
                self._store = await self._in_thread(partial(self._open, self._path))
            except StoreProblem as problem:
                # A process that this one replaces may need a moment to let go of it.
                if problem.trouble is Trouble.LOCKED and attempt < OPEN_ATTEMPTS:
                    continue
                self._degrade(problem)
            return

    def _open(self, path: Path) -> Store:
        """In the thread."""
        try:
            store = self._open_store(path)
            self.specs.recall(self._read(store, store.specs))
        except StoreProblem as problem:
            if problem.trouble is not Trouble.CORRUPT:
                raise
            store = self._anew(path, problem)
        return store

    async def begin(self) -> None:
        """Takes over what was saved; to be called once, when all backends are known."""
        await self.open()
        store = self._store
        if store is None or self._path is None:
            return
        ledger: Ledger | None = None
        try:
            if not store.new:
                load = partial(store.load, self._clock())
                ledger = await self._in_thread(partial(self._read, store, load))
        except StoreProblem as problem:
            self._store = None
            if problem.trouble is Trouble.CORRUPT:
                await self._replace(self._path, problem)
            else:
                self._degrade(problem)
            return
        self.specs.only(frozenset(self._engine.backends()))
        await self._adopt(ledger)

    def _read(self, store: Store, read: Callable[[], _T]) -> _T:
        try:
            return read()
        except StoreProblem:
            store.close()
            raise

    def _anew(self, path: Path, problem: StoreProblem) -> Store:
        aside = move_aside(path)
        log.error("%s; the old file is %s", problem, aside)
        return self._open_store(path)

    async def _adopt(self, ledger: Ledger | None) -> None:
        if ledger is None:
            await through(refilling(self._engine.ledger))
        else:
            self.lost = False
            ledger.journal = Journal()
            self._engine.remember(ledger)
            log.info("counters of %d reporters were found in the store", len(ledger.reporters))
        self._well()

    async def run(self) -> None:
        """Saves until cancelled; a batch under way is finished."""
        pause = PAUSE_SECONDS
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            turn = asyncio.ensure_future(self.turn())
            try:
                await asyncio.shield(turn)
            except asyncio.CancelledError:
                await turn
                raise
            pause = max(PAUSE_SECONDS, (time.monotonic() - began) * (1 - SHARE) / SHARE)

    async def turn(self) -> None:
        """Saves what changed, or tries again to open the store."""
        if self._path is None:
            return
        if self._store is None:
            self._bound()
            if self._clock() >= self._retry_at:
                await self._reopen(self._path)
            return
        await self._save(self._store)

    def _bound(self) -> None:
        """Rather all of memory is written later than a journal kept that nobody empties."""
        journal = self._engine.ledger.journal
        if journal is not None and journal.size > MOST_KEYS:
            self._engine.ledger.journal = None

    async def _save(self, store: Store) -> None:
        ledger = self._engine.ledger
        journal = ledger.journal
        if journal is None or (journal.empty and not self.specs.changed):
            return
        batch = Batch()
        await through(journal.collect(ledger, batch, self._clock()))
        specs = self.specs.collect(everything=batch.fresh)
        try:
            await self._in_thread(partial(store.write, batch, *specs))
        except StoreProblem as problem:
            journal.put_back()
            self.specs.put_back()
            self._metrics.store_batches.labels("failed").inc()
            self._degrade(problem)
            await self._in_thread(store.close)
            self._store = None
            if problem.trouble is Trouble.CORRUPT and self._path is not None:
                await self._replace(self._path, problem)
        else:
            journal.saved()
            self.specs.saved()
            self._metrics.store_batches.labels("written").inc()
            await through(chain(batch.sweeping(), journal.sweeping()))
            await self._tidy(store)

    async def _tidy(self, store: Store) -> None:
        try:
            await self._in_thread(store.tidy)
            self._metrics.store_bytes.set(await self._in_thread(store.size))
        except StoreProblem as problem:
            # The batch is safe: whether the next one will be, the next one shows.
            log.warning("%s", problem)

    async def _replace(self, path: Path, problem: StoreProblem) -> None:
        """A file that broke while it was in use: all of memory goes into a new one."""
        try:
            self._store = await self._in_thread(partial(self._anew, path, problem))
        except StoreProblem as worse:
            self._degrade(worse)
            return
        await through(refilling(self._engine.ledger))
        self._well()

    async def _reopen(self, path: Path) -> None:
        try:
            store = await self._in_thread(partial(self._open_store, path))
            ledger = self._engine.ledger
            if store.new or ledger.journal is None:
                # What is in the file was never read, or left behind: memory knows better.
                await through(refilling(ledger))
        except StoreProblem as problem:
            if problem.trouble is Trouble.CORRUPT:
                await self._replace(path, problem)
            else:
                self._degrade(problem)
            return
        self._store = store
        self._well()

    async def close(self) -> None:
        """Saves the rest and closes the file, once and for all."""
        if self._store is not None:
            await self._save(self._store)
        if self._store is not None:
            await self._in_thread(self._store.close)
            self._store = None
        self._thread.shutdown(wait=False)

    def _degrade(self, problem: StoreProblem) -> None:
        self._retry_at = self._clock() + RETRY_SECONDS
        if self.problem != problem.short:
            log.error("%s; counters are kept in memory until then", problem)
        self.problem = problem.short
        self._metrics.store_ok.set(0)

    def _well(self) -> None:
        if self.problem is not None:
            log.info("the store %s can be used again", self._path)
        self.problem = None
        self._metrics.store_ok.set(1)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
