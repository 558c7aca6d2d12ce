"""`python -m bench.bytepath_backend PORT [PORT ...]`: a backend that costs next to nothing.

Answers each POST with a fixed chat completion, or, where the request asks for a stream, with
`STREAM_CHUNKS` events at `CHUNKS_PER_SECOND`; and anything else with a list of one model. One timer
paces all streams, spread over the interval. It trusts its clients: bodies must have a length.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections import deque
from typing import cast

import uvloop

MODEL = "bench-model"
CHUNKS_PER_SECOND = 30
STREAM_CHUNKS = 100_000
_PHASES = 32

_TEXT = "Paris is the capital and most populous city of France. " * 11
_COMPLETION = json.dumps(
    {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion",
        "created": 1760000000,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": _TEXT},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 450, "completion_tokens": 130, "total_tokens": 580},
    }
).encode()
_MODELS = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode()
_JSON_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-length: %d\r\ncontent-type: application/json\r\n\r\n"
)
ANSWER = _JSON_HEAD % len(_COMPLETION) + _COMPLETION
_MODELS_ANSWER = _JSON_HEAD % len(_MODELS) + _MODELS
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
_EVENT = (
    b'data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk",'
    b'"created":1760000000,"model":"bench-model","choices":[{"index":0,"delta":{"content":" the"},'
    b'"logprobs":null,"finish_reason":null}]}\n\n'
)
CHUNK = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)
_LAST = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Streams:
    """All running streams, in `_PHASES` groups that are served one after another."""

    def __init__(self) -> None:
        self._groups: list[deque[Server]] = [deque() for _ in range(_PHASES)]
        self._turn = itertools.cycle(range(_PHASES))

    def add(self, server: Server) -> None:
        min(self._groups, key=len).append(server)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += 1.0 / (CHUNKS_PER_SECOND * _PHASES)
            await asyncio.sleep(max(0.0, due - loop.time()))
            group = self._groups[next(self._turn)]
            for server in tuple(group):
                if not server.chunk():
                    group.remove(server)


class Server(asyncio.Protocol):
    """One connection."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._buffer = b""
        self._left = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            size = 0
            if (mark := head.find(b"content-length:")) >= 0:
                size = int(head[mark + 15 :].split(b"\r\n", 1)[0])
            if len(self._buffer) < end + 4 + size:
                return
            body = self._buffer[end + 4 : end + 4 + size]
            self._buffer = self._buffer[end + 4 + size :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        assert self._transport is not None
        if not head.startswith(b"post"):
            self._transport.write(_MODELS_ANSWER)
        elif b'"stream":true' in body[-64:]:
            self._left = STREAM_CHUNKS
            self._transport.write(_STREAM_HEAD)
            self._streams.add(self)
        else:
            self._transport.write(ANSWER)

    def chunk(self) -> bool:
        """Send the next event; False once the stream is over."""
        if self._transport is None:
            return False
        self._left -= 1
        self._transport.write(CHUNK if self._left else _LAST)
        return self._left > 0


async def serve(ports: list[int]) -> None:
    """Serve for ever."""
    loop = asyncio.get_running_loop()
    streams = Streams()
    for port in ports:
        await loop.create_server(lambda: Server(streams), "127.0.0.1", port, backlog=4096)
    await streams.run()


if __name__ == "__main__":
    uvloop.run(serve([int(port) for port in sys.argv[1:]]))
