"""A client that leaves, at any point: its backend is told at once, and its place is free."""

from __future__ import annotations

import asyncio

import pytest

from nexus_devtools.rawhttp.messages import (
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

JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500000\r\n\r\n"
POINTS = {
    "before the head": b"",
    "in the head": b"HTTP/1.1 200 OK\r\nConte",
    "after the head": JSON_HEAD,
    "in a held body": JSON_HEAD + b"{" * 100,
    "in a body on its way": JSON_HEAD + b"x" * 100_000,
    "in a failing answer": answer(b"x" * 100, status="500 X")[:-1],
    "before the first event": SSE_HEAD,
    "in the first event": SSE_HEAD + chunk(event()[:20]),
    "after the preamble": SSE_HEAD + chunk(event()),
    "in the stream": SSE_HEAD + chunk(event("a")),
    "in an event": SSE_HEAD + chunk(event("a")) + chunk(event("b")[:9]),
}


async def _leave(client: Peer, how: str) -> None:
    if how == "reset":
        client.abort()
    elif how == "close":
        await client.close()
    else:
        client.writer.write_eof()


@pytest.mark.parametrize("how", ["reset", "close", "half-close"])
@pytest.mark.parametrize("point", POINTS)
async def test_the_backend_is_let_go_at_once(stage: Stage, point: str, how: str) -> None:
    upstream = await stage.backend(says(POINTS[point]))
    await stage.backend(says(answer(b"{}")))
    client = await stage.client()
    await client.send(post(STREAM_BODY))
    await until(lambda: upstream.requests)
    await asyncio.sleep(0.02)
    began = stage.clock()
    await _leave(client, how)
    await until(upstream.peers[0].lost.is_set)
    assert stage.clock() - began < 1.0
    assert stage.outcomes() == [Outcome.CLIENT_GONE]
    assert stage.backend_of().in_flight == 0
    assert stage.counters.client_gone == 1
    assert stage.counters.requests == {("/v1/chat/completions", 499): 1}
    assert stage.upstreams[1].requests == []


async def test_leaving_while_a_connection_is_being_made_ends_the_attempt(stage: Stage) -> None:
    upstream = await stage.backend(says(answer(b"{}")))
    client = await stage.client()
    release = stage.hold_connects()
    await client.send(post())
    await until(lambda: stage.attempts())
    client.abort()
    await until(lambda: stage.outcomes())
    release()
    await asyncio.sleep(0.05)
    assert stage.outcomes() == [Outcome.CLIENT_GONE]
    assert upstream.connections == 0


async def test_leaving_with_an_answer_half_taken_frees_the_backend_too(stage: Stage) -> None:
    upstream = await stage.backend(
        says(JSON_HEAD.replace(b"500000", b"50000000") + bytes(30_000_000))
    )
    client = await stage.client()
    client.pause_reading()
    await client.send(post())
    await until(lambda: any(c.paused for c in stage.gateway.clients))
    client.writer.write_eof()
    await until(lambda: stage.outcomes() == [Outcome.CLIENT_GONE])
    await until(upstream.peers[0].lost.is_set)


async def test_leaving_in_the_middle_of_a_request_concerns_nobody(stage: Stage) -> None:
    upstream = await stage.backend(says(answer(b"{}")))
    client = await stage.client()
    await client.send(post()[:-5])
    await until(lambda: stage.gateway.clients)
    await client.close()
    await until(lambda: not stage.gateway.clients)
    assert stage.attempts() == []
    assert upstream.requests == []


async def test_requests_waiting_behind_one_leave_with_it(stage: Stage) -> None:
    upstream = await stage.backend(says(b""))
    client = await stage.client()
    await client.send(post() * 3)
    await until(lambda: upstream.requests)
    client.abort()
    await until(lambda: stage.outcomes())
    assert len(stage.attempts()) == 1


async def test_a_client_that_leaves_after_its_answer_disturbs_nothing(stage: Stage) -> None:
    await stage.backend(says(answer(b"{}")))
    await stage.ask()
    await stage.ask()
    assert stage.outcomes() == [Outcome.SUCCESS] * 2
    assert stage.counters.client_gone == 0


async def test_leaving_between_two_attempts_stops_the_second(stage: Stage) -> None:
    gone = asyncio.Event()

    async def fail_late(peer: Peer, _request: Message) -> None:
        gone.set()
        await asyncio.sleep(0.05)
        await peer.send(answer(b"{}", status="500 X"))

    await stage.backend(fail_late)
    await stage.backend(says(answer(b"{}")))
    client = await stage.client()
    await client.send(post())
    await gone.wait()
    client.abort()
    await until(lambda: stage.outcomes())
    await asyncio.sleep(0.1)
    assert stage.outcomes() == [Outcome.CLIENT_GONE]
    assert stage.attempts(1) == []


@pytest.mark.parametrize(
    "last",
    [
        event("c", finish="stop"),
        event("c", finish="stop") + b"data: [DONE]\n\n",
        b'event: response.completed\ndata: {"type":"response.completed"}\n\n',
    ],
)
async def test_who_hangs_up_with_all_of_a_stream_has_been_served(stage: Stage, last: bytes) -> None:
    upstream = await stage.backend(says(SSE_HEAD + chunk(event("a")) + chunk(last)))
    client = await stage.client()
    await client.send(post(STREAM_BODY))
    await client.reader.readuntil(last)
    client.abort()
    await until(upstream.peers[0].lost.is_set)
    assert stage.outcomes() == [Outcome.SUCCESS]
    assert stage.counters.client_gone == 0
    assert stage.counters.requests == {("/v1/chat/completions", 200): 1}
