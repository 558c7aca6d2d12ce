"""The other process of `streams`: its backend, and clients that note how old each event is.

`python -m bench.streams_harness PORT` serves on a port; a line `PORT COUNT SECONDS PID` on its
standard input is a round, answered by a line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import uvloop
from bench.bytepath import cpu_ns
from bench.bytepath_load import body, request
from bench.streams_backend import DIGITS, MARK, SUFFIX, Pace, Sender
from bench.table import percentile

SETTLE_SECONDS = 0.5
OPEN_SECONDS = 40.0
AT_ONCE = 128  # streams that are being opened


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
        done, at = 0, data.find(MARK)
        while at >= 0 and at + len(MARK) + DIGITS <= len(data):
            done = at + len(MARK) + DIGITS
            stamp = data[at + len(MARK) : done]
            if stamp.isdigit():  # else a chunk's head is in it: one event less than was sent
                self._append(now - int(stamp))
            at = data.find(MARK, done)
        self._rest = b"" if data.endswith(SUFFIX) else data[done:]
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


if __name__ == "__main__":
    uvloop.run(harness(int(sys.argv[1])))
