"""Conditions say what a start without its store has lost, and what is at risk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nexus_api import LLMBackend
from nexus_api.quantities import format_time
from nexus_operator.engine import FleetEngine
from nexus_operator.history import History
from nexus_operator.metrics import Metrics
from nexus_operator.store import Store
from nexus_operator.store_keeper import Keeper
from nexus_operator.store_trouble import StoreProblem, Trouble
from nexus_quality.engine import STARTING_SECONDS, BackendFacts
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.report import Cell, Report

NOW = 1_700_001_000.0
UID = "uid-a"
Make = Callable[..., LLMBackend]


class Start:
    """A process that began at NOW; a status says what the one before had published."""

    def __init__(self, make: Make, folder: Path | None, *, requests: int, at: float) -> None:
        self.engine = FleetEngine(epoch="e", started=NOW, random=lambda: 0.5)
        facts = BackendFacts(uid=UID, namespace="shop", name="a", fingerprint="")
        self.engine.upsert(facts, DEFAULT_POLICY, NOW)
        self.keeper = Keeper(
            folder=folder,
            engine=self.engine,
            clock=lambda: NOW,
            metrics=Metrics(lambda: iter(())),
            open_store=self.open_store,
        )
        self.history = History(engine=self.engine, keeper=self.keeper)
        quality = {"requests24h": requests, "observedTime": format_time(at)}
        self.backend = make("a", status={"state": "Active", "quality": quality})
        self.refuse: StoreProblem | None = None
        self.remark(0.0)

    def open_store(self, path: Path) -> Store:
        if self.refuse is not None:
            raise self.refuse
        return Store(path)

    def replay(self, requests: int) -> None:
        cell = Cell(family=3600, bucket=0, uid=UID, model="m", requests=requests)
        report = Report(incarnation="a" * 32, now_ms=5_000, full=True, cells=[cell])
        self.engine.merge("pod-1", report, NOW)

    def remark(self, seconds: float) -> str:
        return self.history.remark(self.backend, NOW + seconds)


def test_what_nobody_repeated_is_told_once_all_had_the_time_to(
    backend: Make, tmp_path: Path
) -> None:
    start = Start(backend, tmp_path, requests=12, at=NOW - 20.0)
    start.replay(7)
    assert start.remark(1.0) == ""
    expected = (
        "; up to 5 requests of the last 24 h are missing: the proxies that reported them are gone, "
        "and the operator's store was lost"
    )
    assert start.remark(STARTING_SECONDS) == expected
    start.replay(9)  # the message moves no more: nothing writes for a number in it
    assert start.remark(STARTING_SECONDS + 3600.0) == expected
    assert start.remark(86_400.0) == ""


def test_nothing_is_told_where_the_proxies_repeated_everything(backend: Make) -> None:
    start = Start(backend, None, requests=12, at=NOW - 20.0)
    start.replay(12)
    assert start.remark(STARTING_SECONDS) == ""


def test_without_a_folder_the_message_says_that(backend: Make) -> None:
    start = Start(backend, None, requests=12, at=NOW - 20.0)
    assert start.remark(STARTING_SECONDS).endswith("there was no --data-dir to keep them in")


async def test_an_hour_that_left_the_window_is_no_loss_where_there_was_a_store(
    backend: Make, tmp_path: Path
) -> None:
    Store(tmp_path / "nexus-operator.sqlite").close()
    for at, told in ((NOW - 3600.0, False), (NOW - 20.0, True)):
        start = Start(backend, tmp_path, requests=12, at=at)
        await start.keeper.begin()
        assert not start.keeper.lost
        assert bool(start.remark(STARTING_SECONDS)) is told
        await start.keeper.close()


async def test_trouble_with_the_store_is_told_while_it_lasts(backend: Make, tmp_path: Path) -> None:
    start = Start(backend, tmp_path, requests=0, at=NOW)
    start.refuse = StoreProblem(Trouble.FULL, tmp_path, "database or disk is full")
    await start.keeper.begin()
    assert start.remark(0.0) == "; counts are kept in memory alone: database or disk is full"
    start.refuse, start.keeper._retry_at = None, 0.0
    await start.keeper.turn()
    assert start.remark(0.0) == ""
    await start.keeper.close()


def test_a_backend_made_anew_has_no_past(backend: Make) -> None:
    start = Start(backend, None, requests=12, at=NOW)
    start.history.forget(UID)
    start.backend = backend("a")
    assert start.remark(STARTING_SECONDS) == ""
