"""What was measured, as tables: a column for each phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.scale.real import Writes
from bench.table import percentile, show

Figures = dict[str, Any]


@dataclass(slots=True)
class Phase:
    """What the operator said of a phase and what the fleet did in it."""

    name: str
    operator: Figures
    reports: int
    megabytes: float
    answer_p99: float
    refused: int
    fleet_cpu: float
    writes: Writes
    verdicts: list[float]


def print_phases(phases: list[Phase]) -> None:
    """One column per phase."""
    rows: list[tuple[str, Callable[[Phase], str]]] = [
        ("seconds", lambda p: f"{p.operator['wall']:.0f}"),
        ("reports a second", lambda p: f"{p.reports / p.operator['wall']:.0f}"),
        ("kB a report, unpacked", lambda p: f"{1000 * p.megabytes / max(1, p.reports):.1f}"),
        ("told to come again", lambda p: f"{p.refused}"),
        ("operator CPU, of one core", lambda p: f"{p.operator['cpu'] / p.operator['wall']:.0%}"),
        ("CPU per report, ms", lambda p: f"{1000 * p.operator['cpu'] / max(1, p.reports):.2f}"),
        ("fleet CPU, of one core", lambda p: f"{p.fleet_cpu / p.operator['wall']:.0%}"),
        ("answer p99, ms", lambda p: f"{1000 * p.answer_p99:.0f}"),
        ("longest stall, CPU ms", lambda p: f"{1000 * p.operator['stall_cpu']:.0f}"),
        ("longest stall, wall ms", lambda p: f"{1000 * p.operator['stall_wall']:.0f}"),
        ("resident, MB", lambda p: f"{p.operator['resident']:.0f}"),
        ("status writes", lambda p: f"{p.operator['writes']}"),
        ("of them at once", lambda p: f"{p.operator['urgent']}"),
        ("evidence to write p50, ms", lambda p: f"{1000 * p.operator['delay_p50']:.0f}"),
        ("evidence to write p99, ms", lambda p: f"{1000 * p.operator['delay_p99']:.0f}"),
        ("evidence to watcher p50, ms", lambda p: milliseconds(p.verdicts, 0.5)),
        ("evidence to watcher p99, ms", lambda p: milliseconds(p.verdicts, 0.99)),
    ]
    table = [(name, *(cell(one) for one in phases)) for name, cell in rows]
    show(("", *(one.name for one in phases)), table)


def print_rounds(
    rounds: Mapping[str, Figures], scrapes: list[tuple[str, float, float, float]]
) -> None:
    """What looking at everything costs."""
    print()
    show(
        ("all backends recomputed, CPU ms", "first of a bucket", "again"),
        [(n, f"{1000 * r['first']:.0f}", f"{1000 * r['again']:.0f}") for n, r in rounds.items()],
    )
    print()
    show(
        ("page", "ms", "longest stall, CPU ms", "kB"),
        [(p, f"{1000 * t:.0f}", f"{1000 * s:.0f}", f"{k:.0f}") for p, t, s, k in scrapes],
    )


def print_writes(phases: list[Phase]) -> None:
    """What the API server counted, by verb and resource."""
    asked = sorted({name for one in phases for name in one.writes})
    if asked:
        print()
        rows = [(name, *(str(one.writes[name]) for one in phases)) for name in asked]
        show(("asked of the API server, reads apart", *(one.name for one in phases)), rows)


def milliseconds(values: list[float], share: float) -> str:
    """A percentile, "" of nothing."""
    return f"{1000 * percentile(values, share):.0f}" if values else ""
