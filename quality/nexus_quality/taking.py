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
from nexus_quality.counts import Counts, Pairs
from nexus_quality.journal import Changes
from nexus_quality.limits import Known, Room, possible, possible_pulse, together
from nexus_quality.lives import CellRows, Incarnation, Standing
from nexus_quality.report import OTHER_MODEL, Cell, CellKey, Refusal, Report
from nexus_quality.reporters import Reporter
from nexus_quality.window import Family

if TYPE_CHECKING:
    from nexus_quality.ledger import Ledger

FUTURE_SECONDS = 2.0
_SPANS = {int(family): family.span for family in Family}
_TEN, _HOUR = int(Family.TEN_SECONDS), int(Family.HOUR)


class Growth(NamedTuple):
    """What a report added to a cell. `replayed`: another process may have counted it before."""

    cell: CellKey
    counts: Counts
    replayed: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a report."""

    growth: tuple[Growth, ...]
    refused: tuple[Refusal, ...]
    touched: frozenset[str]


class _Grown(NamedTuple):
    """A row after it grew. `bins`: as packed, before and after; `news`: it is not known that this
    process heard all there was of it.
    """

    counts: Counts
    rare: Pairs
    bins: tuple[bytes, bytes]
    standing: Standing
    news: bool


@dataclass(slots=True, kw_only=True)
class Visit:
    """One report being taken: whose it is, and what it is held against."""

    ledger: Ledger
    reporter: Reporter
    life: Incarnation
    incarnation: str
    now: float
    known: Container[str]
    look: Callable[[str], Known]
    room: Room
    changes: Changes | None

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
        if self._began(cell) > self.now + FUTURE_SECONDS:
            return refusals.FUTURE_BUCKET
        if not possible(cell):
            return refusals.IMPOSSIBLE
        if rows is not None and index >= 0:
            return refusals.BACKWARDS if rows.runs_backwards(index, cell) else None
        if self.look(cell.uid).to_come(cell.generation):
            return refusals.FUTURE_GENERATION
        return None

    def _began(self, cell: Cell) -> float:
        return cell.bucket * cell.family + self.life.offset

    def _grow(
        self, cell: Cell, rows: CellRows | None, index: int, *, replay: bool
    ) -> Growth | str | None:
        """Count what is new in a cell; None if nothing is, or if it is too old; or why not."""
        oldest = int(self.now // cell.family) - _SPANS[cell.family] + 1
        if rows is None or index < 0:
            grown = self._first(cell, oldest)
        else:
            grown = self._further(cell, rows, index, oldest)
        if not isinstance(grown, _Grown) or grown.counts.empty:
            return grown if isinstance(grown, str) else None
        uid, model = intern(cell.uid), grown.standing.model
        key = CellKey(cell.family, cell.bucket, uid, model, cell.generation)
        if self.changes is not None:
            self.changes.cells.add((self.incarnation, cell.family, cell.bucket))
        self._count(key, grown)
        # What is first heard of a bucket that began before us was counted by another process.
        earlier = grown.news and self._began(cell) < self.ledger.started
        return Growth(key, grown.counts, earlier or replay)

    def _first(self, cell: Cell, oldest: int) -> _Grown | str | None:
        """Keep a new cell."""
        # The middle of the bucket decides, so that a small change of offset moves nothing.
        placed = int((self._began(cell) + cell.family / 2) // cell.family)
        if placed < oldest:
            return None
        uid = intern(cell.uid)
        model = self.look(uid).counted_as(cell.model, self.reporter.of(uid))
        standing = Standing(placed - cell.bucket, intern(model))
        reason = self._full(cell, standing)
        if reason is not None:
            return reason
        key = CellKey(cell.family, cell.bucket, uid, intern(cell.model), cell.generation)
        rows, index = self.life.open(key, standing)
        counts, rare = rows.raise_to(index, cell)
        return _Grown(counts, rare, (b"", rows.bins_of(index)), standing, news=True)

    def _further(self, cell: Cell, rows: CellRows, index: int, oldest: int) -> _Grown | None:
        """Let a cell grow."""
        standing = rows.stands(cell.bucket)
        if cell.bucket + standing.shift < oldest:
            return None
        before = rows.bins_of(index)
        counts, rare = rows.raise_to(index, cell)
        news = self.reporter.restored and not self.reporter.complete
        return _Grown(counts, rare, (before, rows.bins_of(index)), standing, news)

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

    def _count(self, key: CellKey, grown: _Grown) -> None:
        """Add to the windows, and note a later failure than any before."""
        series = self.ledger.series_of(self.reporter, key.uid, key.model)
        # The window of hours is shared by all reporters: none may fill it with generations.
        generation = 0 if key.family == _HOUR else key.generation
        placed = key.bucket + grown.standing.shift
        window = series.window(key.family)
        window.grow(placed, generation, grown.counts, grown.rare, grown.bins)
        if grown.counts.errors:
            began = key.bucket * key.family + self.life.offset
            # A fine bucket says when it failed, a coarse one only that it did since its begin.
            failed = min(self.now, began + key.family) if key.family == _TEN else began
            if failed > (series.whole.last_failure or 0.0):
                series.whole.last_failure = failed
                if self.ledger.journal is not None:
                    self.ledger.journal.failed(key.uid, key.model)
