"""Sealing: cells that will not grow any more become sums, and a watermark says so.

Promises that a bucket is sealed only once it is older than ten minutes and its reporter has, since
it ended, sent this process all it has: what arrives of it later is a repetition. A sum of minutes
is one reporter's, because verdicts ask who counted; a sum of hours is the fleet's.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from nexus_quality.journal import Journal, sum_of
from nexus_quality.window import Family

if TYPE_CHECKING:
    from nexus_quality.lives import CellRows, Incarnation
    from nexus_quality.reporters import Reporter

SEAL_SECONDS = 600.0
# By then no cell of ten seconds is in a window any more, though its offset was corrected.
_AFTER = {Family.TEN_SECONDS: SEAL_SECONDS + 60.0}


def seal(reporter: Reporter, incarnation: str, now: float, journal: Journal | None) -> None:
    """Seal what can be of one incarnation."""
    life = reporter.incarnations[incarnation]
    for family in Family:
        reach = min(life.settled_ms / 1000, now - _AFTER.get(family, SEAL_SECONDS) - life.offset)
        mark = int(reach // family) - 1
        if mark > life.sealed.get(family, -1):
            life.sealed[family] = mark
            _seal_family(reporter, incarnation, family, mark, journal)


def seal_by_force(reporter: Reporter, incarnation: str, journal: Journal | None) -> None:
    """Seal all of an incarnation that is not to be listened to any more."""
    for rows in reporter.incarnations[incarnation].rows.values():
        _fold(reporter.name, incarnation, rows, len(rows), journal)


def _seal_family(
    reporter: Reporter, incarnation: str, family: Family, mark: int, journal: Journal | None
) -> None:
    life = reporter.incarnations[incarnation]
    for rows in _older(life, family, mark + 1):
        count = bisect_left(rows.buckets, mark + 1)
        _fold(reporter.name, incarnation, rows, count, journal)
        life.drop(rows, count)


def _older(life: Incarnation, family: int, bucket: int) -> list[CellRows]:
    """The tables that have cells of older buckets."""
    return [r for tag, r in life.rows.items() if tag[3] == family and r.buckets[0] < bucket]


def _fold(
    reporter: str, incarnation: str, rows: CellRows, count: int, journal: Journal | None
) -> None:
    """Save the first cells as parts of their sums from now on. Tens of seconds have left their
    window.
    """
    if journal is None:
        return
    changes = journal.of(reporter)
    changes.lives.add(incarnation)
    for index in range(count):
        key = rows.key(index)
        changes.cells.add((incarnation, key.family, key.bucket))
        if key.family != Family.TEN_SECONDS:
            shift, model = rows.stands(key.bucket)
            changes.grow(sum_of(reporter, key, key.bucket + shift, model), rows.counts(index))


def expire(reporter: Reporter, incarnation: str, now: float, journal: Journal | None) -> None:
    """Drop the cells that left their window though they never could be sealed."""
    life = reporter.incarnations[incarnation]
    for family in Family:
        oldest = int((now - life.offset) // family) - family.span - 2
        for rows in _older(life, family, oldest):
            count = bisect_left(rows.buckets, oldest)
            if journal is not None:
                changes = journal.of(reporter.name)
                changes.cells.update((incarnation, int(family), b) for b in rows.buckets[:count])
            life.drop(rows, count)
