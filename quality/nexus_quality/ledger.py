"""What the fleet reported: cells merged per reporter, windows per (reporter, backend, model).

Promises a join: reports in any order, any number of times, give the same counters as each outcome
counted once. A bucket is put on the operator's clock once, by the smallest offset seen of its
incarnation, so that no wall clock of a reporter matters. What cannot be, or would take more than a
reporter's room, is refused by name. It judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from copy import copy
from dataclasses import dataclass, field
from sys import intern
from typing import Any, NamedTuple

from nexus_quality import refusals
from nexus_quality.counts import Counts
from nexus_quality.limits import (
    MAX_ENDED,
    MAX_INCARNATIONS,
    MAX_KEPT,
    MAX_SERIES,
    Known,
    Room,
    possible,
    possible_pulse,
)
from nexus_quality.report import Cell, CellKey, Pulse, Refusal, Report
from nexus_quality.window import Family, Window

FORGET_SECONDS = 25 * 3600.0
FUTURE_SECONDS = 2.0
SILENT_SECONDS = 90.0
_FAMILIES = {int(family): family for family in Family}


@dataclass(slots=True)
class Whole:
    """One (backend, model) over all reporters: the windows of any generation added up.

    It is as of the last `expire` of each of them. `last_failure`: epoch seconds.
    """

    hour: Counts = field(default_factory=Counts)
    day: Counts = field(default_factory=Counts)
    last_failure: float | None = None


class Series:
    """One (backend, model) at one reporter: a window per family, each adding to the whole."""

    __slots__ = ("last_failure", "whole", "windows")

    def __init__(self, whole: Whole | None = None) -> None:
        self.whole = Whole() if whole is None else whole
        sums = {Family.MINUTE: self.whole.hour, Family.HOUR: self.whole.day}
        self.windows = {family: Window(family, sums.get(family)) for family in Family}
        self.last_failure: float | None = None

    def expire(self, now: float) -> None:
        """Let old buckets go."""
        for window in self.windows.values():
            window.expire(now)


@dataclass(slots=True)
class Incarnation:
    """One life of a reporter: its clock's offset to ours, and the cells taken so far.

    `pulses` are those of its latest report, by backend and model; `told_ms` is when it made that.
    `cells`: each with its bucket on our clock.
    """

    offset: float
    heard: float
    told_ms: int = 0
    pulses: dict[str, dict[str, Pulse]] = field(default_factory=dict)
    cells: dict[CellKey, tuple[int, Cell]] = field(default_factory=dict)


@dataclass(slots=True)
class Reporter:
    """One pod or service account; its incarnations are one reporter to every quorum.

    `complete`: it has sent all it has at least once. `gone`: it has said goodbye. `ended`: its
    incarnations that made room for later ones, whose cells are not known any more. `series`: by
    backend and model. `derived`: what others worked out of a backend's series and pulses, dropped
    when those change.
    """

    name: str
    heard: float = 0.0
    complete: bool = False
    gone: bool = False
    incarnations: dict[str, Incarnation] = field(default_factory=dict)
    ended: dict[str, None] = field(default_factory=dict)
    series: dict[str, dict[str, Series]] = field(default_factory=dict)
    derived: dict[str, dict[tuple[object, ...], Any]] = field(default_factory=dict)

    def of(self, uid: str) -> Mapping[str, Series]:
        """The series of a backend by model."""
        return self.series.get(uid, _NO_SERIES)

    def room(self) -> Room:
        """What it may still add."""
        return Room(
            cells=MAX_KEPT - sum(len(life.cells) for life in self.incarnations.values()),
            series=MAX_SERIES - sum(len(models) for models in self.series.values()),
        )


_NO_SERIES: Mapping[str, Series] = {}
_NOBODY: Mapping[str, Reporter] = {}
_NO_WHOLES: Mapping[str, Whole] = {}


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


def anything(_: str) -> Known:
    """Nothing is known of a backend, so nothing of it is held against a report."""
    return _ANYTHING


_ANYTHING = Known()


class Ledger:
    """All reporters of a fleet, kept since `started`. `now` is the operator's clock in seconds."""

    def __init__(self, started: float = 0.0) -> None:
        self.started = started
        self.reporters: dict[str, Reporter] = {}
        self._users: dict[str, dict[str, Reporter]] = {}
        self._wholes: dict[str, dict[str, Whole]] = {}

    def users(self, uid: str) -> Mapping[str, Reporter]:
        """The reporters that ever counted anything of a backend, by name."""
        return self._users.get(uid, _NOBODY)

    def whole(self, uid: str, now: float) -> Mapping[str, Whole]:
        """The sums of a backend over all reporters at `now`, by model."""
        for reporter in self.users(uid).values():
            for series in reporter.of(uid).values():
                series.expire(now)
        return self._wholes.get(uid, _NO_WHOLES)

    def take(
        self,
        name: str,
        report: Report,
        now: float,
        known: Container[str],
        look: Callable[[str], Known] = anything,
    ) -> Taken:
        """Merge a report by the reporter `name`.

        `known`: uids of the backends there are; `look`: what there is of one of them.
        """
        reporter = self.reporters.setdefault(name, Reporter(name))
        reporter.heard = now
        life = _incarnation(reporter, report, now)
        if isinstance(life, Refusal):
            return Taken((), (life,), frozenset())
        reporter.gone = report.final
        if report.full and not reporter.complete:
            reporter.complete = True
            reporter.derived.clear()
        visit = _Visit(reporter, life, now, known, look, reporter.room())
        growth: list[Growth] = []
        refused: dict[Refusal, None] = {}
        for cell in report.cells:
            place = (cell.family, cell.bucket, cell.uid, cell.model, cell.generation)
            taken = life.cells.get(place)  # type: ignore[call-overload]
            if taken is not None and taken[1] == cell:
                continue
            reason = _refusal(cell, taken, visit)
            grown = self._grow(visit, cell, taken) if reason is None else reason
            if isinstance(grown, str):
                refused[Refusal(uid=cell.uid, reason=grown)] = None
            elif grown is not None:
                growth.append(grown._replace(replayed=True) if report.replay else grown)
        pulsed = _take_pulses(report, visit, refused)
        touched = frozenset(g.cell.uid for g in growth) | pulsed
        for uid in touched:
            reporter.derived.pop(uid, None)
        return Taken(tuple(growth), tuple(refused), touched)

    def _grow(
        self, visit: _Visit, cell: Cell, taken: tuple[int, Cell] | None
    ) -> Growth | str | None:
        """Count what is new in a cell; None if nothing is, or if it is too old; or why not."""
        life, now = visit.life, visit.now
        key = CellKey(
            cell.family, cell.bucket, intern(cell.uid), intern(cell.model), cell.generation
        )
        bucket = _placed(life, key) if taken is None else taken[0]
        if bucket < _FAMILIES[key.family].oldest(now):
            return None
        counted = visit.counted_as(key)
        # What is first heard of a bucket that began before us was counted by another process.
        earlier = taken is None and _began(life, key) < self.started
        grown: Counts
        if taken is None:
            reason = visit.full(counted, bucket)
            if reason is not None:
                return reason
            grown = _kept(cell, key)
            life.cells[key] = (bucket, grown)
        else:
            grown = taken[1].grow_to(cell)
        if grown.empty:
            return None
        _count(self._series(visit.reporter, counted), life, counted, bucket, grown, now)
        return Growth(counted, grown, earlier)

    def _series(self, reporter: Reporter, key: CellKey) -> Series:
        models = reporter.series.get(key.uid)
        if models is None:
            models = reporter.series[key.uid] = {}
            self._users.setdefault(key.uid, {})[reporter.name] = reporter
        series = models.get(key.model)
        if series is None:
            wholes = self._wholes.setdefault(key.uid, {})
            series = models[key.model] = Series(wholes.setdefault(key.model, Whole()))
        return series

    def expire(self, now: float) -> None:
        """Forget what left the windows, and reporters silent for longer than they reach."""
        for reporter in self.reporters.values():
            for models in reporter.series.values():
                for series in models.values():
                    series.expire(now)
            for life in reporter.incarnations.values():
                _expire_cells(life, now)
            for incarnation in [
                incarnation
                for incarnation, life in reporter.incarnations.items()
                if now - life.heard > FORGET_SECONDS
            ]:
                del reporter.incarnations[incarnation]
        # Their windows are empty by now: nothing of them is left in a sum.
        for name in [n for n, r in self.reporters.items() if now - r.heard > FORGET_SECONDS]:
            for uid in self.reporters.pop(name).series:
                del self._users[uid][name]

    def forget(self, uid: str) -> None:
        """Drop all that was reported of a backend that is gone."""
        self._users.pop(uid, None)
        self._wholes.pop(uid, None)
        for reporter in self.reporters.values():
            reporter.series.pop(uid, None)
            reporter.derived.pop(uid, None)
            for life in reporter.incarnations.values():
                life.pulses.pop(uid, None)
                for cell in [cell for cell in life.cells if cell.uid == uid]:
                    del life.cells[cell]


def _began(life: Incarnation, key: CellKey) -> float:
    return key.bucket * key.family + life.offset


def _placed(life: Incarnation, key: CellKey) -> int:
    """The bucket on our clock of a cell not seen before."""
    # The middle of the bucket decides, so that a small change of offset moves nothing.
    middle = _began(life, key) + key.family / 2
    return int(middle // key.family)


def _kept(cell: Cell, key: CellKey) -> Cell:
    """A copy to keep: the cell may be a live one, and its strings are one of many."""
    kept = copy(cell)
    kept.uid, kept.model, kept.ttft_bins = key.uid, key.model, dict(cell.ttft_bins)
    return kept


def _count(
    series: Series, life: Incarnation, key: CellKey, bucket: int, growth: Counts, now: float
) -> None:
    series.windows[_FAMILIES[key.family]].add(bucket, key.generation, growth)
    if growth.errors:
        began = _began(life, key)
        # A fine bucket says when it failed, a coarse one only that it did since its begin.
        fine = key.family == Family.TEN_SECONDS
        failed = min(now, began + key.family) if fine else began
        series.last_failure = max(series.last_failure or 0.0, failed)
        series.whole.last_failure = max(series.whole.last_failure or 0.0, failed)


def _take_pulses(report: Report, visit: _Visit, refused: dict[Refusal, None]) -> frozenset[str]:
    """Put the report's pulses in the place of those before, unless it was overtaken."""
    life = visit.life
    if report.now_ms < life.told_ms:
        return frozenset()
    before, life.told_ms, life.pulses = life.pulses, report.now_ms, {}
    for pulse in () if report.final else report.pulses:
        if pulse.uid not in visit.known:
            continue
        known = visit.look(pulse.uid)
        if known.to_come(pulse.generation) or not possible_pulse(pulse, report.now_ms):
            refused[Refusal(uid=pulse.uid, reason=refusals.IMPOSSIBLE)] = None
            continue
        pulses = life.pulses.setdefault(pulse.uid, {})
        pulses[known.counted_as(pulse.model, pulses) if pulse.model else ""] = pulse
    return frozenset(before) | frozenset(life.pulses)


def _expire_cells(life: Incarnation, now: float) -> None:
    for key in [
        key
        for key, (bucket, _) in life.cells.items()
        if (bucket + _FAMILIES[key.family].span + 1) * key.family < now
    ]:
        del life.cells[key]


def _refusal(cell: Cell, taken: tuple[int, Cell] | None, visit: _Visit) -> str | None:
    """Why a cell cannot be, None if it can."""
    if cell.uid not in visit.known:
        return refusals.UNKNOWN_BACKEND
    if cell.family not in _FAMILIES:
        return f"{refusals.UNKNOWN_FAMILY} {cell.family}"
    if cell.bucket * cell.family + visit.life.offset > visit.now + FUTURE_SECONDS:
        return refusals.FUTURE_BUCKET
    if not possible(cell):
        return refusals.IMPOSSIBLE
    if taken is not None:
        return refusals.BACKWARDS if taken[1].runs_backwards(cell) else None
    return refusals.FUTURE_GENERATION if visit.look(cell.uid).to_come(cell.generation) else None


@dataclass(frozen=True, slots=True)
class _Visit:
    """One report being taken: whose it is, and what it is held against."""

    reporter: Reporter
    life: Incarnation
    now: float
    known: Container[str]
    look: Callable[[str], Known]
    room: Room

    def counted_as(self, key: CellKey) -> CellKey:
        """The key of the series that a cell counts for."""
        model = self.look(key.uid).counted_as(key.model, self.reporter.of(key.uid))
        return key if model == key.model else key._replace(model=model)

    def full(self, counted: CellKey, bucket: int) -> str | None:
        """Why there is no room for a new cell, None if there is."""
        series = self.reporter.of(counted.uid).get(counted.model)
        if series is None:
            return self.room.refusal(new_series=True, generations=0)
        window = series.windows[_FAMILIES[counted.family]]
        generations = window.generations(bucket, counted.generation)
        return self.room.refusal(new_series=False, generations=generations)


def _incarnation(reporter: Reporter, report: Report, now: float) -> Incarnation | Refusal:
    """The life that a report speaks of; a new one may take the place of one that is silent."""
    offset = now - report.now_ms / 1000
    lives = reporter.incarnations
    life = lives.get(report.incarnation)
    if life is None:
        if report.incarnation in reporter.ended:
            return Refusal(reason=refusals.ENDED_INCARNATION)
        if len(lives) >= MAX_INCARNATIONS and not _end_one(reporter, now):
            return Refusal(reason=refusals.TOO_MANY_INCARNATIONS)
        life = lives[report.incarnation] = Incarnation(offset, now)
    life.offset, life.heard = min(life.offset, offset), now
    return life


def _end_one(reporter: Reporter, now: float) -> bool:
    """Forget the cells of the incarnation that was silent for longest; False if none is silent.

    What it counted stays. What it still had to say is lost, and never counted twice.
    """
    lives = reporter.incarnations
    oldest = min(lives, key=lambda incarnation: lives[incarnation].heard)
    if now - lives[oldest].heard <= SILENT_SECONDS:
        return False
    del lives[oldest]
    reporter.ended[oldest] = None
    while len(reporter.ended) > MAX_ENDED:
        del reporter.ended[next(iter(reporter.ended))]
    return True
