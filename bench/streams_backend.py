"""The backend of `streams`: an event every 33 ms on each stream, by one timer for all of them.

An event carries the time it was sent, as the digits after `MARK`; a chunk ends with `SUFFIX`.
"""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from collections.abc import Sequence
from typing import cast

from bench.bytepath_backend import ANSWER, CHUNK
from bench.exchange import STREAM_HEAD, RequestReader

MILLISECONDS = 33  # between two events of a stream: as many groups of streams, one each tick
MARK = b'"content":" '
DIGITS = 18
_BEFORE, _AFTER = CHUNK.split(b"\r\n", 1)[1][:-2].split(b'"content":" the', 1)
_SIZE = len(_BEFORE) + len(MARK) + DIGITS + len(_AFTER)
_PREFIX = b"%x\r\n%b%b" % (_SIZE, _BEFORE, MARK)
SUFFIX = _AFTER + b"\r\n"


def event() -> bytes:
    """An event that is sent now, as a chunk."""
    return _PREFIX + b"%0*d" % (DIGITS, time.monotonic_ns()) + SUFFIX


class Sender(asyncio.Protocol):
    """A connection of the backend: a stream, or a probe that is answered at once."""

    def __init__(self, groups: Sequence[set[Sender]]) -> None:
        self._groups = groups
        self._group: set[Sender] = set()
        self._reader = RequestReader()
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
        request = self._reader.feed(data)
        if request is None:
            return
        if request[0].startswith(b"POST"):
            self._transport.write(STREAM_HEAD + event())
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
