"""A ledger made of saved rows: as it was, but for what its reporters have yet to repeat.

Promises the same windows, marks and cells, whatever the clocks of both processes said: a bucket
that would lie in the future is put into the present one. Who was alive when the rows were saved is
awaited. It reads no file.
"""

from __future__ import annotations

from nexus_quality.counts import Counts, rare_pairs
from nexus_quality.ledger import Incarnation, Kept, Ledger, Reporter
from nexus_quality.saved import ENDED, FLEET, Saved, cells_from_bytes, counts_from_bytes
from nexus_quality.sketch import packed
from nexus_quality.window import Family, Window

ALIVE_SECONDS = 90.0
_FAMILIES = {int(family): family for family in Family}


def restore(saved: Saved, now: float) -> Ledger:
    """The ledger at `now` (operator's clock); raises InvalidRow."""
    ledger = Ledger(now)
    ledger.awaiting = True
    _reporters(ledger, saved, now)
    for reporter, uid, model in saved.uses:
        if (known := ledger.reporters.get(reporter)) is not None:
            ledger.series_of(known, uid, model)
    _cells(ledger, saved, now)
    _sums(ledger, saved, now)
    for uid, model, at in saved.failures:
        ledger.whole_of(uid, model).last_failure = min(at, now)
    return ledger


def _reporters(ledger: Ledger, saved: Saved, now: float) -> None:
    rows = list(saved.reporters)
    newest = max((row.heard for row in rows), default=0.0)
    for name, heard, gone in rows:
        reporter = ledger.reporters[name] = Reporter(
            name, heard=min(heard, now), gone=bool(gone), restored=True
        )
        reporter.awaited = not gone and newest - heard <= ALIVE_SECONDS
    for row in saved.lives:
        if (owner := ledger.reporters.get(row.reporter)) is None:
            continue
        if row.ten == ENDED:
            owner.ended[row.incarnation] = None
        else:
            life = owner.incarnations[row.incarnation] = Incarnation(
                row.offset, min(row.heard, now), told_ms=row.told_ms, restored=True
            )
            life.sealed = dict(zip(Family, (row.ten, row.minute, row.hour), strict=True))


def _cells(ledger: Ledger, saved: Saved, now: float) -> None:
    oldest, newest = _bounds(now)
    for row in saved.cells:
        reporter, family = ledger.reporters.get(row.reporter), _FAMILIES.get(row.family)
        life = reporter.incarnations.get(row.incarnation) if reporter else None
        if reporter is None or life is None or family is None:
            continue
        for saved_cell in cells_from_bytes(row.cells):
            cell = saved_cell.cell(row.family, row.bucket)
            placed = min(saved_cell.placed, newest[family])
            life.keep(cell.key, Kept(placed, cell, saved_cell.counted))
            series = ledger.series_of(reporter, cell.uid, saved_cell.counted)
            generation = 0 if family is Family.HOUR else cell.generation
            if placed >= oldest[family]:
                _add(series.window(family), placed, generation, cell)


def _sums(ledger: Ledger, saved: Saved, now: float) -> None:
    oldest, newest = _bounds(now)
    for row in saved.sums:
        family, reporter = _FAMILIES.get(row.family), ledger.reporters.get(row.reporter)
        if family is None or (reporter is None and row.reporter != FLEET):
            continue
        if row.bucket < oldest[family]:
            continue
        window = (
            ledger.whole_of(row.uid, row.model).days
            if reporter is None
            else ledger.series_of(reporter, row.uid, row.model).window(family)
        )
        bucket = min(row.bucket, newest[family])
        _add(window, bucket, row.generation, counts_from_bytes(row.counts))


def _add(window: Window, bucket: int, generation: int, counts: Counts) -> None:
    """Add to a bucket that is mostly empty, so that its bins are these."""
    bins = (b"", packed(counts.ttft_bins))
    window.grow(bucket, generation, counts, rare_pairs(counts), bins)


def _bounds(now: float) -> tuple[dict[Family, int], dict[Family, int]]:
    """By family, the oldest bucket that counts and the latest there can be."""
    oldest = {family: family.oldest(now) for family in Family}
    return oldest, {family: int(now // family) + 1 for family in Family}
