"""A proxy's reports as tests of the intake send them.

Promises full reports of an incarnation that has run for ten hours: `full_report` one with the same
counters in the current bucket of each family, `Counters` those of a proxy that goes on counting.
It is NOT a proxy: it routes nothing and keeps no breaker.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from nexus_quality.report import Cell, CellKey, Report, encode
from nexus_quality.window import Family

UP_SECONDS = 36_000


def full_report(uid: str, *, requests: int, errors: int, generation: int = 0) -> Report:
    """The report of a proxy that made these requests of model `m` a moment ago."""
    cells = [
        Cell(
            family=int(family),
            bucket=UP_SECONDS // family,
            uid=uid,
            model="m",
            generation=generation,
            requests=requests,
            errors=errors,
        )
        for family in Family
    ]
    return Report(incarnation="0" * 32, now_ms=UP_SECONDS * 1000 + 1000, full=True, cells=cells)


class Counters:
    """The counters of one proxy over a test: `count` adds, `full` tells all. `clock`: its own,
    that of the machine unless told otherwise.

    What was counted stays in the bucket it was counted in, so an operator that hears it again
    hears the same. Its buckets of 10 s begin with those of the wall clock.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock() - UP_SECONDS - time.time() % Family.TEN_SECONDS
        self._incarnation = secrets.token_hex(16)
        self._cells: dict[CellKey, Cell] = {}

    def count(self, uid: str, *, generation: int = 0, model: str = "m", **numbers: int) -> None:
        """Add to the present bucket of each family."""
        up = self._clock() - self._began
        for family in Family:
            key = CellKey(int(family), int(up // family), uid, model, generation)
            cell = self._cells.setdefault(key, Cell(**key._asdict()))
            for name, number in numbers.items():
                setattr(cell, name, getattr(cell, name) + number)

    def full(self) -> bytes:
        """A full report of everything counted so far."""
        now_ms = int((self._clock() - self._began) * 1000)
        cells = list(self._cells.values())
        return encode(Report(incarnation=self._incarnation, now_ms=now_ms, full=True, cells=cells))
