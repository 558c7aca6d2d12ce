"""A client connection without a network: whatever comes in, it answers or ends, and raises not."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from nexus_proxy.counters import Counters
from nexus_proxy.http.downstream import ClientConnection
from nexus_proxy.http.gateway import Gateway
from nexus_proxy.routing.router import Rejection

LATER = 200.0  # seconds: beyond any patience of the byte path


class _Transport:
    """Collects what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed, "written after its end"
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class _Router:
    """Has nobody."""

    ready = True

    def choose(self, _call: object, _now: float) -> Rejection:
        return Rejection(503, "no_available_backend", "nobody", ())

    def models(self) -> bytes:
        return b"{}"


def client_side_survives(cut: list[bytes]) -> None:
    """Feed a connection; then let time pass: it must end, and must have said why if it refused."""
    now = 0.0
    router = cast(Any, _Router())
    gateway = Gateway(router=router, clock=lambda: now, counters=Counters(), max_body_bytes=1 << 20)
    connection = ClientConnection(gateway)
    transport = _Transport()
    connection.connection_made(cast(asyncio.Transport, transport))
    for piece in cut:
        if not transport.closed:
            connection.data_received(piece)
    for step in (1, 2):
        if not transport.closed:
            connection.check(now + step * LATER)
    assert transport.closed, f"it goes on for ever: {cut!r} -> {transport.written!r}"
    connection.connection_lost(None)
    assert not gateway.exchanges and not gateway.clients
    if transport.written:
        assert transport.written.startswith(b"HTTP/1.1 "), transport.written
