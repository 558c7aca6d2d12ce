"""Whatever the disk does, the operator counts on, says what to do, and saves all of it later."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from nexus_operator import store as store_module
from nexus_operator import store_keeper
from nexus_operator.engine import FleetEngine
from nexus_operator.metrics import Metrics
from nexus_operator.store import FILE, KEPT_CORRUPT, Store, move_aside
from nexus_operator.store_keeper import RETRY_SECONDS, Keeper
from nexus_quality.engine import BackendFacts
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.report import Cell, Report
from nexus_quality.saved import cells_from_bytes

NOW = 1_700_000_000.0
UID = "uid-a"
Row = tuple[object, ...]


class Operator:
    """The parts of one that count and keep; `seconds` is its clock."""

    def __init__(self, folder: Path | None, *, max_pages: int = 0, seconds: float = NOW) -> None:
        self.seconds = seconds
        self.engine = FleetEngine(epoch="e", started=seconds, random=lambda: 0.5)
        self.metrics = Metrics(lambda: iter(()))
        for uid in (UID, "uid-b"):
            facts = BackendFacts(uid=uid, namespace="n", name=uid, fingerprint="")
            self.engine.upsert(facts, DEFAULT_POLICY, seconds)
        self.keeper = Keeper(
            folder=folder,
            engine=self.engine,
            clock=lambda: self.seconds,
            metrics=self.metrics,
            open_store=partial(Store, max_pages=max_pages),
        )

    def hear(self, requests: int, *, name: str = "pod-1", uid: str = UID, bucket: int = 0) -> None:
        """A report of everything a reporter has, counted in one hour and one minute."""
        cells = [
            Cell(family=family, bucket=bucket * 3600 // family, uid=uid, model="m")
            for family in (10, 60, 3600)
        ]
        for cell in cells:
            cell.requests, cell.errors, cell.cost_nano_usd = requests, 1, 7 * requests
        life = name.encode().hex().ljust(32, "0")[:32]
        now_ms = int((self.seconds - NOW) * 1000) + 10_000
        report = Report(incarnation=life, now_ms=now_ms, full=True, cells=cells)
        merged = self.engine.merge(name, report, self.seconds)
        assert not merged.answer.refused

    def requests(self, uid: str = UID) -> int:
        """Those of 24 h."""
        return self.engine.figures(uid, self.seconds).whole.day.requests

    @property
    def problem(self) -> str | None:
        return self.keeper.problem

    @property
    def ok(self) -> float | None:
        return self.metrics.registry.get_sample_value("nexus_operator_store_ok")

    @property
    def bytes(self) -> float | None:
        return self.metrics.registry.get_sample_value("nexus_operator_store_bytes")


async def successor(operator: Operator, folder: Path) -> Operator:
    """The process that comes after one was killed: nothing was closed in order."""
    if operator.keeper._store is not None:
        operator.keeper._store.close()
    after = Operator(folder, seconds=operator.seconds)
    await after.keeper.begin()
    return after


def rows(folder: Path, table: str) -> list[Row]:
    with sqlite3.connect(folder / FILE) as connection:
        found = connection.execute(f"SELECT * FROM {table}").fetchall()
    connection.close()
    return found


def state(operator: Operator) -> tuple[str | None, float | None]:
    return operator.problem, operator.ok


def allow(folder: Path, mode: int) -> None:
    folder.chmod(mode)


def moved_aside(folder: Path) -> list[Path]:
    """The corrupt files, without what SQLite had beside them."""
    found = folder.glob(f"{FILE}.corrupt-*")
    return [path for path in found if not path.name.endswith(("-wal", "-shm"))]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.05)


@contextmanager
def somebody_else() -> Iterator[None]:
    """File permissions hold for everybody but root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    operator = Operator(folder)
    await operator.keeper.begin()
    assert operator.keeper.lost and operator.ok == 1
    operator.hear(5)
    await operator.keeper.close()
    after = Operator(folder)
    await after.keeper.begin()
    assert not after.keeper.lost
    assert after.requests() == 5
    await after.keeper.close()


async def test_without_a_folder_nothing_is_kept_and_nothing_is_journalled() -> None:
    operator = Operator(None)
    await operator.keeper.begin()
    operator.hear(5)
    await operator.keeper.turn()
    await operator.keeper.close()
    assert operator.engine.ledger.journal is None and operator.ok == 0 and operator.keeper.lost


async def test_what_was_saved_before_a_kill_is_known_after_it(tmp_path: Path) -> None:
    operator = Operator(tmp_path)
    await operator.keeper.begin()
    operator.hear(5)
    operator.hear(3, name="pod-2")
    await operator.keeper.turn()
    assert operator.bytes and operator.bytes > 0
    operator.hear(9)  # never saved: its reporter repeats it
    after = await successor(operator, tmp_path)
    assert after.requests() == 8
    assert after.engine.figures(UID, NOW).whole.last_failure == NOW - 0.0
    assert after.engine.ledger.awaits(UID)
    after.hear(9)
    assert after.requests() == 12
    await after.keeper.close()


CORRUPTIONS: dict[str, Callable[[Path], object]] = {
    "another file": lambda path: path.write_bytes(b"no database at all " * 500),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:5000] + b"\xff" * 9000),
    "a row no version wrote": lambda path: _execute(path, "UPDATE cells SET cells = x'00'"),
}


def _execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
async def test_a_corrupt_file_is_moved_aside_and_a_new_one_begun(
    tmp_path: Path, corrupt: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    operator = Operator(tmp_path)
    await operator.keeper.begin()
    operator.hear(5)
    await operator.keeper.close()
    corrupt(tmp_path / FILE)
    after = Operator(tmp_path)
    await after.keeper.begin()
    assert after.keeper.lost and after.keeper.problem is None and after.ok == 1
    (aside,) = moved_aside(tmp_path)
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert str(aside) in line and "begun anew" in line and "\n" not in line
    after.hear(6)
    await after.keeper.turn()
    last = await successor(after, tmp_path)
    assert last.requests() == 6
    await last.keeper.close()


async def test_a_file_that_breaks_in_use_is_replaced_by_all_of_memory(tmp_path: Path) -> None:
    operator = Operator(tmp_path)
    await operator.keeper.begin()
    operator.hear(5)
    operator.hear(7, name="pod-2", uid="uid-b")
    await operator.keeper.turn()
    seal(operator)
    store = operator.keeper._store
    assert store is not None
    await operator.keeper.turn()
    store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    store._connection.execute("PRAGMA shrink_memory")
    with (tmp_path / FILE).open("r+b") as file:
        file.write(b"\xff" * (tmp_path / FILE).stat().st_size)
    operator.hear(6, name="pod-3", bucket=0)
    await operator.keeper.turn()
    assert moved_aside(tmp_path) and operator.ok == 1
    await operator.keeper.turn()
    after = await successor(operator, tmp_path)
    assert (after.requests(), after.requests("uid-b")) == (11, 7)
    await after.keeper.close()


def seal(operator: Operator) -> None:
    """Two hours pass and all reporters say all they have: everything so far is sealed."""
    operator.seconds += 7200.0
    for name, requests, uid in (("pod-1", 5, UID), ("pod-2", 7, "uid-b")):
        operator.hear(requests, name=name, uid=uid)
    operator.engine.expire(operator.seconds)


async def test_sealed_buckets_become_sums_once_and_their_cells_go(tmp_path: Path) -> None:
    operator = Operator(tmp_path)
    await operator.keeper.begin()
    operator.hear(5)
    operator.hear(3, name="pod-3")
    await operator.keeper.turn()
    assert len(rows_of(operator, "cells")) == 6 and not rows_of(operator, "sealed")
    seal(operator)
    await operator.keeper.turn()
    # Not those of the pod that has not said all since. Minutes have left their window by now.
    assert {row[0] for row in rows_of(operator, "cells")} == {"pod-3"}
    assert [(row[0], row[2]) for row in rows_of(operator, "sealed")] == [(3600, "")] * 2
    after = await successor(operator, tmp_path)
    assert after.requests() == 8
    for _ in range(2):  # it comes back after it was sealed, and repeats itself
        after.hear(5)
        after.hear(3, name="pod-3")
    assert after.requests() == 8
    await after.keeper.close()


def rows_of(operator: Operator, table: str) -> list[Row]:
    assert operator.keeper._store is not None
    return list(operator.keeper._store._rows(table))


def uids(operator: Operator) -> set[str]:
    """Of the cells in the file."""
    blobs = [row[4] for row in rows_of(operator, "cells")]
    return {cell.uid for blob in blobs for cell in cells_from_bytes(blob)}  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [0, 10**6])
async def test_a_full_disk_costs_nothing_once_there_is_room_again(
    tmp_path: Path,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(store_keeper, "MOST_KEYS", most)
    operator = Operator(tmp_path, max_pages=30)
    await operator.keeper.begin()
    for number in range(400):
        operator.hear(2, name=f"pod-{number}")
    await operator.keeper.turn()
    assert operator.problem is not None and operator.ok == 0
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert "full" in line and "make room on the disk" in line
    assert operator.requests() == 800
    operator.keeper._open_store = Store  # somebody made room
    await operator.keeper.turn()
    assert not operator.ok  # not yet tried again
    assert (operator.engine.ledger.journal is None) is (most == 0)
    operator.seconds += RETRY_SECONDS
    for _ in range(2):
        await operator.keeper.turn()
    assert state(operator) == (None, 1)
    after = await successor(operator, tmp_path)
    assert after.requests() == 800
    await after.keeper.close()


async def test_a_folder_that_cannot_be_written_degrades_to_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    allow(tmp_path, 0o555)
    operator = Operator(tmp_path)
    with somebody_else():
        await operator.keeper.begin()
    assert operator.keeper.problem is not None and operator.ok == 0
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert "let this process write to the folder" in line
    operator.hear(4)
    allow(tmp_path, 0o755)
    operator.seconds += RETRY_SECONDS
    for _ in range(2):
        await operator.keeper.turn()
    after = await successor(operator, tmp_path)
    assert after.requests() == 4
    await after.keeper.close()


async def test_a_file_that_another_process_holds_degrades_to_memory_until_it_lets_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Operator(tmp_path)
    await first.keeper.begin()
    first.hear(5)
    await first.keeper.turn()
    second = Operator(tmp_path)
    await second.keeper.begin()
    assert second.ok == 0
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert "locked" in line and "stop the other process" in line
    second.hear(5)
    second.hear(1, name="pod-2")
    await first.keeper.close()
    second.seconds += RETRY_SECONDS
    for _ in range(2):
        await second.keeper.turn()
    after = await successor(second, tmp_path)
    assert after.requests() == 6  # never both of what the first and the second knew
    await after.keeper.close()


async def test_a_successor_waits_a_moment_for_the_process_it_replaces(tmp_path: Path) -> None:
    first = Operator(tmp_path)
    await first.keeper.begin()
    first.hear(5)
    await first.keeper.turn()
    second = Operator(tmp_path)
    attempts = []

    def open_store(path: Path) -> Store:
        attempts.append(path)
        if len(attempts) == 2:
            assert first.keeper._store is not None
            first.keeper._store.close()
        return Store(path)

    second.keeper._open_store = open_store
    await second.keeper.begin()
    assert second.ok == 1 and second.requests() == 5
    await second.keeper.close()


@pytest.mark.parametrize(
    ("pragma", "says"),
    [("user_version = 99", "its tables are version 99"), ("application_id = 5", "not a store")],
)
async def test_a_file_of_another_version_is_refused_and_left_alone(
    tmp_path: Path, pragma: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    operator = Operator(tmp_path)
    await operator.keeper.begin()
    operator.hear(5)
    await operator.keeper.close()
    _execute(tmp_path / FILE, f"PRAGMA {pragma}")
    after = Operator(tmp_path)
    await after.keeper.begin()
    assert after.ok == 0 and not moved_aside(tmp_path)
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert says in line and "move the file away" in line
    after.hear(6)
    after.seconds += RETRY_SECONDS
    await after.keeper.turn()
    assert after.ok == 0 and len(rows(tmp_path, "cells")) == 3
    (tmp_path / FILE).rename(tmp_path / "old")
    after.seconds += RETRY_SECONDS
    for _ in range(2):
        await after.keeper.turn()
    last = await successor(after, tmp_path)
    assert last.requests() == 6
    await last.keeper.close()


async def test_nothing_of_a_deleted_backend_stays(tmp_path: Path) -> None:
    operator = Operator(tmp_path)
    await operator.keeper.begin()
    operator.hear(5)
    operator.hear(7, name="pod-2", uid="uid-b")
    await operator.keeper.turn()
    seal(operator)
    operator.hear(1, name="pod-2", uid="uid-b", bucket=1)
    await operator.keeper.turn()
    operator.engine.remove("uid-b")
    await operator.keeper.turn()
    tables = ("used", "sealed", "failure")
    assert [row for table in tables for row in rows_of(operator, table) if "uid-b" in row] == []
    assert "uid-b" not in uids(operator)
    await operator.keeper.close()


async def test_what_was_deleted_while_no_operator_ran_is_forgotten_at_the_start(
    tmp_path: Path,
) -> None:
    operator = Operator(tmp_path)
    await operator.keeper.begin()
    operator.hear(5)
    operator.hear(7, name="pod-2", uid="uid-b")
    await operator.keeper.close()
    after = Operator(tmp_path)
    after.engine.remove("uid-b")
    await after.keeper.begin()
    await after.keeper.turn()
    assert uids(after) == {UID}
    await after.keeper.close()


async def test_a_file_is_empty_a_day_after_the_last_report(tmp_path: Path) -> None:
    operator = Operator(tmp_path)
    await operator.keeper.begin()
    operator.hear(5)
    operator.hear(5, name="pod-2", uid="uid-b")
    await operator.keeper.turn()
    seal(operator)
    await operator.keeper.turn()
    operator.seconds += 26 * 3600.0
    operator.engine.expire(operator.seconds)
    await operator.keeper.turn()
    operator.hear(1, name="pod-9", bucket=28)
    await operator.keeper.turn()
    for table in ("reporter", "life", "used", "cells", "sealed"):
        assert {row[2 if table == "sealed" else 0] for row in rows_of(operator, table)} <= {"pod-9"}
    await operator.keeper.close()


async def test_clocks_that_jump_between_processes_lose_nothing(tmp_path: Path) -> None:
    operator = Operator(tmp_path)
    await operator.keeper.begin()
    operator.hear(5)
    await operator.keeper.turn()
    for jump in (-86_400.0, 7_200.0):
        operator.seconds += jump
        operator = await successor(operator, tmp_path)
        assert operator.requests() == 5, jump
        operator.hear(5)
        await operator.keeper.turn()
    await operator.keeper.close()


def test_only_the_latest_corrupt_files_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(KEPT_CORRUPT + 2):
        monkeypatch.setattr(time, "strftime", lambda *_, n=number: f"2026{n}")
        (tmp_path / FILE).write_bytes(b"x")
        move_aside(tmp_path / FILE)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"{FILE}.corrupt-2026{n}" for n in (2, 3)]
