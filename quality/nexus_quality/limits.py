"""What one reporter may claim and may make the ledger keep: the bounds of a report's content.

Promises that numbers no process could have counted are known as such, and that no reporter, however
it restarts, names or numbers, takes more than a bounded part of the memory. Bounds on bytes, time
and pace are the intake's; whether somebody may speak of a backend at all is asked before.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import msgspec

from nexus_quality.counts import MOST, rare_of, valid_bins
from nexus_quality.refusals import TOO_MANY_CELLS, TOO_MANY_GENERATIONS, TOO_MANY_SERIES
from nexus_quality.report import MAX_NUMBER, OTHER_MODEL, Cell, Pulse

MAX_MODELS = 512  # of a backend whose models are not known
MAX_SERIES = 4096  # (backend, model) of a reporter
MAX_KEPT = 100_000  # cells of a reporter, over all its incarnations
MAX_GENERATIONS = 512  # in one bucket
MAX_INCARNATIONS = 256  # of a reporter
MAX_ENDED = 4096  # incarnations of a reporter that are remembered as ended
MAX_IN_FLIGHT = 100_000
MAX_ROW = 10_000_000
PER_SECOND = 100_000  # more than a process can send
LONGEST_MS = 3_600_000
FUTURE_MS = 2_000


@dataclass(frozen=True, slots=True)
class Known:
    """What there is of a backend: its models, None if unknown, and its verdict generation."""

    models: Collection[str] | None = None
    generation: int = MAX_NUMBER

    def counted_as(self, model: str, used: Collection[str]) -> str:
        """The name under which a model is counted; `used`: those of the reporter so far."""
        if self.models is not None:
            return model if model in self.models else OTHER_MODEL
        return model if model in used or len(used) < MAX_MODELS else OTHER_MODEL

    def to_come(self, generation: int) -> bool:
        """True if no process can have seen this generation yet.

        A status is written before the writer knows that it was: one generation may be ahead.
        """
        return generation > self.generation + 1


@dataclass(slots=True)
class Room:
    """What a reporter may still add: cells and series."""

    cells: int
    series: int

    def refusal(self, *, new_series: bool, generations: int) -> str | None:
        """Takes room for a cell, or says why there is none. `generations`: in its bucket by now."""
        if self.cells <= 0:
            return TOO_MANY_CELLS
        if new_series and self.series <= 0:
            return TOO_MANY_SERIES
        if generations >= MAX_GENERATIONS:
            return TOO_MANY_GENERATIONS
        self.cells -= 1
        self.series -= new_series
        return None


def possible(cell: Cell) -> bool:
    """True if a process could have counted this in a bucket of that width."""
    count, most = cell.ttft_count, PER_SECOND * cell.family
    if not 0 <= count <= cell.requests <= most:
        return False
    if not 0 <= cell.ttft_ms_sum <= count * LONGEST_MS or cell.ttft_ms_sum > MOST:
        return False
    bins = cell.ttft_bins
    if bins and not (valid_bins(bins) and sum(bins.values()) <= count):
        return False
    if not any(rare_of(cell)):
        return True
    counted = (cell.throttled, cell.eligible, cell.probes)
    answered = (cell.probe_successes, cell.probe_failures, cell.probe_neutrals)
    return cell.valid and max(counted) <= most and max(answered) <= most


def possible_pulse(pulse: Pulse, now_ms: int) -> bool:
    """True if a process could stand like this at `now_ms` of its own clock."""
    latest = now_ms + FUTURE_MS
    return (
        pulse.in_flight <= MAX_IN_FLIGHT
        and pulse.row <= MAX_ROW
        and pulse.row_began_ms <= latest
        and pulse.success_began_ms <= latest
    )


def together(one: Pulse, other: Pulse) -> Pulse:
    """How two models that are counted as one stand: as lives of one pod do.

    Their rows are one, of as many failures, and what one says of a breaker or probe goes for both.
    """
    rows = [pulse.row_began_ms for pulse in (one, other) if pulse.row]
    return msgspec.structs.replace(
        one,
        generation=min(one.generation, other.generation),
        in_flight=min(one.in_flight + other.in_flight, MAX_IN_FLIGHT),
        row=min(one.row + other.row, MAX_ROW),
        row_began_ms=min(rows, default=0),
        success_began_ms=max(one.success_began_ms, other.success_began_ms),
        open=one.open or other.open,
        probing=one.probing or other.probing,
    )
