"""Backends' answers in every framing: the same body arrives, framed by the proxy, and no more."""

from __future__ import annotations

import asyncio
import gzip

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
    stream,
)
from nexus_devtools.rawhttp.peers import Incomplete, Peer, says, says_and_closes, until
from nexus_devtools.rawhttp.stage import Stage
from nexus_quality.outcome import Outcome

BODY = b'{"id":"chatcmpl-1","choices":[{"message":{"content":"hello"}}]}'
CHUNKED_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)
EVENTS = (event(), event("he"), event("llo"), event(finish="stop"), DONE)
TRAILERS = b"X-T: 1\r\nContent-Type: text/event-stream\r\n"

SHAPES = {
    "length": answer(BODY),
    "chunked": CHUNKED_HEAD + chunk(BODY[:7]) + chunk(BODY[7:]) + END,
    "chunked, with extensions": CHUNKED_HEAD + b"3f;a=b\r\n" + BODY + b"\r\n" + END,
    "chunked, with trailers": CHUNKED_HEAD
    + chunk(BODY)
    + b"0\r\nX-T: 1\r\nContent-Type: text/event-stream\r\n\r\n",
    "after 100": b"HTTP/1.1 100 Continue\r\n\r\n" + answer(BODY),
    "after 103 twice": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 2 + answer(BODY),
}


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("shape", SHAPES)
async def test_the_body_passes_unchanged_however_it_comes(
    stage: Stage, shape: str, size: int
) -> None:
    assert len(BODY) == 0x3F
    upstream = await stage.backend(says(SHAPES[shape], size=size))
    client = await stage.client()
    for _ in range(2):
        await client.send(post())
        message = await client.receive()
        assert (message.status, message.body) == (200, BODY)
        assert message.values("x-t") == message.values("link") == []
    assert upstream.connections == 1, "the connection was not reused"
    assert stage.outcomes() == [Outcome.SUCCESS] * 2


@pytest.mark.parametrize("size", [0, 1, 7])
async def test_a_stream_passes_unchanged_however_it_comes(stage: Stage, size: int) -> None:
    upstream = await stage.backend(says(stream(*EVENTS), size=size))
    client = await stage.client()
    for _ in range(2):
        await client.send(post(STREAM_BODY))
        message = await client.receive()
        assert message.body == b"".join(EVENTS)
        assert message.header("content-type") == b"text/event-stream"
    assert upstream.connections == 1


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_a_body_that_ends_with_its_connection_ends_for_the_client_too(
    stage: Stage, version: bytes, size: int
) -> None:
    head = version + b" 200 OK\r\nContent-Type: application/json\r\n\r\n"

    async def script(peer, request):  # type: ignore[no-untyped-def]
        await peer.send_bytewise(head + BODY, size or 1000)
        await peer.close()

    await stage.backend(script)
    client = await stage.client()
    for _ in range(2):
        await client.send(post())
        message = await client.receive()
        assert (message.status, message.body) == (200, BODY)
    assert stage.outcomes() == [Outcome.SUCCESS] * 2


async def test_a_stream_that_ends_with_its_connection_is_a_whole_one(stage: Stage) -> None:
    head = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    await stage.backend(says_and_closes(head + b"".join(EVENTS)))
    message = await stage.ask(post(STREAM_BODY))
    assert message.body == b"".join(EVENTS)
    assert stage.outcomes() == [Outcome.SUCCESS]


async def test_a_stream_with_a_length_is_a_stream(stage: Stage) -> None:
    await stage.backend(says(answer(b"".join(EVENTS), kind="text/event-stream; charset=utf-8")))
    message = await stage.ask(post(STREAM_BODY))
    assert message.body == b"".join(EVENTS)
    assert len(stage.attempts()[0].content_at) == 1


async def test_an_answer_without_a_body_has_no_framing(stage: Stage) -> None:
    await stage.backend(says(b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n"))
    client = await stage.client()
    for _ in range(2):
        await client.send(post())
        message = await client.receive()
        assert (message.status, message.header("x-a")) == (204, b"b")
        assert message.values("content-length") == message.values("transfer-encoding") == []


async def test_the_head_says_who_answered_and_why(stage: Stage) -> None:
    more = (
        b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-Request-Id: 7\r\n"
        b"X-Nexus-Backend: liar\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: uvicorn\r\n"
    )
    await stage.backend(says(answer(BODY, more=more)), fallback="other")
    message = await stage.ask()
    assert message.header("x-nexus-backend") == b"b0"
    assert message.header("x-nexus-backend-type") == b"local"
    assert message.header("x-nexus-privacy-zone") == b"restricted"
    assert message.header("x-nexus-route-reason") == b"capability-match"
    assert message.header("x-nexus-fallback-model") == b"other"
    assert message.values("x-nexus-retries") == []
    assert message.header("x-request-id") == b"7"
    assert message.values("set-cookie") == [b"a=1", b"b=2"]
    assert message.values("x-hop") == message.values("keep-alive") == []


@pytest.mark.parametrize("status", ["400 Bad Request", "422 Unprocessable Content", "418 Teapot"])
async def test_an_error_of_the_clients_own_making_passes_as_it_came(
    stage: Stage, status: str
) -> None:
    await stage.backend(says(answer(b'{"error":{"message":"no"}}', status=status)))
    spare = await stage.backend(says(answer(BODY)))
    message = await stage.ask()
    assert message.status == int(status[:3])
    assert message.body == b'{"error":{"message":"no"}}'
    assert stage.outcomes() == [Outcome.CLIENT_ERROR]
    assert spare.requests == []


async def test_an_encoded_answer_passes_as_it_came(stage: Stage) -> None:
    body = gzip.compress(BODY)
    await stage.backend(says(answer(body, more=b"Content-Encoding: gzip\r\n")))
    message = await stage.ask(post(more=b"Accept-Encoding: gzip\r\n"))
    assert message.body == body
    assert message.header("content-encoding") == b"gzip"


async def test_a_large_answer_passes_unchanged(stage: Stage) -> None:
    body = bytes(range(256)) * 12_000
    upstream = await stage.backend(says(answer(body)))
    client = await stage.client()
    for _ in range(2):
        await client.send(post())
        assert (await client.receive()).body == body
    assert upstream.connections == 1


async def test_a_large_chunked_answer_passes_unchanged(stage: Stage) -> None:
    body = bytes(range(256)) * 4000
    await stage.backend(says(CHUNKED_HEAD + chunk(body) * 3 + END))
    assert (await stage.ask()).body == body * 3


BEYOND = {
    "a second answer": answer(BODY) + answer(b'{"evil":1}'),
    "a second answer after chunks": CHUNKED_HEAD + chunk(BODY) + END + answer(b'{"evil":1}'),
    "garbage": answer(BODY) + b"garbage\r\n\r\n",
    "garbage after chunks": CHUNKED_HEAD + chunk(BODY) + END + b"garbage",
    "a stream and a second answer": stream(*EVENTS) + answer(b'{"evil":1}'),
}


@pytest.mark.parametrize("name", BEYOND)
async def test_bytes_beyond_the_end_never_reach_a_client(stage: Stage, name: str) -> None:
    upstream = await stage.backend(says(BEYOND[name]), says(answer(BODY)))
    client = await stage.client()
    await client.send(post(STREAM_BODY if "stream" in name else post()[-57:]))
    message = await client.receive()
    assert message.body in (BODY, b"".join(EVENTS))
    assert b"evil" not in b"".join(value for _, value in message.headers)
    await client.send(post())
    assert (await client.receive()).body == BODY
    assert upstream.connections == 2, "a connection out of step was used again"


async def test_bytes_on_an_idle_connection_end_it(stage: Stage) -> None:
    upstream = await stage.backend(says(answer(BODY)))
    client = await stage.client()
    await client.send(post())
    await client.receive()
    await upstream.peers[0].send(answer(b'{"evil":1}'))
    await until(upstream.peers[0].lost.is_set)
    await client.send(post())
    assert (await client.receive()).body == BODY
    assert upstream.connections == 2


async def test_a_connection_the_backend_closes_politely_is_not_used_again(stage: Stage) -> None:
    upstream = await stage.backend(says(answer(BODY, more=b"Connection: close\r\n")))
    client = await stage.client()
    for _ in range(2):
        await client.send(post())
        assert (await client.receive()).body == BODY
    assert upstream.connections == 2


@pytest.mark.parametrize(
    ("options", "connections"), [(b"keep-alive", 1), (b"keep-alive, close", 2), (b"x", 2)]
)
async def test_an_old_server_that_keeps_a_connection_says_so(
    stage: Stage, options: bytes, connections: int
) -> None:
    whole = answer(BODY, more=b"Connection: %b\r\n" % options)
    upstream = await stage.backend(says(whole.replace(b"HTTP/1.1", b"HTTP/1.0")))
    client = await stage.client()
    for _ in range(2):
        await client.send(post())
        assert (await client.receive()).body == BODY
    assert upstream.connections == connections


async def test_a_backend_connection_is_not_used_for_ever(stage: Stage) -> None:
    release = asyncio.Event()

    async def script(peer: Peer, _request: Message) -> None:
        await release.wait()
        await peer.send(answer(BODY))

    upstream = await stage.backend(script)
    client = await stage.client()
    await client.send(post())
    await until(lambda: upstream.requests)
    stage.tick(361)
    release.set()
    assert (await client.receive()).body == BODY
    await until(upstream.peers[0].lost.is_set)
    assert (await stage.ask()).body == BODY
    assert upstream.connections == 2


CUT = {
    "in a length": answer(b"x" * 200_000)[:-1],
    "in chunks": CHUNKED_HEAD + chunk(b"x" * 200_000) + b"5\r\nab",
    "before the last chunk": CHUNKED_HEAD + chunk(b"x" * 200_000),
    "by a bad chunk": CHUNKED_HEAD + chunk(b"x" * 200_000) + b"zz\r\n",
}


@pytest.mark.parametrize("name", CUT)
async def test_an_answer_cut_after_the_head_went_out_never_looks_complete(
    stage: Stage, name: str
) -> None:
    await stage.backend(says_and_closes(CUT[name]))
    client = await stage.client()
    await client.send(post())
    with pytest.raises(Incomplete):
        await client.receive()
    await until(lambda: stage.outcomes())
    bad = name == "by a bad chunk"
    assert stage.outcomes() == [Outcome.MALFORMED if bad else Outcome.CUT]


async def test_requests_are_counted_by_path_and_status(stage: Stage) -> None:
    await stage.backend(says(answer(BODY)), says(answer(b"{}", status="400 Bad Request")))
    await stage.ask()
    await stage.ask(post(path="/v1/embeddings"))
    assert stage.counters.requests == {
        ("/v1/chat/completions", 200): 1,
        ("/v1/embeddings", 400): 1,
    }
    assert stage.counters.attempts == {"success": 1, "client_error": 1}
    assert stage.counters.upstream_connects == 1


async def test_an_event_stream_of_nothing_but_sse_head_is_held_until_its_first_event(
    stage: Stage,
) -> None:
    async def script(peer, request):  # type: ignore[no-untyped-def]
        await peer.send(SSE_HEAD)
        await until(lambda: stage.attempts()[0].sent_at)
        await peer.send(b"".join(map(chunk, EVENTS)) + END)

    await stage.backend(script)
    assert (await stage.ask(post(STREAM_BODY))).body == b"".join(EVENTS)


async def test_the_head_says_what_holds_for_this_request_not_for_the_last(stage: Stage) -> None:
    await stage.backend(says(answer(BODY)))
    first = stage.router.choices[0]
    client = await stage.client()
    for reason in (b"capability-match", b"failover", b"last-resort"):
        stage.router.choices[0] = first.marked(reason.decode())
        for _ in range(2):
            await client.send(post())
            message = await client.receive()
            assert message.header("x-nexus-route-reason") == reason
    stage.backend_of().answer_headers = b"X-Nexus-Backend: renamed\r\n"
    await client.send(post())
    assert (await client.receive()).header("x-nexus-backend") == b"renamed"
