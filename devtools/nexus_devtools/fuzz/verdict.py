"""What a parser makes of the first message on a connection: ours on both sides, and h11.

Promises the same shape from all of them, so that they can be compared; h11 is told nothing but the
bytes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

import h11

from nexus_proxy.http.request_head import Request
from nexus_proxy.http.request_reader import RequestReader
from nexus_proxy.http.upstream import UpstreamConnection

VALID, REFUSED, INCOMPLETE = "valid", "refused", "incomplete"
MAX_BODY = 1 << 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """`start`: the method and target, or the status; `keeps`: the connection may be used on."""

    kind: str
    start: bytes = b""
    body: bytes = b""
    keeps: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()
    version: bytes = b""


def our_requests(cut: list[bytes]) -> list[tuple[Request, bytes]]:
    """Everything our reader makes of a client's bytes."""
    queue: deque[tuple[Request, bytes]] = deque()
    reader = RequestReader(queue, max_body=MAX_BODY)
    for piece in cut:
        reader.feed(piece)
    return list(queue)


def our_request(cut: list[bytes]) -> Verdict:
    """The first request, as our reader takes it."""
    found = our_requests(cut)
    if not found:
        return Verdict(INCOMPLETE)
    request, body = found[0]
    if request.refusal is not None:
        return Verdict(REFUSED)
    start = request.method + b" " + request.url
    return Verdict(VALID, start, body, keeps=request.keep_alive)


def h11_request(data: bytes) -> Verdict:
    """The first request, as h11 takes it."""
    return _by_h11(h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_BODY), data, eof=False)


class _Transport:
    """Takes nothing, and remembers that it was closed."""

    closed = False

    def write(self, data: bytes) -> None: ...
    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0


class _Pool:
    """Takes connections back."""

    kept = False

    def put(self, connection: UpstreamConnection) -> None:
        self.kept = True

    def drop(self, connection: UpstreamConnection) -> None: ...
    def closed(self, connection: UpstreamConnection) -> None: ...
    def told(self, seconds: float) -> None: ...


class Listener:
    """Stands where an exchange does, and collects what it is told."""

    def __init__(self) -> None:
        self.body = b""
        self.told = False
        self.unanswered = True
        self.lost_as: str | None = None
        self.complete = False
        self.status = 0

    def answered(self, upstream: UpstreamConnection, body: bytes) -> None:
        assert self.unanswered and not self.complete
        self.unanswered = False
        self._take(upstream, body)

    def received(self, upstream: UpstreamConnection) -> None:
        assert not self.complete, "told of more after the end"
        self.unanswered = False
        self._take(upstream, upstream.take())

    def _take(self, upstream: UpstreamConnection, body: bytes) -> None:
        self.body += body
        if upstream.complete:
            self.complete = True
            self.status = upstream.answer.status
            upstream.release()

    def lost(self, upstream: UpstreamConnection, *, malformed: bool) -> None:
        assert self.lost_as is None and not self.complete, "lost after its end"
        self.lost_as = REFUSED if malformed else INCOMPLETE


def our_answer(cut: list[bytes], *, eof: bool) -> Verdict:
    """The answer to a request, as our connection to a backend takes it."""
    pool = _Pool()
    connection = UpstreamConnection(cast(Any, pool))
    transport = _Transport()
    connection.connection_made(cast(asyncio.Transport, transport))
    listener = Listener()
    connection.send(cast(Any, listener), b"", b"")
    for piece in cut:
        if not transport.closed:
            connection.data_received(piece)
    if eof and not transport.closed:
        connection.connection_lost(None)
    if listener.complete:
        keeps = pool.kept and not transport.closed
        return Verdict(VALID, b"%d" % listener.status, listener.body, keeps=keeps)
    return Verdict(listener.lost_as or INCOMPLETE)


def h11_answer(data: bytes, *, eof: bool) -> Verdict:
    """The answer to a request, as h11 takes it."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_BODY)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    return _by_h11(connection, data, eof=eof)


def _by_h11(connection: h11.Connection, data: bytes, *, eof: bool) -> Verdict:
    head: h11.Request | h11.Response | None = None
    body = b""
    try:
        if data:
            connection.receive_data(data)
        if eof:
            connection.receive_data(b"")
        while True:
            event = connection.next_event()
            if isinstance(event, (h11.Request, h11.Response)):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            elif not isinstance(event, h11.InformationalResponse):
                return Verdict(INCOMPLETE)  # NEED_DATA, PAUSED or the end
    except h11.RemoteProtocolError as error:
        ended_early = eof and "peer closed" in str(error)
        return Verdict(INCOMPLETE if ended_early else REFUSED)
    assert head is not None
    request = isinstance(head, h11.Request)
    start = head.method + b" " + head.target if request else b"%d" % head.status_code  # type: ignore[union-attr]
    return Verdict(
        VALID,
        start,
        body,
        # An Upgrade that Connection does not name is none: nothing will switch.
        keeps=repr(connection.their_state) in ("DONE", "MIGHT_SWITCH_PROTOCOL"),
        headers=tuple((bytes(name), bytes(value)) for name, value in head.headers),
        version=bytes(head.http_version),
    )
