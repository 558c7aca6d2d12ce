"""One life of a reporter: its clock's offset to ours, and the cells of it that may still grow.

Promises that a cell is put on our clock and counted under a model once and for all, in little
memory: the cells of one (backend, model, generation) and family are rows of one table. What grows,
and what of it is believed, is `taking`'s to say; what will not grow any more is `sealing`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from nexus_quality.counts import Counts
from nexus_quality.report import Cell, CellKey, Pulse
from nexus_quality.rows import Rows


class Kept(NamedTuple):
    """A cell that may still grow. `placed`: its bucket on our clock; `model`: it counts as this."""

    placed: int
    counts: Cell
    model: str


class Standing(NamedTuple):
    """What is held to of a cell: `shift` from its bucket to ours, the model it counts as."""

    shift: int
    model: str


_MANY = 100

Tag = tuple[str, str, int, int]  # uid, model, generation, family


class CellRows(Rows):
    """The cells of one tag by the reporter's own buckets; `apart`: those that stand otherwise."""

    __slots__ = ("apart", "standing", "tag")

    def __init__(self, tag: Tag, standing: Standing) -> None:
        super().__init__()
        self.tag = tag
        self.standing = standing
        self.apart: dict[int, Standing] | None = None

    def stands(self, bucket: int) -> Standing:
        """How the cell of a bucket does."""
        if self.apart is None:
            return self.standing
        return self.apart.get(bucket, self.standing)

    def open(self, bucket: int, standing: Standing) -> int:
        """Make a row for a new cell; its index."""
        if standing != self.standing:
            # Those to come will rather stand like the latest.
            known = {old: self.stands(old) for old in self.buckets}
            self.standing = standing
            self.apart = {old: one for old, one in known.items() if one != standing} or None
        return self.row(bucket)

    def key(self, index: int) -> CellKey:
        """The identity of a cell."""
        uid, model, generation, family = self.tag
        return CellKey(family, self.buckets[index], uid, model, generation)

    def kept(self, index: int) -> Kept:
        """A cell as it is."""
        family, bucket, uid, model, generation = self.key(index)
        counts = self.counts(index)
        cell = Cell(
            family=family,
            bucket=bucket,
            uid=uid,
            model=model,
            generation=generation,
            **{name: getattr(counts, name) for name in Counts.__struct_fields__},
        )
        standing = self.stands(bucket)
        return Kept(bucket + standing.shift, cell, standing.model)

    def drop(self, count: int) -> None:
        """Let the first cells go."""
        if self.apart is not None:
            for bucket in self.buckets[:count]:
                self.apart.pop(bucket, None)
        super().drop(count)


@dataclass(slots=True)
class Incarnation:
    """One life of a reporter: its clock's offset to ours, and the cells that are not sealed.

    `pulses` are those of its latest report, by backend and model; `told_ms` is when it made that;
    `settled_ms`: up to then it has told this process everything. `sealed`: the last sealed bucket
    by family. `restored`: known from a store. `rows`: its cells; `size`: how many they are;
    `standings`: how they stand, each once.
    """

    offset: float
    heard: float
    told_ms: int = 0
    settled_ms: int = 0
    restored: bool = False
    pulses: dict[str, dict[str, Pulse]] = field(default_factory=dict)
    sealed: dict[int, int] = field(default_factory=dict)
    rows: dict[Tag, CellRows] = field(default_factory=dict)
    standings: dict[Standing, Standing] = field(default_factory=dict)
    size: int = 0

    @property
    def cells(self) -> dict[CellKey, Kept]:
        """All cells, made anew at each look."""
        every = (rows for rows in self.rows.values())
        return {rows.key(i): rows.kept(i) for rows in every for i in range(len(rows))}

    def of_bucket(self, family: int, bucket: int) -> Iterator[Kept]:
        """The cells of one bucket."""
        for rows in self.rows.values():
            if rows.tag[3] == family and (index := rows.find(bucket)) >= 0:
                yield rows.kept(index)

    def open(self, tag: Tag, bucket: int, standing: Standing) -> tuple[CellRows, int]:
        """Make room for a new cell: its table and the index of its row."""
        if len(self.standings) > _MANY:
            self.standings.clear()
        standing = self.standings.setdefault(standing, standing)
        rows = self.rows.get(tag)
        if rows is None:
            rows = self.rows[tag] = CellRows(tag, standing)
        self.size += 1
        return rows, rows.open(bucket, standing)

    def keep(self, key: CellKey, kept: Kept) -> None:
        """Remember a cell as it was saved."""
        tag = (key.uid, key.model, key.generation, key.family)
        rows, index = self.open(tag, key.bucket, Standing(kept.placed - key.bucket, kept.model))
        rows.raise_to(index, kept.counts)

    def drop(self, rows: CellRows, count: int) -> None:
        """Let the first cells of a table go."""
        self.size -= count
        rows.drop(count)
        if not rows.buckets:
            del self.rows[rows.tag]
