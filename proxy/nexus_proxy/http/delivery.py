"""The last leg: one answer on its way to the client, from its head to its end.

Promises that the client sees an answer framed by this proxy alone, one write per read, and that an
answer its backend broke never looks complete: a stream gets one error event at an event boundary,
anything else an aborted connection. It knows nothing of attempts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from nexus_proxy.envelope import broken_stream_event
from nexus_proxy.http.answer_head import Answer, Framing, client_head, framing_of

if TYPE_CHECKING:
    from nexus_proxy.http.downstream import ClientConnection
    from nexus_proxy.http.sse import Watcher
    from nexus_proxy.routing.router import Choice


class Delivery:
    """One answer being sent; `close` says whether the client's connection ends with it."""

    __slots__ = ("_chunked", "_client", "_watcher", "close", "status")

    def __init__(self, client: ClientConnection, watcher: Watcher | None = None) -> None:
        self._client = client
        self._watcher = watcher
        self._chunked = False
        self.close = False
        self.status = 0

    def begin(
        self,
        answer: Answer,
        choice: Choice,
        length: bytes,
        data: bytes,
        *,
        retries: int = 0,
        end: bool,
        lines: bytes = b"",
    ) -> None:
        """Send the head, with what there is of the body; `end`: that is all of it; `lines` are
        further header lines.
        """
        client = self._client
        framing = framing_of(answer, http10=client.http10)
        self._chunked = framing is Framing.CHUNKED
        self.close = framing is Framing.CLOSE or client.closes_after_answer()
        self.status = answer.status
        head = client_head(
            answer,
            choice,
            length,
            retries=retries,
            framing=framing,
            close=self.close,
            lines=lines,
        )
        client.write(head + _chunk(data, end=end) if self._chunked else head + data)

    def more(self, data: bytes, *, end: bool) -> None:
        """Send the next body bytes."""
        if self._chunked:
            self._client.write(_chunk(data, end=end))
        elif data:
            self._client.write(data)

    def relay(self, read: bytes) -> bool:
        """Send a read of a stream as it came, framing and all, if it is one chunk of whole events;
        False if it is not, or if this client is not sent chunks.
        """
        watcher = self._watcher
        if not self._chunked or watcher is None or not read.endswith(b"\n\n\r\n"):
            return False
        if not read.startswith(size_line(len(read))) or not watcher.passes(read):
            return False
        self._client.write(read)
        return True

    def broken(self, why: str) -> bool:
        """The backend broke the answer; True: the client could be told and the message ended."""
        watcher = self._watcher
        if watcher is None or watcher.opaque:
            return False
        # After [DONE] the client has everything; only the framing's end is missing.
        event = b"" if watcher.done() or watcher.failed else broken_stream_event(why)
        self.more(event, end=True)
        self.close = True
        return True


@lru_cache(maxsize=1024)
def size_line(total: int) -> bytes:
    """The size line of the chunk that has `total` bytes with all its framing."""
    for digits in range(1, 9):
        size = total - digits - 4
        if size > 0 and len(head := b"%x\r\n" % size) == digits + 2:
            return head
    return b"\0"  # begins no chunk


def _chunk(data: bytes, *, end: bool) -> bytes:
    if not data:
        return b"0\r\n\r\n" if end else b""
    if end:
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
    return b"%x\r\n%b\r\n" % (len(data), data)
