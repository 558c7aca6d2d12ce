"""Streams held at 30 tokens a second with 99 % of the events under 50 ms late, beside nginx.

Each stream gets an event every 33 ms that carries the time it was sent; the client, by the same
clock, takes what it reads minus that. Backend and clients are one process on one core (a timer for
all streams, an event is one `write`), each candidate has the other core to itself; rounds are
interleaved, the counts of streams rise. On a machine that others use a round is tried again until
they leave it alone. The same without a proxy between says how many events the harness makes at all
(what it sends it reads in the same turn, so that these ages say little), and when it is the harness
that gives out first: then the candidates' CPU per event says how many streams their core would
hold. Not a test: nothing passes or fails.

`python -m bench.streams harness PORT` is the other process: a line `PORT COUNT SECONDS PID` on
its standard input is a round.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop
from bench.bytepath import cores, cpu_ns, free_ports, nginx_command, process, proxy_command
from bench.bytepath_backend import ANSWER, CHUNK
from bench.bytepath_load import body, request
from bench.idlestreams import raise_limit
from bench.sidebyside import proxy_by_system_python, system_python
from bench.table import percentile, show

COUNTS = (500, 1000, 1250, 1500, 1750, 2000, 2500, 3000, 4000)
ROUNDS = 3
SECONDS = 1.5
SETTLE_SECONDS = 0.5
OPEN_SECONDS = 40.0
MILLISECONDS = 33  # between two events of a stream: as many groups of streams, one each tick
GOAL_MS = 50.0
KEPT = 0.98  # of the events that were to be: with less, nothing is held
FULL = 0.95  # of a core: whoever has that much to do is the limit
MISSES = 2  # levels in a row: one may be the machine's
QUIET = 0.1  # of a core that others took from a process while it was measured
TRIES = 4
AT_ONCE = 128  # streams that are being opened
DIRECT = "no proxy"
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_MARK = b'"content":" '
_DIGITS = 18
_BEFORE, _AFTER = CHUNK.split(b"\r\n", 1)[1][:-2].split(b'"content":" the', 1)
_SIZE = len(_BEFORE) + len(_MARK) + _DIGITS + len(_AFTER)
_PREFIX = b"%x\r\n%b%b" % (_SIZE, _BEFORE, _MARK)
_SUFFIX = _AFTER + b"\r\n"


def event() -> bytes:
    """An event that is sent now, as a chunk."""
    return _PREFIX + b"%0*d" % (_DIGITS, time.monotonic_ns()) + _SUFFIX


class Sender(asyncio.Protocol):
    """A connection of the backend: a stream, or a probe that is answered at once."""

    def __init__(self, groups: Sequence[set[Sender]]) -> None:
        self._groups = groups
        self._group: set[Sender] = set()
        self._got = b""
        self._descriptor = -1
        self._direct = True
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._descriptor = transport.get_extra_info("socket").fileno()

    def eof_received(self) -> None:
        self._group.discard(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._group.discard(self)
        self.over.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, blank, content = self._got.partition(b"\r\n\r\n")
        _, found, size = head.lower().partition(b"content-length:")
        if not blank or (found and len(content) < int(size.split(b"\r\n", 1)[0])):
            return
        self._got = b""
        if head.startswith(b"POST"):
            self._transport.write(_HEAD + event())
            self._group = min(self._groups, key=len)
            self._group.add(self)
        else:
            self._transport.write(ANSWER)

    def send(self, chunk: bytes) -> None:
        """Write past the transport, which is for what the socket does not take."""
        written = 0
        if self._direct:
            try:
                written = os.write(self._descriptor, chunk)
            except BlockingIOError:
                pass
            except ConnectionError:
                return
        if written < len(chunk):
            self._direct = False  # what came later must not overtake
            self._transport.write(chunk[written:])


class Pace:
    """The one timer: every millisecond the next group, and how late that was, in ns."""

    def __init__(self) -> None:
        self.groups: list[set[Sender]] = [set() for _ in range(MILLISECONDS)]
        self.late = array("q")
        self._turn = 0
        self._loop = asyncio.get_running_loop()
        self._due = 0
        self._running = False

    def start(self) -> None:
        """From now on."""
        self._due = time.monotonic_ns()
        self._running = True
        self.tick()

    def stop(self) -> None:
        """No more events."""
        self._running = False

    def tick(self) -> None:
        """Send to a group. One that is behind gives way to what has to be read, then goes on."""
        now = time.monotonic_ns()
        if not self._running:
            return
        if now >= self._due:
            self.late.append(now - self._due)
            group = self.groups[self._turn]
            for sender in tuple(group):
                sender.send(event())
            self._turn = (self._turn + 1) % MILLISECONDS
            self._due += 1_000_000
        if self._due > time.monotonic_ns():
            self._loop.call_later(0.001, self.tick)  # less than a millisecond would spin
        else:
            self._loop.call_soon(self.tick)


class Receiver(asyncio.Protocol):
    """A client: asks for a stream, and notes how old each event is, in ns."""

    def __init__(self, content: bytes, begun: asyncio.Semaphore, ages: array[int]) -> None:
        self._content = content
        self._begun = begun
        self._append = ages.append
        self._rest = b""
        self.any = False
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._content)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if self._rest:
            data = self._rest + data
        done, at = 0, data.find(_MARK)
        while at >= 0 and at + len(_MARK) + _DIGITS <= len(data):
            done = at + len(_MARK) + _DIGITS
            stamp = data[at + len(_MARK) : done]
            if stamp.isdigit():  # else a chunk's head is in it: one event less than was sent
                self._append(now - int(stamp))
            at = data.find(_MARK, done)
        self._rest = b"" if data.endswith(_SUFFIX) else data[done:]
        if done and not self.any:
            self.any = True
            self._begun.release()


async def opened(port: int, count: int, ages: array[int]) -> list[Receiver]:
    """`count` streams that have begun."""
    loop = asyncio.get_running_loop()
    begun = asyncio.Semaphore(AT_ONCE)
    content = request(body(size=512, stream=True))
    receivers = []
    async with asyncio.timeout(OPEN_SECONDS):
        for _ in range(count):
            await begun.acquire()
            made = await loop.create_connection(
                lambda: Receiver(content, begun, ages), "127.0.0.1", port
            )
            receivers.append(made[1])
        for _ in range(AT_ONCE):  # all places are free again: every stream has begun
            await begun.acquire()
    return receivers


def waited_ns(pid: int) -> int:
    """How long a process and its children were ready and had no core, in nanoseconds."""
    tasks = Path(f"/proc/{pid}/task")
    children = (tasks / str(pid) / "children").read_text().split()
    own = sum(int((task / "schedstat").read_text().split()[1]) for task in tasks.iterdir())
    return own + sum(waited_ns(int(child)) for child in children)


class Account:
    """What a process has had of a core, and waited for one, since this was made."""

    def __init__(self, name: str, pid: int) -> None:
        self._name = name
        self._pid = pid
        self._used = cpu_ns(pid)
        self._waited = waited_ns(pid)
        self._began = time.monotonic_ns()

    def shares(self) -> dict[str, float]:
        """Both as shares of the time since."""
        took = time.monotonic_ns() - self._began
        used, waited = cpu_ns(self._pid) - self._used, waited_ns(self._pid) - self._waited
        return {self._name: used / took, f"{self._name}_waited": waited / took}


async def hung_up(groups: Sequence[set[Sender]]) -> None:
    """The backend has seen its streams go."""
    async with asyncio.timeout(OPEN_SECONDS):
        for group in groups:
            for sender in tuple(group):
                await sender.over


async def one_round(
    pace: Pace, port: int, count: int, *, seconds: float, accounts: Mapping[str, int]
) -> dict[str, float]:
    """Open, measure, hang up."""
    ages = array("q")
    receivers = await opened(port, count, ages)
    pace.start()
    await asyncio.sleep(SETTLE_SECONDS)
    del ages[:], pace.late[:]
    began = time.monotonic()
    running = [Account(name, pid) for name, pid in accounts.items()]
    await asyncio.sleep(seconds)
    figures = {"events": float(len(ages)), "seconds": time.monotonic() - began}
    for account in running:
        figures |= account.shares()
    pace.stop()
    figures["p50_ms"] = percentile(ages, 0.50) / 1e6
    figures["p99_ms"] = percentile(ages, 0.99) / 1e6
    figures["late_ms"] = percentile(pace.late, 0.99) / 1e6
    figures["lost"] = sum(receiver.lost for receiver in receivers)
    for receiver in receivers:
        receiver.transport.abort()
    await hung_up(pace.groups)
    return figures


async def harness(port: int) -> None:
    """Serve on `port`, and measure whatever is asked for on standard input."""
    loop = asyncio.get_running_loop()
    pace = Pace()
    await loop.create_server(lambda: Sender(pace.groups), "127.0.0.1", port, backlog=4096)
    gc.disable()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        target, count, seconds, pid = line.split()
        accounts = {"harness": os.getpid()} | ({"core": int(pid)} if int(pid) else {})
        try:
            figures = await one_round(
                pace, int(target), int(count), seconds=float(seconds), accounts=accounts
            )
        except TimeoutError:
            sys.exit(f"{count} streams did not begin in {OPEN_SECONDS:.0f} s")
        print(json.dumps(figures), flush=True)
        gc.collect()


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
    command = ["taskset", "-c", str(core), sys.executable, "-m", "bench.streams", "harness"]
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


if __name__ == "__main__":
    uvloop.run(harness(int(sys.argv[2])))
