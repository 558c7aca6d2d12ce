"""Cases of the backend's side: framing of answers, interim answers, breaks, and what is no HTTP."""

from __future__ import annotations

from typing import Any

from nexus_devtools.conformance import why
from nexus_devtools.conformance.case import BODY, OK, Case, body, case, returned
from nexus_devtools.rawhttp.messages import END, Message, answer, chunk, post
from nexus_devtools.rawhttp.peers import Peer, Script, says, says_and_closes

ASK = post(b'{"model":"m"}')
OLD = post(b'{"model":"m"}', version="1.0")
OLD_KEPT = post(b'{"model":"m"}', version="1.0", more=b"Connection: keep-alive\r\n")
KIND = b"Content-Type: application/json\r\n"
START = b"HTTP/1.1 200 OK\r\n" + KIND
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
EVIL = answer(b'{"evil":1}')
LONG = b"x" * 200_000  # more than is held back before an answer is committed


def sized(data: bytes = BODY, *, start: bytes = b"HTTP/1.1 200 OK\r\n", more: bytes = b"") -> bytes:
    """An answer with a length."""
    return start + more + b"Content-Length: %d\r\n\r\n" % len(data) + data


def answers(name: str, *wire: bytes, ask: bytes = ASK, **more: Any) -> Case:
    """The backend says this and keeps the connection; the next request gets a good answer."""
    return case(name, ask, backend=(*(says(each) for each in wire), OK), **more)


def breaks(name: str, wire: bytes, **more: Any) -> Case:
    """The backend says this and closes the connection."""
    return case(name, ASK, backend=(says_and_closes(wire), OK), **more)


def slowly(wire: bytes) -> Script:
    async def script(peer: Peer, _request: Message) -> None:
        await peer.send_bytewise(wire)

    return script


FRAMING: tuple[Case, ...] = (
    answers("a length", sized(), look=body, proxy='200 open backend 1 {"id":"1"}'),
    case(
        "a length, byte by byte",
        ASK,
        backend=(slowly(sized()),),
        look=body,
        proxy='200 open backend 1 {"id":"1"}',
    ),
    answers("an empty body", sized(b""), look=body, proxy="200 open backend 1"),
    answers(
        "chunked",
        CHUNKED + chunk(BODY[:3]) + chunk(BODY[3:]) + END,
        look=body,
        proxy='200 open backend 1 {"id":"1"}',
    ),
    case(
        "chunked, byte by byte",
        ASK,
        backend=(slowly(CHUNKED + chunk(BODY) + END),),
        look=body,
        proxy='200 open backend 1 {"id":"1"}',
    ),
    answers(
        "chunk extensions",
        CHUNKED + b"a;x=y\r\n" + BODY + b"\r\n" + END,
        look=body,
        proxy='200 open backend 1 {"id":"1"}',
    ),
    answers(
        "trailers",
        CHUNKED + chunk(BODY) + b"0\r\nX-Late: 1\r\nSet-Cookie: a=b\r\n\r\n",
        look=returned("x-late", "set-cookie"),
        proxy="200 open backend 1 x-late=, set-cookie=",
    ),
    breaks(
        "until the connection ends",
        START + b"\r\n" + BODY,
        look=body,
        proxy='200 open backend 1 {"id":"1"}',
    ),
    breaks(
        "HTTP/1.0 until the connection ends",
        START.replace(b"1.1", b"1.0") + b"\r\n" + BODY,
        proxy="200 open backend 1",
    ),
    answers(
        "HTTP/1.0 with a length",
        sized(start=b"HTTP/1.0 200 OK\r\n"),
        look=body,
        proxy='200 open backend 1 {"id":"1"}',
    ),
    answers(
        "a chunked answer to HTTP/1.0",
        CHUNKED + chunk(BODY) + END,
        ask=OLD,
        look=body,
        proxy='200 closed backend 1 {"id":"1"}',
    ),
    answers(
        "a length to HTTP/1.0", sized(), ask=OLD, look=body, proxy='200 closed backend 1 {"id":"1"}'
    ),
    answers(
        "a length to HTTP/1.0 with keep-alive",
        sized(),
        ask=OLD_KEPT,
        look=body,
        proxy='200 closed backend 1 {"id":"1"}',
        nginx='200 open backend 1 {"id":"1"}',
        why=why.SILENT_10,
    ),
    answers(
        "204",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        look=returned("content-length"),
        proxy="204 open backend 1 content-length=",
    ),
    answers(
        "204 with a length",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        proxy="204 open backend 1",
    ),
    answers(
        "204 with a body",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nabcde",
        proxy="204 open backend 1",
    ),
    answers(
        "204 in chunks",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
        proxy="204 open backend 1",
    ),
    answers(
        "304",
        b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
        look=returned("etag"),
        proxy="304 open backend 1 etag=x",
    ),
    answers(
        "304 with a body",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nabcde",
        look=returned("content-length"),
        proxy="304 open backend 1 content-length=",
        nginx="304 open backend 1 content-length=5",
        why="a 304 may name the length of what it does not send; no use to a client of this API",
    ),
    answers(
        "205 with a body",
        sized(start=b"HTTP/1.1 205 Reset Content\r\n"),
        look=body,
        proxy='205 open backend 1 {"id":"1"}',
    ),
    answers(
        "400 with a body",
        sized(start=b"HTTP/1.1 400 Bad Request\r\n"),
        look=body,
        proxy='400 open backend 1 {"id":"1"}',
    ),
    answers(
        "499 without a reason",
        sized(start=b"HTTP/1.1 499 \r\n"),
        look=body,
        proxy='499 open backend 1 {"id":"1"}',
    ),
    answers(
        "no space after the status",
        sized(start=b"HTTP/1.1 200\r\n"),
        look=body,
        proxy='200 open backend 1 {"id":"1"}',
    ),
)

INTERIM: tuple[Case, ...] = (
    answers(
        "100 before the answer",
        b"HTTP/1.1 100 Continue\r\n\r\n" + sized(),
        look=body,
        proxy='200 open backend 1 {"id":"1"}',
        nginx='100 200 stuck backend 1 {"id":"1"}',
        why=why.INTERIM_IS_FINAL,
    ),
    answers(
        "103 before the answer",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + sized(),
        look=returned("link"),
        proxy="200 open backend 1 link=",
        nginx="103 200 stuck backend 1 link=",
        why=why.INTERIM_IS_FINAL,
    ),
    answers(
        "102 three times",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + sized(),
        look=body,
        proxy='200 open backend 1 {"id":"1"}',
        nginx='102 102 102 200 stuck backend 1 {"id":"1"}',
        why=why.INTERIM_IS_FINAL,
    ),
    case(
        "103 byte by byte",
        ASK,
        backend=(slowly(b"HTTP/1.1 103 Early Hints\r\n\r\n" + sized()),),
        look=body,
        proxy='200 open backend 1 {"id":"1"}',
        nginx='103 200 stuck backend 1 {"id":"1"}',
        why=why.INTERIM_IS_FINAL,
    ),
    answers(
        "103 with a length",
        b"HTTP/1.1 103 X\r\nContent-Length: 5\r\n\r\n" + sized(),
        proxy="200 open backend 1",
        nginx="103 stuck backend 1",
        why=why.INTERIM_IS_FINAL,
    ),
    breaks(
        "103 and then the end",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        proxy="503 open backend 1",
        nginx="103 stuck backend 1",
        why=why.INTERIM_IS_FINAL,
    ),
    answers(
        "5 interim answers",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 5 + sized(),
        proxy="200 open backend 1",
        nginx="102 102 102 102 102 200 stuck backend 1",
        why=why.INTERIM_IS_FINAL,
    ),
    answers(
        "101 that nobody asked for",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw",
        proxy="503 open backend 1",
        nginx="101 stuck backend 1",
        why=why.INTERIM_IS_FINAL,
    ),
)

DANGEROUS: tuple[Case, ...] = (
    answers(
        "length and chunked",
        START + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(BODY) + END,
        proxy="503 open backend 1",
        nginx="200 open backend 1",
        why=why.LAX_ANSWER,
    ),
    answers(
        "two different lengths",
        START + b"Content-Length: 10\r\nContent-Length: 0\r\n\r\n" + BODY,
        proxy="503 open backend 1",
        nginx="200 open backend 1",
        why=why.LAX_ANSWER,
    ),
    answers(
        "twice the same length",
        START + b"Content-Length: 10\r\n" * 2 + b"\r\n" + BODY,
        proxy="503 open backend 1",
        nginx="200 open backend 1",
        why=why.LAX_ANSWER,
    ),
    answers(
        "a list of lengths",
        START + b"Content-Length: 10, 10\r\n\r\n" + BODY,
        proxy="503 open backend 1",
        nginx="nothing stuck backend 1",
        why=why.UNTIL_END,
    ),
    answers(
        "a signed length",
        START + b"Content-Length: +10\r\n\r\n" + BODY,
        proxy="503 open backend 1",
        nginx="nothing stuck backend 1",
        why=why.UNTIL_END,
    ),
    answers(
        "a negative length",
        START + b"Content-Length: -1\r\n\r\n" + BODY,
        proxy="503 open backend 1",
        nginx="nothing stuck backend 1",
        why=why.UNTIL_END,
    ),
    answers(
        "a length that is no number",
        START + b"Content-Length: ten\r\n\r\n" + BODY,
        proxy="503 open backend 1",
        nginx="nothing stuck backend 1",
        why=why.UNTIL_END,
    ),
    answers(
        "gzip as transfer coding",
        START + b"Transfer-Encoding: gzip\r\n\r\n" + BODY,
        proxy="503 open backend 1",
        nginx="nothing stuck backend 1",
        why="nginx ignores the coding and waits for the end of the connection",
    ),
    answers(
        "xchunked",
        START + b"Transfer-Encoding: xchunked\r\n\r\n" + chunk(BODY) + END,
        proxy="503 open backend 1",
        nginx="200 open backend 1",
        why=why.LAX_ANSWER,
    ),
    answers(
        "chunked twice",
        START + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n" + END,
        proxy="503 open backend 1",
        nginx="200 open backend 1",
        why=why.LAX_ANSWER,
    ),
    answers(
        "a bad chunk size",
        CHUNKED + b"zz\r\n" + BODY + b"\r\n" + END,
        proxy="503 open backend 1",
        nginx="nothing closed backend 1",
        why=why.NO_BODY_SEEN,
    ),
    answers(
        "a negative chunk size",
        CHUNKED + b"-a\r\n" + BODY + b"\r\n" + END,
        proxy="503 open backend 1",
        nginx="nothing closed backend 1",
        why=why.NO_BODY_SEEN,
    ),
    answers(
        "a chunk longer than its size",
        CHUNKED + b"2\r\n" + BODY + b"\r\n" + END,
        proxy="503 open backend 1",
        nginx="nothing closed backend 1",
        why=why.NO_BODY_SEEN,
    ),
    answers(
        "a folded line",
        sized(more=b"X-A: b\r\n c\r\n"),
        look=returned("x-a"),
        proxy="503 open backend 1 x-a=",
        nginx="502 open backend 1 x-a=",
        why=why.NO_RETRY,
    ),
    answers(
        "a space before the colon",
        sized(more=b"X-A : b\r\n"),
        look=returned("x-a"),
        proxy="503 open backend 1 x-a=",
        nginx="502 open backend 1 x-a=",
        why=why.NO_RETRY,
    ),
    answers(
        "a line without a colon",
        sized(more=b"nonsense\r\n"),
        proxy="503 open backend 1",
        nginx="200 open backend 1",
        why=why.LAX_ANSWER,
    ),
    answers(
        "a NUL in a value",
        sized(more=b"X-A: b\0c\r\n"),
        proxy="503 open backend 1",
        nginx="502 open backend 1",
        why=why.NO_RETRY,
    ),
    answers(
        "a bare CR in a value",
        sized(more=b"X-A: b\rX-B: c\r\n"),
        look=returned("x-b"),
        proxy="503 open backend 1 x-b=",
        nginx="502 open backend 1 x-b=",
        why=why.NO_RETRY,
    ),
    answers(
        "bare LF everywhere",
        sized().replace(b"\r\n", b"\n"),
        look=body,
        proxy='503 open backend 1 {"error":{"message":"nobody is left","ty',
        nginx='200 open backend 1 {"id":"1"}',
        why=why.LAX_ANSWER,
    ),
    answers(
        "no HTTP at all",
        b"220 mail.example ESMTP\r\n",
        proxy="503 open backend 1",
        nginx="nothing stuck backend 1",
        why=why.NO_STATUS,
    ),
    answers(
        "ICY",
        sized(start=b"ICY 200 OK\r\n"),
        proxy="503 open backend 1",
        nginx="200 stuck backend 1",
        why=why.NO_STATUS,
    ),
    answers("HTTP/2.0", sized(start=b"HTTP/2.0 200 OK\r\n"), proxy="200 open backend 1"),
    answers(
        "a status of two digits",
        sized(start=b"HTTP/1.1 20 OK\r\n"),
        proxy="503 open backend 1",
        nginx="20 stuck backend 1",
        why=why.LAX_ANSWER,
    ),
    answers(
        "a status of four digits",
        sized(start=b"HTTP/1.1 2000 OK\r\n"),
        proxy="503 open backend 1",
        nginx="2000 stuck backend 1",
        why=why.LAX_ANSWER,
    ),
    answers(
        "status 000",
        sized(start=b"HTTP/1.1 000 X\r\n"),
        proxy="503 open backend 1",
        nginx="0 stuck backend 1",
        why=why.LAX_ANSWER,
    ),
    answers(
        "a head of 400 KB",
        sized(more=b"X-Big: %b\r\n" % (b"a" * 400_000)),
        proxy="503 open backend 1",
        nginx="502 open backend 1",
        why=why.NO_RETRY,
    ),
    answers("a second answer", sized() + EVIL, look=body, proxy='200 open backend 1 {"id":"1"}'),
    answers(
        "a second answer after chunks",
        CHUNKED + chunk(BODY) + END + EVIL,
        look=body,
        proxy='200 open backend 1 {"id":"1"}',
    ),
    answers(
        "garbage after the answer",
        sized() + b"garbage",
        look=body,
        proxy='200 open backend 1 {"id":"1"}',
    ),
    answers(
        "a byte more than the length",
        sized() + b"x",
        look=body,
        proxy='200 open backend 1 {"id":"1"}',
    ),
    answers(
        "hop-by-hop headers",
        sized(
            more=b"Keep-Alive: timeout=5\r\nTrailer: X-T\r\n"
            b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n"
        ),
        look=returned("keep-alive", "trailer", "x-hop", "x-end"),
        proxy="200 open backend 1 keep-alive=, trailer=, x-hop=, x-end=2",
        nginx="200 open backend 1 keep-alive=, trailer=X-T, x-hop=1, x-end=2",
        why=why.HOP,
    ),
)

BREAKS: tuple[Case, ...] = (
    breaks(
        "nothing at all",
        b"",
        proxy="503 open backend 1",
        nginx="502 open backend 1",
        why=why.NO_RETRY,
    ),
    breaks(
        "in the status line",
        b"HTTP/1.1 20",
        proxy="503 open backend 1",
        nginx="502 open backend 1",
        why=why.NO_RETRY,
    ),
    breaks(
        "in the head",
        START + b"Content-Le",
        proxy="503 open backend 1",
        nginx="502 open backend 1",
        why=why.NO_RETRY,
    ),
    breaks(
        "before a held body's end",
        sized()[:-1],
        proxy="503 open backend 1",
        nginx="nothing cut backend 1",
        why=why.NO_BODY_SEEN,
    ),
    breaks("before a long body's end", sized(LONG)[:-1], proxy="nothing cut backend 1"),
    breaks("in a chunk", CHUNKED + chunk(LONG) + b"a\r\nab", proxy="nothing cut backend 1"),
    breaks("in a chunk size", CHUNKED + chunk(LONG) + b"a", proxy="nothing cut backend 1"),
    breaks("before the last chunk", CHUNKED + chunk(LONG), proxy="nothing cut backend 1"),
    breaks(
        "in the trailers", CHUNKED + chunk(LONG) + b"0\r\nX-A: b\r\n", proxy="nothing cut backend 1"
    ),
    breaks("by a bad chunk", CHUNKED + chunk(LONG) + b"zz\r\n", proxy="nothing cut backend 1"),
    breaks("after a whole answer", sized(), look=body, proxy='200 open backend 1 {"id":"1"}'),
    breaks(
        "after a whole answer that promised to stay",
        sized(more=b"Connection: keep-alive\r\n"),
        proxy="200 open backend 1",
    ),
)

CASES = (*FRAMING, *INTERIM, *DANGEROUS, *BREAKS)
