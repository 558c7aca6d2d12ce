"""Sealing: cells that will not grow any more become sums, and a watermark says so.

Promises that a bucket is sealed only once it is older than ten minutes and its reporter has, since
it ended, sent this process all it has: what arrives of it later is a repetition. A sum of minutes
is one reporter's, because verdicts ask who counted; a sum of hours is the fleet's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_quality.journal import Journal, sum_of
from nexus_quality.report import CellKey
from nexus_quality.window import Family

if TYPE_CHECKING:
    from nexus_quality.ledger import Kept, Reporter

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
    for key, kept in reporter.incarnations[incarnation].cells.items():
        _fold(reporter.name, incarnation, key, kept, journal)


def _seal_family(
    reporter: Reporter, incarnation: str, family: Family, mark: int, journal: Journal | None
) -> None:
    life = reporter.incarnations[incarnation]
    index = life.buckets.get(family, {})
    for bucket in [bucket for bucket in index if bucket <= mark]:
        for key in index.pop(bucket):
            kept = life.cells.pop(key, None)
            if kept is not None:
                _fold(reporter.name, incarnation, key, kept, journal)


def _fold(
    reporter: str, incarnation: str, key: CellKey, kept: Kept, journal: Journal | None
) -> None:
    """Save a cell as a part of its sum from now on. Tens of seconds have left their window."""
    if journal is None:
        return
    changes = journal.of(reporter)
    changes.lives.add(incarnation)
    changes.cells.add((incarnation, key.family, key.bucket))
    if key.family != Family.TEN_SECONDS:
        changes.grow(sum_of(reporter, key, kept.placed, kept.model), kept.counts)


def expire(reporter: Reporter, incarnation: str, now: float, journal: Journal | None) -> None:
    """Drop the cells that left their window though they never could be sealed."""
    life = reporter.incarnations[incarnation]
    for family in Family:
        index = life.buckets.get(family, {})
        oldest = int((now - life.offset) // family) - family.span - 2
        for bucket in [bucket for bucket in index if bucket < oldest]:
            for key in index.pop(bucket):
                if life.cells.pop(key, None) is not None and journal is not None:
                    journal.of(reporter.name).cells.add((incarnation, family, bucket))
