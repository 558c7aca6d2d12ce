"""What `--workers` costs and what it gives: CPU per request of all processes together, and requests
in the same time where nothing is pinned to a core.

One worker is one process without a parent, as ever. Rounds are interleaved; medians are printed.
Requests in a time need cores that nobody else uses: with two in all, which backend and load use as
well, twice as many are out of reach.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.bytepath import Candidate, cores, cpu_ns, free_ports, process, proxy_command
from bench.bytepath_load import closed_loop
from bench.table import show

WORKERS = (1, 2, 4)
BACKENDS = 4
ROUNDS = 4
SECONDS = 2.0
SIZE = 2048


def main() -> None:
    """Print both tables."""
    print("one core for all processes of the proxy: CPU per 2 KB request, us")
    _print(_measure(pinned=True), "cpu")
    print("\nno process pinned: requests a second")
    _print(_measure(pinned=False), "rate")


def _print(candidates: list[Candidate], what: str) -> None:
    measured = [each.cpu_us["r"] if what == "cpu" else each.rate["r"] for each in candidates]
    first = statistics.median(measured[0])
    rows = [
        [each.name, f"{statistics.median(seen):.1f}", f"{statistics.median(seen) / first:.2f}",
         f"{min(seen):.1f}-{max(seen):.1f}"]
        for each, seen in zip(candidates, measured, strict=True)
    ]  # fmt: skip
    show(["workers", "median", "to one", "range"], rows)


def _measure(*, pinned: bool) -> list[Candidate]:
    load, own = cores()
    all_cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nexus-bench-")))
        backends = free_ports(BACKENDS)
        command = [sys.executable, "-m", "bench.bytepath_backend", *map(str, backends)]
        where = str(load) if pinned else all_cores
        stack.enter_context(process(command, where, backends[0], folder / "backend.log"))
        candidates = []
        for number in WORKERS:
            place = folder / str(number)
            place.mkdir()
            (port,) = free_ports(1)
            asked = [*proxy_command(place, port, backends), "--workers", str(number)]
            core = str(own) if pinned else all_cores
            pid = stack.enter_context(process(asked, core, port, place / "log"))
            candidates.append(Candidate(str(number), port, pid))
        for candidate in candidates * ROUNDS:
            _round(candidate, where)
    return candidates


def _round(candidate: Candidate, core: str) -> None:
    closed_loop(candidate.port, 1.0, size=SIZE, core=core)
    before = cpu_ns(candidate.pid)
    figures = closed_loop(candidate.port, SECONDS, size=SIZE, core=core)
    used = cpu_ns(candidate.pid) - before
    if figures["errors"]:
        print(f"{candidate.name} workers: {figures['errors']:.0f} errors")
    candidate.note("r", cpu_ns=used, count=figures["requests"], seconds=SECONDS)
