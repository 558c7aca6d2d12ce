"""A ledger that was saved and made anew: who is awaited, what is sealed, what may not come back."""

from __future__ import annotations

from typing import Any

import pytest

from nexus_quality.counts import Counts
from nexus_quality.journal import Journal
from nexus_quality.ledger import FORGET_SECONDS, Ledger
from nexus_quality.limits import MAX_INCARNATIONS
from nexus_quality.refilling import refilling
from nexus_quality.report import Cell, Report
from nexus_quality.restoring import restore
from nexus_quality.saved import (
    Batch,
    InvalidRow,
    Saved,
    added,
    cells_from_bytes,
    counts_from_bytes,
    counts_to_bytes,
)
from nexus_quality.sealing import SEAL_SECONDS
from nexus_quality.window import Family

NOW = 1_700_000_000.0
UIDS = frozenset({"uid-a", "uid-b"})
UP = 36_000.0


def report(*cells: Cell, at: float = NOW, life: str = "a", **given: Any) -> Report:
    """By a reporter that has been up for ten hours at NOW."""
    now_ms = int((at - NOW + UP) * 1000)
    return Report(incarnation=life * 32, now_ms=now_ms, cells=list(cells), **given)


def cells(requests: int, *, at: float = NOW, uid: str = "uid-a") -> list[Cell]:
    up = at - NOW + UP
    return [
        Cell(family=int(f), bucket=int(up // f), uid=uid, model="m", requests=requests)
        for f in Family
    ]


def ledger() -> Ledger:
    made = Ledger(NOW)
    made.journal = Journal()
    return made


def saved(one: Ledger, now: float) -> Saved:
    """One batch of everything that changed, as rows of an empty store."""
    assert one.journal is not None
    batch = Batch()
    for _ in one.journal.collect(one, batch, now):
        pass
    one.journal.saved()
    return Saved(
        reporters=batch.reporters,
        lives=batch.lives,
        uses=batch.uses,
        cells=batch.cells,
        sums=batch.grown,
        failures=batch.failures,
    )


def test_those_that_were_alive_are_awaited_until_they_have_said_all() -> None:
    one = ledger()
    one.take("gone", report(*cells(1), full=True, final=True), NOW, UIDS)
    one.take("silent", report(*cells(1, at=NOW - 300.0), full=True), NOW - 300.0, UIDS)
    one.take("alive", report(*cells(1), full=True), NOW, UIDS)
    again = restore(saved(one, NOW), NOW + 5.0)
    assert [name for name, r in again.reporters.items() if r.awaited] == ["alive"]
    assert again.awaits("uid-a") and not again.awaits("uid-b")
    again.take("alive", report(at=NOW + 6.0), NOW + 6.0, UIDS)
    assert again.awaits("uid-a")
    again.take("alive", report(at=NOW + 7.0, full=True), NOW + 7.0, UIDS)
    assert not again.awaits("uid-a")


def test_what_was_heard_before_is_a_replay_until_all_was_said() -> None:
    one = ledger()
    one.take("pod", report(*cells(3), full=True), NOW, UIDS)
    again = restore(saved(one, NOW), NOW + 1.0)
    first = again.take("pod", report(*cells(4), at=NOW + 2.0, full=True), NOW + 2.0, UIDS)
    assert {grown.replayed for grown in first.growth} == {False}
    late = restore(saved(one_more(), NOW), NOW + 1.0)
    change = late.take("pod", report(*cells(4), at=NOW + 2.0), NOW + 2.0, UIDS)
    assert {grown.replayed for grown in change.growth} == {True}


def one_more() -> Ledger:
    one = ledger()
    one.take("pod", report(*cells(3), full=True), NOW, UIDS)
    return one


def test_only_what_a_full_report_followed_is_sealed() -> None:
    one = ledger()
    one.take("pod", report(*cells(5), full=True), NOW, UIDS)
    later = NOW + SEAL_SECONDS + 120.0
    one.take("pod", report(at=later), later, UIDS)
    one.expire(later)
    (life,) = one.reporters["pod"].incarnations.values()
    assert Family.MINUTE in {key.family for key in life.cells}
    one.take("pod", report(*cells(5), at=later, full=True), later, UIDS)
    one.expire(later)
    assert {key.family for key in life.cells} == {Family.HOUR}
    assert one.take("pod", report(*cells(5), at=later), later, UIDS).growth == ()
    assert one.whole("uid-a", later)["m"].hour.requests == 5


def test_what_could_not_be_saved_of_a_backend_that_is_gone_does_not_come_back() -> None:
    one = ledger()
    one.take("pod", report(*cells(3), full=True), NOW, UIDS)
    later = NOW + SEAL_SECONDS + 300.0
    one.take("pod", report(*cells(5, at=later), at=later, full=True), later, UIDS)
    one.expire(later)
    assert one.journal is not None
    for _ in one.journal.collect(one, Batch(), later):
        pass
    one.forget("uid-a")
    one.journal.put_back()
    rows = saved(one, later)
    assert list(rows.sums) == list(rows.uses) == list(rows.cells) == []


@pytest.mark.parametrize("turn", range(6))
@pytest.mark.parametrize("event", ["sealed", "grew", "came", "forgotten"])
@pytest.mark.parametrize("later", [NOW + 1_500.0, NOW + 8_000.0])
def test_what_happens_while_all_is_collected_anew_is_saved_once(
    turn: int, event: str, later: float
) -> None:
    one = ledger()
    for name in ("pod-1", "pod-2"):
        for uid in ("uid-a", "uid-b"):
            one.take(name, report(*cells(5, uid=uid), full=True), NOW, UIDS)
        one.take(name, report(*cells(2, at=later), at=later, full=True), later, UIDS)
    steps = refilling(one)
    for _ in range(turn):
        next(steps, None)
    if event == "sealed":
        one.expire(later)
    elif event == "forgotten":
        one.forget("uid-a")
    else:
        name = "pod-1" if event == "grew" else "pod-3"
        one.take(name, report(*cells(4, at=later), at=later, full=True), later, UIDS)
    for _ in steps:
        pass
    again = restore(saved(one, later), later)
    for uid in UIDS:
        expected, found = (ledger_.whole(uid, later) for ledger_ in (one, again))
        assert {m: (w.hour, w.day) for m, w in found.items()} == {
            m: (w.hour, w.day) for m, w in expected.items()
        }
    assert {n: r.series.keys() for n, r in again.reporters.items()} == {
        n: r.series.keys() for n, r in one.reporters.items()
    }


def test_an_ended_incarnation_stays_ended_and_its_counts_stay() -> None:
    one = ledger()
    one.take("pod", report(*cells(5), full=True), NOW, UIDS)
    later = NOW + 100.0
    for number in range(MAX_INCARNATIONS):
        made = report(at=later)
        made.incarnation = f"{number:032x}"
        one.take("pod", made, later, UIDS)
    again = restore(saved(one, later), later)
    assert list(again.reporters["pod"].ended) == ["a" * 32]
    refused = again.take("pod", report(*cells(5), at=later, full=True), later, UIDS).refused
    assert len(refused) == 1
    assert again.whole("uid-a", later)["m"].day.requests == 5


def test_watermarks_outlive_the_day_by_an_hour() -> None:
    one = ledger()
    one.take("pod", report(*cells(5), full=True), NOW, UIDS)
    one.take("pod", report(at=NOW + 9_000.0, full=True), NOW + 9_000.0, UIDS)
    one.expire(NOW + 9_000.0)
    one.expire(NOW + 9_000.0 + FORGET_SECONDS)
    (life,) = one.reporters["pod"].incarnations.values()
    assert life.cells == {} and life.sealed[Family.HOUR] > 0
    one.expire(NOW + 9_001.0 + FORGET_SECONDS)
    assert one.reporters == {}


def test_counters_as_bytes_are_read_by_versions_with_more_and_with_fewer_of_them() -> None:
    counts = Counts(requests=3, errors=1, ttft_bins={4: 2}, ttft_count=2)
    data = counts_to_bytes(counts)
    assert counts_from_bytes(data) == counts
    total = counts_from_bytes(added(data, data))
    assert (total.requests, total.ttft_bins) == (6, {4: 4})


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff\xff", b"\x92\x80\xa1x"])
def test_bytes_that_no_version_wrote_are_named(data: bytes) -> None:
    for read in (counts_from_bytes, cells_from_bytes):
        with pytest.raises(InvalidRow, match="cannot be read"):
            read(data)
