"""One report being taken in: what in it is new, what cannot be, what there is no room for.

Promises that a cell which says what is known already costs a comparison, that its numbers only
grow, and that whatever is refused of a report disturbs nothing else of it. Whose the report is, and
what becomes of old cells, is `ledger`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from sys import intern
from typing import TYPE_CHECKING, NamedTuple

from nexus_quality import refusals
from nexus_quality.counts import Counts
from nexus_quality.journal import Changes
from nexus_quality.limits import Known, Room, possible, possible_pulse, together
from nexus_quality.lives import CellRows, Incarnation, Standing
from nexus_quality.report import OTHER_MODEL, Cell, Refusal, Report
from nexus_quality.reporters import Reporter, Series
from nexus_quality.window import Family

if TYPE_CHECKING:
    from nexus_quality.ledger import Ledger

FUTURE_SECONDS = 2.0
_SPANS = {int(family): family.span for family in Family}
_TEN, _HOUR = int(Family.TEN_SECONDS), int(Family.HOUR)


class Growth(NamedTuple):
    """What a report added to a bucket of a (backend, model). `replayed`: another process may have
    counted it before.
    """

    family: int
    uid: str
    model: str
    counts: Counts
    replayed: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a report."""

    growth: tuple[Growth, ...]
    refused: tuple[Refusal, ...]
    touched: frozenset[str]


class Visit:
    """One report being taken: whose it is, and what it is held against.

    No dataclass: compiled, that would look for the type `Ledger` before it is made.
    """

    __slots__ = (
        *("changes", "incarnation", "known", "ledger", "life", "look", "now", "reporter", "room"),
    )

    def __init__(
        self,
        *,
        ledger: Ledger,
        reporter: Reporter,
        life: Incarnation,
        incarnation: str,
        now: float,
        known: Container[str],
        look: Callable[[str], Known],
        room: Room,
        changes: Changes | None,
    ) -> None:
        self.ledger, self.reporter, self.life = ledger, reporter, life
        self.incarnation, self.now = incarnation, now
        self.known, self.look = known, look
        self.room, self.changes = room, changes

    def cells(self, report: Report) -> tuple[list[Growth], dict[Refusal, None]]:
        """Merge the report's cells."""
        growth: list[Growth] = []
        refused: dict[Refusal, None] = {}
        tables, sealed, replay = self.life.rows, self.life.sealed, report.replay
        for cell in report.cells:
            rows = tables.get((cell.uid, cell.model, cell.generation, cell.family))
            index = -1 if rows is None else rows.find(cell.bucket)
            if index < 0:
                if cell.bucket <= sealed.get(cell.family, -1):
                    continue
            elif rows is not None and rows.same(index, cell):
                continue
            reason = self._refusal(cell, rows, index)
            if reason is None:
                grown = self._grow(cell, rows, index, replay=replay)
                if not isinstance(grown, str):
                    if grown is not None:
                        growth.append(grown)
                    continue
                reason = grown
            refused[Refusal(uid=cell.uid, reason=reason)] = None
        return growth, refused

    def pulses(self, report: Report, refused: dict[Refusal, None]) -> frozenset[str]:
        """Put the report's pulses in the place of those before, unless it was overtaken."""
        life = self.life
        if report.now_ms < life.told_ms:
            return frozenset()
        before, life.told_ms, life.pulses = life.pulses, report.now_ms, {}
        for pulse in () if report.final else report.pulses:
            if pulse.uid not in self.known:
                continue
            known = self.look(pulse.uid)
            if known.to_come(pulse.generation) or not possible_pulse(pulse, report.now_ms):
                refused[Refusal(uid=pulse.uid, reason=refusals.IMPOSSIBLE)] = None
                continue
            pulses = life.pulses.setdefault(pulse.uid, {})
            model = known.counted_as(pulse.model, pulses) if pulse.model else ""
            same = pulses.get(model) if model == OTHER_MODEL else None
            pulses[model] = pulse if same is None else together(same, pulse)
        return frozenset(before) | frozenset(life.pulses)

    def _refusal(self, cell: Cell, rows: CellRows | None, index: int) -> str | None:
        """Why a cell cannot be, None if it can."""
        if cell.uid not in self.known:
            return refusals.UNKNOWN_BACKEND
        if cell.family not in _SPANS:
            return f"{refusals.UNKNOWN_FAMILY} {cell.family}"
        if cell.bucket * cell.family + self.life.offset > self.now + FUTURE_SECONDS:
            return refusals.FUTURE_BUCKET
        if not possible(cell):
            return refusals.IMPOSSIBLE
        if rows is not None and index >= 0:
            return refusals.BACKWARDS if rows.runs_backwards(index, cell) else None
        if self.look(cell.uid).to_come(cell.generation):
            return refusals.FUTURE_GENERATION
        return None

    def _grow(
        self, cell: Cell, rows: CellRows | None, index: int, *, replay: bool
    ) -> Growth | str | None:
        """Count what is new in a cell; None if nothing is, or if it is too old; or why not."""
        family, bucket = cell.family, cell.bucket
        oldest = int(self.now // family) - _SPANS[family] + 1
        began = bucket * family + self.life.offset
        if rows is None or index < 0:
            opened = self._open(cell, began, oldest)
            if not isinstance(opened, tuple):
                return opened
            rows, index = opened
            news = True
        else:
            news = self.reporter.restored and not self.reporter.complete
        standing = rows.standing if rows.apart is None else rows.stands(bucket)
        if bucket + standing.shift < oldest:
            return None
        before = rows.bins_of(index)
        counts, rare = rows.raise_to(index, cell)
        bins = (before, rows.bins_of(index)) if counts.ttft_bins else None
        if not (rare or bins or counts.requests or counts.ttft_count or counts.ttft_ms_sum):
            return None
        if self.changes is not None:
            self.changes.cells.add((self.incarnation, family, bucket))
        uid, _, generation, _ = rows.tag
        series = self.ledger.series_of(self.reporter, uid, standing.model)
        # The window of hours is shared by all reporters: none may fill it with generations.
        window, tag = series.window(family), 0 if family == _HOUR else generation
        window.grow(bucket + standing.shift, tag, counts, rare, bins)
        if counts.errors:
            self._failed(series, family, began)
        # What is first heard of a bucket that began before us was counted by another process.
        earlier = replay or (news and began < self.ledger.started)
        return Growth(family, uid, standing.model, counts, earlier)

    def _open(self, cell: Cell, began: float, oldest: int) -> tuple[CellRows, int] | str | None:
        """Make room for a new cell."""
        family, bucket = cell.family, cell.bucket
        # The middle of the bucket decides, so that a small change of offset moves nothing.
        placed = int((began + family / 2) // family)
        if placed < oldest:
            return None
        uid = intern(cell.uid)
        model = intern(self.look(uid).counted_as(cell.model, self.reporter.of(uid)))
        standing = Standing(placed - bucket, model)
        reason = self._full(cell, standing)
        if reason is not None:
            return reason
        tag = (uid, intern(cell.model), cell.generation, family)
        return self.life.open(tag, bucket, standing)

    def _failed(self, series: Series, family: int, began: float) -> None:
        """Note a later failure than any before."""
        # A fine bucket says when it failed, a coarse one only that it did since its begin.
        failed = min(self.now, began + family) if family == _TEN else began
        if failed > (series.whole.last_failure or 0.0):
            series.whole.last_failure = failed
            if self.ledger.journal is not None:
                self.ledger.journal.failed(series.whole.uid, series.whole.model)

    def _full(self, cell: Cell, standing: Standing) -> str | None:
        """Why there is no room for a new cell, None if there is."""
        series = self.reporter.of(cell.uid).get(standing.model)
        if series is None:
            return self.room.refusal(new_series=True, generations=0)
        if cell.family == _HOUR:
            return self.room.refusal(new_series=False, generations=0)
        placed = cell.bucket + standing.shift
        others = series.window(cell.family).generations(placed, cell.generation)
        return self.room.refusal(new_series=False, generations=others)
