"""The rows that are due of what changed, as a ledger has it at this moment.

Promises all rows of one reporter at once, and that a bucket without cells, an incarnation or a
reporter that is no more is a deletion. What changed is `journal`'s to know.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from nexus_quality.saved import (
    ENDED,
    Batch,
    CellsRow,
    FailureRow,
    LifeRow,
    ReporterRow,
    SavedCell,
    SumRow,
    UseRow,
    cells_to_bytes,
    counts_to_bytes,
)
from nexus_quality.window import Family

if TYPE_CHECKING:
    from nexus_quality.journal import Bucket, Changes
    from nexus_quality.ledger import Ledger
    from nexus_quality.lives import Incarnation
    from nexus_quality.reporters import Reporter


def reporter_rows(name: str, reporter: Reporter | None, changes: Changes, batch: Batch) -> None:
    """The rows of one reporter, all in one go."""
    if reporter is None:
        batch.gone_reporters.append(name)
    else:
        batch.reporters.append(ReporterRow(name, reporter.heard, reporter.gone))
        batch.uses.extend(UseRow(name, uid, model) for uid, model in changes.uses)
    lives = {} if reporter is None else reporter.incarnations
    ended = {} if reporter is None else reporter.ended
    for incarnation in changes.lives:
        _life(name, incarnation, lives.get(incarnation), batch, ended=incarnation in ended)
    _buckets(name, lives, changes.cells, batch)
    batch.grown.extend(
        SumRow(*key, counts_to_bytes(counts))
        for key, counts in changes.sums()
        if key.bucket >= batch.oldest[key.family]
    )


def _life(
    name: str, incarnation: str, life: Incarnation | None, batch: Batch, *, ended: bool
) -> None:
    """The row of an incarnation."""
    if ended:
        batch.lives.append(LifeRow(name, incarnation, 0.0, 0.0, 0, ENDED, ENDED, ENDED))
    elif life is None:
        batch.gone_lives.append((name, incarnation))
    else:
        marks = (life.sealed.get(family, -1) for family in Family)
        row = (name, incarnation, life.offset, life.heard, life.told_ms, *marks)
        batch.lives.append(LifeRow._make(row))


def _buckets(
    name: str, lives: Mapping[str, Incarnation], changed: Collection[Bucket], batch: Batch
) -> None:
    """The rows of the buckets that changed; those of which no cell is left are gone."""
    wanted: dict[str, dict[int, set[int]]] = {}
    for incarnation, family, bucket in changed:
        wanted.setdefault(incarnation, {}).setdefault(family, set()).add(bucket)
    for incarnation, families in wanted.items():
        life = lives.get(incarnation)
        found = {} if life is None else _cells(life, families)
        for family, buckets in families.items():
            for bucket in buckets:
                cells = found.get((family, bucket))
                if cells is None:
                    batch.gone_cells.append((name, incarnation, family, bucket))
                else:
                    row = CellsRow(name, incarnation, family, bucket, cells_to_bytes(cells))
                    batch.cells.append(row)


def _cells(
    life: Incarnation, wanted: Mapping[int, set[int]]
) -> dict[tuple[int, int], list[SavedCell]]:
    """The cells of some buckets that are not sealed, by family and bucket."""
    found: dict[tuple[int, int], list[SavedCell]] = {}
    for (uid, model, generation, family), rows in life.rows.items():
        for bucket in wanted.get(family, ()):
            index = rows.find(bucket)
            if index < 0:
                continue
            shift, counted = rows.stands(bucket)
            cell = SavedCell.of(
                uid, model, generation, rows.counts(index), placed=bucket + shift, counted=counted
            )
            found.setdefault((family, bucket), []).append(cell)
    return found


def failure_rows(ledger: Ledger, failed: set[tuple[str, str]], batch: Batch) -> None:
    for uid, model in failed:
        whole = ledger.wholes(uid).get(model)
        if whole is not None and whole.last_failure is not None:
            batch.failures.append(FailureRow(uid, model, whole.last_failure))
