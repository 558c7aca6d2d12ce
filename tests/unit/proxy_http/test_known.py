"""Heads that come again: what is recognised means exactly what llhttp would have made of it."""

from __future__ import annotations

import inspect
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_proxy.http.known import KnownHead
from nexus_proxy.http.request_head import Request
from nexus_proxy.http.request_reader import RequestReader
from nexus_proxy.http.upstream import UpstreamConnection

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nX-A: b\r\n\r\n"
LIMIT = 1000


def learnt(head: bytes = HEAD) -> KnownHead[str]:
    known: KnownHead[str] = KnownHead()
    known.learn(head, "meaning")
    return known


def test_an_equal_head_with_another_length_is_recognised() -> None:
    known = learnt()
    again = HEAD.replace(b": 3", b": 12345") + b"body"
    assert known.match(again) == len(again) - 4
    assert (known.length, known.digits, known.meaning) == (12345, b"12345", "meaning")


@pytest.mark.parametrize("at", range(len(HEAD)))
def test_a_head_that_differs_in_one_byte_is_not(at: int) -> None:
    other = HEAD[:at] + bytes((HEAD[at] ^ 1,)) + HEAD[at + 1 :]
    start = learnt().match(other)
    digit = HEAD.index(b"3\r\n")
    assert start == (len(HEAD) if at == digit else 0)


LENGTHS = [b"", b" 3", b"3 ", b"+3", b"-3", b"3a", b"0x3", b"12345678901", b"\xb2", b"3\r\nX: y"]


@pytest.mark.parametrize("length", LENGTHS)
def test_only_plain_digits_are_a_length(length: bytes) -> None:
    assert learnt().match(HEAD.replace(b": 3", b": " + length)) == 0


def test_a_head_without_a_length_or_cut_short_is_not_learnt() -> None:
    for head in (HEAD.replace(b"Content-Length: 3\r\n", b""), HEAD[:-3], b"", b"\r\n\r\n"):
        known = learnt(head)
        assert known.match(head) == 0


def test_a_length_in_the_body_is_no_length() -> None:
    head = HEAD.replace(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n")
    known = learnt(head + b"\r\nContent-Length: 5\r\n\r\n")
    assert known.match(head) == 0


def test_heads_that_always_vary_are_soon_no_longer_learnt() -> None:
    known: KnownHead[int] = KnownHead()
    learnt_from = set()
    for number in range(200):
        known.learn(HEAD.replace(b"X-A: b", b"X-A: %d" % number), number)
        learnt_from.add(known.meaning)
    assert 1 < len(learnt_from) < 40


def test_heads_that_vary_now_and_then_are_learnt_for_ever() -> None:
    known: KnownHead[int] = KnownHead()
    for number in range(200):
        head = HEAD.replace(b"X-A: b", b"X-A: %d" % number)
        known.learn(head, number)
        assert known.match(head)
        assert known.meaning == number


NAMES = st.sampled_from([b"X-A", b"Authorization", b"Connection", b"X-Nexus-Flexible", b"Accept"])
VALUES = st.sampled_from([b"1", b"true", b"close", b"keep-alive", b"Bearer k", b"X-A"])
EXTRA = st.lists(st.tuples(NAMES, VALUES), max_size=2)
BODIES = st.binary(max_size=40)


def as_bytes(extra: list[tuple[bytes, bytes]], body: bytes, chunked: bool) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % line for line in extra)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + lines
    if chunked:
        pieces = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


FIELDS = [
    name
    for name, kind in inspect.getmembers(Request, inspect.isdatadescriptor)
    if name != "length" and not name.startswith("__")
]


def meaning(pair: tuple[Request, bytes]) -> tuple[object, ...]:
    request, body = pair
    assert "keep_alive" in FIELDS
    return (*(getattr(request, name) for name in FIELDS), body)


def read_alone(data: bytes) -> tuple[object, ...]:
    queue: deque[tuple[Request, bytes]] = deque()
    RequestReader(queue, max_body=LIMIT).feed(data)
    (pair,) = queue
    return meaning(pair)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(EXTRA, BODIES, st.booleans()), min_size=1, max_size=6),
    st.lists(st.integers(1, 120), min_size=1, max_size=40),
)
def test_a_connection_reads_what_each_request_alone_would_mean(
    requests: list[tuple[list[tuple[bytes, bytes]], bytes, bool]], sizes: list[int]
) -> None:
    wire = [as_bytes(*request) for request in requests]
    last = next((n for n, data in enumerate(wire) if b": close\r\n" in data), len(wire))
    wire = wire[: last + 1]  # after `Connection: close` nothing more may come
    queue: deque[tuple[Request, bytes]] = deque()
    reader = RequestReader(queue, max_body=LIMIT)
    data, at = b"".join(wire), 0
    for size in sizes * (len(data) // len(sizes) + 1):
        reader.feed(data[at : at + size])
        at += size
        if at >= len(data):
            break
    assert [meaning(pair) for pair in queue] == [read_alone(each) for each in wire]
    assert not reader.begun


@settings(max_examples=100, deadline=None)
@given(st.lists(BODIES, min_size=2, max_size=8))
def test_pipelined_equals_are_told_apart_by_their_lengths(bodies: list[bytes]) -> None:
    queue: deque[tuple[Request, bytes]] = deque()
    reader = RequestReader(queue, max_body=LIMIT)
    reader.feed(as_bytes([], bodies[0], False))
    reader.feed(b"".join(as_bytes([], body, False) for body in bodies[1:]))
    assert [body for _, body in queue] == bodies


def test_a_known_head_with_too_long_a_body_is_refused() -> None:
    queue: deque[tuple[Request, bytes]] = deque()
    reader = RequestReader(queue, max_body=LIMIT)
    reader.feed(as_bytes([], b"x", False))
    reader.feed(as_bytes([], b"x" * (LIMIT + 1), False))
    assert queue[0][0].refusal is None
    assert (queue[1][0].refusal or (0,))[0] == 413
    assert queue[1][0] is not queue[0][0]


def test_a_known_head_is_followed_by_whatever_comes() -> None:
    queue: deque[tuple[Request, bytes]] = deque()
    reader = RequestReader(queue, max_body=LIMIT)
    good = as_bytes([], b"abc", False)
    reader.feed(good)
    reader.feed(good + good[:30])
    assert len(queue) == 2
    assert reader.begun
    reader.feed(good[30:] + b"nonsense\r\n\r\n")
    assert [body for _, body in queue] == [b"abc", b"abc", b"abc", b""]
    assert (queue[3][0].refusal or (0,))[0] == 400


class Collector:
    """Stands in for an exchange: keeps what it is told, and lets go at the end."""

    unanswered = True

    def __init__(self) -> None:
        self.body = b""
        self.told: tuple[object, ...] | None = None

    def answered(self, upstream: UpstreamConnection, body: bytes) -> None:
        self.body += body
        answer = upstream.answer
        fields = (answer.status, answer.lines, answer.plain, answer.event_stream, answer.encoded)
        length = upstream.length if answer.length is not None else None
        self.told = (*fields, length, self.body)
        upstream.release()

    def received(self, upstream: UpstreamConnection) -> None:
        self.unanswered = False
        body = upstream.take()
        if upstream.complete:
            self.answered(upstream, body)
        else:
            self.body += body

    def lost(self, upstream: UpstreamConnection, *, malformed: bool) -> None:
        self.told = ("lost", malformed)


class Wire:
    """Stands in for a transport and a pool."""

    aborted = False
    reading = True

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: bytes) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.aborted = True

    def put(self, connection: UpstreamConnection) -> None: ...


def connection() -> tuple[UpstreamConnection, Wire]:
    wire = Wire()
    upstream = UpstreamConnection(wire)  # type: ignore[arg-type]
    upstream.connection_made(wire)  # type: ignore[arg-type]
    return upstream, wire


def hear(upstream: UpstreamConnection, pieces: list[bytes]) -> Collector:
    collector = Collector()
    upstream.send(collector, b"", b"")  # type: ignore[arg-type]
    for piece in pieces:
        upstream.data_received(piece)
    return collector


KINDS = st.sampled_from([b"application/json", b"text/event-stream", b"text/plain"])
STATUSES = st.sampled_from([b"200 OK", b"500 Oops", b"429 Busy", b"204 Empty"])
ANSWERS = st.tuples(STATUSES, KINDS, BODIES, st.booleans())


def answer_bytes(status: bytes, kind: bytes, body: bytes, chunked: bool) -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\n" % (status, kind)
    if status.startswith(b"204"):
        return head + b"\r\n"
    if chunked:
        pieces = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


@settings(max_examples=300, deadline=None)
@given(st.lists(ANSWERS, min_size=1, max_size=8), st.lists(st.integers(1, 200), min_size=1))
def test_a_backend_connection_hears_what_each_answer_alone_would_say(
    answers: list[tuple[bytes, bytes, bytes, bool]], sizes: list[int]
) -> None:
    upstream, wire = connection()
    for number, each in enumerate(answers):
        data = answer_bytes(*each)
        size = sizes[number % len(sizes)]
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        alone = hear(connection()[0], [data]).told
        assert alone is not None
        assert hear(upstream, pieces).told == alone
        assert not wire.aborted


@pytest.mark.parametrize("extra", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"\0"])
def test_bytes_after_a_known_answer_end_its_connection(extra: bytes) -> None:
    upstream, wire = connection()
    data = answer_bytes(b"200 OK", b"application/json", b"{}", False)
    first = hear(upstream, [data]).told
    assert not wire.aborted
    assert hear(upstream, [data + extra]).told == first
    assert wire.aborted


def test_a_204_is_never_followed_by_a_body_it_seemed_to_have() -> None:
    upstream, _ = connection()
    data = b"HTTP/1.1 204 Empty\r\nContent-Length: 2\r\n\r\n"
    told = hear(upstream, [data]).told
    assert hear(upstream, [data + b"ab"]).told == told


def test_a_connection_paused_at_the_end_is_read_again_in_the_pool() -> None:
    upstream, wire = connection()
    collector = Collector()
    upstream.send(collector, b"", b"")  # type: ignore[arg-type]
    data = answer_bytes(b"200 OK", b"application/json", b"{}", True)
    upstream.data_received(data[:-3])
    upstream.pause()
    assert not wire.reading
    upstream.data_received(data[-3:])
    assert collector.told is not None
    assert wire.reading
