"""A tap on a wire: a relay on loopback that notes every byte in both directions.

Promises: bytes pass unchanged and in order, each is noted before it is passed on, and an end or a
reset on one side reaches the other. It runs in a thread of its own, so tests stay synchronous. It
understands nothing of what it carries: `exchanges` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_READ = 1 << 18


@dataclass(slots=True)
class Wire:
    """One connection: what the client sent, with times, and what it received."""

    sent: list[tuple[float, bytes]] = field(default_factory=list)
    received: list[tuple[float, bytes]] = field(default_factory=list)
    ended: bool = False
    """The server closed its side."""


class Tap:
    """`with Tap("127.0.0.1:8080") as tap`: then `tap.url` leads there, and `tap.wires` knows."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.removeprefix("http://").partition(":")
        self._port = int(port)
        self.wires: list[Wire] = []
        self.url = ""
        # Once one side has ended, the event loop refers to the task that still relays the other
        # only weakly: without this the collector may take it, and what was under way with it.
        self._serving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tap", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_READ)

    async def _close(self) -> None:
        self._server.close()
        mine = asyncio.current_task()
        # A connection that was being accepted becomes a task only now: until there is none left.
        await asyncio.sleep(0.01)
        while others := [task for task in asyncio.all_tasks() if task is not mine]:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = asyncio.current_task()
        assert mine is not None
        self._serving.add(mine)
        mine.add_done_callback(self._serving.discard)
        wire = Wire()
        self.wires.append(wire)
        try:
            there, answer = await asyncio.open_connection(self._host, self._port, limit=_READ)
        except OSError:
            writer.transport.abort()
            return
        onward = asyncio.create_task(_pump(reader, answer, wire.sent))
        try:
            await _pump(there, writer, wire.received)
            wire.ended = True
        finally:
            onward.cancel()
            for sink in (answer, writer):
                # What a peer does not take any more must not keep the transport open.
                sink.close() if wire.ended else sink.transport.abort()


async def _pump(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, notes: list[tuple[float, bytes]]
) -> None:
    # A peer may be gone already when its side is to be closed: OSError, not ConnectionError.
    with contextlib.suppress(OSError):
        while data := await source.read(_READ):
            notes.append((time.monotonic(), data))
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
        return
    sink.transport.abort()
