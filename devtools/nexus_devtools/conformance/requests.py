"""Cases of the client's side: framing of requests, smuggling, targets, versions, headers."""

from __future__ import annotations

from nexus_devtools.conformance import why
from nexus_devtools.conformance.case import Case, Step, backend_body, case, forwarded
from nexus_devtools.rawhttp.messages import chunk, post

LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
HEAD = LINE + b"Host: x\r\n"
JSON = b'{"model":"m"}'
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def sized(data: bytes = JSON, *, line: bytes = LINE, more: bytes = b"Host: x\r\n") -> bytes:
    """A request with a length."""
    return line + more + b"Content-Length: %d\r\n\r\n" % len(data) + data


FRAMING: tuple[Case, ...] = (
    case("a length", sized(), look=backend_body, proxy='200 open backend 1 {"model":"m"}'),
    case(
        "a length, byte by byte",
        Step.BYTEWISE,
        sized(),
        look=backend_body,
        proxy='200 open backend 1 {"model":"m"}',
    ),
    case(
        "no body at all",
        HEAD + b"\r\n",
        proxy="400 open backend 0",
        nginx="200 open backend 1",
        why=why.ROUTES,
    ),
    case(
        "a length of 0",
        sized(b""),
        proxy="400 open backend 0",
        nginx="200 open backend 1",
        why=why.ROUTES,
    ),
    case(
        "chunked",
        CHUNKED + chunk(JSON[:5]) + chunk(JSON[5:]) + LAST,
        look=backend_body,
        proxy='200 open backend 1 {"model":"m"}',
    ),
    case(
        "chunked, byte by byte",
        Step.BYTEWISE,
        CHUNKED + chunk(JSON) + LAST,
        look=backend_body,
        proxy='200 open backend 1 {"model":"m"}',
    ),
    case(
        "chunk extensions",
        CHUNKED + b'd;a=b;c="d e"\r\n' + JSON + b"\r\n" + LAST,
        proxy="200 open backend 1",
    ),
    case(
        "upper-case chunk size",
        CHUNKED + b"D\r\n" + JSON + b"\r\n" + LAST,
        look=backend_body,
        proxy='200 open backend 1 {"model":"m"}',
    ),
    case(
        "leading zeros in a chunk size",
        CHUNKED + b"000d\r\n" + JSON + b"\r\n" + LAST,
        proxy="200 open backend 1",
    ),
    case(
        "trailers",
        CHUNKED + chunk(JSON) + b"0\r\nX-Late: 1\r\nHost: evil\r\n\r\n",
        look=forwarded("x-late", "host"),
        proxy="200 open backend 1 x-late=, host=its own",
        nginx="200 open backend 1 x-late=, host=backend",
        why=why.OWN_NAME,
    ),
    case(
        "a chunk size beyond 64 bits",
        CHUNKED + b"1" + b"0" * 16 + b"\r\nx",
        proxy="400 closed backend 0",
    ),
    case(
        "a chunk size of 2^63",
        CHUNKED + b"8000000000000000\r\nx",
        Step.TOO_LONG,
        proxy="408 closed backend 0",
        nginx="400 closed backend 0",
        why="a chunk is counted as it comes here, up to the body's limit, and it never comes",
    ),
    case("a negative chunk size", CHUNKED + b"-1\r\nx", proxy="400 closed backend 0"),
    case(
        "a chunk size with 0x",
        CHUNKED + b"0xd\r\n" + JSON + b"\r\n" + LAST,
        proxy="400 closed backend 0",
    ),
    case(
        "an empty chunk size",
        CHUNKED + b"\r\n" + JSON + b"\r\n" + LAST,
        proxy="400 closed backend 0",
    ),
    case(
        "a space before a chunk size",
        CHUNKED + b" d\r\n" + JSON + b"\r\n" + LAST,
        proxy="400 closed backend 0",
    ),
    case(
        "a space after a chunk size",
        CHUNKED + b"d \r\n" + JSON + b"\r\n" + LAST,
        proxy="400 closed backend 0",
        nginx="200 open backend 1",
        why=why.STRICT,
    ),
    case(
        "bare LF after a chunk size",
        CHUNKED + b"d\n" + JSON + b"\r\n" + LAST,
        proxy="400 closed backend 0",
        nginx="200 open backend 1",
        why=why.STRICT,
    ),
    case(
        "bare LF after a chunk",
        CHUNKED + b"d\r\n" + JSON + b"\n" + LAST,
        proxy="400 closed backend 0",
        nginx="200 open backend 1",
        why=why.STRICT,
    ),
    case(
        "a bare CR in a chunk extension",
        CHUNKED + b"d;a\rb\r\n" + JSON + b"\r\n" + LAST,
        proxy="400 closed backend 0",
    ),
    case(
        "a LF in a chunk extension",
        CHUNKED + b"d;a\n" + JSON + b"\r\n" + LAST + SMUGGLED,
        proxy="400 closed backend 0",
        nginx="200 200 open backend 2",
        why=why.STRICT,
    ),
    case(
        "a chunk longer than its size",
        CHUNKED + b"2\r\nabcd\r\n" + LAST,
        proxy="400 closed backend 0",
    ),
    case("no CRLF after a chunk", CHUNKED + b"d\r\n" + JSON + LAST, proxy="400 closed backend 0"),
    case(
        "bare LF at the end",
        CHUNKED + chunk(JSON) + b"0\n\n",
        proxy="400 closed backend 0",
        nginx="200 open backend 1",
        why=why.STRICT,
    ),
)

SMUGGLING: tuple[Case, ...] = (
    case(
        "length and chunked",
        HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST + SMUGGLED,
        proxy="400 closed backend 0",
    ),
    case(
        "chunked and length",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + LAST + SMUGGLED,
        proxy="400 closed backend 0",
    ),
    case(
        "two different lengths",
        HEAD + b"Content-Length: 0\r\nContent-Length: 38\r\n\r\n" + SMUGGLED,
        proxy="400 closed backend 0",
    ),
    case(
        "twice the same length",
        HEAD + b"Content-Length: 13\r\n" * 2 + b"\r\n" + JSON,
        proxy="400 closed backend 0",
    ),
    case(
        "a list of equal lengths",
        HEAD + b"Content-Length: 13, 13\r\n\r\n" + JSON,
        proxy="400 closed backend 0",
    ),
    case(
        "a signed length",
        HEAD + b"Content-Length: +13\r\n\r\n" + JSON,
        proxy="400 closed backend 0",
    ),
    case(
        "a negative length",
        HEAD + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
        proxy="400 closed backend 0",
    ),
    case(
        "a hexadecimal length",
        HEAD + b"Content-Length: 0xd\r\n\r\n" + JSON,
        proxy="400 closed backend 0",
    ),
    case(
        "a length beyond 64 bits",
        HEAD + b"Content-Length: 18446744073709551629\r\n\r\n" + JSON,
        proxy="400 closed backend 0",
    ),
    case("an empty length", HEAD + b"Content-Length:\r\n\r\n", proxy="400 closed backend 0"),
    case(
        "two Transfer-Encodings",
        HEAD + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n" + LAST,
        proxy="400 closed backend 0",
    ),
    case(
        "xchunked",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + LAST + SMUGGLED,
        proxy="400 closed backend 0",
        nginx="501 closed backend 0",
        why=why.OTHER_STATUS,
    ),
    case(
        "chunked, identity",
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + LAST,
        proxy="400 closed backend 0",
        nginx="501 closed backend 0",
        why=why.OTHER_STATUS,
    ),
    case(
        "identity",
        HEAD + b"Transfer-Encoding: identity\r\n\r\n",
        proxy="400 closed backend 0",
        nginx="501 closed backend 0",
        why=why.OTHER_STATUS,
    ),
    case(
        "gzip, chunked",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + LAST,
        proxy="501 closed backend 0",
    ),
    case(
        "a tab before chunked",
        HEAD + b"Transfer-Encoding:\tchunked\r\n\r\n" + chunk(JSON) + LAST,
        proxy="200 open backend 1",
        nginx="501 closed backend 0",
        why="RFC 9110 §5.5 allows a tab before a value; nginx takes spaces alone",
    ),
    case(
        "a vertical tab before chunked",
        HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + LAST,
        proxy="400 closed backend 0",
        nginx="501 closed backend 0",
        why=why.OTHER_STATUS,
    ),
    case(
        "chunked in capitals",
        HEAD + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n" + chunk(JSON) + LAST,
        proxy="200 open backend 1",
    ),
    case(
        "a space before the colon",
        HEAD + b"Content-Length : 13\r\n\r\n" + JSON,
        proxy="400 closed backend 0",
    ),
    case(
        "a tab before the colon",
        HEAD + b"Transfer-Encoding\t: chunked\r\n\r\n" + LAST,
        proxy="400 closed backend 0",
    ),
    case(
        "a folded line",
        HEAD + b"X-A: b\r\n c\r\nContent-Length: 13\r\n\r\n" + JSON,
        proxy="400 closed backend 0",
    ),
    case(
        "a line that begins with a space",
        LINE + b" X: y\r\nHost: x\r\n\r\n",
        proxy="400 closed backend 0",
    ),
    case(
        "a line without a colon",
        HEAD + b"nonsense\r\n\r\n",
        proxy="400 closed backend 0",
        nginx="200 open backend 1",
        why=why.STRICT,
    ),
    case("an empty header name", HEAD + b": x\r\n\r\n", proxy="400 closed backend 0"),
    case("a NUL in a value", HEAD + b"X-A: b\0c\r\n\r\n", proxy="400 closed backend 0"),
    case(
        "a bare CR in a value",
        HEAD + b"X-A: b\rContent-Length: 38\r\n\r\n" + SMUGGLED,
        proxy="400 closed backend 0",
    ),
    case(
        "a bare LF after a header",
        HEAD + b"X-A: b\nContent-Length: 13\r\n\r\n" + JSON,
        proxy="400 closed backend 0",
        nginx="200 open backend 1",
        why=why.STRICT,
    ),
    case(
        "bare LF everywhere",
        sized().replace(b"\r\n", b"\n"),
        proxy="400 closed backend 0",
        nginx="200 open backend 1",
        why=why.STRICT,
    ),
    case(
        "CR CR LF",
        HEAD + b"X-A: b\r\r\nContent-Length: 13\r\n\r\n" + JSON,
        proxy="400 closed backend 0",
        nginx="200 open backend 1",
        why=why.STRICT,
    ),
    case(
        "an underscore in a length's name",
        HEAD + b"Content_Length: 38\r\n\r\n" + SMUGGLED[:0],
        proxy="400 open backend 0",
        nginx="200 open backend 1",
        why=why.ROUTES,
    ),
    case(
        "bytes beyond ASCII in a value",
        sized(more=b"Host: x\r\nX-A: \xc3\xa9\r\n"),
        look=forwarded("x-a"),
        proxy="200 open backend 1 x-a=Ã©",
    ),
    case(
        "bytes beyond ASCII in a name",
        sized(more=b"Host: x\r\nX-\xc3\xa9: 1\r\n"),
        proxy="400 closed backend 0",
        nginx="200 open backend 1",
        why=why.STRICT,
    ),
    case(
        "a control character in a value",
        sized(more=b"Host: x\r\nX-A: a\x01b\r\n"),
        proxy="400 closed backend 0",
        nginx="200 open backend 1",
        why=why.STRICT,
    ),
)

TARGETS: tuple[Case, ...] = (
    case(
        "HTTP/0.9",
        b"GET /v1/models\r\n\r\n",
        proxy="400 closed backend 0",
        nginx="nothing cut backend 1",
        why="nginx speaks HTTP/0.9",
    ),
    case(
        "HTTP/1.2",
        sized(line=LINE.replace(b"1.1", b"1.2")),
        proxy="400 closed backend 0",
        nginx="200 open backend 1",
        why="only 1.0 and 1.1 are spoken here",
    ),
    case("HTTP/2.0", sized(line=LINE.replace(b"1.1", b"2.0")), proxy="505 closed backend 0"),
    case(
        "HTTP/1.1 in small letters",
        sized(line=LINE.replace(b"HTTP", b"http")),
        proxy="400 closed backend 0",
    ),
    case(
        "HTTP/11.1",
        sized(line=LINE.replace(b"1.1", b"11.1")),
        proxy="400 closed backend 0",
        nginx="505 closed backend 0",
        why=why.OTHER_STATUS,
    ),
    case(
        "the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", proxy="400 closed backend 0"
    ),
    case(
        "a TLS handshake",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
        proxy="400 closed backend 0",
    ),
    case(
        "two spaces in the request line",
        sized(line=LINE.replace(b" H", b"  H")),
        proxy="200 open backend 1",
    ),
    case(
        "a tab in the request line",
        sized(line=LINE.replace(b" H", b"\tH")),
        proxy="400 closed backend 0",
    ),
    case(
        "a space at the line's end",
        sized(line=LINE.replace(b"\r\n", b" \r\n")),
        proxy="400 closed backend 0",
        nginx="200 open backend 1",
        why=why.STRICT,
    ),
    case(
        "a space in the target",
        sized(line=LINE.replace(b"/chat", b"/ch at")),
        proxy="400 closed backend 0",
    ),
    case("an empty line before the request", b"\r\n" + sized(), proxy="200 open backend 1"),
    case("many empty lines before the request", b"\r\n" * 20 + sized(), proxy="200 open backend 1"),
    case(
        "absolute-form",
        sized(line=LINE.replace(b"/v1", b"http://x/v1")),
        proxy="200 open backend 1",
    ),
    case(
        "absolute-form of another host",
        sized(line=LINE.replace(b"/v1", b"http://other/v1")),
        look=forwarded("host"),
        proxy="200 open backend 1 host=its own",
        nginx="200 open backend 1 host=backend",
        why=why.OWN_NAME,
    ),
    case(
        "asterisk-form",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        proxy="404 open backend 0",
        nginx="400 closed backend 0",
        why="nothing is served at *, as at any other unknown path; nginx calls it no target",
    ),
    case(
        "a target without a slash",
        sized(line=LINE.replace(b"/v1", b"v1")),
        proxy="400 closed backend 0",
    ),
    case(
        "a fragment in the target",
        sized(line=LINE.replace(b" HTTP", b"#f HTTP")),
        proxy="404 open backend 0",
        nginx="200 open backend 1",
        why=why.ROUTES,
    ),
    case("a query", sized(line=LINE.replace(b" HTTP", b"?a=b HTTP")), proxy="200 open backend 1"),
    case(
        "an encoded slash",
        sized(line=LINE.replace(b"/chat", b"%2fchat")),
        proxy="404 open backend 0",
        nginx="200 open backend 1",
        why="paths are compared as they are here, nothing is decoded; nginx serves all",
    ),
    case(
        "dot segments",
        sized(line=LINE.replace(b"/v1", b"/v1/../v1")),
        proxy="404 open backend 0",
        nginx="200 open backend 1",
        why="paths are compared as they are here, nothing is resolved; nginx serves all",
    ),
    case("no Host", sized(more=b""), proxy="400 closed backend 0"),
    case("two Hosts", sized(more=b"Host: x\r\nHost: y\r\n"), proxy="400 closed backend 0"),
    case(
        "an empty Host",
        sized(more=b"Host:\r\n"),
        proxy="200 open backend 1",
        nginx="400 closed backend 0",
        why=why.HOST_UNUSED,
    ),
    case(
        "a Host with a path",
        sized(more=b"Host: x/evil\r\n"),
        proxy="200 open backend 1",
        nginx="400 closed backend 0",
        why=why.HOST_UNUSED,
    ),
    case("a Host with user information", sized(more=b"Host: a@b\r\n"), proxy="200 open backend 1"),
    case("CONNECT", b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", proxy="400 closed backend 0"),
    case(
        "TRACE",
        b"TRACE /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
        proxy="405 open backend 0",
        nginx="405 closed backend 0",
        why="an unserved method of a served path keeps the connection here",
    ),
    case(
        "an unknown method",
        b"BREW /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
        proxy="400 closed backend 0",
        nginx="200 open backend 1",
        why=why.ROUTES,
    ),
    case(
        "a method in small letters",
        sized(line=LINE.replace(b"POST", b"post")),
        proxy="400 closed backend 0",
    ),
    case(
        "HEAD",
        b"HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
        head=True,
        proxy="200 open backend 0",
        nginx="200 open backend 1",
        why="the list of models is ours",
    ),
    case(
        "HEAD of what is not there",
        b"HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n",
        head=True,
        proxy="404 open backend 0",
        nginx="200 open backend 1",
        why=why.ROUTES,
    ),
    case(
        "HEAD without Host",
        b"HEAD /v1/models HTTP/1.1\r\n\r\n",
        head=True,
        proxy="400 closed backend 0",
    ),
    case(
        "HEAD of a path that takes POST",
        b"HEAD /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n",
        head=True,
        proxy="405 open backend 0",
        nginx="200 open backend 1",
        why=why.ROUTES,
    ),
    case(
        "an upgrade to WebSocket",
        HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
        look=forwarded("upgrade"),
        proxy="400 closed backend 0",
        nginx="200 open backend 1 upgrade=",
        why=why.NO_UPGRADE,
    ),
    case(
        "an upgrade to h2c",
        sized(
            more=b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABk\r\n"
        ),
        look=forwarded("upgrade", "http2-settings"),
        proxy="400 closed backend 0",
        nginx="200 open backend 1 upgrade=, http2-settings=AAMAAABk",
        why=why.NO_UPGRADE,
    ),
    case(
        "an Upgrade that Connection does not name",
        sized(more=b"Host: x\r\nUpgrade: websocket\r\n"),
        look=forwarded("upgrade"),
        proxy="200 open backend 1 upgrade=",
    ),
)

HEADERS: tuple[Case, ...] = (
    case(
        "headers named by Connection",
        sized(more=b"Host: x\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n"),
        look=forwarded("x-hop", "x-end", "connection"),
        proxy="200 open backend 1 x-hop=, x-end=2, connection=",
        nginx="200 open backend 1 x-hop=1, x-end=2, connection=",
        why=why.HOP,
    ),
    case(
        "Content-Length named by Connection",
        sized(more=b"Host: x\r\nConnection: Content-Length\r\n"),
        look=backend_body,
        proxy='200 open backend 1 {"model":"m"}',
    ),
    case(
        "hop-by-hop headers",
        sized(
            more=b"Host: x\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nProxy-Connection: close\r\n"
            b"Proxy-Authorization: Basic x\r\nTrailer: X-T\r\n"
        ),
        look=forwarded("keep-alive", "te", "proxy-connection", "trailer"),
        proxy="200 closed backend 1 keep-alive=, te=, proxy-connection=, trailer=",
        nginx="200 open backend 1 keep-alive=, te=, proxy-connection=close, trailer=X-T",
        why=why.HOP,
    ),
    case(
        "Transfer-Encoding does not reach a backend",
        CHUNKED + chunk(JSON) + LAST,
        look=forwarded("transfer-encoding", "content-length"),
        proxy="200 open backend 1 transfer-encoding=, content-length=13",
    ),
    case(
        "one header of 20 KB",
        sized(more=b"Host: x\r\nX-Big: %b\r\n" % (b"a" * 20_000)),
        proxy="200 open backend 1",
        nginx="400 closed backend 0",
        why=why.BIGGER,
    ),
    case(
        "one header of 100 KB",
        sized(more=b"Host: x\r\nX-Big: %b\r\n" % (b"a" * 100_000)),
        proxy="431 closed backend 0",
        nginx="400 closed backend 0",
        why=why.OTHER_STATUS,
    ),
    case(
        "a target of 100 KB",
        sized(line=LINE.replace(b" HTTP", b"?%b HTTP" % (b"a" * 100_000))),
        proxy="431 closed backend 0",
        nginx="414 closed backend 0",
        why=why.OTHER_STATUS,
    ),
    case(
        "3,000 headers",
        sized(more=b"Host: x\r\n" + b"X-Many: abcdefghijklmnopqrs\r\n" * 3000),
        proxy="431 closed backend 0",
        nginx="400 closed backend 0",
        why=why.OTHER_STATUS,
    ),
    case(
        "a body over the limit, declared",
        HEAD + b"Content-Length: 1048577\r\n\r\n",
        proxy="413 closed backend 0",
    ),
    case(
        "a body over the limit, in chunks",
        CHUNKED + chunk(b"y" * 600_000) * 2 + LAST,
        proxy="413 closed backend 0",
    ),
    case(
        "a body at the limit",
        sized(JSON + b" " * (1024 * 1024 - len(JSON))),
        proxy="200 open backend 1",
    ),
    case(
        "a trailer without end",
        CHUNKED + chunk(JSON) + b"0\r\n" + b"X-Late: abcdefghijklmnopqrs\r\n" * 8000 + b"\r\n",
        proxy="431 closed backend 0",
        nginx="200 open backend 1",
        why="trailers are bounded like heads here",
    ),
    case(
        "a chunk extension without end",
        CHUNKED + b"d;" + b"a" * 200_000 + b"\r\n" + JSON + b"\r\n" + LAST,
        proxy="200 open backend 1",
    ),
    case("two requests in one write", post(JSON) * 2, proxy="200 200 open backend 2"),
)

CASES = (*FRAMING, *SMUGGLING, *TARGETS, *HEADERS)
