"""The measurement: a fleet begins to report, all is quiet, then a storm; a table at the end."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.scale.fleet import Fleet
from bench.scale.plan import Size
from bench.scale.real import Cluster, Writes, cluster
from bench.scale.tables import Figures, Phase, print_phases, print_rounds, print_writes
from bench.table import percentile

ROOT = Path(__file__).parents[2]
LINE_LIMIT = 1 << 24
TURN_SECONDS = 20.0


@dataclass(slots=True)
class Subject:
    """The operator's process, and the watch events it passes on.

    `sent`: UID, when its evidence came, when its status was sent, of each status sent for a report.
    """

    process: asyncio.subprocess.Process
    watched: Callable[[Mapping[str, Any]], None] = lambda stored: None
    sent: list[tuple[str, float, float]] = field(default_factory=list)
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
            elif "sent" in words:
                self.sent.append(tuple(words["sent"]))
            else:
                self._answers.put_nowait(words)


async def start(folder: Path, *, backends: int, kubeconfig: Path | None, store: bool) -> Subject:
    """The operator on a fake API server with that many backends, or on a real one."""
    place = folder / "store"
    place.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.scale.subject"),
        *("0" if kubeconfig else str(backends), str(place) if store else "-"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT, limit=LINE_LIMIT,
        env=os.environ | ({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {}),
    )  # fmt: skip
    return Subject(process)


async def measure(size: Size, times: Times, *, real: bool, store: bool) -> None:
    """Runs all phases and prints the tables."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nexus-bench-")))
        world = await stack.enter_async_context(cluster(size, folder)) if real else None
        subject = await start(
            folder,
            backends=size.backends,
            kubeconfig=world.kubeconfig if world else None,
            store=store,
        )
        listening = asyncio.create_task(subject.listen())
        stack.push_async_callback(end, subject, listening)
        port = (await subject.answer())["port"]
        await phases(Bench(size, subject, world, fleet_of(size, port, world)), times, port)


def fleet_of(size: Size, port: int, world: Cluster | None) -> Fleet:
    """The reporters, with what the API server calls its objects."""
    if world is None:
        return Fleet(size, port)
    return Fleet(size, port, uid_of=world.uids.__getitem__, token_of=world.tokens.__getitem__)


async def end(subject: Subject, listening: asyncio.Task[None]) -> None:
    """Stops the operator."""
    assert subject.process.stdin is not None
    subject.process.stdin.write(b"stop\n")
    await subject.process.wait()
    await listening


async def phases(bench: Bench, times: Times, port: int) -> None:
    """A start, a quiet time and a storm."""
    fleet, subject = bench.fleet, bench.subject
    subject.watched = fleet.changed
    running = [asyncio.create_task(proxy.run()) for proxy in fleet.proxies]
    if bench.world is not None:
        running.append(asyncio.create_task(bench.world.watch(fleet.changed)))
    found = [await bench.phase("start", times.settle), await bench.phase("quiet", times.quiet)]
    scrapes = await scraped(subject, port)
    rounds = await subject.ask("recompute")
    fleet.storm = True
    running.append(asyncio.create_task(break_some(fleet, bench.size)))
    found.append(await bench.phase("storm", times.storm))
    rounds_in_storm = await subject.ask("recompute")
    print_phases(found)
    print_rounds({"quiet": rounds, "storm": rounds_in_storm}, scrapes)
    print_writes(found)
    for task in running:
        task.cancel()
    ended = await asyncio.gather(*running, return_exceptions=True)
    for proxy in fleet.proxies:
        proxy.close()
    for error in {repr(one) for one in ended if isinstance(one, Exception)}:
        print(f"a part of the fleet ended with {error}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds of the phases."""

    settle: float
    quiet: float
    storm: float


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured; `world` None: on an API server within the operator's process."""

    size: Size
    subject: Subject
    world: Cluster | None
    fleet: Fleet

    async def phase(self, name: str, seconds: float) -> Phase:
        """Lets time pass, and says what it cost."""
        subject, fleet, world = self.subject, self.fleet, self.world
        before = await world.writes() if world else Writes()
        await subject.ask("reset")
        fleet.reset()
        subject.sent.clear()
        if world is not None:
            world.seen.clear()
        spent = time.process_time()
        await asyncio.sleep(seconds)
        operator = await subject.ask("read")
        return Phase(
            name, operator, fleet.reports, fleet.bytes / 1e6,
            percentile(fleet.answers or [0.0], 0.99), fleet.refused, time.process_time() - spent,
            await world.writes() - before if world else Writes(),
            arrivals(subject.sent, world.seen) if world else [],
        )  # fmt: skip


def arrivals(sent: list[tuple[str, float, float]], seen: list[tuple[str, float]]) -> list[float]:
    """Seconds from the evidence for a status to the watch event that brought it."""
    events: dict[str, list[float]] = {}
    for uid, moment in seen:
        events.setdefault(uid, []).append(moment)
    found = []
    for uid, since, left in sent:
        later = [moment for moment in events.get(uid, ()) if moment >= left]
        if later:
            found.append(min(later) - since)
    return found


async def break_some(fleet: Fleet, size: Size) -> None:
    """At any moment a share of the backends fails, each for some time, the next ones after it."""
    count = max(1, round(size.failing * size.backends))
    first = 0
    while True:
        fleet.broken = {fleet.uid_of((first + n) % size.backends) for n in range(count)}
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
