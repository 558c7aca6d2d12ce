"""What the fleet reported: cells merged per reporter, windows per (reporter, backend, model).

Promises a join: reports in any order, any number of times, give the same counters as each outcome
counted once. A bucket is put on the operator's clock once, by the smallest offset seen of its
incarnation, so that no wall clock of a reporter matters. It judges nothing.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from copy import copy
from dataclasses import dataclass, field
from sys import intern
from typing import Any, NamedTuple

from nexus_quality.counts import Counts
from nexus_quality.report import Cell, CellKey, Pulse, Refusal, Report
from nexus_quality.window import Family, Window

FORGET_SECONDS = 25 * 3600.0
FUTURE_SECONDS = 2.0
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

    `complete`: it has sent all it has at least once. `gone`: it has said goodbye. `series`: by
    backend and model. `derived`: what others worked out of a backend's series and pulses, dropped
    when those change.
    """

    name: str
    heard: float = 0.0
    complete: bool = False
    gone: bool = False
    incarnations: dict[str, Incarnation] = field(default_factory=dict)
    series: dict[str, dict[str, Series]] = field(default_factory=dict)
    derived: dict[str, dict[tuple[object, ...], Any]] = field(default_factory=dict)

    def of(self, uid: str) -> Mapping[str, Series]:
        """The series of a backend by model."""
        return self.series.get(uid, _NO_SERIES)


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

    def take(self, name: str, report: Report, now: float, known: Container[str]) -> Taken:
        """Merge a report by the reporter `name`; `known`: uids of the backends there are."""
        reporter = self.reporters.setdefault(name, Reporter(name))
        reporter.heard, reporter.gone = now, report.final
        if report.full and not reporter.complete:
            reporter.complete = True
            reporter.derived.clear()
        life = self._incarnation(reporter, report, now)
        growth: list[Growth] = []
        refused: dict[Refusal, None] = {}
        for cell in report.cells:
            place = (cell.family, cell.bucket, cell.uid, cell.model, cell.generation)
            taken = life.cells.get(place)  # type: ignore[call-overload]
            if taken is not None and taken[1] == cell:
                continue
            refusal = _refusal(cell, taken, life, now, known)
            if refusal is not None:
                refused[refusal] = None
                continue
            grown = self._grow(reporter, life, cell, taken, now)
            if grown is not None:
                growth.append(grown._replace(replayed=True) if report.replay else grown)
        pulsed = _take_pulses(life, report, known)
        touched = frozenset(g.cell.uid for g in growth) | pulsed
        for uid in touched:
            reporter.derived.pop(uid, None)
        return Taken(tuple(growth), tuple(refused), touched)

    def _grow(
        self,
        reporter: Reporter,
        life: Incarnation,
        cell: Cell,
        taken: tuple[int, Cell] | None,
        now: float,
    ) -> Growth | None:
        """Count what is new in a cell; None if nothing is, or if it is too old."""
        key = CellKey(
            cell.family, cell.bucket, intern(cell.uid), intern(cell.model), cell.generation
        )
        bucket = _placed(life, key) if taken is None else taken[0]
        if bucket < _FAMILIES[key.family].oldest(now):
            return None
        # What is first heard of a bucket that began before us was counted by another process.
        earlier = taken is None and _began(life, key) < self.started
        grown: Counts
        if taken is None:
            grown = _kept(cell, key)
            life.cells[key] = (bucket, grown)
        else:
            grown = taken[1].grow_to(cell)
        if grown.empty:
            return None
        _count(self._series(reporter, key), life, key, bucket, grown, now)
        return Growth(key, grown, earlier)

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

    def _incarnation(self, reporter: Reporter, report: Report, now: float) -> Incarnation:
        offset = now - report.now_ms / 1000
        life = reporter.incarnations.get(report.incarnation)
        if life is None:
            life = reporter.incarnations[report.incarnation] = Incarnation(offset, now)
        life.offset, life.heard = min(life.offset, offset), now
        return life

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


def _take_pulses(life: Incarnation, report: Report, known: Container[str]) -> frozenset[str]:
    """Put the report's pulses in the place of those before, unless it was overtaken."""
    if report.now_ms < life.told_ms:
        return frozenset()
    before, life.told_ms, life.pulses = life.pulses, report.now_ms, {}
    for pulse in () if report.final else report.pulses:
        if pulse.uid in known:
            life.pulses.setdefault(pulse.uid, {})[pulse.model] = pulse
    return frozenset(before) | frozenset(life.pulses)


def _expire_cells(life: Incarnation, now: float) -> None:
    for key in [
        key
        for key, (bucket, _) in life.cells.items()
        if (bucket + _FAMILIES[key.family].span + 1) * key.family < now
    ]:
        del life.cells[key]


def _refusal(
    cell: Cell,
    taken: tuple[int, Cell] | None,
    life: Incarnation,
    now: float,
    known: Container[str],
) -> Refusal | None:
    if cell.uid not in known:
        return Refusal(uid=cell.uid, reason="unknown backend")
    if cell.family not in _FAMILIES:
        return Refusal(uid=cell.uid, reason=f"unknown bucket family {cell.family}")
    if cell.bucket * cell.family + life.offset > now + FUTURE_SECONDS:
        return Refusal(uid=cell.uid, reason="a bucket in the future")
    if not cell.valid:
        return Refusal(uid=cell.uid, reason="numbers that cannot be")
    if taken is not None and taken[1].runs_backwards(cell):
        return Refusal(uid=cell.uid, reason="a number that runs backwards")
    return None
