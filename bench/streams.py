"""Streams held at 30 tokens a second with 99 % of the events under 50 ms late, beside nginx.

Each stream gets an event every 33 ms that carries the time it was sent; the client, by the same
clock, takes what it reads minus that. Backend and clients are one process on one core (a timer for
all streams, an event is one `write`), each candidate has the other core to itself; rounds are
interleaved, the counts of streams rise. On a machine that others use a round is tried again until
they leave it alone. The same without a proxy between says how many events the harness makes at all
(what it sends it reads in the same turn, so that these ages say little), and when it is the harness
that gives out first: then the candidates' CPU per event says how many streams their core would
hold. Not a test: nothing passes or fails.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.bytepath import cores, free_ports, nginx_command, process, proxy_command
from bench.idlestreams import raise_limit
from bench.sidebyside import proxy_by_system_python, system_python
from bench.streams_backend import MILLISECONDS
from bench.table import show

COUNTS = (500, 1000, 1250, 1500, 1750, 2000, 2500, 3000, 4000)
ROUNDS = 3
SECONDS = 1.5
GOAL_MS = 50.0
KEPT = 0.98  # of the events that were to be: with less, nothing is held
FULL = 0.95  # of a core: whoever has that much to do is the limit
MISSES = 2  # levels in a row: one may be the machine's
QUIET = 0.1  # of a core that others took from a process while it was measured
TRIES = 4
DIRECT = "no proxy"
LIMITS = {"harness": "the harness", "core": "its core"}


@dataclass
class Level:
    """What was measured of one candidate with one count of streams, a value for each round."""

    figures: dict[str, list[float]] = field(default_factory=dict)

    def note(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.figures.setdefault(name, []).append(value)

    def of(self, name: str) -> float:
        """The median."""
        return statistics.median(self.figures[name])

    def busy(self, who: str) -> str:
        """The share of a core, and the share it was ready but another process ran."""
        return f"{self.of(who):.0%} +{self.of(f'{who}_waited'):.0%}"

    def holds(self) -> bool:
        """Every event came, and came in time."""
        return self.of("p99_ms") < GOAL_MS and self.of("share") >= KEPT

    def limit(self) -> str:
        """Who had no more to give."""
        full = [said for name, said in LIMITS.items() if self.of(name) >= FULL]
        return f"full: {' and '.join(full)}" if full else "neither is full, others run here too"

    def row(self, who: str) -> list[str]:
        """A line of the table."""
        p99 = self.figures["p99_ms"]
        return [
            who,
            f"{self.of('p50_ms'):.1f}",
            f"{self.of('p99_ms'):.1f} ({min(p99):.1f}–{max(p99):.1f})",
            f"{self.of('cpu_us'):.1f}" if "cpu_us" in self.figures else "–",
            self.busy("core") if "core" in self.figures else "–",
            self.busy("harness"),
            f"{self.of('rate'):,.0f}",
            f"{self.of('share'):.1%}",
            f"{self.of('late_ms'):.1f}",
        ]


class Harness:
    """The other process, and what its clients found."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def round(self, port: int, count: int, pid: int) -> dict[str, float]:
        """`count` streams through `port`; with the CPU of the process `pid`, if that is not 0."""
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(f"{port} {count} {SECONDS} {pid}\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("the harness gave up")
        figures: dict[str, float] = json.loads(line)
        if figures["lost"]:
            raise RuntimeError(f"{figures['lost']:.0f} of {count} streams were lost")
        figures["rate"] = figures["events"] / figures["seconds"]
        figures["share"] = figures["rate"] * MILLISECONDS / 1000 / count
        if pid:
            figures["cpu_us"] = figures["core"] * 1e6 / max(1.0, figures["rate"])
        return figures


@contextmanager
def started(port: int, core: int) -> Iterator[Harness]:
    """The harness on its core; its end is the end of its standard input."""
    command = ["taskset", "-c", str(core), sys.executable, "-m", "bench.streams_harness"]
    with subprocess.Popen(
        [*command, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            yield Harness(child)
        finally:
            child.terminate()


Start = Callable[[Path, int, Sequence[int]], Sequence[str] | None]
CANDIDATES: dict[str, Start] = {
    "nexus-proxy": proxy_command,
    "nexus-proxy, system's Python": proxy_by_system_python,
    "nginx": nginx_command,
}


def start_all(
    stack: ExitStack, folder: Path, core: int, backend: int
) -> Iterator[tuple[str, int, int]]:
    """Name, port and pid of each candidate there is."""
    for number, (name, command_of) in enumerate(CANDIDATES.items()):
        if command_of is proxy_by_system_python and system_python() is None:
            continue
        own = folder / str(number)
        own.mkdir()
        (port,) = free_ports(1)
        command = command_of(own, port, [backend])
        if command is not None:
            yield name, port, stack.enter_context(process(command, core, port, own / "log"))


def disturbed(figures: Mapping[str, float]) -> float:
    """How much others took of the two cores: nothing that a candidate does changes it."""
    return max(figures["harness_waited"], figures.get("core_waited", 0.0))


def quiet_round(load: Harness, port: int, count: int, pid: int) -> dict[str, float]:
    """A round in which others left the cores alone, or the least disturbed of `TRIES`."""
    tried: list[dict[str, float]] = []
    while len(tried) < TRIES and all(disturbed(each) > QUIET for each in tried):
        tried.append(load.round(port, count, pid))
    return min(tried, key=disturbed)


def level(everyone: Mapping[str, tuple[int, int]], count: int, load: Harness) -> dict[str, Level]:
    """Interleaved rounds of one count of streams."""
    found: dict[str, Level] = {name: Level() for name in everyone}
    for _ in range(ROUNDS):
        for name, (port, pid) in everyone.items():
            found[name].note(quiet_round(load, port, count, pid))
    return found


COLUMNS = ("ms p50", "p99 (range)", "µs CPU", "its core", "harness", "events/s", "of all", "late")


def verdict(name: str, levels: Mapping[int, Level]) -> Iterator[str]:
    """What the levels say of a candidate, in lines."""
    held = [count for count, each in levels.items() if each.holds()]
    most = max(held, default=min(levels))
    each = levels[most]
    full = 1e6 / each.of("cpu_us") / 1000 * MILLISECONDS
    yield (
        f"{name}: {most if held else 0:,} streams held; with {most:,} {each.of('cpu_us'):.1f} µs "
        f"an event, {each.of('core'):.0%} of its core: all of it would be {full:,.0f} streams"
    )
    for count in sorted(levels.keys() - held):
        missing = levels[count]
        came, p99 = missing.of("share"), missing.of("p99_ms")
        yield f"  {count:,}: {came:.0%} of the events came, p99 {p99:.0f} ms; {missing.limit()}"


def climb(everyone: Mapping[str, tuple[int, int]], load: Harness) -> None:
    """Level after level until no candidate holds the goal, twice, or the harness alone does not."""
    levels: dict[int, dict[str, Level]] = {}
    misses = 0
    for count in COUNTS:
        try:
            levels[count] = level(everyone, count, load)
        except RuntimeError as error:
            print(f"{count:,} streams: {error}")
            break
        print(f"\n{count:,} streams, {ROUNDS} interleaved rounds of {SECONDS} s", flush=True)
        show(["through", *COLUMNS], [each.row(name) for name, each in levels[count].items()])
        held = [name for name, each in levels[count].items() if each.holds()]
        misses = misses + 1 if held == [DIRECT] else 0
        if DIRECT not in held or misses == MISSES:
            break
    print()
    for name in [name for name in everyone if name != DIRECT and levels]:
        mine = {count: found[name] for count, found in levels.items()}
        print(*verdict(name, mine), sep="\n")


def main() -> None:
    """Run and print."""
    raise_limit()
    load_core, own_core = cores()
    (backend,) = free_ports(1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nexus-bench-")))
        load = stack.enter_context(started(backend, load_core))
        found = list(start_all(stack, folder, own_core, backend))
        time.sleep(3.0)  # probes, a table
        everyone: dict[str, tuple[int, int]] = {DIRECT: (backend, 0)}
        everyone |= {name: (port, pid) for name, port, pid in found}
        climb(everyone, load)
