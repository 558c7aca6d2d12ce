"""Connections: how many at a time, and how long one may take to ask for something."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from nexus_devtools.controlplane.certificates import write_certificates
from nexus_operator.server import Server
from nexus_operator.settings import Settings

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def no_intake(_: web.Request) -> web.Response:
    return web.Response(status=404)


async def no_page() -> bytes:
    return b""


class Desk:
    """A server for two connections that waits a moment for their first request."""

    def __init__(self, certificate: tuple[Path | None, Path | None] = (None, None)) -> None:
        self.turned_away = 0
        cert, key = certificate
        self.server = Server(
            settings=Settings(host="127.0.0.1", port=0, tls_cert_file=cert, tls_key_file=key),
            why_not_ready=lambda: None,
            metrics_page=no_page,
            stats_page=no_page,
            intake=no_intake,
            turned_away=self.count,
            max_connections=2,
            first_request_seconds=0.3,
        )
        self.writers: list[asyncio.StreamWriter] = []

    def count(self) -> None:
        self.turned_away += 1

    async def connect(self, ask: bytes = GET) -> bytes:
        """The first line of the answer, empty if the connection was closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        self.writers.append(writer)
        writer.write(ask)
        async with asyncio.timeout(5.0):
            try:
                return await reader.readline()
            except ConnectionError:
                return b""


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A server's certificate for this machine, and its key."""
    made = write_certificates(tmp_path, now=datetime.datetime.now(datetime.UTC))
    chain = tmp_path / "chain.crt"
    chain.write_text(made.server.certificate.read_text() + made.authority.certificate.read_text())
    return chain, made.server.key


@pytest_asyncio.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    await desk.server.start()
    yield desk
    for writer in desk.writers:
        writer.close()
    await desk.server.stop()


async def test_a_connection_too_many_is_closed_and_counted(desk: Desk) -> None:
    assert b"200" in await desk.connect()
    assert b"200" in await desk.connect()
    assert await desk.connect() == b""
    assert desk.turned_away == 1


async def test_there_is_room_again_once_one_has_left(desk: Desk) -> None:
    await desk.connect()
    await desk.connect()
    for writer in desk.writers:
        writer.close()
        await writer.wait_closed()
    assert b"200" in await desk.connect()


@pytest.mark.parametrize("ask", [b"", b"GET /healthz HTT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"])
async def test_one_that_never_asks_is_not_waited_for(desk: Desk, ask: bytes) -> None:
    assert await desk.connect(ask) == b""
    assert desk.turned_away == 0


async def test_with_tls_one_that_never_shakes_hands_is_not_waited_for(
    certificate: tuple[Path, Path],
) -> None:
    desk = Desk(certificate)
    await desk.server.start()
    assert await desk.connect(b"") == b""
    context = ssl.create_default_context(cafile=str(certificate[0]))
    reader, writer = await asyncio.open_connection("127.0.0.1", desk.server.port, ssl=context)
    writer.write(GET)
    assert b"200" in await reader.readline()
    for one in (*desk.writers, writer):
        one.close()
    await desk.server.stop()


async def test_one_that_asked_may_stay(desk: Desk) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", desk.server.port)
    desk.writers.append(writer)
    for _ in range(2):
        writer.write(GET)
        assert b"200" in await reader.readuntil(b"ok\n")
        # Longer than a silent one is waited for.
        await asyncio.sleep(0.35)
