"""Server-sent events for whoever has the page open: one message for all of them.

Promises at most `MOST_LISTENERS` listeners with at most `BACKLOG` messages waiting for each, and
that one who does not keep up is dropped, to begin anew with a whole picture, and delays nobody. It
does not know what it sends.
"""

from __future__ import annotations

import asyncio
from typing import Final

MOST_LISTENERS: Final = 64
BACKLOG: Final = 20
BEAT_SECONDS: Final = 10.0
AGAIN_MILLISECONDS: Final = 1000
BEAT: Final = b"event: beat\ndata: {}\n\n"


def message(event: str, number: int, body: bytes) -> bytes:
    """A server-sent event; `body` is JSON, so it has no line breaks."""
    return b"event: %s\nid: %d\ndata: %s\n\n" % (event.encode(), number, body)


class Listener:
    """One open page."""

    __slots__ = ("_waiting", "dropped")

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue(BACKLOG)
        self.dropped = False

    async def next(self) -> bytes | None:
        """The next thing to send: a beat if nothing happens; None at the end."""
        if self.dropped:
            return None
        try:
            async with asyncio.timeout(BEAT_SECONDS):
                return await self._waiting.get()
        except TimeoutError:
            return BEAT

    def tell(self, said: bytes) -> bool:
        """Has a message sent; False once there is no room for it."""
        try:
            self._waiting.put_nowait(said)
        except asyncio.QueueFull:
            self.drop()
        return not self.dropped

    def drop(self) -> None:
        """It gets no more, not even what waits."""
        self.dropped = True
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put_nowait(None)


class Feed:
    """All listeners."""

    def __init__(self, most: int = MOST_LISTENERS) -> None:
        self._most = most
        self._listeners: set[Listener] = set()
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether nobody else may listen."""
        return self._closed or len(self._listeners) >= self._most

    def join(self, first: bytes) -> Listener | None:
        """A new listener, with its first message; None if there is no room."""
        if self.full:
            return None
        listener = Listener()
        listener.tell(b"retry: %d\n\n" % AGAIN_MILLISECONDS + first)
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """A listener is gone."""
        self._listeners.discard(listener)

    def publish(self, said: bytes) -> None:
        """The same bytes for everybody."""
        self._listeners = {each for each in self._listeners if each.tell(said)}

    def drop_all(self) -> None:
        """Everybody has to begin anew."""
        for listener in self._listeners:
            listener.drop()
        self._listeners.clear()

    def open(self) -> None:
        """The server begins."""
        self._closed = False

    def close(self) -> None:
        """The server ends: nobody may keep it waiting."""
        self._closed = True
        self.drop_all()

    def __len__(self) -> int:
        return len(self._listeners)
