"""One end of the socket pair between a parent and a worker.

Promises that messages arrive whole and in order, and that the end of the other process is told,
once, after all it had written. It knows no message. A peer that does not read is `behind`: whoever
sends totals leaves some out then.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from nexus_proxy.workers.wire import Down, Frames, Up, frame

BEHIND_BYTES = 1024 * 1024


class Link(asyncio.Protocol):
    """`take` gets each frame's body, `lost` is called when the other end is gone."""

    def __init__(self, take: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self._take = take
        self._lost = lost
        self._frames = Frames()
        self._transport: asyncio.WriteTransport | None = None

    async def open(self, pair: socket.socket) -> None:
        """Talk over this end of a pair from now on."""
        pair.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self, sock=pair)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        for body in self._frames.feed(data):
            self._take(body)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost()

    @property
    def behind(self) -> bool:
        """The other end has not read what it was sent."""
        transport = self._transport
        return transport is not None and transport.get_write_buffer_size() > BEHIND_BYTES

    def send(self, message: Up | Down) -> None:
        """Send a message; nothing happens when the other end is gone."""
        self.write(frame(message))

    def write(self, framed: bytes) -> None:
        """Send what `frame` made."""
        if self._transport is not None:
            self._transport.write(framed)

    def close(self) -> None:
        """Close once all is written."""
        if self._transport is not None:
            self._transport.close()
