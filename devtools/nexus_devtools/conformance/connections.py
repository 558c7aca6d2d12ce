"""Cases of connections: keeping them, pipelining, expecting, leaving, being slow, being stale."""

from __future__ import annotations

import asyncio

from nexus_devtools.conformance import why
from nexus_devtools.conformance.case import BODY, OK, Case, Run, Step, body, case
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
from nexus_devtools.rawhttp.peers import Peer, Script, says, says_and_closes

JSON = b'{"model":"m"}'
ASK = post(JSON)
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
EXPECTING = HEAD + b"Expect: 100-continue\r\nContent-Length: 13\r\n\r\n"
SILENT = says(b"")


async def closes_without_a_byte(peer: Peer, _request: Message) -> None:
    await peer.close()


async def echoes_slowly(peer: Peer, request: Message) -> None:
    await asyncio.sleep(0.05 if b'"first"' in request.body else 0)
    await peer.send(answer(request.body))


def says_and_half_closes(wire: bytes) -> Script:
    """Answer and end this side, as servers do that have not read everything."""

    async def script(peer: Peer, _request: Message) -> None:
        await peer.send(wire)
        peer.writer.write_eof()
        await peer.reader.read(-1)

    return script


async def resets(peer: Peer, _request: Message) -> None:
    peer.abort()


def error_event(run: Run) -> str:
    """What to look at: whether the stream's end says what happened."""
    return "error event" if run.answers and b'"error"' in run.answers[-1].body else ""


KEEPING: tuple[Case, ...] = (
    case(
        "two requests, one after the other", ASK, Step.REACHED, ASK, proxy="200 200 open backend 2"
    ),
    case(
        "Connection: close", post(JSON, more=b"Connection: close\r\n"), proxy="200 closed backend 1"
    ),
    case(
        "Connection: Close, in capitals",
        post(JSON, more=b"CONNECTION: CLOSE\r\n"),
        proxy="200 closed backend 1",
    ),
    case(
        "Connection: keep-alive, close",
        post(JSON, more=b"Connection: keep-alive, close\r\n"),
        proxy="200 closed backend 1",
    ),
    case("HTTP/1.0", post(JSON, version="1.0"), proxy="200 closed backend 1"),
    case(
        "HTTP/1.0 without Host",
        post(JSON, version="1.0").replace(b"Host: proxy\r\n", b""),
        proxy="200 closed backend 1",
    ),
    case(
        "HTTP/1.0 with keep-alive",
        post(JSON, version="1.0", more=b"Connection: keep-alive\r\n"),
        proxy="200 closed backend 1",
        nginx="200 open backend 1",
        why=why.SILENT_10,
    ),
    case(
        "HTTP/1.0 and chunked",
        HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(JSON) + END,
        proxy="200 closed backend 1",
        nginx="400 closed backend 0",
        why="RFC 9112 §6.1 asks to close after it; nginx does not serve it at all",
    ),
    case(
        "the backend says Connection: close",
        ASK,
        backend=(says(answer(BODY, more=b"Connection: close\r\n")),),
        proxy="200 open backend 1",
    ),
    case("empty lines between requests", ASK + b"\r\n\r\n" + ASK, proxy="200 200 open backend 2"),
    case("a byte too many after a request", ASK + b"x" + ASK, proxy="200 400 closed backend 1"),
    case(
        "a body longer than its length",
        HEAD + b"Content-Length: 13\r\n\r\n" + JSON + b"}",
        proxy="200 400 closed backend 1",
    ),
)

PIPELINING: tuple[Case, ...] = (
    case("three requests at once", ASK * 3, proxy="200 200 200 open backend 3"),
    case(
        "the first is the slowest",
        post(b'{"model":"m","user":"first"}') + ASK,
        backend=(echoes_slowly,),
        look=body,
        proxy='200 200 open backend 2 {"model":"m"}',
    ),
    case(
        "a local answer between two",
        ASK + b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n" + ASK,
        proxy="200 200 200 open backend 2",
        nginx="200 200 200 open backend 3",
        why="the list of models is ours",
    ),
    case("nonsense after a request", ASK + b"nonsense\r\n\r\n", proxy="200 400 closed backend 1"),
    case(
        "a request after Connection: close",
        post(JSON, more=b"Connection: close\r\n") + ASK,
        proxy="200 closed backend 1",
    ),
    case(
        "half a request after a whole one",
        ASK + ASK[:30],
        Step.REACHED,
        ASK[30:],
        proxy="200 200 open backend 2",
    ),
)

EXPECTING_CASES: tuple[Case, ...] = (
    case("100-continue, waited for", EXPECTING, Step.INTERIM, JSON, proxy="100 200 open backend 1"),
    case(
        "100-continue, not waited for",
        EXPECTING + JSON,
        proxy="200 open backend 1",
        nginx="100 200 open backend 1",
        why="the body was there already, so nobody waits for a 100",
    ),
    case(
        "100-continue in capitals",
        EXPECTING.replace(b"100-c", b"100-C"),
        Step.INTERIM,
        JSON,
        proxy="100 200 open backend 1",
    ),
    case(
        "100-continue of HTTP/1.0",
        EXPECTING.replace(b"1.1", b"1.0") + JSON,
        proxy="200 closed backend 1",
    ),
    case(
        "another expectation",
        EXPECTING.replace(b"100-continue", b"200-ok") + JSON,
        proxy="417 closed backend 0",
        nginx="200 open backend 1",
        why="RFC 9110 §10.1.1 lets a server refuse what it does not know",
    ),
    case(
        "100-continue and a body over the limit",
        EXPECTING.replace(b"Length: 13", b"Length: 9999999"),
        proxy="413 closed backend 0",
    ),
    case(
        "100-continue and no body",
        EXPECTING.replace(b"Length: 13", b"Length: 0"),
        proxy="400 open backend 0",
        nginx="100 200 open backend 1",
        why=why.ROUTES,
    ),
)

LEAVING: tuple[Case, ...] = (
    case(
        "half-closed while the backend works",
        ASK,
        Step.REACHED,
        Step.HALF_CLOSE,
        backend=(SILENT,),
        proxy="nothing closed backend 1",
    ),
    case("half-closed in the head", ASK[:40], Step.HALF_CLOSE, proxy="nothing closed backend 0"),
    case("half-closed in the body", ASK[:-5], Step.HALF_CLOSE, proxy="nothing closed backend 0"),
    case(
        "half-closed in a chunk",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nd\r\n{",
        Step.HALF_CLOSE,
        proxy="nothing closed backend 0",
    ),
    case("half-closed before any request", Step.HALF_CLOSE, proxy="nothing closed backend 0"),
)

SLOW: tuple[Case, ...] = (
    case("nothing is sent", Step.TOO_LONG, proxy="nothing closed backend 0"),
    case(
        "a head that never ends",
        ASK[:40],
        Step.TOO_LONG,
        proxy="408 closed backend 0",
        nginx="nothing closed backend 0",
        why=why.SPOKEN_OUT,
    ),
    case(
        "a body that never ends",
        ASK[:-5],
        Step.TOO_LONG,
        proxy="408 closed backend 0",
        nginx="nothing closed backend 0",
        why=why.SPOKEN_OUT,
    ),
    case(
        "a chunk that never ends",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nd\r\n{",
        Step.TOO_LONG,
        proxy="408 closed backend 0",
        nginx="nothing closed backend 0",
        why=why.SPOKEN_OUT,
    ),
    case("idle after an answer", ASK, Step.REACHED, Step.TOO_LONG, proxy="200 closed backend 1"),
    case(
        "a backend that says nothing",
        ASK,
        Step.REACHED,
        Step.TOO_LONG,
        backend=(SILENT,),
        proxy="503 open backend 1",
        nginx="504 closed backend 1",
        why=why.CLOSES_AFTER_504,
    ),
    case(
        "a backend that stops in the head",
        ASK,
        Step.REACHED,
        Step.TOO_LONG,
        backend=(says(b"HTTP/1.1 200 OK\r\nConte"),),
        proxy="503 open backend 1",
        nginx="504 closed backend 1",
        why=why.CLOSES_AFTER_504,
    ),
    case(
        "a stream that falls silent",
        post(STREAM_BODY),
        Step.REACHED,
        Step.TOO_LONG,
        backend=(says(SSE_HEAD + chunk(event("a"))),),
        proxy="200 closed backend 1",
        nginx="nothing cut backend 1",
        why=why.CUT_STREAM,
    ),
)

STALE: tuple[Case, ...] = (
    case(
        "closed after each answer",
        ASK * 3,
        backend=(says_and_closes(answer(BODY)),),
        proxy="200 200 200 open backend 3",
        nginx="200 502 200 open backend 2 or 200 200 200 open backend 3",
        why=why.STALE,
    ),
    case(
        "closed as the next request comes",
        ASK + ASK,
        backend=(OK, closes_without_a_byte, OK),
        proxy="200 200 open backend 3",
        nginx="200 502 open backend 2",
        why=why.STALE,
    ),
    case(
        "reset as the next request comes",
        ASK + ASK,
        backend=(OK, resets, OK),
        proxy="200 200 open backend 3",
        nginx="200 502 open backend 2",
        why=why.STALE,
    ),
    case(
        "closed at the first request",
        ASK,
        backend=(closes_without_a_byte,),
        proxy="503 open backend 1",
        nginx="502 open backend 1",
        why=why.NO_RETRY,
    ),
    case(
        "reset at the first request",
        ASK,
        backend=(resets,),
        proxy="503 open backend 1",
        nginx="502 open backend 1",
        why=why.NO_RETRY,
    ),
)

STREAMS: tuple[Case, ...] = (
    case(
        "a stream",
        post(STREAM_BODY),
        backend=(says(SSE_HEAD + chunk(event("a")) + chunk(DONE) + b"0\r\n\r\n"),),
        proxy="200 open backend 1",
    ),
    case(
        "a stream to HTTP/1.0",
        post(STREAM_BODY, version="1.0"),
        backend=(says(SSE_HEAD + chunk(event("a")) + chunk(DONE) + b"0\r\n\r\n"),),
        proxy="200 closed backend 1",
    ),
    case(
        "a stream that breaks off",
        post(STREAM_BODY),
        backend=(says_and_closes(SSE_HEAD + chunk(event("a"))),),
        look=error_event,
        proxy="200 closed backend 1 error event",
        nginx="nothing cut backend 1",
        why=why.CUT_STREAM,
    ),
)

EARLY: tuple[Case, ...] = (
    case(
        "an answer before the body",
        post(JSON + b" " * 900_000),
        early=True,
        proxy="200 open backend 1",
    ),
    case(
        "a refusal before the body, then the end",
        post(JSON + b" " * 900_000),
        early=True,
        backend=(says_and_half_closes(answer(b"{}", status="413 Content Too Large")),),
        proxy="413 open backend 1",
    ),
)
