"""One connection to a backend: writes a request, reads its answer, knows when it may be used again.

Promises one call of `Exchange.received` (or `Exchange.answered`, for an answer that came whole) per
read, with body bytes that llhttp accepted and nothing from beyond the message's end; and exactly
one `Exchange.lost` if the connection dies before that end. What an answer means is the exchange's
matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from nexus_proxy.http.answer_head import ANSWER_ROLES, BODILESS, Answer
from nexus_proxy.http.known import KnownHead
from nexus_proxy.http.wheel import NEVER

if TYPE_CHECKING:
    from nexus_proxy.http.downstream import ClientConnection
    from nexus_proxy.http.pool import Pool

MAX_HEAD_BYTES = 256 * 1024
_ONE_WRITE_BYTES = 16 * 1024  # below it, copying is cheaper than a second buffer

_DISCARDED = Answer()


class Asker(Protocol):
    """Who is told of an answer (`Exchange` is the one there is)."""

    @property
    def client(self) -> ClientConnection: ...

    @property
    def unanswered(self) -> bool: ...

    def answered(self, upstream: UpstreamConnection, body: bytes) -> None: ...

    def received(self, upstream: UpstreamConnection) -> None: ...

    def lost(self, upstream: UpstreamConnection, *, malformed: bool) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """`answer` is the head once `headed`, `length` its Content-Length; `answered`: a byte of it
    came; `complete`: the message has ended; `address`: where it leads; `until`: no request begins
    on it later.

    `relay` is offered each read that begins a chunk, before llhttp sees it. If it takes one (and it
    must take whole chunks only), llhttp goes on with the next as if there had been none.
    """

    __slots__ = (
        "_between_chunks",
        "_body",
        "_building",
        "_first",
        "_head_bytes",
        "_known",
        "_lines",
        "_parser",
        "_paused",
        "_reusable",
        "address",
        "answer",
        "answered",
        "complete",
        "exchange",
        "headed",
        "idle_since",
        "length",
        "pool",
        "relay",
        "transport",
        "until",
        "used",
    )

    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.exchange: Asker | None = None
        self.relay: Callable[[bytes], bool] | None = None
        self._between_chunks = False
        self.address = ""
        self.used = 0
        self.idle_since = 0.0
        self.until = NEVER
        self._paused = False
        self._reusable = True
        self._known: KnownHead[Answer] = KnownHead()
        self._parser = httptools.HttpResponseParser(self)
        self._lines: list[bytes] = []
        self._building = self.answer = _DISCARDED
        self._body: list[bytes] = []
        self._first = b""
        self._head_bytes = 0
        self.length = b""
        self.answered = self.headed = self.complete = False

    def send(self, exchange: Asker, head: bytes, body: bytes) -> None:
        """Begin the exchange: head and body in one write."""
        self.exchange = exchange
        self.used += 1
        if len(body) < _ONE_WRITE_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))

    def take(self) -> bytes:
        """The body bytes of this read, once."""
        body = self._body
        if not body:
            return b""
        self._body = []
        return body[0] if len(body) == 1 else b"".join(body)

    def release(self) -> None:
        """The answer is complete and taken: back to the pool if both sides allow it."""
        self.exchange = self.relay = None
        # An answer that overtook its request leaves request bytes behind: not a place for the next.
        if not self._reusable or self.transport.get_write_buffer_size():
            self.transport.abort()
            return
        self.answered = self.headed = self.complete = False
        if self._paused:
            self.resume()
        self.pool.put(self)

    def abort(self) -> None:
        """Nobody wants the rest: the backend is told at once."""
        self.exchange = self.relay = None
        self.transport.abort()  # not close(): TLS would wait for the peer while data still flows

    def pause(self) -> None:
        """Stop reading: the client does not keep up."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again, if reading was paused."""
        if self._paused:
            self._paused = False
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
        try:
            relay = self.relay
            if relay is not None and self._between_chunks and relay(data):
                return
            if not self.answered:
                self.answered = True
                known = self._known
                start = known.match(data)
                if start and len(data) == start + known.length:
                    self.headed = self.complete = True
                    self.answer = known.meaning
                    self.length = known.digits
                    exchange.answered(self, data[start:])
                    return
                self._first = data
                self._head_bytes = 0
            self._parse(exchange, data)
        except Exception as error:
            if self.exchange is exchange:
                self.abort()
            exchange.client.crashed(error)

    def _parse(self, exchange: Asker, data: bytes) -> None:
        malformed = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            malformed = True
            self._reusable = False
        if not data.endswith(b"\r\n"):
            self._between_chunks = False  # the next chunk's size may have begun
        if not self.headed:
            self._head_bytes += len(data)
            malformed = malformed or self._head_bytes > MAX_HEAD_BYTES
        elif self.answer.malformed:
            malformed = True
            self.complete = False
        elif self.complete and exchange.unanswered:
            exchange.answered(self, self.take())
        else:
            exchange.received(self)
        if malformed and self.exchange is exchange and not self.complete:
            self.abort()
            exchange.lost(self, malformed=True)

    def eof_received(self) -> bool:
        return False  # the transport closes; connection_lost does the rest

    def connection_lost(self, exc: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        self.relay = None
        self._reusable = False
        if exchange is None:
            self.pool.closed(self)
            return
        try:
            if exc is None and self.headed and self.answer.until_eof:
                self.complete = True
                self.exchange = exchange
                exchange.received(self)
            else:
                exchange.lost(self, malformed=False)
        except Exception as error:
            exchange.client.crashed(error)

    def pause_writing(self) -> None:
        """The request is in memory anyway: nothing to hold back."""

    # httptools callbacks; all of them only take notes

    def on_message_begin(self) -> None:
        if self.complete:
            self._reusable = False  # a second answer to one request
        self._between_chunks = False
        self._building = Answer()
        self._lines = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.headed:
            return  # a trailer
        role = ANSWER_ROLES[name]
        if role is None or role(self._building, value):
            self._lines += (name, b": ", value, b"\r\n")

    def on_headers_complete(self) -> None:
        if self.headed:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._first = b""
            return  # an interim answer; the next message is another try at the real one
        self.answer = answer = self._building
        self._building = _DISCARDED
        lines = b"".join(self._lines)
        answer.settle(status, lines)
        self.headed = True
        if answer.idle_seconds >= 0:
            self.pool.told(answer.idle_seconds)
        if status < 100 or len(lines) > MAX_HEAD_BYTES:
            answer.malformed = True
        length = answer.length
        if length is not None:
            self.length = length
            if self._may_be_kept() and status not in BODILESS:
                self._known.learn(self._first, answer)
        self._first = b""

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self._body.append(data)

    def on_chunk_header(self) -> None:
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        self._between_chunks = True

    def on_message_complete(self) -> None:
        if self.headed and not self.complete:
            self.complete = True
            self._reusable = self._may_be_kept() and not self.answer.until_eof

    def _may_be_kept(self) -> bool:
        return bool(self._parser.should_keep_alive()) and not self.answer.closes
