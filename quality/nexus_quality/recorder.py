"""What one proxy counted: cells per bucket, and which of them the operator has not seen.

Promises that an outcome costs a few integer additions, that memory is bounded by the retention of
the families, and that a cell stays listed as changed until a report with it was answered. It
judges nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from nexus_quality.counts import Counts, total
from nexus_quality.family import Family
from nexus_quality.report import Cell
from nexus_quality.sketch import bin_of


class Slot:
    """The three cells (10 s, 1 min, 1 h) that outcomes of one tag go into until `expires`."""

    __slots__ = ("changed", "expires", "generation", "hour", "minute", "ten")

    def __init__(self, ten: Cell, minute: Cell, hour: Cell, expires: float) -> None:
        self.ten, self.minute, self.hour = ten, minute, hour
        self.generation = ten.generation
        self.expires = expires
        self.changed = False

    def __iter__(self) -> Iterator[Cell]:
        yield self.ten
        yield self.minute
        yield self.hour

    def success(self, cost_nano_usd: int) -> None:
        """Count a success."""
        ten, minute, hour = self.ten, self.minute, self.hour
        ten.requests += 1
        minute.requests += 1
        hour.requests += 1
        if cost_nano_usd:
            self.cost(cost_nano_usd)

    def failure(self, cost_nano_usd: int, *, connect: bool) -> None:
        """Count a failure."""
        for cell in self:
            cell.requests += 1
            cell.errors += 1
            cell.connect_errors += connect
        if cost_nano_usd:
            self.cost(cost_nano_usd)

    def cost(self, cost_nano_usd: int) -> None:
        """Count what an attempt cost."""
        for cell in self:
            cell.cost_nano_usd += cost_nano_usd

    def ttft(self, milliseconds: float) -> None:
        """Count a time to first token; only the minute family keeps the sketch."""
        whole = round(milliseconds)
        for cell in self:
            cell.ttft_count += 1
            cell.ttft_ms_sum += whole
        index = bin_of(milliseconds)
        bins = self.minute.ttft_bins
        bins[index] = bins.get(index, 0) + 1

    def count(self, name: str) -> None:
        """Count one of the rarer things: throttled, eligible, probes, probe_…"""
        for cell in self:
            setattr(cell, name, getattr(cell, name) + 1)


class Series:
    """All that one proxy counted of one (backend, model)."""

    __slots__ = ("_cells", "_current", "_recorder", "model", "uid")

    def __init__(self, recorder: Recorder, uid: str, model: str) -> None:
        self.uid, self.model = uid, model
        self._recorder = recorder
        self._cells: dict[Family, deque[Cell]] = {family: deque() for family in Family}
        self._current: dict[int, Slot] = {}

    def slot(self, now: float, generation: int) -> Slot:
        """The slot for an outcome at `now`, marked as changed."""
        slot = self._current.get(generation)
        if slot is None or now >= slot.expires:
            slot = self._open(now, generation)
        if not slot.changed:
            slot.changed = True
            self._recorder.changed.append(slot)
        return slot

    def _open(self, now: float, generation: int) -> Slot:
        self._current = {g: s for g, s in self._current.items() if now < s.expires}
        elapsed = self._recorder.elapsed(now)
        ten, minute, hour = (self._cell(f, int(elapsed // f), generation) for f in Family)
        expires = self._recorder.started + (ten.bucket + 1) * Family.TEN_SECONDS
        slot = self._current[generation] = Slot(ten, minute, hour, expires)
        return slot

    def _cell(self, family: Family, bucket: int, generation: int) -> Cell:
        cells = self._cells[family]
        for cell in reversed(cells):
            if cell.bucket < bucket:
                break
            if cell.generation == generation:
                return cell
        cell = Cell(
            family=int(family),
            bucket=bucket,
            uid=self.uid,
            model=self.model,
            generation=generation,
        )
        cells.append(cell)
        return cell

    def expire(self, elapsed: float) -> None:
        """Forget the buckets that have left their family's span."""
        for family, cells in self._cells.items():
            oldest = int(elapsed // family) - family.span
            while cells and cells[0].bucket < oldest:
                cells.popleft()

    def cells(self) -> Iterator[Cell]:
        """Every cell that is kept."""
        for cells in self._cells.values():
            yield from cells

    def last(
        self, seconds: float, elapsed: float, family: Family, since_generation: int = 0
    ) -> Counts:
        """The counters of the buckets of a family that began within the last `seconds`."""
        first = int((elapsed - seconds) // family) + 1
        return total(
            cell
            for cell in self._cells[family]
            if cell.bucket >= first and cell.generation >= since_generation
        )

    def ttft(self, seconds: float, elapsed: float, family: Family) -> tuple[int, int]:
        """Number and sum in milliseconds of the TTFTs in the buckets that `last` looks at."""
        first = int((elapsed - seconds) // family) + 1
        count = milliseconds = 0
        for cell in reversed(self._cells[family]):
            if cell.bucket < first:
                break
            count += cell.ttft_count
            milliseconds += cell.ttft_ms_sum
        return count, milliseconds


class Recorder:
    """All series of one proxy, on its boot clock since `started`."""

    __slots__ = ("_expired", "changed", "series", "started")

    def __init__(self, started: float) -> None:
        self.started = started
        self.series: dict[tuple[str, str], Series] = {}
        self.changed: list[Slot] = []
        self._expired = 0  # the ten seconds that were last looked at

    def elapsed(self, now: float) -> float:
        """Seconds since this incarnation began."""
        return max(0.0, now - self.started)

    def of(self, uid: str, model: str) -> Series:
        """The series of a (backend, model), made at its first use."""
        key = (uid, model)
        series = self.series.get(key)
        if series is None:
            series = self.series[key] = Series(self, uid, model)
        return series

    def forget(self, uid: str) -> None:
        """Drop a backend that is gone; what was not reported yet is still reported."""
        for key in [key for key in self.series if key[0] == uid]:
            del self.series[key]

    def take_changed(self) -> list[Slot]:
        """The slots changed since the last call; they count as unchanged from here on."""
        taken, self.changed = self.changed, []
        for slot in taken:
            slot.changed = False
        return taken

    def put_back(self, slots: list[Slot]) -> None:
        """List slots as changed again, because their report was not answered."""
        for slot in slots:
            if not slot.changed:
                slot.changed = True
                self.changed.append(slot)

    def everything(self, taken: Iterable[Slot]) -> Iterable[Cell]:
        """Every cell that is kept, with those of `taken` that are not any more, each once."""
        found = {id(cell): cell for series in self.series.values() for cell in series.cells()}
        found.update((id(cell), cell) for slot in taken for cell in slot)
        return found.values()

    def uids(self) -> set[str]:
        """The backends of which anything is kept."""
        return {uid for uid, _ in self.series}

    def expire(self, now: float) -> None:
        """Forget what has left the windows."""
        elapsed = self.elapsed(now)
        bucket = int(elapsed // Family.TEN_SECONDS)
        if bucket == self._expired:
            return  # nothing leaves any window in the midst of the shortest buckets
        self._expired = bucket
        for series in self.series.values():
            series.expire(elapsed)


def cells_of(slots: Iterable[Slot]) -> Iterable[Cell]:
    """The cells of some slots, each once."""
    return {id(cell): cell for slot in slots for cell in slot}.values()
