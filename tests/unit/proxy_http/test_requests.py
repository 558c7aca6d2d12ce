"""What clients may send, what is refused, and what of it a backend gets to see."""

from __future__ import annotations

import asyncio
import json

import pytest

from nexus_devtools.rawhttp.messages import STREAM_BODY, Message, answer, chunk, post, stream
from nexus_devtools.rawhttp.peers import Peer, says, until
from nexus_devtools.rawhttp.stage import Stage
from nexus_proxy.http import request_reader
from nexus_proxy.routing.candidate import Credentials

CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
OK = says(answer(b'{"id":"1"}'))


def error_of(message: Message) -> dict[str, object]:
    error = json.loads(message.body)["error"]
    assert isinstance(error, dict)
    return error


async def test_the_body_reaches_the_backend_byte_for_byte(stage: Stage) -> None:
    upstream = await stage.backend(OK)
    body = '{ "model" : "m",\n\t"messages":[{"content":"Grüße \\u00e9"}] , "x":1.0e5 }'.encode()
    await stage.ask(post(body))
    assert upstream.requests[0].body == body
    assert upstream.requests[0].start == b"POST /v1/chat/completions HTTP/1.1"


async def test_a_chunked_body_reaches_the_backend_with_a_length(stage: Stage) -> None:
    upstream = await stage.backend(OK)
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = chunk(b'{"model":') + b"6;ext=1\r\n" + b'"m"   ' + b"\r\n" + chunk(b"}") + b"0\r\n\r\n"
    await stage.ask(head + body)
    assert upstream.requests[0].body == b'{"model":"m"   }'
    assert upstream.requests[0].values("transfer-encoding") == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_request_may_arrive_byte_by_byte(stage: Stage, chunked: bool) -> None:
    upstream = await stage.backend(OK)
    body = b'{"model":"m","messages":[]}'
    request = post(body)
    if chunked:
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        request = head + chunk(body[:5]) + chunk(body[5:]) + b"0\r\n\r\n"
    client = await stage.client()
    await client.send_bytewise(request)
    assert (await client.receive()).status == 200
    assert upstream.requests[0].body == body


async def test_requests_on_one_connection_share_one_backend_connection(stage: Stage) -> None:
    upstream = await stage.backend(OK)
    client = await stage.client()
    for _ in range(5):
        await client.send(post())
        assert (await client.receive()).body == b'{"id":"1"}'
    assert (len(upstream.requests), upstream.connections) == (5, 1)


async def test_pipelined_requests_are_answered_in_order(stage: Stage) -> None:
    async def echo_last_slowest(peer: Peer, request: Message) -> None:
        await asyncio.sleep(0.03 if b'"0"' in request.body else 0)
        await peer.send(answer(request.body))

    await stage.backend(echo_last_slowest)
    client = await stage.client()
    bodies = [b'{"model":"m","user":"%d"}' % n for n in range(5)]
    get = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    await client.send(b"".join(post(body) for body in bodies) + get)
    assert [(await client.receive()).body for _ in bodies] == bodies
    assert json.loads((await client.receive()).body)["object"] == "list"


async def test_reading_ahead_of_the_request_being_served_is_bounded(stage: Stage) -> None:
    release = asyncio.Event()

    async def wait(peer: Peer, _request: Message) -> None:
        await release.wait()
        await peer.send(answer(b"{}"))

    await stage.backend(wait)
    client = await stage.client()
    request = post(b'{"model":"m","pad":"' + b"x" * 2000 + b'"}')
    total = 4000 * len(request)
    client.writer.write(request * 4000)
    await until(lambda: stage.counters.bytes_received > 64 * 1024)
    await asyncio.sleep(0.1)
    assert stage.counters.bytes_received < 1024 * 1024 < total
    release.set()
    for _ in range(4000):
        assert (await client.receive()).status == 200


async def test_a_thousand_local_answers_in_one_read_do_not_recurse(stage: Stage) -> None:
    client = await stage.client()
    await client.send(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
    for _ in range(1000):
        assert (await client.receive()).status == 404


async def test_expect_100_continue_is_answered_and_not_forwarded(stage: Stage) -> None:
    upstream = await stage.backend(OK)
    client = await stage.client()
    request = post(more=b"Expect: 100-continue\r\n")
    head, _, body = request.partition(b"\r\n\r\n")
    await client.send(head + b"\r\n\r\n")
    assert await client.receive_interim() == b"HTTP/1.1 100 Continue"
    await client.send(body)
    assert (await client.receive()).status == 200
    assert upstream.requests[0].values("expect") == []


async def test_a_body_that_came_along_is_not_asked_for(stage: Stage) -> None:
    await stage.backend(OK)
    assert (await stage.ask(post(more=b"Expect: 100-continue\r\n"))).status == 200


async def test_100_continue_waits_for_the_answers_before_it(stage: Stage) -> None:
    await stage.backend(OK)
    client = await stage.client()
    head, _, body = post(more=b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    await client.send(post() + head + b"\r\n\r\n")
    assert (await client.receive()).body == b'{"id":"1"}'
    assert await client.receive_interim() == b"HTTP/1.1 100 Continue"
    await client.send(body)
    assert (await client.receive()).status == 200


async def test_an_unknown_expectation_is_refused(stage: Stage) -> None:
    assert (await stage.ask(post(more=b"Expect: the-unexpected\r\n"))).status == 417


async def test_a_declared_body_over_the_limit_is_refused_before_it_comes(stage: Stage) -> None:
    stage.gateway.max_body_bytes = 1000
    client = await stage.client()
    await client.send(post(b"x" * 1001).partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    message = await client.receive()
    assert message.status == 413
    assert message.header("connection") == b"close"
    assert error_of(message)["type"] == "invalid_request_error"
    assert await client.ended() == b""


async def test_a_chunked_body_over_the_limit_is_refused(stage: Stage) -> None:
    stage.gateway.max_body_bytes = 1000
    client = await stage.client()
    head = CHAT + b"Transfer-Encoding: chunked\r\n\r\n"
    await client.send(head + chunk(b"y" * 600))
    await client.send(chunk(b"y" * 600))
    assert (await client.receive()).status == 413


async def test_a_refused_client_may_finish_sending_and_still_reads_the_answer(
    stage: Stage,
) -> None:
    stage.gateway.max_body_bytes = 1000
    client = await stage.client()
    await client.send(post(b"x" * 3_000_000))
    assert (await client.receive()).status == 413


async def test_an_unknown_path_is_a_404_envelope_and_the_connection_lives(stage: Stage) -> None:
    await stage.backend(OK)
    client = await stage.client()
    await client.send(post(path="/v1/images"))
    message = await client.receive()
    assert (message.status, error_of(message)["code"]) == (404, "not_found")
    await client.send(post())
    assert (await client.receive()).status == 200


async def test_a_wrong_method_is_a_405_that_names_the_right_one(stage: Stage) -> None:
    message = await stage.ask(b"GET /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (message.status, message.header("allow")) == (405, b"POST")
    message = await stage.ask(post(path="/v1/models"))
    assert (message.status, message.header("allow")) == (405, b"GET")


async def test_no_models_are_listed_before_the_first_list_of_objects(stage: Stage) -> None:
    stage.router.ready = False
    message = await stage.ask(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
    assert message.status == 503
    assert message.values("retry-after") == [b"1"]


async def test_models_are_answered_without_a_backend(stage: Stage) -> None:
    message = await stage.ask(b"GET /v1/models?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert message.status == 200
    assert json.loads(message.body)["data"][0]["id"] == "m"


@pytest.mark.parametrize(
    "body", [b"not json", b"[]", b"", b'{"messages":[]}', b'{"model":7}', b'{"model":"m"']
)
async def test_a_body_that_cannot_be_routed_is_a_400_envelope(stage: Stage, body: bytes) -> None:
    upstream = await stage.backend(OK)
    message = await stage.ask(post(body))
    assert message.status == 400
    assert error_of(message)["type"] == "invalid_request_error"
    assert upstream.requests == []


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
REFUSED = {
    "length and chunked": CHAT
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": CHAT + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "a signed length": CHAT + b"Content-Length: +4\r\n\r\nabcd",
    "a list of lengths": CHAT + b"Content-Length: 4, 4\r\n\r\nabcd",
    "xchunked": CHAT + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": CHAT + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "gzip, chunked": CHAT + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": CHAT + b"Content-Length : 4\r\n\r\nabcd",
    "a folded line": CHAT + b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "a NUL": CHAT + b"X-A: b\0c\r\nContent-Length: 0\r\n\r\n",
    "a bare CR": CHAT + b"X-A: b\rContent-Length: 0\r\n\r\n",
    "bare LF": CHAT.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n",
    "no host": b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "two hosts": CHAT + b"Host: y\r\nContent-Length: 0\r\n\r\n",
    "a bad chunk size": CHAT + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk longer than said": CHAT + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
    "HTTP/0.9": b"POST /v1/chat/completions\r\n\r\n",
    "HTTP/2": CHAT.replace(b"1.1", b"2.0") + b"Content-Length: 0\r\n\r\n",
    "HTTP/1.2": CHAT.replace(b"1.1", b"1.2") + b"Content-Length: 0\r\n\r\n",
    "CONNECT": b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
    "Upgrade": CHAT + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
    "an unknown method": b"BREW /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_dangerous_shape_is_refused_and_ends_the_connection(
    stage: Stage, name: str
) -> None:
    upstream = await stage.backend(OK)
    client = await stage.client()
    await client.send(REFUSED[name] + SMUGGLED)
    message = await client.receive()
    assert message.status in (400, 501, 505), message
    assert error_of(message)["message"]
    assert await client.ended() == b""
    assert upstream.requests == []


async def test_a_refusal_waits_for_the_answer_before_it(stage: Stage) -> None:
    await stage.backend(OK)
    client = await stage.client()
    await client.send(post() + b"nonsense\r\n\r\n")
    assert (await client.receive()).body == b'{"id":"1"}'
    assert (await client.receive()).status == 400
    assert await client.ended() == b""


async def test_an_endless_head_is_refused(stage: Stage) -> None:
    client = await stage.client()
    await client.send(CHAT)
    for _ in range(100):
        client.writer.write(b"X-Long: " + b"a" * 8000 + b"\r\n")
    assert (await client.receive()).status == 431


async def test_headers_of_the_clients_connection_stay_here(stage: Stage) -> None:
    upstream = await stage.backend(OK)
    more = (
        b"Connection: keep-alive, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n"
        b"TE: trailers\r\nProxy-Authorization: Basic x\r\nProxy-Connection: keep-alive\r\n"
        b"X-Nexus-Priority: high\r\nx-nexus-anything: 1\r\nX-Stays: yes\r\n"
    )
    await stage.ask(post(more=more))
    request = upstream.requests[0]
    assert sorted(name for name, _ in request.headers) == [
        b"content-length",
        b"content-type",
        b"host",
        b"x-stays",
    ]
    assert request.header("host") == b"127.0.0.1:%d" % upstream.port


async def test_the_two_routing_headers_reach_the_router(stage: Stage) -> None:
    await stage.backend(OK)
    await stage.ask(post(more=b"X-Nexus-Priority: High\r\nX-Nexus-Flexible: true\r\n"))
    await stage.ask(post())
    assert [(c.high_priority, c.flexible) for c in stage.router.calls] == [
        (True, True),
        (False, False),
    ]


CLIENT_KEYS = (
    b"Authorization: Bearer client\r\nX-API-Key: client\r\napi-key: c\r\nX-Goog-Api-Key: c\r\n"
)
KEY_NAMES = ("authorization", "x-api-key", "api-key", "x-goog-api-key")


async def test_a_clients_keys_reach_no_backend_that_did_not_ask(stage: Stage) -> None:
    upstream = await stage.backend(OK)
    await stage.ask(post(more=CLIENT_KEYS))
    assert [upstream.requests[0].values(name) for name in KEY_NAMES] == [[], [], [], []]


async def test_a_backends_own_key_replaces_the_clients(stage: Stage) -> None:
    own = Credentials(mode="Secret", header_line=b"authorization: Bearer own\r\n")
    upstream = await stage.backend(OK, credentials=own)
    await stage.ask(post(more=CLIENT_KEYS))
    assert [upstream.requests[0].values(name) for name in KEY_NAMES] == [
        [b"Bearer own"],
        [],
        [],
        [],
    ]


async def test_pass_through_passes_the_clients_keys(stage: Stage) -> None:
    through = Credentials(mode="PassThrough", strip=frozenset())
    upstream = await stage.backend(OK, credentials=through)
    await stage.ask(post(more=CLIENT_KEYS))
    values = [upstream.requests[0].values(name) for name in KEY_NAMES]
    assert values == [[b"Bearer client"], [b"client"], [b"c"], [b"c"]]


async def test_a_key_header_of_the_backends_own_is_stripped_too(stage: Stage) -> None:
    own = Credentials(
        mode="Secret",
        header_line=b"x-my-key: own\r\n",
        strip=frozenset((*map(str.encode, KEY_NAMES), b"x-my-key")),
    )
    upstream = await stage.backend(OK, credentials=own)
    await stage.ask(post(more=b"X-My-Key: client\r\nX-My-Keys: stays\r\n"))
    assert upstream.requests[0].values("x-my-key") == [b"own"]
    assert upstream.requests[0].values("x-my-keys") == [b"stays"]


async def test_trailers_are_no_headers(stage: Stage) -> None:
    through = Credentials(mode="PassThrough", strip=frozenset())
    upstream = await stage.backend(OK, credentials=through)
    client = await stage.client()
    head = CHAT + b"Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n"
    trailers = b"0\r\nAuthorization: Bearer late\r\nX-Late: 1\r\nHost: evil\r\n\r\n"
    await client.send(head + chunk(b'{"model":"m"}') + trailers)
    assert (await client.receive()).status == 200
    await client.send(post())
    assert (await client.receive()).status == 200
    for request in upstream.requests:
        assert request.values("authorization") == request.values("x-late") == []
        assert len(request.values("host")) == 1


async def test_streams_are_asked_for_unencoded_and_all_else_as_the_client_can(
    stage: Stage,
) -> None:
    upstream = await stage.backend(
        OK, says(stream(b'data: {"choices":[{"text":"a"}]}\n\n', b"data: [DONE]\n\n"))
    )
    await stage.ask(post(more=b"Accept-Encoding: gzip, br\r\n"))
    await stage.ask(post(STREAM_BODY, more=b"Accept-Encoding: gzip, br\r\n"))
    assert [r.header("accept-encoding") for r in upstream.requests] == [b"gzip, br", b"identity"]


async def test_only_the_value_of_model_changes_where_it_is_mapped(stage: Stage) -> None:
    upstream = await stage.backend(OK, rewrite="org/real-name", prefix="/prefix")
    body = b'{ "messages":[{"content":"\\"model\\":\\"m\\"","model":"m"}],  "model" : "m" }'
    await stage.ask(post(body))
    request = upstream.requests[0]
    assert request.start == b"POST /prefix/v1/chat/completions HTTP/1.1"
    assert request.body == body[:-5] + b'"org/real-name" }'


async def test_an_http_1_0_client_gets_an_unchunked_answer_and_the_end(stage: Stage) -> None:
    await stage.backend(says(stream(b'data: {"choices":[{"text":"a"}]}\n\n', b"data: [DONE]\n\n")))
    client = await stage.client()
    await client.send(post(STREAM_BODY, version="1.0").replace(b"Host: proxy\r\n", b""))
    message = await client.receive()
    assert message.values("transfer-encoding") == []
    assert message.header("connection") == b"close"
    assert message.body == b'data: {"choices":[{"text":"a"}]}\n\ndata: [DONE]\n\n'


async def test_connection_close_is_honoured(stage: Stage) -> None:
    await stage.backend(OK)
    client = await stage.client()
    await client.send(post(more=b"Connection: close\r\n"))
    message = await client.receive()
    assert (message.status, message.header("connection")) == (200, b"close")
    assert await client.ended() == b""


async def test_trailers_leave_nothing_behind_in_the_process(stage: Stage) -> None:
    await stage.backend(OK)
    head = CHAT + b"Transfer-Encoding: chunked\r\n\r\n"
    trailers = b"0\r\nAuthorization: late\r\nAccept-Encoding: x\r\nConnection: x\r\n\r\n"
    for _ in range(3):
        await stage.ask(head + chunk(b'{"model":"m"}') + trailers)
    discarded = request_reader._DISCARDED
    assert (discarded.credentials, discarded.accept_encoding, discarded.named) == ((), b"", None)


@pytest.mark.parametrize("size", [0, 20_000])
async def test_trailers_without_end_are_refused(stage: Stage, size: int) -> None:
    client = await stage.client()
    await client.send(CHAT + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Late: ")
    endless = b"a" * 200_000
    await client.send_bytewise(endless, size or len(endless))
    assert (await client.receive()).status == 431


@pytest.mark.parametrize("pieces", [1, 3])
async def test_no_part_of_a_chunked_body_over_the_limit_reaches_a_backend(
    stage: Stage, pieces: int
) -> None:
    upstream = await stage.backend(OK)
    stage.gateway.max_body_bytes = 1000
    body = b'{"model":"m"}'.ljust(900) + b" " * 200
    wire = b"".join(chunk(body[at : at + 100]) for at in range(0, 1100, 100)) + b"0\r\n\r\n"
    client = await stage.client()
    request = CHAT + b"Transfer-Encoding: chunked\r\n\r\n" + wire
    await client.send_bytewise(request, len(request) // pieces + 1)
    assert (await client.receive()).status == 413
    assert upstream.requests == []


async def test_an_answer_to_head_has_no_body(stage: Stage) -> None:
    client = await stage.client()
    await client.send(b"HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    for _ in range(2):
        head = await client.receive_interim()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"content-length: " in head
