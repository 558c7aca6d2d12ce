"""Streams that are open and nearly silent, 1,000 and 10,000 of them on one proxy process.

Of each the proxy forwards an event every `EVERY` seconds, as of models that think. Printed: memory
of the proxy, its CPU while it holds them, what an ordinary request takes meanwhile, and what is
left when all have hung up at once. A stream needs two descriptors: where the hard limit allows
fewer streams, that many are held, and the table says so.

`python -m bench.idlestreams backend PORT` and `... load PORT COUNT` are its two other processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, cast

import uvloop
from bench.bytepath import cores, cpu_ns, free_ports, process, proxy_command
from bench.bytepath_backend import ANSWER, CHUNK
from bench.bytepath_load import body, request, run
from bench.exchange import STREAM_HEAD, RequestReader
from bench.table import show

COUNTS = (1_000, 10_000)
EVERY = 10.0
HOLD_SECONDS = 12.0
AT_ONCE = 256
RESERVED = 100  # descriptors that are not streams: the listener, the pools, the files of Python


def raise_limit() -> int:
    """Take all descriptors that this process may have; how many these are."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Backend(asyncio.Protocol):
    """Answers a stream with its first event and keeps it; anything else whole."""

    def __init__(self, streams: deque[tuple[float, Backend]]) -> None:
        self._streams = streams
        self._reader = RequestReader()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        asked = self._reader.feed(data)
        if asked is None:
            return
        assert self.transport is not None
        if b'"stream":true' not in asked[1][-64:]:
            self.transport.write(ANSWER)
            return
        self.transport.write(STREAM_HEAD + CHUNK)
        self._streams.append((time.monotonic() + EVERY, self))


async def backend(port: int) -> None:
    """Serve for ever; each stream gets an event when its turn has come."""
    streams: deque[tuple[float, Backend]] = deque()
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Backend(streams), "127.0.0.1", port, backlog=4096)
    while True:
        await asyncio.sleep(0.01)
        while streams and streams[0][0] <= time.monotonic():
            due, each = streams.popleft()
            if each.transport is not None:
                each.transport.write(CHUNK)
                streams.append((due + EVERY, each))


class Reader(asyncio.Protocol):
    """One client: asks, and counts events."""

    def __init__(self, begun: asyncio.Semaphore, content: bytes) -> None:
        self._begun = begun
        self._content = content
        self.events = 0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._content)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def data_received(self, data: bytes) -> None:
        if not self.events:
            self._begun.release()
        self.events += data.count(b"data: ")


async def load(port: int, count: int) -> None:
    """Open `count` streams, say so, hold them until a line comes, and say what became of them."""
    loop = asyncio.get_running_loop()
    begun = asyncio.Semaphore(AT_ONCE)
    content = request(body(size=512, stream=True))
    readers = []
    for _ in range(count):
        async with asyncio.timeout(30):
            await begun.acquire()
        made = await loop.create_connection(lambda: Reader(begun, content), "127.0.0.1", port)
        readers.append(made[1])
    async with asyncio.timeout(30):
        for _ in range(AT_ONCE):  # all places are free again: every stream has begun
            await begun.acquire()
    print(json.dumps({"open": count}), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    figures = {"events": sum(r.events for r in readers), "lost": sum(r.lost for r in readers)}
    print(json.dumps(figures), flush=True)


@contextmanager
def streams(port: int, count: int, core: int) -> Iterator[IO[str]]:
    """`count` open streams; a line on the way out makes them hang up."""
    command = ["taskset", "-c", str(core), sys.executable, "-m", "bench.idlestreams", "load"]
    with subprocess.Popen(
        [*command, str(port), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        if not child.stdout.readline():
            raise RuntimeError(f"{count} streams could not be opened")
        yield child.stdout
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write("\n")
            child.stdin.flush()
        figures = json.loads(child.stdout.readline())
        if figures["lost"]:
            raise RuntimeError(f"{figures['lost']} of {count} streams were lost")


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def measure(pid: int, port: int, count: int, core: int) -> list[object]:
    """A row of the table."""
    rest = memory_mb(pid)
    began = time.monotonic()
    with streams(port, count, core):
        opened = time.monotonic() - began
        before, start = cpu_ns(pid), time.monotonic()
        time.sleep(HOLD_SECONDS)
        busy = (cpu_ns(pid) - before) / 1e9 / (time.monotonic() - start)
        held = memory_mb(pid)
        asked = run("paced", port, 50, 4.0, core=core)
    time.sleep(3.0)
    left = memory_mb(pid)
    with streams(port, count, core):
        again = memory_mb(pid)
    return [
        f"{count:,}",
        f"{rest:.1f}",
        f"{held:.1f}",
        f"{(held - rest) * 1000 / count:.1f}",
        f"{opened:.1f}",
        f"{busy:.1%}",
        f"{asked['p50_ms']:.1f} / {asked['p99_ms']:.1f}",
        f"{left:.1f} / {again:.1f}",
    ]


def main() -> None:
    """Run and print."""
    most = (raise_limit() - RESERVED) // 2
    load_core, own_core = cores()
    rows = []
    for wanted in COUNTS:
        count = min(wanted, most)
        if count < wanted:
            print(f"the hard limit of descriptors allows {count:,} streams, not {wanted:,}")
        upstream, port = free_ports(2)
        with ExitStack() as stack:
            made = tempfile.TemporaryDirectory(prefix="nexus-bench-")
            folder = Path(stack.enter_context(made))
            serve = [sys.executable, "-m", "bench.idlestreams", "backend", str(upstream)]
            stack.enter_context(process(serve, load_core, upstream, folder / "backend.log"))
            command = proxy_command(folder, port, [upstream])
            pid = stack.enter_context(process(command, own_core, port, folder / "proxy.log"))
            time.sleep(3.0)
            rows.append(measure(pid, port, count, load_core))
    columns = [
        "streams",
        "RSS MB at rest",
        "with them",
        "KB each",
        "opened in s",
        "CPU",
        "ms p50/p99",
    ]
    print(f"an event per stream every {EVERY:.0f} s; ms: 50 other requests a second meanwhile")
    show([*columns, "RSS after / a second time"], rows)


if __name__ == "__main__":
    raise_limit()
    _, what, at, *counts = sys.argv
    uvloop.run(backend(int(at)) if what == "backend" else load(int(at), int(counts[0])))
