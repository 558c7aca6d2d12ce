"""What the fleet reported: cells merged per reporter, windows per (reporter, backend, model).

Promises a join: reports in any order, any number of times, give the same counters as each outcome
counted once. A bucket is put on the operator's clock once, by the smallest offset seen of its
incarnation, so that no wall clock of a reporter matters. It judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from nexus_quality.counts import NUMBERS, Counts
from nexus_quality.report import Cell, CellKey, Pulse, Refusal, Report
from nexus_quality.window import Family, Window

FORGET_SECONDS = 25 * 3600.0
FUTURE_SECONDS = 2.0
_FAMILIES = {int(family): family for family in Family}


class Series:
    """One (backend, model) at one reporter: a window per family, and its pulse."""

    __slots__ = ("last_failure", "pulse", "pulse_at", "windows")

    def __init__(self) -> None:
        self.windows = {family: Window(family) for family in Family}
        self.pulse: Pulse | None = None
        self.pulse_at = 0.0
        self.last_failure: float | None = None

    def expire(self, now: float) -> None:
        """Let old buckets go."""
        for window in self.windows.values():
            window.expire(now)


@dataclass(slots=True)
class Incarnation:
    """One life of a reporter: its clock's offset to ours, and the cells taken so far."""

    offset: float
    heard: float
    cells: dict[CellKey, tuple[int, Counts]] = field(default_factory=dict)


@dataclass(slots=True)
class Reporter:
    """One pod or service account; its incarnations are one reporter to every quorum."""

    name: str
    heard: float = 0.0
    gone: bool = False
    incarnations: dict[str, Incarnation] = field(default_factory=dict)
    series: dict[tuple[str, str], Series] = field(default_factory=dict)

    def of(self, uid: str) -> Iterator[tuple[str, Series]]:
        """The (model, series) of a backend."""
        for (backend, model), series in self.series.items():
            if backend == uid:
                yield model, series


@dataclass(frozen=True, slots=True)
class Growth:
    """What a report added: per cell, and whether the operator saw it for the first time."""

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
    """All reporters of a fleet. `now` is the operator's clock in seconds."""

    def __init__(self) -> None:
        self.reporters: dict[str, Reporter] = {}

    def take(self, name: str, report: Report, now: float, known: Iterable[str]) -> Taken:
        """Merge a report by the reporter `name`; `known`: uids of the backends there are."""
        reporter = self.reporters.setdefault(name, Reporter(name))
        reporter.heard, reporter.gone = now, report.final
        life = self._incarnation(reporter, report, now)
        backends = frozenset(known)
        growth: list[Growth] = []
        refused: dict[Refusal, None] = {}
        for cell in report.cells:
            refusal = _refusal(cell, life, now, backends)
            if refusal is not None:
                refused[refusal] = None
            elif (grown := self._merge(reporter, life, cell, now)) is not None:
                growth.append(Growth(cell.key, grown, report.replay))
        pulsed = self._pulses(reporter, report, now, backends)
        touched = frozenset(g.cell.uid for g in growth) | pulsed
        return Taken(tuple(growth), tuple(refused), touched)

    def _incarnation(self, reporter: Reporter, report: Report, now: float) -> Incarnation:
        offset = now - report.now_ms / 1000
        life = reporter.incarnations.get(report.incarnation)
        if life is None:
            life = reporter.incarnations[report.incarnation] = Incarnation(offset, now)
        life.offset, life.heard = min(life.offset, offset), now
        return life

    def _merge(
        self, reporter: Reporter, life: Incarnation, cell: Cell, now: float
    ) -> Counts | None:
        family = _FAMILIES[cell.family]
        taken = life.cells.get(cell.key)
        if taken is None:
            # The middle of the bucket decides, so that a small change of offset moves nothing.
            middle = (cell.bucket + 0.5) * family + life.offset
            taken = life.cells[cell.key] = (int(middle // family), Counts())
        bucket, so_far = taken
        growth = so_far.grow_to(cell)
        if growth.empty:
            return None
        series = reporter.series.setdefault((cell.uid, cell.model), Series())
        window = series.windows[family]
        if bucket >= window.oldest(now):
            window.add(bucket, cell.generation, growth)
        if growth.errors and family is Family.TEN_SECONDS:
            ended = min(now, (cell.bucket + 1) * family + life.offset)
            series.last_failure = max(series.last_failure or 0.0, ended)
        elif growth.errors:
            began = cell.bucket * family + life.offset
            series.last_failure = max(series.last_failure or 0.0, began)
        return growth

    def _pulses(
        self, reporter: Reporter, report: Report, now: float, known: frozenset[str]
    ) -> frozenset[str]:
        touched = set()
        for pulse in report.pulses:
            if pulse.uid in known:
                series = reporter.series.setdefault((pulse.uid, pulse.model), Series())
                series.pulse, series.pulse_at = pulse, now
                touched.add(pulse.uid)
        return frozenset(touched)

    def expire(self, now: float) -> None:
        """Forget what left the windows, and reporters silent for longer than they reach."""
        for name in [n for n, r in self.reporters.items() if now - r.heard > FORGET_SECONDS]:
            del self.reporters[name]
        for reporter in self.reporters.values():
            for series in reporter.series.values():
                series.expire(now)
            for life in reporter.incarnations.values():
                _expire_cells(life, now)

    def forget(self, uid: str) -> None:
        """Drop all that was reported of a backend that is gone."""
        for reporter in self.reporters.values():
            for key in [key for key in reporter.series if key[0] == uid]:
                del reporter.series[key]


def _expire_cells(life: Incarnation, now: float) -> None:
    for key in [
        key
        for key, (bucket, _) in life.cells.items()
        if (bucket + _FAMILIES[key.family].span + 1) * key.family < now
    ]:
        del life.cells[key]


def _refusal(cell: Cell, life: Incarnation, now: float, known: frozenset[str]) -> Refusal | None:
    if cell.uid not in known:
        return Refusal(uid=cell.uid, reason="unknown backend")
    if cell.family not in _FAMILIES:
        return Refusal(uid=cell.uid, reason=f"unknown bucket family {cell.family}")
    if cell.bucket * cell.family + life.offset > now + FUTURE_SECONDS:
        return Refusal(uid=cell.uid, reason="a bucket in the future")
    if not cell.valid:
        return Refusal(uid=cell.uid, reason="numbers that cannot be")
    if _runs_backwards(cell, life):
        return Refusal(uid=cell.uid, reason="a number that runs backwards")
    return None


def _runs_backwards(cell: Cell, life: Incarnation) -> bool:
    """True if some number rose and another fell: no single order of reports explains that."""
    taken = life.cells.get(cell.key)
    if taken is None:
        return False
    pairs = [(getattr(cell, name), getattr(taken[1], name)) for name in NUMBERS]
    return any(new > old for new, old in pairs) and any(new < old for new, old in pairs)
