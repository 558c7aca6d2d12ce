"""A small HTTP/1.1 server for a few administrative paths: one request at a time per connection,
small bodies only.

It parses, asks one function for the answer, and writes it. It knows none of the paths.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

MAX_BODY_BYTES = 1024 * 1024
IDLE_SECONDS = 75.0

_REASONS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class AdminRequest:
    """One request. `local` is True for a peer on a loopback address."""

    method: str
    path: str
    body: bytes
    local: bool


@dataclass(frozen=True, slots=True)
class AdminResponse:
    """One answer."""

    status: int
    body: bytes
    content_type: str = "application/json"


Answer = Callable[[AdminRequest], AdminResponse]


class AdminServer:
    """Listens until closed."""

    def __init__(self, answer: Answer) -> None:
        self.port = 0
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one, found in `self.port`. Raises OSError when it cannot."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self._answer, self._connections), host, port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and close what is open."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.transport.close()
        await asyncio.sleep(0)


class _Connection(asyncio.Protocol):
    """One client connection."""

    transport: asyncio.Transport

    def __init__(self, answer: Answer, connections: set[_Connection]) -> None:
        self._answer = answer
        self._connections = connections
        self._local = False
        self._idle: asyncio.TimerHandle | None = None
        self._renew()

    def _renew(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._local = _is_loopback(transport.get_extra_info("peername"))
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._idle is not None:
            self._idle.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.transport.close()
        except httptools.HttpParserError:
            self._respond(AdminResponse(400, b'{"error":"malformed request"}'), keep=False)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        if len(self._body) <= MAX_BODY_BYTES:
            self._body += body

    def on_message_complete(self) -> None:
        if len(self._body) > MAX_BODY_BYTES:
            self._respond(AdminResponse(413, b'{"error":"body too large"}'), keep=False)
            return
        request = AdminRequest(
            method=self._parser.get_method().decode("ascii"),
            path=self._url.partition(b"?")[0].decode("latin-1"),
            body=bytes(self._body),
            local=self._local,
        )
        self._url, self._body = b"", bytearray()
        self._respond(self._answer(request), keep=self._parser.should_keep_alive())

    def _respond(self, response: AdminResponse, *, keep: bool) -> None:
        head = (
            f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Unknown')}\r\n"
            f"content-type: {response.content_type}\r\n"
            f"content-length: {len(response.body)}\r\n"
            f"connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        self.transport.write(head.encode("latin-1") + response.body)
        if not keep:
            self.transport.close()


def _is_loopback(peer: object) -> bool:
    if not (isinstance(peer, tuple) and peer and isinstance(peer[0], str)):
        return False
    address = ipaddress.ip_address(peer[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
