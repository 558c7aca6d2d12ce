"""What the fleet reported: cells merged per reporter, windows per (reporter, backend, model).

Promises a join: reports in any order, any number of times, give the same counters as each outcome
counted once. A bucket is put on the operator's clock once, by the smallest offset seen of its
incarnation, so that no wall clock of a reporter matters. What cannot be, or would take more than a
reporter's room, is refused by name. What will not grow any more is sealed (`sealing`); a `journal`,
if there is one, is told of all that should outlive the process. It judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from functools import cache

from nexus_quality import refusals
from nexus_quality.journal import Journal
from nexus_quality.limits import MAX_ENDED, MAX_INCARNATIONS, Known
from nexus_quality.lives import Incarnation, Kept
from nexus_quality.report import Refusal, Report
from nexus_quality.reporters import Reporter, Series, Whole
from nexus_quality.sealing import expire, seal, seal_by_force
from nexus_quality.taking import Growth, Taken, Visit

__all__ = [
    "FORGET_SECONDS",
    "Growth",
    "Incarnation",
    "Kept",
    "Ledger",
    "Reporter",
    "Series",
    "Taken",
    "Whole",
]

FORGET_SECONDS = 25 * 3600.0
SILENT_SECONDS = 90.0
JUMP_SECONDS = 60.0
_NOBODY: Mapping[str, Reporter] = {}
_NO_WHOLES: Mapping[str, Whole] = {}


def anything(_: str) -> Known:
    """Nothing is known of a backend, so nothing of it is held against a report."""
    return _ANYTHING


_ANYTHING = Known()


class Ledger:
    """All reporters of a fleet, kept since `started`. `now` is the operator's clock in seconds."""

    def __init__(self, started: float = 0.0) -> None:
        self.started = started
        self.awaiting = False  # it is known who was there before, and is to be heard
        self.journal: Journal | None = None
        self.reporters: dict[str, Reporter] = {}
        self._users: dict[str, dict[str, Reporter]] = {}
        self._wholes: dict[str, dict[str, Whole]] = {}

    def users(self, uid: str) -> Mapping[str, Reporter]:
        """The reporters that ever counted anything of a backend, by name."""
        return self._users.get(uid, _NOBODY)

    def whole(self, uid: str, now: float) -> Mapping[str, Whole]:
        """The sums of a backend over all reporters at `now`, by model."""
        wholes = self.wholes(uid)
        for one in wholes.values():
            one.expire(now)
        return wholes

    def wholes(self, uid: str) -> Mapping[str, Whole]:
        """The sums of a backend by model, as of the last look at them."""
        return self._wholes.get(uid, _NO_WHOLES)

    def uids(self) -> list[str]:
        """The backends of which anything is known."""
        return list(self._wholes)

    def uses(self, name: str) -> list[str]:
        """The backends that a reporter ever counted anything of."""
        reporter = self.reporters.get(name)
        return [] if reporter is None else list(reporter.series)

    def awaits(self, uid: str) -> bool:
        """Whether a user of a backend that is known from before has not yet repeated itself."""
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
        reporter = self.reporters.get(name)
        if reporter is None:
            reporter = self.reporters[name] = Reporter(name)
        reporter.heard = now
        life = self._incarnation(reporter, report, now)
        if isinstance(life, Refusal):
            return Taken((), (life,), frozenset())
        reporter.gone = report.final
        if report.full and not reporter.complete:
            reporter.complete = True
            reporter.derived.clear()
        changes = None if self.journal is None else self.journal.of(name)
        visit = Visit(
            ledger=self,
            reporter=reporter,
            life=life,
            incarnation=report.incarnation,
            now=now,
            known=known,
            look=cache(look),
            room=reporter.room(),
            changes=changes,
        )
        growth, refused = visit.cells(report)
        if report.full or (report.final and life.settled_ms):
            life.settled_ms = max(life.settled_ms, report.now_ms)
        pulsed = visit.pulses(report, refused)
        if changes is not None:
            changes.lives.add(report.incarnation)
        touched = frozenset([grown.uid for grown in growth]) | pulsed
        for uid in touched:
            reporter.derived.pop(uid, None)
        return Taken(tuple(growth), tuple(refused), touched)

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
            whole = wholes[model] = Whole(uid, model)
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
                for rows in [rows for tag, rows in life.rows.items() if tag[0] == uid]:
                    family = rows.tag[3]
                    if self.journal is not None:
                        changes = self.journal.of(reporter.name)
                        changes.cells.update((incarnation, family, b) for b in rows.buckets)
                    life.drop(rows, len(rows))


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
