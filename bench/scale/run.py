"""The measurement: a fleet begins to report, all is quiet, then a storm; a table at the end."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.scale.fleet import Fleet
from bench.scale.plan import Size, uid_of
from bench.table import percentile, show

ROOT = Path(__file__).parents[2]
LINE_LIMIT = 1 << 24
TURN_SECONDS = 20.0
Figures = dict[str, Any]


@dataclass(slots=True)
class Phase:
    """What the operator said of a phase and what the fleet did in it."""

    name: str
    operator: Figures
    reports: int
    fulls: int
    cells: int
    megabytes: float
    answer_p99: float
    refused: int
    fleet_cpu: float


@dataclass(slots=True)
class Subject:
    """The operator's process, and the watch events it passes on."""

    process: asyncio.subprocess.Process
    watched: Callable[[Mapping[str, Any]], None] = lambda stored: None
    _answers: asyncio.Queue[Figures] = field(default_factory=asyncio.Queue)

    async def ask(self, command: str) -> Figures:
        """An answer to a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())
        return await self.answer()

    async def answer(self) -> Figures:
        """What it says next."""
        return await asyncio.wait_for(self._answers.get(), 120)

    async def listen(self) -> None:
        """Takes in its lines until it ends."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            words = json.loads(line)
            if "watch" in words:
                self.watched(words["watch"])
            else:
                self._answers.put_nowait(words)


async def start(size: Size | None) -> Subject:
    """The operator on a fake API server with that many backends, else on the real one."""
    arguments = [] if size is None else [str(size.backends)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.scale.subject", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        cwd=ROOT, env=os.environ, limit=LINE_LIMIT,
    )  # fmt: skip
    return Subject(process)


async def measure(size: Size, *, settle: float, quiet: float, storm: float) -> None:
    """Runs all phases and prints the tables."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    subject = await start(size)
    listening = asyncio.create_task(subject.listen())
    port = (await subject.answer())["port"]
    fleet = Fleet(size, port)
    subject.watched = fleet.changed
    running = [asyncio.create_task(proxy.run()) for proxy in fleet.proxies]
    phases = [
        await phase("start", subject, fleet, settle),
        await phase("quiet", subject, fleet, quiet),
    ]
    scrapes = await scraped(subject, port)
    rounds = await subject.ask("recompute")
    fleet.storm = True
    breaking = asyncio.create_task(break_some(fleet, size))
    phases.append(await phase("storm", subject, fleet, storm))
    rounds_in_storm = await subject.ask("recompute")
    for task in (breaking, *running):
        task.cancel()
    await asyncio.gather(breaking, *running, return_exceptions=True)
    for proxy in fleet.proxies:
        proxy.close()
    assert subject.process.stdin is not None
    subject.process.stdin.write(b"stop\n")
    await subject.process.wait()
    await listening
    print_phases(phases)
    print_rounds({"quiet": rounds, "storm": rounds_in_storm}, scrapes)


async def phase(name: str, subject: Subject, fleet: Fleet, seconds: float) -> Phase:
    """Lets time pass, and says what it cost."""
    await subject.ask("reset")
    fleet.reset()
    spent = time.process_time()
    await asyncio.sleep(seconds)
    operator = await subject.ask("read")
    return Phase(
        name, operator, fleet.reports, fleet.fulls, fleet.cells, fleet.bytes / 1e6,
        percentile(fleet.answers or [0.0], 0.99), fleet.refused, time.process_time() - spent,
    )  # fmt: skip


async def break_some(fleet: Fleet, size: Size) -> None:
    """At any moment a share of the backends fails, each for some time, the next ones after it."""
    count = max(1, round(size.failing * size.backends))
    first = 0
    while True:
        fleet.broken = {uid_of((first + n) % size.backends) for n in range(count)}
        first += max(1, count // int(TURN_SECONDS))
        await asyncio.sleep(1.0)


async def scraped(subject: Subject, port: int) -> list[tuple[str, float, float, float]]:
    """Each page read once: seconds, longest stall, kilobytes."""
    from bench.scale.wire import Connection

    found = []
    for path in ("/metrics", "/v1/stats"):
        connection = Connection(port, "x")
        await subject.ask("reset")
        began = time.monotonic()
        _, body = await connection.get(path)
        took = time.monotonic() - began
        connection.close()
        stall = (await subject.ask("read"))["stall_cpu"]
        found.append((path, took, stall, len(body) / 1000))
    return found


def print_phases(phases: list[Phase]) -> None:
    """One column per phase."""
    rows: list[tuple[str, Callable[[Phase], str]]] = [
        ("seconds", lambda p: f"{p.operator['wall']:.0f}"),
        ("reports a second", lambda p: f"{p.reports / p.operator['wall']:.0f}"),
        ("of them full", lambda p: f"{p.fulls / p.operator['wall']:.0f}"),
        ("cells a report", lambda p: f"{p.cells / max(1, p.reports):.0f}"),
        ("MB a second", lambda p: f"{p.megabytes / p.operator['wall']:.1f}"),
        ("refused", lambda p: f"{p.refused}"),
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
