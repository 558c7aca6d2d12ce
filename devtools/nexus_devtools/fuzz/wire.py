"""Strategies for what may come over a wire: grammatical messages, with faults that matter, mutated.

Most draws are nearly valid: what is far from it is refused at its first byte and teaches nothing.
"""

from __future__ import annotations

from hypothesis import strategies as st

METHODS = (b"POST", b"GET", b"HEAD", b"OPTIONS", b"CONNECT", b"BREW", b"post", b"M-SEARCH", b"P@")
TARGETS = (
    b"/v1/chat/completions",
    b"/v1/models",
    b"/v1/embeddings?a=b",
    b"http://x/v1/models",
    b"*",
    b"/",
    b"/\xc3\xa9",
    b"/a b",
    b"/#f",
    b"x:443",
    b"",
)
VERSIONS = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1")
NAMES = (
    b"Host",
    b"Content-Length",
    b"Transfer-Encoding",
    b"Connection",
    b"Expect",
    b"Upgrade",
    b"X-A",
    b"Authorization",
    b"Content-Type",
    b"Accept-Encoding",
    b"Trailer",
    b"X-Nexus-Priority",
    b"Retry-After",
    b"Keep-Alive",
    b"X A",
    b"X-\xe9",
    b"",
    b"X_B",
)
VALUES = (
    b"x",
    b"0",
    b"3",
    b"+3",
    b"-1",
    b"3, 3",
    b"0x3",
    b"99999999999999999999",
    b"chunked",
    b"Chunked",
    b"gzip, chunked",
    b"chunked, identity",
    b"xchunked",
    b"identity",
    b"close",
    b"keep-alive",
    b"upgrade",
    b"X-A, keep-alive",
    b"100-continue",
    b"websocket",
    b"text/event-stream",
    b"max=3, timeout=5",
    b"a\tb",
    b"\xe9",
    b"a\0b",
    b"a\rb",
    b"",
    b" ",
    b"b\r\n c",
)
ENDS = (b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n")
COLONS = (b": ", b": ", b":", b":\t", b" : ", b"\t:", b": \x0b", b"")
STATUSES = (b"200", b"200", b"204", b"304", b"100", b"103", b"101", b"400", b"500", b"000", b"99",
            b"2000", b"999")  # fmt: skip
REASONS = (b" OK", b"", b" ", b" Not \xe9", b" a\rb", b"\t")

rarely = st.integers(0, 9).map(lambda drawn: drawn == 0)


def mostly(good: bytes, others: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """The good one nine times out of ten."""
    return st.one_of(*[st.just(good)] * 9, st.sampled_from(others))


line_end = mostly(b"\r\n", ENDS)
header = st.builds(
    lambda name, colon, value, end: name + colon + value + end,
    st.sampled_from(NAMES),
    mostly(b": ", COLONS),
    st.sampled_from(VALUES),
    line_end,
)


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    """A chunked body."""
    parts: list[bytes] = []
    for _ in range(draw(st.integers(0, 3))):
        data = draw(st.binary(min_size=1, max_size=20))
        size = draw(mostly(b"%x" % len(data), (b"0%X" % len(data), b"-1", b"zz", b"", b" 3",
                                               b"3 ", b"fffffffffffffffff", b"0x3")))  # fmt: skip
        extension = draw(mostly(b"", (b";a", b";a=b", b';a="b c"', b"; a", b";a\rb", b";", b" ;a")))
        parts += (size, extension, draw(line_end), data, draw(line_end))
    parts += (draw(mostly(b"0", (b"00", b"0;a", b""))), draw(line_end))
    for _ in range(draw(st.integers(0, 1))):
        parts.append(draw(header))
    parts.append(draw(line_end))
    return b"".join(parts)


@st.composite
def framed(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Header lines that frame a body, and the body."""
    kind = draw(st.integers(0, 5))
    if kind <= 1:
        data = draw(st.binary(max_size=30))
        return b"Content-Length: %d\r\n" % len(data), data
    if kind <= 3:
        return b"Transfer-Encoding: chunked\r\n", draw(chunks())
    if kind == 4:
        return b"", b""
    return b"", draw(st.binary(max_size=30))


@st.composite
def heads(draw: st.DrawFn, start: bytes, good: bytes) -> bytes:
    """A message that begins with `start`, with the good header line and others."""
    frame, body = draw(framed())
    lines = [good, frame, *draw(st.lists(header, max_size=2))]
    lines = draw(st.permutations(lines))
    message = start + b"".join(lines) + draw(line_end) + body
    return draw(mutated(message))


@st.composite
def mutated(draw: st.DrawFn, message: bytes) -> bytes:
    """The message, one time in ten with a byte or two changed."""
    if not draw(rarely) or not message:
        return message
    data = bytearray(message)
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(data) - 1))
        what = draw(st.integers(0, 2))
        byte = draw(st.sampled_from(b"\r\n\0 \t:;,0aZ\x7f\x80\xff"))
        if what == 0:
            data[at] = byte
        elif what == 1:
            data.insert(at, byte)
        elif len(data) > 1:
            del data[at]
    return bytes(data)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, or something like it."""
    method = draw(mostly(b"POST", METHODS))
    target = draw(mostly(b"/v1/chat/completions", TARGETS))
    version = draw(mostly(b"HTTP/1.1", VERSIONS))
    space = draw(mostly(b" ", (b"  ", b"\t", b"")))
    start = method + space + target + b" " + version + draw(line_end)
    return draw(heads(start, draw(mostly(b"Host: x\r\n", (b"", b"Host: y\r\nHost: x\r\n")))))


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """One answer, or something like it, now and then after an interim one."""
    version = draw(mostly(b"HTTP/1.1", (*VERSIONS, b"ICY")))
    start = version + b" " + draw(mostly(b"200", STATUSES)) + draw(mostly(b" OK", REASONS))
    message: bytes = draw(heads(start + draw(line_end), b"Content-Type: application/json\r\n"))
    if draw(rarely):
        message = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + message
    return message


splits = st.lists(st.integers(1, 40), max_size=30)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data cut into pieces of these sizes, the rest in one."""
    cut: list[bytes] = []
    at = 0
    for size in sizes:
        if at < len(data):
            cut.append(data[at : at + size])
            at += size
    if at < len(data):
        cut.append(data[at:])
    return cut
