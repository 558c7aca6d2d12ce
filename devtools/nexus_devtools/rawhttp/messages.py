"""HTTP/1.1 messages as bytes: a strict reader, and the pieces that scripts are made of.

Promises to read what is on the wire and to refuse what is not valid (both framings, a bad chunk, a
trailer). It is a test's eye, not a client: nothing is followed, decoded or repaired.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol


@dataclass
class Message:
    """One HTTP message as it was on the wire, and its body without framing."""

    start: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: bytes = b""

    def values(self, name: str) -> list[bytes]:
        return [value for key, value in self.headers if key == name.lower().encode()]

    def header(self, name: str) -> bytes | None:
        found = self.values(name)
        assert len(found) <= 1, f"{name} stands {len(found)} times"
        return found[0] if found else None

    @property
    def status(self) -> int:
        return int(self.start.split()[1])


class Incomplete(Exception):
    """The peer ended the connection before the message's end."""


class Readable(Protocol):
    """What messages are read from: `asyncio.StreamReader`, or something like it."""

    async def read(self, n: int = -1, /) -> bytes: ...
    async def readexactly(self, n: int, /) -> bytes: ...
    async def readuntil(self, separator: bytes = b"\n", /) -> bytes: ...


async def _exactly(reader: Readable, size: int) -> bytes:
    try:
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Incomplete(getattr(error, "partial", b"")) from None


async def _line(reader: Readable) -> bytes:
    try:
        line = await reader.readuntil(b"\r\n")
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Incomplete(getattr(error, "partial", b"")) from None
    return line[:-2]


async def read_message(reader: Readable, *, head_only: bool = False) -> Message:
    """Read one message, strictly: Content-Length, chunked, or (answers only) until the end;
    `head_only`: an answer to HEAD.
    """
    message = Message(start=await _line(reader), headers=[])
    while line := await _line(reader):
        name, colon, value = line.partition(b":")
        assert colon and name == name.strip(), line
        message.headers.append((name.lower(), value.strip()))
    length = message.header("content-length")
    coding = message.header("transfer-encoding")
    assert length is None or coding is None, "both framings"
    if head_only or (message.start.startswith(b"HTTP/") and not _has_body(message.status)):
        return message
    if length is not None:
        message.body = await _exactly(reader, int(length))
    elif coding is not None:
        assert coding == b"chunked"
        message.body = await _read_chunks(reader)
    elif message.start.startswith(b"HTTP/"):
        message.body = await reader.read(-1)
    return message


def _has_body(status: int) -> bool:
    return status >= 200 and status not in (204, 304)


async def _read_chunks(reader: Readable) -> bytes:
    parts: list[bytes] = []
    while size := int(await _line(reader), 16):
        parts.append(await _exactly(reader, size))
        assert await _exactly(reader, 2) == b"\r\n"
    assert await _line(reader) == b"", "a trailer"
    return b"".join(parts)


def answer(
    body: bytes, *, status: str = "200 OK", kind: str = "application/json", more: bytes = b""
) -> bytes:
    """An answer with a length."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + more + b"\r\n" + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def event(content: str | None = None, *, finish: str | None = None) -> bytes:
    """A chat completion chunk as an event."""
    delta = '{"role":"assistant"}' if content is None else f'{{"content":"{content}"}}'
    end = "null" if finish is None else f'"{finish}"'
    return (
        f'data: {{"object":"chat.completion.chunk","choices":[{{"index":0,"delta":{delta},'
        f'"finish_reason":{end}}}]}}\n\n'
    ).encode()


DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"


def stream(*events: bytes) -> bytes:
    """A complete chunked event stream, one chunk an event."""
    return SSE_HEAD + b"".join(map(chunk, events)) + END


def post(
    body: bytes = b'{"messages":[{"role":"user","content":"hi"}],"model":"m"}',
    *,
    path: str = "/v1/chat/completions",
    more: bytes = b"",
    version: str = "1.1",
) -> bytes:
    """A request with a length, as a client sends it."""
    head = f"POST {path} HTTP/{version}\r\nHost: proxy\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Content-Type: application/json\r\n" + more + b"\r\n" + body


STREAM_BODY = b'{"model":"m","messages":[],"stream":true}'
