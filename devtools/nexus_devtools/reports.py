"""A proxy's report as tests of the intake send it.

Promises one full report of an incarnation that has run for ten hours, with the same counters in
the current bucket of each family. It is NOT a proxy: nothing grows between two of them.
"""

from __future__ import annotations

from nexus_quality.report import Cell, Report
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
