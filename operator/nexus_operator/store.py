"""The store: one SQLite file, read once and then written in batches.

Promises that a batch is in the file whole or not at all, also after SIGKILL, and that whatever the
disk does is one `StoreProblem` with a line that says what to do. It blocks: all of it runs in one
thread that is not the event loop's. When to write, and what follows from a problem, is
`store_keeper`'s.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from nexus_operator.specs import SpecRow
from nexus_operator.store_schema import NAMES, prepare
from nexus_operator.store_trouble import watched
from nexus_quality.ledger import Ledger
from nexus_quality.restoring import restore
from nexus_quality.saved import (
    Batch,
    CellsRow,
    FailureRow,
    LifeRow,
    ReporterRow,
    Saved,
    SumRow,
    UseRow,
    added,
)

FILE: Final = "nexus-operator.sqlite"
BUSY_SECONDS = 2.0
WAL_BYTES = 16 * 1024 * 1024
KEPT_CORRUPT = 2
FREED_PAGES = 2000
_SIDES = ("-wal", "-shm", "-journal")


class Store:
    """An open file that no other process can open; it raises StoreProblem alone.

    `max_pages` bounds the file, 0: not at all. `new`: there was nothing in it.
    """

    def __init__(self, path: Path, *, max_pages: int = 0) -> None:
        self.path = path
        with watched(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self.new = self._set_up(max_pages)
            except BaseException:
                self._connection.close()
                raise

    def _set_up(self, max_pages: int) -> bool:
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA auto_vacuum = INCREMENTAL")
        run("PRAGMA journal_mode = WAL").fetchone()
        run("PRAGMA synchronous = NORMAL")
        run(f"PRAGMA journal_size_limit = {WAL_BYTES}").fetchone()
        if max_pages:
            run(f"PRAGMA max_page_count = {max_pages}").fetchone()
        self._connection.create_function("added", 2, added, deterministic=True)
        new = prepare(self._connection)
        (verdict,) = run("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"malformed: {verdict}")
        # Takes the lock for good, and says at once if the file cannot be written.
        run("BEGIN IMMEDIATE")
        run(f"PRAGMA user_version = {run('PRAGMA user_version').fetchone()[0]}")
        run("COMMIT")
        return new

    def load(self, now: float) -> Ledger:
        """The ledger that was saved."""
        with watched(self.path):
            return restore(
                Saved(
                    reporters=map(ReporterRow._make, self._rows("reporter")),
                    lives=map(LifeRow._make, self._rows("life")),
                    uses=map(UseRow._make, self._rows("used")),
                    cells=map(CellsRow._make, self._rows("cells")),
                    sums=map(SumRow._make, self._rows("sealed")),
                    failures=map(FailureRow._make, self._rows("failure")),
                ),
                now,
            )

    def specs(self) -> list[SpecRow]:
        """The specs that were judged."""
        with watched(self.path):
            return [SpecRow._make(row) for row in self._rows("spec")]

    def _rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        return self._connection.execute(f"SELECT * FROM {table}")  # a name of ours

    def write(
        self, batch: Batch, specs: Sequence[SpecRow] = (), gone_specs: Sequence[str] = ()
    ) -> None:
        """All of a batch and of what changed of the specs, in one transaction."""
        with watched(self.path), self._transaction():
            self._delete(batch)
            many = self._connection.executemany
            many("INSERT OR REPLACE INTO reporter VALUES (?,?,?)", batch.reporters)
            many("INSERT OR REPLACE INTO life VALUES (?,?,?,?,?,?,?,?)", batch.lives)
            many("INSERT OR IGNORE INTO used VALUES (?,?,?)", batch.uses)
            many("INSERT OR REPLACE INTO cells VALUES (?,?,?,?,?)", batch.cells)
            many("INSERT OR REPLACE INTO failure VALUES (?,?,?)", batch.failures)
            many("DELETE FROM spec WHERE uid = ?", [(uid,) for uid in gone_specs])
            many("INSERT OR REPLACE INTO spec VALUES (?,?,?)", specs)
            many(
                "INSERT INTO sealed VALUES (?,?,?,?,?,?,?) ON CONFLICT DO UPDATE"
                " SET counts = added(counts, excluded.counts)",
                batch.grown,
            )

    def tidy(self) -> None:
        """Give pages that are free back to the disk."""
        with watched(self.path):
            self._connection.execute(f"PRAGMA incremental_vacuum({FREED_PAGES})").fetchall()

    def _delete(self, batch: Batch) -> None:
        many = self._connection.executemany
        for table in NAMES if batch.fresh else ():
            self._connection.execute(f"DELETE FROM {table}")  # a name of ours
        gone = [(uid,) for uid in batch.forgotten]
        for table in ("used", "sealed", "failure"):
            many(f"DELETE FROM {table} WHERE uid = ?", gone)
        silent = [(name,) for name in batch.gone_reporters]
        for table in ("life", "used", "cells"):
            many(f"DELETE FROM {table} WHERE reporter = ?", silent)
        many("DELETE FROM reporter WHERE name = ?", silent)
        many("DELETE FROM life WHERE reporter = ? AND incarnation = ?", batch.gone_lives)
        many(
            "DELETE FROM cells"
            " WHERE reporter = ? AND incarnation = ? AND family = ? AND bucket = ?",
            batch.gone_cells,
        )
        many("DELETE FROM sealed WHERE family = ? AND bucket < ?", batch.oldest.items())

    def size(self) -> int:
        """Bytes on the disk."""
        return sum(
            part.stat().st_size for part in (self.path, side(self.path, "-wal")) if part.exists()
        )

    def close(self) -> None:
        """Close the file; whatever the disk says to that, nothing more can be done."""
        try:
            self._connection.close()
        except sqlite3.Error:
            return

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite may have rolled back already, for example when the disk is full.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def side(path: Path, ending: str) -> Path:
    """A file that SQLite keeps beside its own."""
    return path.with_name(path.name + ending)


def move_aside(path: Path) -> Path:
    """Rename a corrupt file, keep the latest such ones; returns the new name."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    aside = side(path, f".corrupt-{stamp}")
    with watched(path):
        path.rename(aside)
        for ending in _SIDES:
            if side(path, ending).exists():
                side(path, ending).rename(side(aside, ending))
        found = sorted(
            one
            for one in path.parent.glob(f"{path.name}.corrupt-*")
            if not one.name.endswith(_SIDES)
        )
        for old in found[:-KEPT_CORRUPT]:
            for ending in ("", *_SIDES):
                side(old, ending).unlink(missing_ok=True)
    return aside
