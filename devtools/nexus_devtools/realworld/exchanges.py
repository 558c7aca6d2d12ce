"""What was said on a tapped wire, read by h11: a parser that nothing of this project uses.

Promises: an exchange for every request that arrived whole, its bodies without any framing, so that
both sides of a proxy compare equal exactly if their bytes are. It is NOT lenient: what h11 refuses
as a message raises, except an answer that broke off, which is marked so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import h11

from nexus_devtools.realworld.tap import Tap, Wire

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and its answer; header names are in lower case."""

    began: float
    """Monotonic seconds, when the request's head was complete."""
    method: str
    path: str
    headers: Headers
    body: bytes
    status: int
    answer_headers: Headers
    answer: bytes
    complete: bool

    @property
    def finished(self) -> bool:
        """Complete, or a stream that said it was done: some clients hang up at that word."""
        return self.complete or self.answer.endswith(b"data: [DONE]\n\n")

    def header(self, name: str) -> str | None:
        """A header of the request."""
        return dict(self.headers).get(name)

    def answer_header(self, name: str) -> str | None:
        """A header of the answer."""
        return dict(self.answer_headers).get(name)


def exchanges(tap: Tap, *, method: str | None = None) -> list[Exchange]:
    """Everything said through a tap, oldest first; with `method`, only such requests."""
    found = sorted((e for wire in tap.wires for e in read(wire)), key=lambda each: each.began)
    return [each for each in found if method in (None, each.method)]


def read(wire: Wire) -> Iterator[Exchange]:
    """The exchanges of one connection, in order."""
    limit = 1 << 20
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=limit)
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=limit)
    sent = iter(tuple(wire.sent))
    for _, data in tuple(wire.received):
        client.receive_data(data)
    if wire.ended:
        client.receive_data(b"")
    clock = [0.0]
    while True:
        request = _message(server, sent, clock)
        if request is None:
            return
        began, head, body = request
        # To read the answer its parser must know the method, and no more (h11 speaks no HTTP/1.0).
        asked = h11.Request(method=head.method, target=head.target, headers=[("host", "tap")])
        client.send(asked)
        client.send(h11.EndOfMessage())
        answer = _answer(client, server)
        yield Exchange(
            began=began,
            method=head.method.decode(),
            path=head.target.decode(),
            headers=_text(head.headers),
            body=body,
            status=answer.status,
            answer_headers=answer.headers,
            answer=answer.body,
            complete=answer.complete,
        )
        if {*server.states.values(), *client.states.values()} != {h11.DONE}:
            return  # it broke off, or one side said that it would close
        server.start_next_cycle()
        client.start_next_cycle()


def _message(
    server: h11.Connection,
    sent: Iterator[tuple[float, bytes]],
    clock: list[float],
) -> tuple[float, h11.Request, bytes] | None:
    """The next whole request, as it arrived."""
    head: h11.Request | None = None
    began = 0.0
    body: list[bytes] = []
    while True:
        event = server.next_event()
        if isinstance(event, h11.Request):
            head, began = event, clock[0]
        elif isinstance(event, h11.Data):
            body.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return began, head, b"".join(body)
        else:
            chunk = next(sent, None)
            if event is not h11.NEED_DATA or chunk is None:
                return None
            clock[0] = chunk[0]
            server.receive_data(chunk[1])


@dataclass(slots=True)
class _Answer:
    status: int = 0
    headers: Headers = ()
    body: bytes = b""
    complete: bool = False


def _answer(client: h11.Connection, server: h11.Connection) -> _Answer:
    answer = _Answer()
    body: list[bytes] = []
    try:
        while isinstance(event := client.next_event(), h11.Event):
            if isinstance(event, h11.ConnectionClosed):
                break
            server.send(event)
            if isinstance(event, h11.Response):
                answer.status, answer.headers = event.status_code, _text(event.headers)
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                answer.complete = True
                break
    except h11.RemoteProtocolError as error:
        if "incomplete" not in str(error) and "without sending complete" not in str(error):
            raise
    answer.body = b"".join(body)
    return answer


def _text(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    return tuple((name.decode(), value.decode("latin-1")) for name, value in headers)
