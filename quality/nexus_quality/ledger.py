"""What the fleet reported: cells merged per reporter, windows per (reporter, backend, model).

Promises a join: reports in any order, any number of times, give the same counters as each outcome
counted once. A bucket is put on the operator's clock once, by the smallest offset seen of its
incarnation, so that no wall clock of a reporter matters. What cannot be, or would take more than a
reporter's room, is refused by name. What will not grow any more is sealed (`sealing`); a `journal`,
if there is one, is told of all that should outlive the process. It judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cache
from sys import intern
from typing import Any, NamedTuple

from nexus_quality import refusals
from nexus_quality.counts import Counts
from nexus_quality.journal import Changes, Journal
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
from nexus_quality.sealing import expire, seal, seal_by_force
from nexus_quality.window import Family, Window

FORGET_SECONDS = 25 * 3600.0
FUTURE_SECONDS = 2.0
SILENT_SECONDS = 90.0
JUMP_SECONDS = 60.0
_FAMILIES = {int(family): family for family in Family}


@dataclass(slots=True)
class Whole:
    """One (backend, model) over all reporters: the windows of any generation added up.

    It is as of the last `expire` of each of them. `days`: the window behind `day`, which
    knows no reporters and no generations, since no verdict looks back so far. `last_failure`: epoch
    seconds.
    """

    hour: Counts = field(default_factory=Counts)
    day: Counts = field(default_factory=Counts)
    days: Window = field(init=False)
    last_failure: float | None = None

    def __post_init__(self) -> None:
        self.days = Window(Family.HOUR, self.day)


class Series:
    """One (backend, model) at one reporter: a window per family, each adding to the whole.

    That of hours is the whole's own.
    """

    __slots__ = ("whole", "windows")

    def __init__(self, whole: Whole | None = None) -> None:
        self.whole = Whole() if whole is None else whole
        self.windows = {
            Family.TEN_SECONDS: Window(Family.TEN_SECONDS),
            Family.MINUTE: Window(Family.MINUTE, self.whole.hour),
            Family.HOUR: self.whole.days,
        }

    def expire(self, now: float) -> None:
        """Let old buckets go."""
        for window in self.windows.values():
            window.expire(now)


class Kept(NamedTuple):
    """A cell that may still grow. `placed`: its bucket on our clock; `model`: it counts as this."""

    placed: int
    counts: Cell
    model: str


@dataclass(slots=True)
class Incarnation:
    """One life of a reporter: its clock's offset to ours, and the cells that are not sealed.

    `pulses` are those of its latest report, by backend and model; `told_ms` is when it made that;
    `settled_ms`: up to then it has told this process everything. `sealed`: the last sealed bucket
    by family. `buckets`: the cells again, by family and bucket. `restored`: known from a store.
    """

    offset: float
    heard: float
    told_ms: int = 0
    settled_ms: int = 0
    restored: bool = False
    pulses: dict[str, dict[str, Pulse]] = field(default_factory=dict)
    cells: dict[CellKey, Kept] = field(default_factory=dict)
    sealed: dict[int, int] = field(default_factory=dict)
    buckets: dict[int, dict[int, list[CellKey]]] = field(default_factory=dict)

    def keep(self, key: CellKey, kept: Kept) -> None:
        """Remember a new cell."""
        self.cells[key] = kept
        self.buckets.setdefault(key.family, {}).setdefault(key.bucket, []).append(key)


@dataclass(slots=True)
class Reporter:
    """One pod or service account; its incarnations are one reporter to every quorum.

    `complete`: it has sent all it has at least once. `gone`: it has said goodbye. `ended`: its
    incarnations that made room for later ones, whose cells are not known any more. `restored`: it
    is known from a store; `awaited`: and was alive then. `series`: by backend and model. `derived`:
    what others worked out of a backend's series and pulses, dropped when those change.
    """

    name: str
    heard: float = 0.0
    complete: bool = False
    gone: bool = False
    restored: bool = False
    awaited: bool = False
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
        self.restored = False
        self.journal: Journal | None = None
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
        wholes = self.wholes(uid)
        for one in wholes.values():
            one.days.expire(now)
        return wholes

    def wholes(self, uid: str) -> Mapping[str, Whole]:
        """The sums of a backend by model, as of the last look at them."""
        return self._wholes.get(uid, _NO_WHOLES)

    def uids(self) -> list[str]:
        """The backends of which anything is known."""
        return list(self._wholes)

    def awaits(self, uid: str) -> bool:
        """Whether a user of a backend that was alive in the store has not yet repeated itself."""
        return any(
            user.awaited and not (user.complete or user.gone) for user in self.users(uid).values()
        )

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
        life = self._incarnation(reporter, report, now)
        if isinstance(life, Refusal):
            return Taken((), (life,), frozenset())
        reporter.gone = report.final
        if report.full and not reporter.complete:
            reporter.complete = True
            reporter.derived.clear()
        changes = None if self.journal is None else self.journal.of(name)
        visit = _Visit(
            reporter, life, report.incarnation, now, known, cache(look), reporter.room(), changes
        )
        growth: list[Growth] = []
        refused: dict[Refusal, None] = {}
        for cell in report.cells:
            place = (cell.family, cell.bucket, cell.uid, cell.model, cell.generation)
            taken = life.cells.get(place)  # type: ignore[call-overload]
            if taken is not None:
                if taken.counts == cell:
                    continue
            elif cell.bucket <= life.sealed.get(cell.family, -1):
                continue
            reason = _refusal(cell, taken, visit)
            grown = self._grow(visit, cell, taken) if reason is None else reason
            if isinstance(grown, str):
                refused[Refusal(uid=cell.uid, reason=grown)] = None
            elif grown is not None:
                growth.append(grown._replace(replayed=True) if report.replay else grown)
        if report.full or (report.final and life.settled_ms):
            life.settled_ms = max(life.settled_ms, report.now_ms)
        pulsed = _take_pulses(report, visit, refused)
        if changes is not None:
            changes.lives.add(report.incarnation)
        touched = frozenset(g.cell.uid for g in growth) | pulsed
        for uid in touched:
            reporter.derived.pop(uid, None)
        return Taken(tuple(growth), tuple(refused), touched)

    def _grow(self, visit: _Visit, cell: Cell, taken: Kept | None) -> Growth | str | None:
        """Count what is new in a cell; None if nothing is, or if it is too old; or why not."""
        life, now = visit.life, visit.now
        key = CellKey(
            cell.family, cell.bucket, intern(cell.uid), intern(cell.model), cell.generation
        )
        bucket = _placed(life, key) if taken is None else taken.placed
        if bucket < _FAMILIES[key.family].oldest(now):
            return None
        counted = visit.counted_as(key, taken)
        # What is first heard of a bucket that began before us was counted by another process.
        earlier = visit.news(taken) and _began(life, key) < self.started
        grown: Counts
        if taken is None:
            reason = visit.full(counted, bucket)
            if reason is not None:
                return reason
            life.keep(key, Kept(bucket, _kept(cell, key), counted.model))
            grown = life.cells[key].counts
        else:
            grown = taken.counts.grow_to(cell)
        if grown.empty:
            return None
        if visit.changes is not None:
            visit.changes.cells.add((visit.incarnation, key.family, key.bucket))
        series = self.series_of(visit.reporter, counted.uid, counted.model)
        if _count(series, life, counted, bucket, grown, now) and self.journal is not None:
            self.journal.failed(counted.uid, counted.model)
        return Growth(counted, grown, earlier)

    def series_of(self, reporter: Reporter, uid: str, model: str) -> Series:
        """The series of a (backend, model) at a reporter, made at its first use."""
        models = reporter.series.get(uid)
        if models is None:
            models = reporter.series[uid] = {}
            self._users.setdefault(uid, {})[reporter.name] = reporter
        series = models.get(model)
        if series is None:
            series = models[model] = Series(self.whole_of(uid, model))
            if self.journal is not None:
                self.journal.of(reporter.name).uses.add((uid, model))
        return series

    def whole_of(self, uid: str, model: str) -> Whole:
        """The sums of a (backend, model), made at its first use."""
        wholes = self._wholes.setdefault(uid, {})
        whole = wholes.get(model)
        if whole is None:
            whole = wholes[model] = Whole()
        return whole

    def _incarnation(self, reporter: Reporter, report: Report, now: float) -> Incarnation | Refusal:
        """The life that a report speaks of; a new one may take the place of one that is silent."""
        offset = now - report.now_ms / 1000
        lives = reporter.incarnations
        life = lives.get(report.incarnation)
        if life is None:
            if report.incarnation in reporter.ended:
                return Refusal(reason=refusals.ENDED_INCARNATION)
            if len(lives) >= MAX_INCARNATIONS and not _end_one(reporter, now, self.journal):
                return Refusal(reason=refusals.TOO_MANY_INCARNATIONS)
            life = lives[report.incarnation] = Incarnation(offset, now)
        if life.restored and report.now_ms > life.told_ms:
            life.restored = False
            if offset - life.offset > JUMP_SECONDS:
                # A new report never takes so long: our clock is not the one it was saved by.
                life.offset = offset
        life.offset, life.heard = min(life.offset, offset), now
        return life

    def expire(self, now: float) -> None:
        """Seal what will not grow; forget what left the windows, and reporters long silent."""
        for _ in self.expiring(now):
            pass

    def expiring(self, now: float) -> Iterator[None]:
        """The same, reporter by reporter; reports may come in between."""
        for reporter in list(self.reporters.values()):
            yield
            for models in reporter.series.values():
                for series in models.values():
                    series.expire(now)
            for incarnation in list(reporter.incarnations):
                seal(reporter, incarnation, now, self.journal)
                expire(reporter, incarnation, now, self.journal)
                if now - reporter.incarnations[incarnation].heard > FORGET_SECONDS:
                    del reporter.incarnations[incarnation]
                    if self.journal is not None:
                        self.journal.of(reporter.name).lives.add(incarnation)
        # Their windows are empty by now: nothing of them is left in a sum.
        for name in [n for n, r in self.reporters.items() if now - r.heard > FORGET_SECONDS]:
            self._forget_reporter(name)

    def _forget_reporter(self, name: str) -> None:
        for uid in self.reporters.pop(name).series:
            del self._users[uid][name]
            if not self._users[uid]:
                del self._users[uid], self._wholes[uid]
        if self.journal is not None:
            self.journal.of(name)

    def forget(self, uid: str) -> None:
        """Drop all that was reported of a backend that is gone."""
        self._users.pop(uid, None)
        self._wholes.pop(uid, None)
        if self.journal is not None:
            self.journal.forget(uid)
        for reporter in self.reporters.values():
            reporter.series.pop(uid, None)
            reporter.derived.pop(uid, None)
            for incarnation, life in reporter.incarnations.items():
                life.pulses.pop(uid, None)
                for cell in [cell for cell in life.cells if cell.uid == uid]:
                    del life.cells[cell]
                    if self.journal is not None:
                        changes = self.journal.of(reporter.name)
                        changes.cells.add((incarnation, cell.family, cell.bucket))


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
) -> bool:
    """Add to the windows; True if that was a later failure than any before."""
    family = _FAMILIES[key.family]
    # The window of hours is shared by all reporters: none may fill it with generations.
    generation = 0 if family is Family.HOUR else key.generation
    series.windows[family].add(bucket, generation, growth)
    if growth.errors:
        began = _began(life, key)
        # A fine bucket says when it failed, a coarse one only that it did since its begin.
        fine = key.family == Family.TEN_SECONDS
        failed = min(now, began + key.family) if fine else began
        if failed > (series.whole.last_failure or 0.0):
            series.whole.last_failure = failed
            return True
    return False


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


def _refusal(cell: Cell, taken: Kept | None, visit: _Visit) -> str | None:
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
        return refusals.BACKWARDS if taken.counts.runs_backwards(cell) else None
    return refusals.FUTURE_GENERATION if visit.look(cell.uid).to_come(cell.generation) else None


@dataclass(frozen=True, slots=True)
class _Visit:
    """One report being taken: whose it is, and what it is held against."""

    reporter: Reporter
    life: Incarnation
    incarnation: str
    now: float
    known: Container[str]
    look: Callable[[str], Known]
    room: Room
    changes: Changes | None

    def counted_as(self, key: CellKey, taken: Kept | None) -> CellKey:
        """The key of the series that a cell counts for: once and for all."""
        if taken is not None:
            model = taken.model
        else:
            model = self.look(key.uid).counted_as(key.model, self.reporter.of(key.uid))
        return key if model == key.model else key._replace(model=model)

    def news(self, taken: Kept | None) -> bool:
        """Whether this process cannot have heard all that there was of a cell."""
        return taken is None or (self.reporter.restored and not self.reporter.complete)

    def full(self, counted: CellKey, bucket: int) -> str | None:
        """Why there is no room for a new cell, None if there is."""
        series = self.reporter.of(counted.uid).get(counted.model)
        if series is None:
            return self.room.refusal(new_series=True, generations=0)
        window = series.windows[_FAMILIES[counted.family]]
        shared = window.family is Family.HOUR
        generations = 0 if shared else window.generations(bucket, counted.generation)
        return self.room.refusal(new_series=False, generations=generations)


def _end_one(reporter: Reporter, now: float, journal: Journal | None) -> bool:
    """Forget the cells of the incarnation that was silent for longest; False if none is silent.

    What it counted stays. What it still had to say is lost, and never counted twice.
    """
    lives = reporter.incarnations
    oldest = min(lives, key=lambda incarnation: lives[incarnation].heard)
    if now - lives[oldest].heard <= SILENT_SECONDS:
        return False
    seal_by_force(reporter, oldest, journal)
    del lives[oldest]
    reporter.ended[oldest] = None
    while len(reporter.ended) > MAX_ENDED:
        forgotten = next(iter(reporter.ended))
        del reporter.ended[forgotten]
        if journal is not None:
            journal.of(reporter.name).lives.add(forgotten)
    return True
