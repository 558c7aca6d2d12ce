"""What of a ledger changed since it was last saved, as keys. The rows for it are `due`'s.

Promises that all changes of one reporter come in one batch, so that a cell is never saved both by
itself and in a sum, nor in neither. What could not be written is put back, and comes again with the
values it has by then. It writes nothing. While nothing is collected it grows: see `size`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from nexus_quality.counts import Counts
from nexus_quality.due import failure_rows, reporter_rows
from nexus_quality.report import CellKey
from nexus_quality.saved import FLEET, Batch
from nexus_quality.window import Family

if TYPE_CHECKING:
    from nexus_quality.ledger import Ledger

# A bucket of an incarnation: its cells are saved together.
Bucket = tuple[str, int, int]


class SumKey(NamedTuple):
    """A sealed sum's identity; `reporter` `FLEET`: over all of them."""

    family: int
    bucket: int
    reporter: str
    uid: str
    model: str
    generation: int


def sum_of(reporter: str, key: CellKey, placed: int, model: str) -> SumKey:
    """The sum that a cell belongs to: hours are the fleet's and of any generation."""
    if key.family == Family.HOUR:
        return SumKey(key.family, placed, FLEET, key.uid, model, 0)
    return SumKey(key.family, placed, reporter, key.uid, model, key.generation)


@dataclass(slots=True)
class Changes:
    """What changed of one reporter: buckets (incarnation, family, number), sums that grew, by
    backend, …
    """

    cells: set[Bucket] = field(default_factory=set)
    grown: dict[str, dict[SumKey, Counts]] = field(default_factory=dict)
    lives: set[str] = field(default_factory=set)
    uses: set[tuple[str, str]] = field(default_factory=set)

    @property
    def size(self) -> int:
        """How many rows it is about."""
        return len(self.cells) + sum(map(len, self.grown.values()))

    def sums(self) -> Iterator[tuple[SumKey, Counts]]:
        """The sums that grew, and by how much."""
        for grown in self.grown.values():
            yield from grown.items()

    def forget(self, uid: str) -> None:
        """Nothing is to be saved of a backend; its cells are gone from the ledger."""
        self.grown.pop(uid, None)
        self.uses = {use for use in self.uses if use[0] != uid}

    def drop_sums(self, uid: str, family: int) -> None:
        """How much the sums of a backend grew is to be told anew."""
        grown = self.grown.get(uid, {})
        for key in [key for key in grown if key.family == family]:
            del grown[key]

    def grow(self, key: SumKey, counts: Counts, sign: int = 1) -> None:
        """A sum grew by `counts`, or with sign -1 not by them after all."""
        grown = self.grown.get(key.uid)
        if grown is None:
            grown = self.grown[key.uid] = {}
        known = grown.get(key)
        if known is None:
            known = grown[key] = Counts()
        known.add(counts, sign)
        if known.empty:
            del grown[key]


class Journal:
    """The changes of a ledger since they were last collected, by reporter.

    `fresh`: they are all there is, so whatever was saved before them is to go.
    """

    def __init__(self, *, fresh: bool = False) -> None:
        self.fresh = fresh
        self._changes: dict[str, Changes] = {}
        self._collected: dict[str, Changes] = {}
        self._waste: list[Changes] = []
        self._failures: set[tuple[str, str]] = set()
        self._failing: set[tuple[str, str]] = set()
        self._forgotten: dict[str, None] = {}
        self._forgetting: list[str] = []

    @property
    def empty(self) -> bool:
        """True if nothing is to be saved."""
        return not (self._changes or self._forgotten or self.fresh)

    @property
    def size(self) -> int:
        """About how many keys it holds: without a store they are more than the ledger has."""
        return sum(one.size for one in self._changes.values())

    def of(self, reporter: str) -> Changes:
        """The changes of a reporter, to be added to."""
        changes = self._changes.get(reporter)
        if changes is None:
            changes = self._changes[reporter] = Changes()
        return changes

    def failed(self, uid: str, model: str) -> None:
        """A (backend, model) failed."""
        self._failures.add((uid, model))

    def forget(self, uid: str) -> None:
        """Nothing of a backend is to stay."""
        self._forgotten[uid] = None
        for changes in self._changes.values():
            changes.forget(uid)

    def collect(self, ledger: Ledger, batch: Batch, now: float) -> Iterator[None]:
        """Fill a batch; yields after each reporter, so that something else may happen then."""
        batch.oldest = {int(f): f.oldest(now) for f in (Family.MINUTE, Family.HOUR)}
        batch.fresh = self.fresh
        self._forgetting, self._forgotten = list(self._forgotten), {}
        batch.forgotten = self._forgetting
        self._failing, self._failures = self._failures, set()
        failure_rows(ledger, self._failing, batch)
        for name in list(self._changes):
            changes = self._collected[name] = self._changes.pop(name)
            reporter_rows(name, ledger.reporters.get(name), changes, batch)
            yield

    def saved(self) -> None:
        """What was collected is safe."""
        self.fresh = False
        self._waste.extend(self._collected.values())
        self._drop()

    def sweeping(self) -> Iterator[None]:
        """Free the memory of what is safe in small steps: in one go it would take long."""
        while self._waste:
            self._waste.pop()
            yield

    def put_back(self) -> None:
        """What was collected could not be saved."""
        for name, old in self._collected.items():
            for uid in self._forgotten:  # since it was collected
                old.forget(uid)
            changes = self.of(name)
            changes.cells |= old.cells
            changes.lives |= old.lives
            changes.uses |= old.uses
            for key, counts in old.sums():
                changes.grow(key, counts)
        self._failures |= self._failing
        self._forgotten |= dict.fromkeys(self._forgetting)
        self._drop()

    def _drop(self) -> None:
        self._collected, self._failing, self._forgetting = {}, set(), []
