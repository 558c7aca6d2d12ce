"""What a report costs on its way through the operator, phase by phase, in CPU time.

Promises the shipped server, intake and engine in this process and a sender in another, over a
loopback connection, one report after the other. The API server's answers are remembered ones.
"""

from __future__ import annotations

import asyncio
import gzip
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from bench.scale.cost import Cost, Desk
from bench.scale.plan import NAMESPACE, Size
from bench.table import show

from nexus_operator import intake as intake_module
from nexus_operator.body import read
from nexus_operator.identity import Identities
from nexus_operator.intake import Intake
from nexus_operator.metrics import Metrics
from nexus_operator.server import Server
from nexus_operator.settings import Settings
from nexus_quality.report import Answer, decode_report, encode

ROUNDS = 15
PROXIES = 20
TOKEN = "t" * 900  # about as long as a real one
SENDER = """
import http.client, struct, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
while head := sys.stdin.buffer.read(8):
    number, length = struct.unpack("!II", head)
    headers = {"Authorization": f"Bearer {sys.argv[2]}{number:04d}", "Content-Encoding": "gzip"}
    connection.request("POST", "/v1/outcomes", sys.stdin.buffer.read(length), headers)
    answer = connection.getresponse()
    answer.read()
    sys.stdout.buffer.write(bytes([answer.status // 100]))
    sys.stdout.buffer.flush()
"""


class Api:
    """Vouches for everybody."""

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        """One pod for each token."""
        user = {"username": f"system:serviceaccount:{NAMESPACE}:{token[-4:]}"}
        return {"authenticated": True, "audiences": [audience], "user": user}


class Patience:
    """Every reporter may come as often as it likes."""

    def wait(self, reporter: str) -> float:
        """No time."""
        return 0.0

    def charge(self, reporter: str, size: int) -> None:
        """Nothing."""


class Phases:
    """Stopwatches around the phases."""

    def __init__(self, desk: Desk) -> None:
        self.costs = {
            name: Cost() for name in ("sender", "read", "decode", "authorise", "take", "answer")
        }
        self.intake = Intake(
            identities=Identities(Api(), lambda: desk.now),  # type: ignore[arg-type]
            namespace_of=lambda uid: NAMESPACE,
            merge=self.timed("take", desk.parts.evaluator.merge),
            metrics=Metrics(lambda: ()),
            pace=Patience(),  # type: ignore[arg-type]
        )

    def timed(self, name: str, action: Callable[..., Any]) -> Callable[..., Any]:
        """The same, with its CPU time noted."""
        return lambda *given: self.costs[name].measure(lambda: action(*given))

    def waited(self, name: str, action: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        """The same of something that is awaited."""

        async def measured(*given: Any) -> Any:
            began = time.thread_time()
            try:
                return await action(*given)
            finally:
                self.costs[name].spent.append(time.thread_time() - began)

        return measured

    @contextmanager
    def running(self) -> Iterator[None]:
        """The phases of the shipped intake are measured meanwhile."""
        parts = mock.patch.multiple(
            intake_module,
            decode_report=self.timed("decode", decode_report),
            read=self.waited("read", read),
            encode=self.timed("answer", encode),
        )
        steps = mock.patch.multiple(
            Intake,
            _sender=self.waited("sender", Intake._sender),
            _forbidden=self.waited("authorise", Intake._forbidden),
        )
        with parts, steps:
            yield


async def measure(size: Size) -> None:
    """Prints a table for reports of a storm."""
    desk = Desk(size)
    for number, proxy in enumerate(desk.fleet.proxies):
        desk.tell(number, proxy, full=True)
    phases = Phases(desk)
    server = Server(
        settings=Settings(namespaces=(NAMESPACE,), host="127.0.0.1", port=0),
        why_not_ready=lambda: None,
        metrics_page=_nothing,
        stats_page=_nothing,
        intake=phases.intake.handle,
    )
    whole = Cost()
    with phases.running():
        await server.start()
        sizes = await send(desk, server.port, whole)
        await server.stop()
    print(f"reports of {sum(sizes) / len(sizes):.0f} bytes, packed")
    rows = [whole.row("a report, connection and all")]
    rows += [cost.row(f"  {name}") for name, cost in phases.costs.items()]
    show(("CPU ms", "times", "mean", "p99", "most"), rows)


async def send(desk: Desk, port: int, whole: Cost) -> list[int]:
    """Reports of all proxies in turn, sent by another process; their sizes."""
    sender = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-c", SENDER, str(port), TOKEN),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    sizes = [await one(desk, sender, number, whole) for number in range(ROUNDS * PROXIES)]
    assert sender.stdin is not None
    sender.stdin.close()
    await sender.wait()
    return sizes


async def one(desk: Desk, sender: asyncio.subprocess.Process, number: int, whole: Cost) -> int:
    """A report of the next proxy, sent by another process; its size."""
    which = number % PROXIES
    proxy = desk.fleet.proxies[which]
    desk.now += 1.0 / PROXIES
    proxy.serve(desk.now)
    report = proxy.monitor.report(desk.now, full=False)
    assert report is not None and sender.stdin is not None and sender.stdout is not None
    body = gzip.compress(encode(report), 1)
    began = time.thread_time()
    sender.stdin.write(struct.pack("!II", which, len(body)) + body)
    answer = await sender.stdout.readexactly(1)
    whole.spent.append(time.thread_time() - began)
    if answer != b"\2":
        raise RuntimeError("a report was refused")
    proxy.monitor.acknowledged(report, Answer(epoch=desk.parts.engine.epoch), desk.now)
    desk.parts.evaluator.take_touched()
    return len(body)


async def _nothing() -> bytes:
    return b""
