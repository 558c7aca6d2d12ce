"""Certificates that are renewed while the operator runs: the ones it shows, the one it trusts."""

from __future__ import annotations

import asyncio
import datetime
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from nexus_devtools.controlplane.certificates import Certificates, Pair, issue, write_certificates
from nexus_operator.connection import AGAIN_SECONDS, Connection
from nexus_operator.credentials import Credentials
from nexus_operator.problems import Fatal, Problem, no_cluster
from nexus_operator.server_tls import LOOK_SECONDS, ServerTls


def authority(folder: Path) -> Certificates:
    return write_certificates(folder, now=datetime.datetime.now(datetime.UTC))


def certificate(made: Certificates, folder: Path, name: str) -> Pair:
    """One more certificate of a CA, for a server and a client."""
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    now = datetime.datetime.now(datetime.UTC)
    issue(made.authority, pair, common_name=name, addresses=["127.0.0.2"], now=now)
    return pair


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Listener:
    """Our side of a TLS connection, and what its peers see of it."""

    def __init__(self, folder: Path) -> None:
        self.made = authority(folder / "ca")
        self.folder, self.clock = folder, Clock()
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self.put("first")
        self.tls = ServerTls(self.certificate, self.key, monotonic=self.clock)

    def put(self, name: str, *, key: bool = True) -> None:
        pair = certificate(self.made, self.folder, name)
        self.certificate.write_bytes(pair.certificate.read_bytes())
        if key:
            self.key.write_bytes(pair.key.read_bytes())

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                writer.write(line)
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=self.tls.context)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def peer(self, port: int, **given: str) -> Peer:
        context = ssl.create_default_context(cafile=str(self.made.authority.certificate))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, **given)
        return Peer(reader, writer)


@dataclass
class Peer:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def sees(self) -> str:
        """The common name that it was shown."""
        subject = self.writer.get_extra_info("peercert")["subject"]
        return str(subject[0][0][1])

    async def echoed(self) -> bool:
        self.writer.write(b"hello\n")
        return await self.reader.readline() == b"hello\n"

    async def leave(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def test_a_renewed_certificate_is_served_and_who_is_connected_stays(tmp_path: Path) -> None:
    ours = Listener(tmp_path)
    async with ours.listening() as port:
        old = await ours.peer(port)
        ours.put("second")
        soon = await ours.peer(port)
        ours.clock.now += LOOK_SECONDS
        new = [await ours.peer(port), await ours.peer(port, server_hostname="localhost")]
        assert [peer.sees for peer in (old, soon, *new)] == ["first", "first", "second", "second"]
        assert all([await peer.echoed() for peer in (old, soon, *new)])
        for peer in (old, soon, *new):
            await peer.leave()


async def test_a_pair_that_does_not_match_yet_leaves_the_one_before_and_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = Listener(tmp_path)
    async with ours.listening() as port:

        async def seen() -> str:
            ours.clock.now += LOOK_SECONDS
            peer = await ours.peer(port)
            assert await peer.echoed()
            await peer.leave()
            return peer.sees

        caplog.set_level(logging.INFO)
        ours.put("second", key=False)
        assert [await seen(), await seen()] == ["first", "first"]
        ours.key.unlink()
        assert [await seen(), await seen()] == ["first", "first"]
        ours.put("third")
        assert [await seen(), await seen()] == ["third", "third"]
    files = f"--tls-cert-file {ours.certificate} and --tls-key-file {ours.key}: "
    mismatch, missing, renewed = caplog.messages
    assert mismatch.startswith(files) and "mismatch" in mismatch.lower()
    assert missing.startswith(files) and "No such file" in missing
    assert renewed == f"{files}the new certificate is served"


def test_files_that_cannot_be_used_at_the_start_are_named(tmp_path: Path) -> None:
    ours = Listener(tmp_path)
    ours.put("second", key=False)
    with pytest.raises(Fatal, match=r"--tls-cert-file .* and --tls-key-file .*"):
        ServerTls(ours.certificate, ours.key)
    with pytest.raises(Fatal, match="No such file"):
        ServerTls(tmp_path / "none", ours.key)


class ApiServer:
    """Takes who shows a certificate of `welcome`, at whichever address its latest start gave it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = authority(folder / "api")
        self.welcome = {"first"}
        self.seen: list[str] = []
        self.held, self.release = asyncio.Event(), asyncio.Event()
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        await self.stop()
        context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=str(self.made.authority.certificate)
        )
        context.load_cert_chain(self.made.server.certificate, self.made.server.key)
        context.verify_mode = ssl.CERT_OPTIONAL
        app = web.Application()
        app.router.add_get("/version", self._version)
        app.router.add_get("/slow", self._slow)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _who(self, request: web.Request) -> str:
        shown = request.get_extra_info("peercert")
        return str(shown["subject"][0][0][1]) if shown else ""

    async def _version(self, request: web.Request) -> web.Response:
        self.seen.append(self._who(request))
        if self.seen[-1] not in self.welcome:
            return web.json_response({"message": "Unauthorized"}, status=401)
        return web.json_response({})

    async def _slow(self, request: web.Request) -> web.Response:
        self.held.set()
        await self.release.wait()
        return web.json_response({"who": self._who(request)})

    def credentials(self, name: str, *, token: str | None = None) -> Credentials:
        pair = certificate(self.made, self.folder, name)
        ca = self.folder / "ca.crt"
        ca.write_bytes(self.made.authority.certificate.read_bytes())
        return Credentials(
            server=f"https://127.0.0.1:{self.port}",
            origin="kubeconfig",
            namespace="shop",
            ca_path=str(ca),
            certificate_path=str(pair.certificate),
            key_path=str(pair.key),
            token=token,
        )


class Ours:
    """Our connection to it; `stored` is what a look at the kubeconfig finds."""

    def __init__(self, stored: Credentials) -> None:
        self.stored, self.looks, self.clock = stored, 0, Clock()
        self.replaced = 0
        self.trouble: Problem | None = None
        self.connection = Connection(stored, agent="test", renew=self.look, monotonic=self.clock)
        self.connection.replaced = self.count

    def look(self) -> Credentials:
        self.looks += 1
        if self.trouble is not None:
            raise self.trouble
        return self.stored

    def count(self) -> None:
        self.replaced += 1

    async def ask(self, path: str = "/version") -> int:
        return (await self.connection.request("GET", path)).status_code


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    server = ApiServer(tmp_path)
    await server.start()
    yield server
    server.release.set()
    await server.stop()


Connect = Callable[[str], Ours]


@pytest.fixture
async def connect(server: ApiServer) -> AsyncIterator[Connect]:
    made: list[Ours] = []

    def build(name: str) -> Ours:
        made.append(Ours(server.credentials(name)))
        return made[-1]

    yield build
    for ours in made:
        await ours.connection.close()


async def test_a_renewed_client_certificate_is_shown_as_soon_as_the_old_one_is_refused(
    server: ApiServer, connect: Connect
) -> None:
    ours = connect("first")
    assert await ours.ask() == 200
    ours.stored = server.credentials("second")
    assert await ours.ask() == 200 and ours.looks == 0
    server.welcome = {"second"}
    assert await asyncio.gather(*(ours.ask() for _ in range(5))) == [200] * 5
    assert (ours.looks, ours.replaced) == (1, 1)
    server.seen.clear()
    assert await ours.ask() == 200 and server.seen == ["second"]


async def test_a_request_under_way_keeps_the_connection_it_has(
    server: ApiServer, connect: Connect
) -> None:
    ours = connect("first")
    slow = asyncio.create_task(ours.connection.request("GET", "/slow"))
    await server.held.wait()
    ours.stored, server.welcome = server.credentials("second"), {"second"}
    assert await ours.ask() == 200
    server.release.set()
    assert (await slow).json() == {"who": "first"}
    assert await ours.ask() == 200


async def test_credentials_that_are_the_same_are_the_end_of_it(
    server: ApiServer, connect: Connect
) -> None:
    ours = connect("nobody")
    assert await ours.ask() == 401
    assert (ours.looks, ours.replaced, server.seen) == (1, 0, ["nobody"])


async def test_a_new_token_needs_no_new_connection(server: ApiServer, connect: Connect) -> None:
    ours = connect("nobody")
    ours.stored = replace(ours.stored, token="t")
    assert await ours.ask() == 401
    assert (ours.looks, ours.replaced) == (1, 0)
    assert ours.connection.credentials.token == "t"


async def test_what_cannot_be_read_yet_is_read_at_the_next_refusal(
    server: ApiServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    ours = connect("first")
    second, server.welcome = server.credentials("second"), {"second"}
    ours.stored = replace(second, key_path=ours.stored.key_path)
    assert [await ours.ask() for _ in range(2)] == [401, 401]
    ours.trouble = no_cluster("kubeconfig is empty")
    assert await ours.ask() == 401
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2 and "mismatch" in warnings[0].lower()
    assert "kubeconfig is empty" in warnings[1]
    ours.stored, ours.trouble = second, None
    assert await ours.ask() == 200


async def another_ca(server: ApiServer) -> Credentials:
    """The API server gets certificates of another CA, at the same address."""
    server.made = authority(server.folder / "api-2")
    await server.start()
    return server.credentials("first")


async def test_a_renewed_ca_is_trusted_though_its_file_has_the_same_name(
    server: ApiServer, connect: Connect
) -> None:
    ours = connect("first")
    assert await ours.ask() == 200
    ca = ours.stored.ca_path
    ours.stored = await another_ca(server)
    assert ours.stored.ca_path == ca
    assert await ours.ask() == 200
    assert ours.replaced == 1


async def test_a_server_that_nobody_trusts_does_not_have_everything_read_all_the_time(
    server: ApiServer, connect: Connect
) -> None:
    ours = connect("first")
    await another_ca(server)
    ours.stored = replace(ours.stored, ca_path=str(server.folder / "api" / "ca.crt"))
    for _ in range(3):
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await ours.ask()
    assert (ours.looks, ours.replaced) == (1, 1)
    ours.clock.now += AGAIN_SECONDS
    with pytest.raises(httpx.ConnectError):
        await ours.ask()
    assert ours.looks == 2


async def test_trouble_that_is_no_certificates_fault_is_none(
    server: ApiServer, connect: Connect
) -> None:
    ours = connect("first")
    await server.stop()
    with pytest.raises(httpx.ConnectError):
        await ours.ask()
    assert ours.looks == 0
