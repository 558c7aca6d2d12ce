"""The rows a ledger is saved as: what a store keeps of reporters, their lives, cells and sums.

Promises a form that says nothing about files or SQL, and counters that a later version with more of
them still reads. Which rows are due is `journal`'s, what they become again `restoring`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

import msgspec

from nexus_quality.counts import NUMBERS, Counts
from nexus_quality.report import Cell

FLEET = ""
SWEEP_ROWS = 2000
ENDED = 2**62
_numbers = attrgetter(*NUMBERS)
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(tuple[dict[int, int], tuple[int, ...]])


class InvalidRow(ValueError):
    """A row that no version of this program wrote."""


class ReporterRow(NamedTuple):
    """A reporter. `heard`: when it last was, epoch seconds; `gone`: 1 if it has said goodbye."""

    name: str
    heard: float
    gone: int


class LifeRow(NamedTuple):
    """An incarnation: its clock's offset, and the last sealed bucket of each family (all of them
    `ENDED`: it is known only as one that may not come back).
    """

    reporter: str
    incarnation: str
    offset: float
    heard: float
    told_ms: int
    ten: int
    minute: int
    hour: int


class UseRow(NamedTuple):
    """A reporter has counted something of a (backend, model), however long ago."""

    reporter: str
    uid: str
    model: str


class SavedCell(NamedTuple):
    """A cell that is not sealed. `placed`: its bucket on the operator's clock; `counted`: the model
    it counts for.
    """

    uid: str
    model: str
    generation: int
    placed: int
    counted: str
    bins: dict[int, int]
    numbers: tuple[int, ...]

    @classmethod
    def of(
        cls, uid: str, model: str, generation: int, counts: Counts, *, placed: int, counted: str
    ) -> SavedCell:
        """A cell as it is now."""
        return cls(
            uid, model, generation, placed, counted, dict(counts.ttft_bins), _numbers(counts)
        )

    def cell(self, family: int, bucket: int) -> Cell:
        """The cell again."""
        return Cell(
            family=family,
            bucket=bucket,
            uid=self.uid,
            model=self.model,
            generation=self.generation,
            ttft_bins=self.bins,
            **dict(zip(NUMBERS, self.numbers, strict=False)),
        )


class CellsRow(NamedTuple):
    """All cells of one bucket of an incarnation."""

    reporter: str
    incarnation: str
    family: int
    bucket: int
    cells: bytes


class SumRow(NamedTuple):
    """Sealed cells of one bucket on the operator's clock, of a reporter or of all (`FLEET`)."""

    family: int
    bucket: int
    reporter: str
    uid: str
    model: str
    generation: int
    counts: bytes


class FailureRow(NamedTuple):
    """When a (backend, model) last failed, epoch seconds."""

    uid: str
    model: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """All rows of a store; each is read once."""

    reporters: Iterable[ReporterRow] = ()
    lives: Iterable[LifeRow] = ()
    uses: Iterable[UseRow] = ()
    cells: Iterable[CellsRow] = ()
    sums: Iterable[SumRow] = ()
    failures: Iterable[FailureRow] = ()


@dataclass(slots=True)
class Batch:
    """What to write in one transaction, in this order: deletions, rows, growth of sums.

    `fresh`: whatever was saved before is deleted. `forgotten`: UIDs of which nothing stays.
    `gone_…`: the keys of rows that are no more. `grown`: added to the sum that is there. `oldest`:
    by family, the oldest bucket that counts.
    """

    fresh: bool = False
    forgotten: list[str] = field(default_factory=list)
    gone_reporters: list[str] = field(default_factory=list)
    gone_lives: list[tuple[str, str]] = field(default_factory=list)
    gone_cells: list[tuple[str, str, int, int]] = field(default_factory=list)
    oldest: dict[int, int] = field(default_factory=dict)
    reporters: list[ReporterRow] = field(default_factory=list)
    lives: list[LifeRow] = field(default_factory=list)
    uses: list[UseRow] = field(default_factory=list)
    cells: list[CellsRow] = field(default_factory=list)
    failures: list[FailureRow] = field(default_factory=list)
    grown: list[SumRow] = field(default_factory=list)

    def sweeping(self) -> Iterator[None]:
        """Free the memory of a batch that was written in small steps."""
        for rows in (self.gone_cells, self.uses, self.cells, self.grown):
            while rows:
                del rows[-SWEEP_ROWS:]
                yield


def cells_to_bytes(cells: list[SavedCell]) -> bytes:
    """The cells of a bucket as bytes."""
    return _encode(cells)


def cells_from_bytes(data: bytes) -> list[SavedCell]:
    """The cells again; raises InvalidRow."""
    try:
        return _cells_decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise InvalidRow(f"cells that cannot be read: {error}") from None


_cells_decoder = msgspec.msgpack.Decoder(list[SavedCell])


def counts_to_bytes(counts: Counts) -> bytes:
    """Counters as a few bytes: the bins, then the numbers in the order of `NUMBERS`."""
    return _encode((counts.ttft_bins, _numbers(counts)))


def counts_from_bytes(data: bytes) -> Counts:
    """The counters again; raises InvalidRow."""
    try:
        bins, numbers = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise InvalidRow(f"counters that cannot be read: {error}") from None
    return Counts(ttft_bins=bins, **dict(zip(NUMBERS, numbers, strict=False)))


def added(one: bytes, other: bytes) -> bytes:
    """The sum of two counters as bytes."""
    total = counts_from_bytes(one)
    total.add(counts_from_bytes(other))
    return counts_to_bytes(total)
