"""From one candidate to the next: what fails over, what passes, and what each attempt came to."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket

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
from nexus_devtools.rawhttp.peers import Peer, Script, says, says_and_closes, until
from nexus_devtools.rawhttp.stage import Stage
from nexus_proxy.routing.candidate import Credentials
from nexus_proxy.routing.endpoint import Endpoint
from nexus_quality.outcome import Outcome

GOOD = b'{"id":"good"}'
ERROR = b'{"error":{"message":"CUDA out of memory","code":500}}'
ERROR_EVENT = b"data: " + ERROR + b"\n\n"
OWN_KEY = Credentials(mode="Secret", header_line=b"authorization: Bearer own\r\n")
CHUNKED_HEAD = SSE_HEAD.replace(b"text/event-stream", b"application/json")


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


FAILURES: dict[str, tuple[Script, Outcome]] = {
    "a 500": (says(answer(ERROR, status="500 Internal Server Error")), Outcome.SERVER_ERROR),
    "a 500 in pieces": (says(answer(ERROR, status="500 Oops"), size=5), Outcome.SERVER_ERROR),
    "a 503": (says(answer(ERROR, status="503 Service Unavailable")), Outcome.SERVER_ERROR),
    "a 503 that asks to wait": (
        says(answer(b"{}", status="503 Busy", more=b"Retry-After: 3\r\n")),
        Outcome.THROTTLED,
    ),
    "a 429": (says(answer(b"{}", status="429 Too Many Requests")), Outcome.THROTTLED),
    "a 404": (says(answer(b"{}", status="404 Not Found")), Outcome.MODEL_MISSING),
    "an error object": (says(answer(ERROR)), Outcome.ERROR_BODY),
    "an error object in pieces": (says(answer(ERROR), size=3), Outcome.ERROR_BODY),
    "a packed error object": (
        says(answer(gzip.compress(ERROR), more=b"Content-Encoding: gzip\r\n")),
        Outcome.ERROR_BODY,
    ),
    "an error object in chunks": (
        says(CHUNKED_HEAD + chunk(ERROR[:9]) + chunk(ERROR[9:]) + END),
        Outcome.ERROR_BODY,
    ),
    "an error event": (says(stream(ERROR_EVENT)), Outcome.STREAM_ERROR),
    "an error event in pieces": (says(stream(ERROR_EVENT), size=2), Outcome.STREAM_ERROR),
    "an error event of a stream that goes on": (
        says(SSE_HEAD + chunk(b": hello\n\n" + ERROR_EVENT)),
        Outcome.STREAM_ERROR,
    ),
    "a named error event": (
        says(stream(b'event: error\r\ndata: {"message":"x"}\r\n\r\n')),
        Outcome.STREAM_ERROR,
    ),
    "an unfinished error event": (says(stream(ERROR_EVENT[:-2])), Outcome.STREAM_ERROR),
    "an empty stream": (says(stream()), Outcome.CUT),
    "no answer": (says_and_closes(b""), Outcome.CUT),
    "half a head": (says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Le"), Outcome.CUT),
    "a head alone": (says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), Outcome.CUT),
    "half a body": (says_and_closes(answer(GOOD)[:-3]), Outcome.CUT),
    "half the chunks": (says_and_closes(CHUNKED_HEAD + chunk(GOOD)), Outcome.CUT),
    "half a first event": (says_and_closes(SSE_HEAD + chunk(b'data: {"cho')), Outcome.CUT),
    "half a 500": (says_and_closes(answer(ERROR, status="500 X")[:-3]), Outcome.SERVER_ERROR),
    "no HTTP": (says(b"220 mail.example.com ESMTP\r\n"), Outcome.MALFORMED),
    "two lengths": (
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
        Outcome.MALFORMED,
    ),
    "length and chunked": (
        says(CHUNKED_HEAD[:-2] + b"Content-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
        Outcome.MALFORMED,
    ),
    "an unknown coding": (
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}"),
        Outcome.MALFORMED,
    ),
    "a bad chunk": (says(CHUNKED_HEAD + b"xyz\r\n"), Outcome.MALFORMED),
    "an upgrade": (
        says(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
        Outcome.MALFORMED,
    ),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", FAILURES)
async def test_a_failure_before_the_commit_goes_to_the_next_candidate(
    stage: Stage, name: str, streamed: bool
) -> None:
    script, outcome = FAILURES[name]
    await stage.backend(script)
    await stage.backend(says(answer(GOOD)))
    message = await stage.ask(post(STREAM_BODY) if streamed else None)
    assert (message.status, message.body) == (200, GOOD)
    assert message.header("x-nexus-backend") == b"b1"
    assert message.header("x-nexus-retries") == b"1"
    assert stage.outcomes(0) == [outcome]
    assert stage.outcomes(1) == [Outcome.SUCCESS]
    assert stage.counters.retries == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_of_the_backends_own_key_goes_to_the_next_candidate(
    stage: Stage, status: int
) -> None:
    await stage.backend(says(answer(b"{}", status=f"{status} No")), credentials=OWN_KEY)
    await stage.backend(says(answer(GOOD)))
    assert (await stage.ask()).body == GOOD
    assert stage.outcomes(0) == [Outcome.CREDENTIALS_REFUSED]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_client_never_sees_what_is_said_of_the_backends_own_key(
    stage: Stage, status: int
) -> None:
    said = b'{"error":{"message":"Incorrect API key provided: own"}}'
    await stage.backend(says(answer(said, status=f"{status} No")), credentials=OWN_KEY)
    message = await stage.ask()
    assert message.status == 503
    assert b"Incorrect" not in message.body
    assert stage.outcomes(0) == [Outcome.CREDENTIALS_REFUSED]


async def test_a_refusal_of_the_clients_key_is_the_clients_to_see(stage: Stage) -> None:
    await stage.backend(says(answer(b'{"error":1}', status="401 No")))
    await stage.backend(says(answer(GOOD)))
    assert (await stage.ask()).status == 401
    assert stage.outcomes(0) == [Outcome.CLIENT_ERROR]


async def test_a_refused_connection_goes_to_the_next_candidate(stage: Stage) -> None:
    await stage.backend(port=closed_port())
    await stage.backend(says(answer(GOOD)))
    assert (await stage.ask()).body == GOOD
    assert stage.outcomes(0) == [Outcome.CONNECT_ERROR]
    assert stage.router.free == [True]


async def test_only_the_first_quick_retry_is_free(stage: Stage) -> None:
    for _ in range(2):
        await stage.backend(says(answer(ERROR, status="500 X")))
    await stage.backend(says(answer(GOOD)))
    message = await stage.ask()
    assert message.header("x-nexus-retries") == b"2"
    assert stage.router.free == [True, False]


async def test_a_throttled_candidate_rests_as_long_as_it_asked(stage: Stage) -> None:
    busy = answer(b"{}", status="429 Too Many Requests", more=b"Retry-After: 20\r\n")
    await stage.backend(says(busy))
    await stage.backend(says(answer(GOOD)))
    before = stage.clock()
    await stage.ask()
    rest = stage.router.choices[0].candidate.resting_until - before
    assert 20 <= rest < 23


async def test_a_model_that_is_missing_is_left_out_at_this_endpoint(stage: Stage) -> None:
    body = b'{"error":{"message":"The model `m` does not exist.","type":"NotFoundError"}}'
    await stage.backend(says(answer(body, status="404 Not Found")))
    await stage.backend(says(answer(GOOD)))
    before = stage.clock()
    await stage.ask()
    missing = stage.router.choices[0].candidate.missing_until
    assert list(missing) == [Endpoint.CHAT]
    assert missing[Endpoint.CHAT] > before
    assert stage.router.choices[1].candidate.missing_until == {}


async def test_a_404_about_something_the_client_named_is_the_clients_to_see(
    stage: Stage,
) -> None:
    body = b'{"error":{"message":"No such File object: f-1","type":"invalid_request_error"}}'
    await stage.backend(says(answer(body, status="404 Not Found")))
    await stage.backend(says(answer(GOOD)))
    message = await stage.ask(post(path="/v1/responses"))
    assert (message.status, message.body) == (404, body)
    assert stage.outcomes() == [Outcome.CLIENT_ERROR]
    assert stage.router.choices[0].candidate.missing_until == {}


async def test_the_last_answer_passes_as_it_came_when_nobody_is_left(stage: Stage) -> None:
    body = b'{"error": {"message": "as it came"}}'
    failing = answer(body, status="500 Internal Server Error", more=b"X-Request-Id: 9\r\n")
    await stage.backend(says(failing))
    await stage.backend(port=closed_port())
    client = await stage.client()
    for _ in range(2):
        await client.send(post())
        message = await client.receive()
        assert (message.status, message.body) == (500, body)
        assert message.header("x-request-id") == b"9"
        assert message.header("x-nexus-backend") == b"b0"
        assert message.header("x-nexus-retries") == b"1"


async def test_a_chunked_failure_passes_whole(stage: Stage) -> None:
    head = CHUNKED_HEAD.replace(b"200 OK", b"502 Bad Gateway")
    await stage.backend(says(head + chunk(b"ab") + chunk(b"c") + END))
    message = await stage.ask()
    assert (message.status, message.body) == (502, b"abc")


async def test_a_long_failure_passes_while_it_comes(stage: Stage) -> None:
    body = b"e" * 300_000
    await stage.backend(says(answer(body, status="500 X")))
    message = await stage.ask()
    assert (message.status, message.body) == (500, body)
    assert stage.outcomes() == [Outcome.SERVER_ERROR]


async def test_a_failure_whose_body_dawdles_is_not_waited_for(stage: Stage) -> None:
    await stage.backend(says(answer(ERROR, status="500 X")[:-3]))
    await stage.backend(says(answer(GOOD)))
    client = await stage.client()
    await client.send(post())
    await until(lambda: stage.upstreams[0].requests)
    await asyncio.sleep(0.05)
    stage.tick(3)
    assert (await client.receive()).body == GOOD


async def test_an_error_stream_passes_when_nobody_is_left(stage: Stage) -> None:
    await stage.backend(says(stream(ERROR_EVENT)))
    message = await stage.ask(post(STREAM_BODY))
    assert (message.status, message.body) == (200, ERROR_EVENT)
    assert stage.outcomes() == [Outcome.STREAM_ERROR]


async def test_an_error_stream_that_goes_on_passes_to_its_end(stage: Stage) -> None:
    async def script(peer: Peer, _request: Message) -> None:
        await peer.send(SSE_HEAD + chunk(ERROR_EVENT))
        await until(lambda: stage.outcomes())
        await peer.send(chunk(DONE) + END)

    await stage.backend(script)
    message = await stage.ask(post(STREAM_BODY))
    assert message.body == ERROR_EVENT + DONE


async def test_without_any_answer_the_client_gets_every_reason(stage: Stage) -> None:
    await stage.backend(says_and_closes(b""))
    await stage.backend(port=closed_port())
    message = await stage.ask()
    assert (message.status, message.header("retry-after")) == (503, b"7")
    assert message.header("x-nexus-retries") == b"1"
    error = json.loads(message.body)["error"]
    assert error["code"] == "no_available_backend"
    reasons = error["context"]["rejection_reasons"]
    assert [reason["backend"] for reason in reasons] == ["b0", "b1"]
    assert set(reasons[0]) == {"backend", "reconciler", "reason", "suggested_action"}
    assert reasons[0]["reason"] and reasons[1]["reason"]


async def test_without_a_backend_the_client_is_told_at_once(stage: Stage) -> None:
    message = await stage.ask()
    assert message.status == 503
    assert message.values("x-nexus-retries") == []
    assert stage.counters.requests == {("/v1/chat/completions", 503): 1}


async def test_the_same_body_goes_to_every_candidate_under_its_own_name(stage: Stage) -> None:
    first = await stage.backend(says(answer(b"{}", status="500 X")), rewrite="one")
    second = await stage.backend(says(answer(b"{}", status="500 X")))
    third = await stage.backend(says(answer(GOOD)), rewrite="three")
    await stage.ask(post(b'{"model":"m","x":1}'))
    bodies = [upstream.requests[0].body for upstream in (first, second, third)]
    assert bodies == [b'{"model":"one","x":1}', b'{"model":"m","x":1}', b'{"model":"three","x":1}']


async def test_a_connection_gone_stale_is_replaced_within_the_attempt(stage: Stage) -> None:
    async def close_on_second(peer: Peer, _request: Message) -> None:
        if peer is upstream.peers[0] and len(upstream.requests) > 1:
            peer.abort()
        else:
            await peer.send(answer(GOOD))

    upstream = await stage.backend(close_on_second)
    client = await stage.client()
    for _ in range(2):
        await client.send(post())
        message = await client.receive()
        assert message.body == GOOD
        assert message.values("x-nexus-retries") == []
    assert upstream.connections == 2
    assert stage.outcomes() == [Outcome.SUCCESS] * 2


async def test_a_stale_connection_is_replaced_once_only(stage: Stage) -> None:
    upstream = await stage.backend(says(answer(GOOD)), says_and_closes(b""))
    client = await stage.client()
    await client.send(post())
    await client.receive()
    await client.send(post())
    assert (await client.receive()).status == 503
    assert len(upstream.requests) == 3
    assert stage.outcomes() == [Outcome.SUCCESS, Outcome.CUT]


async def test_a_used_connection_that_dies_in_its_answer_is_a_failure(stage: Stage) -> None:
    upstream = await stage.backend(says(answer(GOOD)), says_and_closes(b"HTTP/1.1 2"))
    client = await stage.client()
    await client.send(post())
    await client.receive()
    await client.send(post())
    assert (await client.receive()).status == 503
    assert len(upstream.requests) == 2


async def test_an_early_answer_is_taken_and_its_connection_is_not_used_again(
    stage: Stage,
) -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b'{"error":"too long"}', status="400 Bad Request"))

    accepted: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(early, "127.0.0.1", 0, limit=2**16)
    await stage.backend(port=server.sockets[0].getsockname()[1])
    client = await stage.client()
    for _ in range(2):
        await client.send(post(b'{"model":"m","x":"' + b"y" * 20_000_000 + b'"}'))
        message = await client.receive()
        assert (message.status, message.body) == (400, b'{"error":"too long"}')
    assert len(accepted) == 2
    server.close()
    for writer in accepted:
        writer.transport.abort()


async def test_latency_is_learnt_from_streams_that_end_well(stage: Stage) -> None:
    await stage.backend(says(answer(GOOD)), says(stream(event("a"), event(finish="stop"), DONE)))
    await stage.ask()
    assert stage.backend_of().latency_ms == 0
    await stage.ask(post(STREAM_BODY))
    assert stage.backend_of().latency_ms > 0


async def test_no_latency_is_learnt_from_streams_that_fail(stage: Stage) -> None:
    await stage.backend(says(stream(event("a"), ERROR_EVENT)), says(stream(event("a"))))
    for _ in range(2):
        await stage.ask(post(STREAM_BODY))
    assert stage.outcomes() == [Outcome.STREAM_ERROR, Outcome.CUT]
    assert stage.backend_of().latency_ms == 0


async def test_a_failed_probe_on_the_only_backend_is_told_in_our_words(stage: Stage) -> None:
    await stage.backend(says(answer(ERROR, status="500 X")))
    stage.router.choices[0] = stage.router.choices[0].marked("recovery-probe", probe=True)
    message = await stage.ask()
    assert message.status == 503
    assert message.values("retry-after") == [b"7"]
    assert json.loads(message.body)["error"]["context"]["rejection_reasons"]
    assert stage.outcomes() == [Outcome.SERVER_ERROR]
