"""The two ends of a scripted conversation: a client, and a backend that does what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import cast

from nexus_devtools.rawhttp.messages import Incomplete, Message, Readable, read_message

DEADLINE = 5.0


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, with a deadline."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        await asyncio.sleep(0.005)


class Peer:
    """One connection, seen from the script's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.lost = asyncio.Event()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def send_bytewise(self, data: bytes, size: int = 1) -> None:
        """Send in pieces that arrive as separate reads."""
        for start in range(0, len(data), size):
            await self.send(data[start : start + size])
            await asyncio.sleep(0.0003)

    async def receive(self) -> Message:
        return await asyncio.wait_for(read_message(self.reader), DEADLINE)

    async def receive_interim(self) -> bytes:
        """The status line of a 1xx answer without headers."""
        data = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE)
        return data[:-4]

    async def ended(self) -> bytes:
        """Everything up to the end of the connection, which must come."""
        try:
            return await asyncio.wait_for(self.reader.read(-1), DEADLINE)
        except ConnectionError:
            return b""

    def pause_reading(self) -> None:
        """Take nothing more from the connection."""
        cast(asyncio.ReadTransport, self.writer.transport).pause_reading()

    def resume_reading(self) -> None:
        """Take what comes again."""
        cast(asyncio.ReadTransport, self.writer.transport).resume_reading()

    def abort(self) -> None:
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


Script = Callable[[Peer, Message], Awaitable[None]]


def says(data: bytes, *, size: int = 0) -> Script:
    """Answer with exactly these bytes and keep the connection; `size`: in pieces of it."""

    async def script(peer: Peer, _request: Message) -> None:
        if size:
            await peer.send_bytewise(data, size)
        else:
            await peer.send(data)

    return script


def says_and_closes(data: bytes) -> Script:
    """Answer with these bytes, then close the connection."""

    async def script(peer: Peer, _request: Message) -> None:
        if data:
            await peer.send(data)
        await peer.close()

    return script


class Upstream:
    """A backend that follows a script: the n-th request gets the n-th script, then the last one;
    `read` is how it reads a request.
    """

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.requests: list[Message] = []
        self.peers: list[Peer] = []
        self.port = 0
        self.read: Callable[[Readable], Awaitable[Message]] = read_message
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(
        self, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """Listen on an address of loopback; port 0 takes a free one."""
        self._server = await asyncio.start_server(self._connected, host, port, ssl=tls, limit=2**26)
        self.port = self._server.sockets[0].getsockname()[1]

    async def restart(self, tls: ssl.SSLContext) -> None:
        """Listen anew, on another port, with TLS."""
        if self._server is not None:
            self._server.close()
        await self.start(tls)

    async def stop(self) -> None:
        """End everything."""
        if self._server is not None:
            self._server.close()
        for peer in self.peers:
            peer.abort()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            while True:
                request = await self.read(reader)
                self.requests.append(request)
                script = self.scripts[min(len(self.requests), len(self.scripts)) - 1]
                await script(peer, request)
        except (Incomplete, ConnectionError, asyncio.CancelledError):
            pass  # the end of the script, or of the test
        finally:
            peer.lost.set()
            writer.close()

    @property
    def connections(self) -> int:
        return len(self.peers)


async def open_client(port: int, tls: ssl.SSLContext | None = None) -> Peer:
    """A client connection to a port on loopback."""
    return Peer(*await asyncio.open_connection("127.0.0.1", port, limit=2**26, ssl=tls))
