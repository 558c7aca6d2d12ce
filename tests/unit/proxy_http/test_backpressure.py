"""Who does not read is not written to: nothing piles up in the proxy, in either direction."""

from __future__ import annotations

import asyncio

import pytest

from nexus_devtools.rawhttp.messages import (
    DONE,
    END,
    SSE_HEAD,
    STREAM_BODY,
    Message,
    answer,
    chunk,
    event,
    post,
)
from nexus_devtools.rawhttp.peers import Peer, says, until
from nexus_devtools.rawhttp.stage import Stage
from nexus_quality.outcome import Outcome

SIZE = 64 * 1024 * 1024
BLOCK = b"0123456789abcdef" * 65536
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%b\r\n\r\n"
# What two pairs of kernel buffers and two transports' marks can hold on loopback.
BOUND = 24 * 1024 * 1024


def _sender(stage: Stage, sent: list[int], kind: str):  # type: ignore[no-untyped-def]
    async def script(peer: Peer, _request: Message) -> None:
        if kind == "length":
            await peer.send(HEAD % (b"application/json", b"Content-Length: %d" % SIZE))
        elif kind == "chunked":
            await peer.send(HEAD % (b"application/json", b"Transfer-Encoding: chunked"))
        else:
            await peer.send(SSE_HEAD)
        block = event("x" * 1_000_000) if kind == "events" else BLOCK
        while sum(sent) < SIZE:
            await peer.send(block if kind == "length" else chunk(block))
            sent.append(len(block))
        if kind != "length":
            await peer.send(chunk(DONE) * (kind == "events") + END)

    return script


@pytest.mark.parametrize("kind", ["length", "chunked", "events"])
async def test_a_client_that_does_not_read_stops_its_backend(stage: Stage, kind: str) -> None:
    sent: list[int] = []
    await stage.backend(_sender(stage, sent, kind))
    client = await stage.client()
    client.pause_reading()
    await client.send(post(STREAM_BODY))
    await until(lambda: stage.counters.bytes_sent > 1_000_000)
    await _still(lambda: sum(sent))
    assert sum(sent) < BOUND
    assert stage.counters.bytes_sent < BOUND
    assert stage.outcomes() == []
    client.resume_reading()
    message = await client.receive()
    assert len(message.body) >= SIZE
    if kind == "length":
        assert message.body == BLOCK * (SIZE // len(BLOCK))
    await until(lambda: stage.outcomes() == [Outcome.SUCCESS])


async def _still(value) -> None:  # type: ignore[no-untyped-def]
    """Wait until a number has stopped growing."""
    before = -1
    while value() != before:
        before = value()
        await asyncio.sleep(0.1)


async def test_a_client_that_never_reads_again_is_let_go(stage: Stage) -> None:
    sent: list[int] = []
    upstream = await stage.backend(_sender(stage, sent, "length"))
    client = await stage.client()
    client.pause_reading()
    await client.send(post())
    await until(lambda: stage.counters.bytes_sent > 1_000_000)
    await _still(lambda: sum(sent))
    stage.tick(200)
    assert stage.outcomes() == [], "the silence is the client's, not the backend's"
    stage.tick(1000)
    assert stage.outcomes() == [Outcome.CLIENT_GONE]
    await until(upstream.peers[0].lost.is_set)


async def test_a_slow_client_of_one_request_is_no_burden_for_the_next(stage: Stage) -> None:
    """A connection that was paused for one client is read again for another."""
    body = b"y" * 3_000_000
    upstream = await stage.backend(says(answer(body)))
    for _ in range(3):
        client = await stage.client()
        client.pause_reading()
        await client.send(post())
        await until(lambda: stage.counters.bytes_sent > 100_000)
        client.resume_reading()
        assert (await client.receive()).body == body
    assert upstream.connections == 1


async def test_pipelined_answers_wait_for_a_client_that_does_not_read(stage: Stage) -> None:
    upstream = await stage.backend(says(answer(b"z" * 1_000_000)))
    client = await stage.client()
    client.pause_reading()
    await client.send(post() * 100)
    await until(lambda: stage.counters.bytes_sent > 1_000_000)
    await _still(lambda: len(upstream.requests))
    assert len(upstream.requests) < 30
    client.resume_reading()
    for _ in range(100):
        assert len((await client.receive()).body) == 1_000_000


async def test_small_answers_wait_for_a_client_that_does_not_read(stage: Stage) -> None:
    upstream = await stage.backend(says(answer(b"z" * 20_000)))
    client = await stage.client()
    client.pause_reading()
    client.writer.write(post() * 3000)
    await until(lambda: stage.counters.bytes_sent > 1_000_000)
    await _still(lambda: len(upstream.requests))
    assert len(upstream.requests) < 1500
    client.resume_reading()
    for _ in range(3000):
        assert len((await client.receive()).body) == 20_000
