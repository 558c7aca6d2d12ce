"""A way to the API server that a test can watch, block, and cut at an exact request.

Promises: a client that speaks plain HTTP to `url` reaches the API server; every request of the
client passes `judge` twice, when it arrived and when its answer begins, and goes no further if that
says no. While the gate is shut nothing passes and nothing stays connected. It answers nothing
itself, and it is NOT part of the product.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import yaml

from nexus_devtools.controlplane import ControlPlane

HEAD_LIMIT = 1 << 20
CHUNK = 1 << 16


class Moment(Enum):
    """When a request is judged."""

    ARRIVED = "arrived"
    """Whole, and not yet forwarded."""
    ANSWERED = "answered"
    """The API server has answered with success, and the client does not know yet."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request of the client; `path` without its query."""

    method: str
    path: str
    body: bytes

    @property
    def status(self) -> dict[str, Any] | None:
        """The status it wants to write to one of our objects; None for any other request."""
        if self.method != "PATCH" or not self.path.endswith("/status"):
            return None
        found: dict[str, Any] = json.loads(self.body)["status"]
        return found

    @property
    def target(self) -> str:
        """The name of the object whose status it writes."""
        return self.path.split("/")[-2]


Judge = Callable[[Call, Moment], bool]
Edit = Callable[[bytes], bytes]


class Gate:
    """One gate; a context manager. `judge` may be replaced at any time, it runs in the gate's
    thread. `edit` changes every request before it is forwarded.
    """

    def __init__(self, plane: ControlPlane, *, edit: Edit = lambda request: request) -> None:
        parts = urlsplit(plane.server)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 443
        self._context = ssl.create_default_context(cafile=str(plane.ca_file))
        self._edit = edit
        self._shut = False
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gate", daemon=True)
        self.judge: Judge = lambda call, moment: True
        self.calls: list[Call] = []
        """Every status write that arrived here."""
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", limit=HEAD_LIMIT))
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def shut(self) -> None:
        """Cut every connection and refuse new ones."""
        self._shut = True
        self._run(self._cut())

    def open(self) -> None:
        """Let requests pass again."""
        self._shut = False

    def lead(self, kubeconfig: Path) -> None:
        """Make a kubeconfig point here."""
        document = yaml.safe_load(kubeconfig.read_text())
        document["clusters"][0]["cluster"] = {"server": self.url}
        kubeconfig.write_text(yaml.safe_dump(document))

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _cut(self) -> None:
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if not self._shut:
                await self._join(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # a connection that breaks on either side is broken on the other, below
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(
            self._host, self._port, ssl=self._context
        )
        link = _Link(self)
        tasks = [
            asyncio.create_task(link.forward(reader, far_writer)),
            asyncio.create_task(link.answer(far_reader, writer)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            far_writer.transport.abort()


class _Link:
    """One connection of the client and its other half; requests come one after the other."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._open: Call | None = None

    async def forward(self, client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while True:
            head = await client.readuntil(b"\r\n\r\n")
            body = await client.readexactly(_length(head))
            request = self._gate._edit(head + body)
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            call = Call(method, urlsplit(target).path, body)
            if call.status is not None:
                self._gate.calls.append(call)
            if not self._gate.judge(call, Moment.ARRIVED):
                return
            self._open = call
            server.write(request)
            await server.drain()

    async def answer(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while chunk := await server.read(CHUNK):
            call, self._open = self._open, None
            success = call is not None and chunk.split(b" ", 2)[1:2] in ([b"200"], [b"201"])
            if call is not None and success and not self._gate.judge(call, Moment.ANSWERED):
                return
            client.write(chunk)
            await client.drain()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return 0
