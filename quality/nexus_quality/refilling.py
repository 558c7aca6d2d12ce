"""A journal by which all that a ledger has is saved anew: into an empty file, or instead of what is
in one.

Promises that it is filled in small steps while reports come in and cells are sealed: what changes
meanwhile is in it once, whether its turn came before or comes after. It writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nexus_quality.journal import Journal, SumKey, sum_of
from nexus_quality.saved import FLEET
from nexus_quality.window import Family

if TYPE_CHECKING:
    from nexus_quality.ledger import Ledger
    from nexus_quality.lives import CellRows, Incarnation
    from nexus_quality.reporters import Reporter


def everything(ledger: Ledger) -> Journal:
    """The journal, in one go; it is the ledger's from here on."""
    for _ in refilling(ledger):
        pass
    assert ledger.journal is not None
    return ledger.journal


def refilling(ledger: Ledger) -> Iterator[None]:
    """Give a ledger such a journal; it is not to be collected before the last step."""
    journal = ledger.journal = Journal(fresh=True)
    uids, reporters = ledger.uids(), list(ledger.reporters.values())
    for uid in uids:
        _days(ledger, uid, journal)
        yield
    for reporter in reporters:
        if ledger.reporters.get(reporter.name) is reporter:
            _all_of(reporter, journal)
        yield


def _days(ledger: Ledger, uid: str, journal: Journal) -> None:
    """The fleet's sums of one backend. What is saved as a cell is not sealed, so not in them."""
    users = ledger.users(uid)
    for name in users:
        # What was sealed since the first step is in these sums already.
        journal.of(name).drop_sums(uid, Family.HOUR)
    whole = journal.of(FLEET)
    for model, one in ledger.wholes(uid).items():
        journal.failed(uid, model)
        for bucket, generation, counts in one.days.buckets():
            whole.grow(SumKey(Family.HOUR, bucket, FLEET, uid, model, generation), counts)
    for name, user in users.items():
        for rows in _tables(user, Family.HOUR, uid):
            _leave_out(name, rows, journal)


def _all_of(reporter: Reporter, journal: Journal) -> None:
    """The lives and cells of one reporter, and its own sums."""
    name, changes = reporter.name, journal.of(reporter.name)
    for uid, models in reporter.series.items():
        changes.drop_sums(uid, Family.MINUTE)
        for model, series in models.items():
            changes.uses.add((uid, model))
            for bucket, generation, counts in series.minutes.buckets():
                changes.grow(SumKey(Family.MINUTE, bucket, name, uid, model, generation), counts)
    for rows in _tables(reporter, Family.MINUTE):
        _leave_out(name, rows, journal)
    for incarnation, life in reporter.incarnations.items():
        changes.lives.add(incarnation)
        changes.cells.update(_buckets(incarnation, life))
    changes.lives.update(reporter.ended)


def _buckets(incarnation: str, life: Incarnation) -> Iterator[tuple[str, int, int]]:
    for rows in life.rows.values():
        for bucket in rows.buckets:
            yield incarnation, int(rows.tag[3]), bucket


def _tables(reporter: Reporter, family: int, uid: str | None = None) -> Iterator[CellRows]:
    """The tables of cells of one family, of all its lives."""
    for life in reporter.incarnations.values():
        for tag, rows in life.rows.items():
            if tag[3] == family and uid in (None, tag[0]):
                yield rows


def _leave_out(name: str, rows: CellRows, journal: Journal) -> None:
    """Take the cells of a table out of their sums."""
    for index, bucket in enumerate(rows.buckets):
        shift, model = rows.stands(bucket)
        key = sum_of(name, rows.key(index), bucket + shift, model)
        changes = journal.of(key.reporter)
        if key in changes.grown.get(key.uid, ()):
            changes.grow(key, rows.counts(index), -1)
