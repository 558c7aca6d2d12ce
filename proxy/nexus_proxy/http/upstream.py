"""One connection to a backend: writes a request, reads its answer, knows when it may be used again.

Promises one call of `Exchange.received` per read, with body bytes that llhttp accepted and nothing
from beyond the message's end; and exactly one `Exchange.lost` if the connection dies before that
end. What an answer means is the exchange's matter.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httptools

from nexus_proxy.http.answer_head import ANSWER_ROLES, Answer, finish_lines

if TYPE_CHECKING:
    from nexus_proxy.http.exchange import Exchange
    from nexus_proxy.http.pool import Pool

MAX_HEAD_BYTES = 256 * 1024

_DISCARDED = Answer()  # where trailers leave their marks


class UpstreamConnection(asyncio.Protocol):
    """`answer` is complete once `headed`; `body` holds what came with the current read."""

    __slots__ = (
        "_building",
        "_head_bytes",
        "_lines",
        "_parser",
        "answer",
        "answered",
        "body",
        "complete",
        "exchange",
        "headed",
        "idle_since",
        "paused",
        "pool",
        "reusable",
        "transport",
        "used",
    )

    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.exchange: Exchange | None = None
        self.used = 0
        self.idle_since = 0.0
        self.paused = False
        self.reusable = True
        self._parser = httptools.HttpResponseParser(self)
        self._lines: list[bytes] = []
        self._building = _DISCARDED
        self._reset()

    def _reset(self) -> None:
        self.answer = _DISCARDED
        self.body: list[bytes] = []
        self.answered = False  # a byte of the answer came
        self.headed = False
        self.complete = False
        self._head_bytes = 0

    def send(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        """Begin the exchange: head and body in one write."""
        self.exchange = exchange
        self.used += 1
        if len(body) < 16384:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))

    def take(self) -> bytes:
        """The body bytes of this read, once."""
        body = self.body
        if len(body) == 1:
            data = body[0]
            body.clear()
            return data
        if not body:
            return b""
        self.body = []
        return b"".join(body)

    def release(self) -> None:
        """The answer is complete and taken: back to the pool if both sides allow it."""
        self.exchange = None
        # An answer that overtook its request leaves request bytes behind: not a place for the next.
        if self.reusable and not self.transport.get_write_buffer_size():
            self._reset()
            self.resume()
            self.pool.put(self)
        else:
            self.transport.abort()

    def abort(self) -> None:
        """Nobody wants the rest: the backend is told at once."""
        self.exchange = None
        self.transport.abort()  # not close(): TLS would wait for the peer while data still flows

    def pause(self) -> None:
        """Stop reading: the client does not keep up."""
        if not self.paused and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again, if reading was paused."""
        if self.paused:
            self.paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.pool.drop(self)  # bytes nobody asked for: the next answer could not be trusted
            self.transport.abort()
            return
        self.answered = True
        malformed = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            malformed = True
            self.reusable = False
        if not self.headed and not malformed:
            self._head_bytes += len(data)
            malformed = self._head_bytes > MAX_HEAD_BYTES
        if self.headed:
            if self.answer.malformed:
                malformed = True
            else:
                exchange.received(self)
        if malformed and self.exchange is exchange and not self.complete:
            self.abort()
            exchange.lost(self, malformed=True)

    def eof_received(self) -> bool:
        return False  # the transport closes; connection_lost does the rest

    def connection_lost(self, exc: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        self.reusable = False
        if exchange is None:
            self.pool.drop(self)
            return
        if exc is None and self.headed and self.answer.until_eof:
            self.complete = True
            self.exchange = exchange
            exchange.received(self)
        else:
            exchange.lost(self, malformed=False)

    def pause_writing(self) -> None:
        """The request is in memory anyway: nothing to hold back."""

    # httptools callbacks; all of them only take notes

    def on_message_begin(self) -> None:
        if self.complete:
            self.reusable = False  # a second answer to one request
        self._building = Answer()
        self._lines = []

    def on_header(self, name: bytes, value: bytes) -> None:
        role = ANSWER_ROLES[name]
        if role is None or role(self._building, value):
            self._lines += (name, b": ", value, b"\r\n")

    def on_headers_complete(self) -> None:
        if self.headed:
            return
        status = self._parser.get_status_code()
        if status < 200:
            return  # an interim answer; the next message is another try at the real one
        self.answer = answer = self._building
        answer.status = status
        finish_lines(answer, b"".join(self._lines))
        self._building = _DISCARDED
        self.headed = True

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self.body.append(data)

    def on_message_complete(self) -> None:
        if self.headed and not self.complete:
            self.complete = True
            self.reusable = self._parser.should_keep_alive() and not self.answer.until_eof
