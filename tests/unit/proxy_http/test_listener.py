"""The listening side of a gateway: TLS that rotates, and keys that clients must show."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from nexus_devtools.authority import Authority
from nexus_devtools.rawhttp.messages import Message, answer, post
from nexus_devtools.rawhttp.peers import Peer, open_client, says, until
from nexus_devtools.rawhttp.stage import Stage
from nexus_proxy.http import listener as listening
from nexus_proxy.http.acceptor import bind
from nexus_proxy.http.client_keys import ClientKeys
from nexus_proxy.http.listener import Listener, listener_of
from nexus_proxy.http.tls import ListenerTls, UnusableFile
from nexus_proxy.routing.candidate import Credentials
from nexus_proxy.settings import Address, Settings
from nexus_quality.outcome import Outcome

SIZE = 48 * 1024 * 1024
BOUND = 20 * 1024 * 1024
BLOCK = b"x" * 262_144


def bearer(key: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {key}"


def asks(*headers: tuple[str, str], body: bytes = b'{"model":"m","messages":[]}') -> bytes:
    """A request with these headers."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers).encode()
    head, separator, rest = post(body).partition(b"\r\n")
    return head + separator + lines + rest


@asynccontextmanager
async def behind(listener: Listener, **more: Any) -> AsyncIterator[Stage]:
    """A started stage behind a listener."""
    stage = Stage(listener=listener, **more)
    await stage.start()
    try:
        yield stage
    finally:
        await stage.stop()
    stage.check_attempts()


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# checkout\nck-1\n\nck-2  \r\n")
    return path


@pytest.fixture
async def guarded(keys_file: Path) -> AsyncIterator[Stage]:
    """A stage that asks for keys."""
    async with behind(Listener(keys=ClientKeys(keys_file))) as stage:
        yield stage


REFUSED = [
    ([], "wants a key"),
    ([("Authorization", "Basic Y2stMQ==")], "wants a key"),
    ([("Authorization", "Bearer")], "not one of this proxy's"),
    ([bearer("ck-3")], "not one of this proxy's"),
    ([bearer("ck-1 ck-2")], "not one of this proxy's"),
    ([bearer("CK-1")], "not one of this proxy's"),
    ([bearer("# checkout")], "not one of this proxy's"),
    ([bearer("ck-1"), bearer("ck-1")], "wants a key"),
    ([("x-api-key", "ck-1")], "wants a key"),
]


@pytest.mark.parametrize(("headers", "said"), REFUSED)
async def test_without_a_key_of_ours_nothing_reaches_a_backend(
    guarded: Stage, headers: list[tuple[str, str]], said: str
) -> None:
    upstream = await guarded.backend(says(answer(b"{}")))
    refused = await guarded.ask(asks(*headers))
    error = json.loads(refused.body)["error"]
    assert refused.status == 401
    assert (error["type"], error["code"], error["param"]) == (
        "authentication_error",
        "invalid_api_key",
        None,
    )
    assert said in error["message"]
    assert refused.header("www-authenticate") == b"Bearer"
    assert upstream.requests == []
    assert guarded.counters.requests == {("/v1/chat/completions", 401): 1}


@pytest.mark.parametrize(
    "header", [bearer("ck-1"), bearer("ck-2"), ("aUthorization", "bearer   ck-1")]
)
async def test_with_a_key_requests_are_served_and_the_key_goes_no_further(
    guarded: Stage, header: tuple[str, str]
) -> None:
    upstream = await guarded.backend(says(answer(b"{}")))
    client = await guarded.client()
    for _ in range(3):
        await client.send(asks(header))
        assert (await client.receive()).status == 200
    assert all(not request.values("authorization") for request in upstream.requests)


async def test_the_key_passes_only_to_a_backend_that_asks_for_the_clients(guarded: Stage) -> None:
    own = Credentials("Secret", b"authorization: Bearer sk-own\r\n")
    first = await guarded.backend(says(answer(b"{}", status="503 Away")), credentials=own)
    second = await guarded.backend(
        says(answer(b"{}")), credentials=Credentials("PassThrough", strip=frozenset())
    )
    assert (await guarded.ask(asks(bearer("ck-1")))).status == 200
    assert first.requests[0].values("authorization") == [b"Bearer sk-own"]
    assert second.requests[0].values("authorization") == [b"Bearer ck-1"]


async def test_the_models_and_unknown_paths_want_a_key_too(guarded: Stage) -> None:
    for line in (b"GET /v1/models", b"GET /v1/models/m", b"GET /", b"POST /v1/x"):
        head = line + b" HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
        assert (await guarded.ask(head)).status == 401
    listed = b"GET /v1/models HTTP/1.1\r\nhost: a\r\nauthorization: Bearer ck-1\r\n\r\n"
    assert (await guarded.ask(listed)).status == 200


async def test_a_strangers_body_is_not_waited_for(guarded: Stage) -> None:
    client = await guarded.client()
    await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n")
    await client.send(b"content-length: 60000000\r\n\r\n{")
    assert (await client.receive()).status == 401
    assert await client.ended() == b""


async def test_a_client_that_waits_for_100_continue_is_told_401_instead(guarded: Stage) -> None:
    client = await guarded.client()
    await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n")
    await client.send(b"expect: 100-continue\r\ncontent-length: 10\r\n\r\n")
    assert (await client.receive()).status == 401


def write(path: Path, text: str | None) -> None:
    """Give a file another content, or take it away."""
    path.unlink() if text is None else path.write_text(text)


async def test_a_key_that_is_taken_away_ends_on_connections_that_are_open(
    guarded: Stage, keys_file: Path
) -> None:
    await guarded.backend(says(answer(b"{}")))
    stays, goes = await guarded.client(), await guarded.client()
    pairs = ((stays, "ck-2"), (goes, "ck-1"))
    for client, key in pairs * 2:  # the second time by a head that is known
        await client.send(asks(bearer(key)))
        assert (await client.receive()).status == 200
    write(keys_file, "ck-2\nck-3\n")
    guarded.tick()
    for client, key in pairs:
        await client.send(asks(bearer(key)))
    assert (await stays.receive()).status == 200
    assert (await goes.receive()).status == 401
    assert (await guarded.ask(asks(bearer("ck-3")))).status == 200


async def test_keys_that_cannot_be_used_leave_the_last_good_ones_in_force(
    guarded: Stage, keys_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await guarded.backend(says(answer(b"{}")))
    write(keys_file, "ck-1\nsecret with spaces\n")
    guarded.tick()
    guarded.tick()
    assert (await guarded.ask(asks(bearer("ck-1")))).status == 200
    (record,) = caplog.records
    assert "keys line 2 is no key: it has a space" in record.message
    assert "the last good keys stay in force" in record.message
    assert "secret with" not in record.message
    write(keys_file, None)
    guarded.tick()
    assert (await guarded.ask(asks(bearer("ck-1")))).status == 200
    write(keys_file, "")
    guarded.tick()
    assert (await guarded.ask(asks(bearer("ck-1")))).status == 401


async def test_a_mounted_folder_of_keys_is_followed_through_the_kubelets_swap(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "mounted"
    for version, key in (("..1", "old-key"), ("..2", "new-key")):
        (folder / version).mkdir(parents=True)
        (folder / version / "checkout").write_text(key)
    (folder / "..data").symlink_to("..1")
    (folder / "checkout").symlink_to("..data/checkout")
    keys = ClientKeys(folder)
    before = keys.current
    keys.look()
    assert keys.current is before
    (folder / "..tmp").symlink_to("..2")
    (folder / "..tmp").rename(folder / "..data")
    keys.look()
    assert keys.current != before


def test_keys_without_any_are_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none\n")
    with pytest.raises(UnusableFile, match="keys holds no key: write one a line"):
        ClientKeys(tmp_path / "keys")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnusableFile, match="folder holds no key: write one a line"):
        ClientKeys(tmp_path / "folder")
    with pytest.raises(UnusableFile, match="absent: No such file"):
        ClientKeys(tmp_path / "absent")


def test_no_digest_tells_a_key(keys_file: Path) -> None:
    keys = ClientKeys(keys_file)
    assert "ck-1" not in repr(vars(keys))
    assert b"ck-1" not in b"".join(keys.current)


# TLS


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def pair(authority: Authority, tmp_path: Path) -> tuple[Path, Path]:
    """The listener's certificate and key."""
    return authority.issue("127.0.0.1").write(tmp_path)


@pytest.fixture
async def secure(authority: Authority, pair: tuple[Path, Path]) -> AsyncIterator[Stage]:
    """A stage whose clients speak TLS."""
    listener = Listener(ListenerTls(*pair))
    async with behind(listener, trust=authority.client_context()) as stage:
        yield stage


def shown(peer: Peer) -> int:
    """The serial number of the certificate the server showed."""
    connection: ssl.SSLObject = peer.writer.get_extra_info("ssl_object")
    certificate: Any = connection.getpeercert()
    return int(certificate["serialNumber"], 16)


async def test_requests_come_in_by_tls(secure: Stage) -> None:
    await secure.backend(says(answer(b"{}")))
    client = await secure.client()
    for _ in range(2):
        await client.send(post())
        assert (await client.receive()).body == b"{}"
    connection: ssl.SSLObject = client.writer.get_extra_info("ssl_object")
    assert connection.version() in ("TLSv1.3", "TLSv1.2")


async def test_a_certificate_rotates_under_connections_that_go_on(
    secure: Stage, authority: Authority, pair: tuple[Path, Path]
) -> None:
    await secure.backend(says(answer(b"{}")))
    old = await secure.client()
    await old.send(post())
    await old.receive()
    authority.issue("127.0.0.1", rsa_key=True).write(pair[0].parent)  # another kind of key, too
    secure.tick()
    new = await secure.client()
    assert shown(new) != shown(old)
    for client in (old, new):
        await client.send(post())
        assert (await client.receive()).status == 200


async def test_half_a_rotation_changes_nothing_until_it_is_whole(
    secure: Stage,
    authority: Authority,
    pair: tuple[Path, Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    await secure.backend(says(answer(b"{}")))
    before = shown(await secure.client())
    issued = authority.issue("127.0.0.1")
    pair[0].write_bytes(issued.certificate)
    secure.tick()
    secure.tick()
    assert shown(await secure.client()) == before
    (record,) = caplog.records
    assert "no PEM certificate chain with its own private key" in record.message
    assert "the last good certificate stays in use" in record.message
    pair[1].write_bytes(issued.key)
    secure.tick()
    assert shown(await secure.client()) != before


async def test_plain_http_on_a_tls_port_is_no_request(secure: Stage) -> None:
    upstream = await secure.backend(says(answer(b"{}")))
    client = await open_client(secure.gateway.port)
    await client.send(post())
    await client.ended()
    assert upstream.requests == []
    assert secure.counters.active_downstreams == 0
    client.abort()


async def test_a_refusal_is_read_whole_while_the_client_still_sends(secure: Stage) -> None:
    client = await secure.client()
    await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n")
    await client.send(b"content-length: 99000000\r\n\r\n" + b"x" * 300_000)
    assert (await client.receive()).status == 413
    assert await client.ended() == b""


async def test_drain_ends_idle_tls_connections_and_lets_answers_finish(secure: Stage) -> None:
    released = asyncio.Event()

    async def waits(peer: Peer, _request: Message) -> None:
        await released.wait()
        await peer.send(answer(b"{}"))

    await secure.backend(waits)
    idle, busy = await secure.client(), await secure.client()
    await busy.send(post())
    await until(lambda: secure.upstreams[0].requests)
    draining = asyncio.ensure_future(secure.gateway.drain(5.0))
    await until(lambda: secure.gateway.draining)
    secure.gateway.tick(secure.gateway.now + 2.5)
    assert await idle.ended() == b""
    released.set()
    assert (await busy.receive()).status == 200
    assert await busy.ended() == b""
    idle.abort()
    busy.abort()
    assert await draining


async def _still(value: Any) -> int:
    """A number once it has stopped growing."""
    before = -1
    while value() != before:
        before = value()
        await asyncio.sleep(0.1)
    return before


@pytest.mark.parametrize("side", ["client", "backend"])
async def test_a_client_that_does_not_read_stops_its_backend_through_tls(
    authority: Authority, pair: tuple[Path, Path], tmp_path: Path, side: str
) -> None:
    sent: list[int] = []

    async def sends(peer: Peer, _request: Message) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        while sum(sent) < SIZE:
            await peer.send(BLOCK)
            sent.append(len(BLOCK))

    by_tls = side == "client"
    listener = Listener(ListenerTls(*pair)) if by_tls else Listener()
    trust = authority.client_context() if by_tls else None
    async with behind(listener, trust=trust) as stage:
        upstream = await stage.backend(sends)
        if not by_tls:
            await upstream.restart(authority.issue("127.0.0.1").server_context(tmp_path))
            backend = stage.backend_of()
            tls = authority.client_context()
            backend.origin = replace(backend.origin, port=upstream.port, tls=tls, scheme="https")
        client = await stage.client()
        client.pause_reading()
        await client.send(post())
        await until(lambda: stage.counters.bytes_sent > 100_000)
        assert await _still(lambda: sum(sent)) < BOUND
        client.resume_reading()
        message = await client.receive()
        assert len(message.body) == SIZE
        await until(lambda: stage.outcomes() == [Outcome.SUCCESS])


@pytest.fixture
async def crowd() -> AsyncIterator[Callable[[int, int], Awaitable[list[Peer]]]]:
    """Connects to a port, so many times, and says nothing."""
    peers: list[Peer] = []

    async def come(port: int, number: int) -> list[Peer]:
        come_now = [await open_client(port) for _ in range(number)]
        peers.extend(come_now)
        return come_now

    yield come
    for peer in peers:
        peer.abort()


Crowd = Callable[[int, int], Awaitable[list[Peer]]]


async def test_strangers_who_only_connect_take_no_more_than_the_clients_that_fit(
    secure: Stage, crowd: Crowd
) -> None:
    gateway = secure.gateway
    gateway.max_clients = 40
    await secure.backend(says(answer(b"{}")))
    inside = await secure.client()
    await until(lambda: len(gateway.clients) == 1)
    strangers = await crowd(gateway.port, 60)
    await until(lambda: secure.counters.turned_away == 60 - 39)
    assert gateway._acceptor is not None
    assert gateway._acceptor.handshakes == 39
    await inside.send(post())
    assert (await inside.receive()).status == 200, "who is in is served"
    for stranger in strangers:
        stranger.abort()
    await until(lambda: gateway._acceptor is None or gateway._acceptor.handshakes == 0)
    assert (await secure.ask()).status == 200


async def test_a_handshake_that_gets_nowhere_ends(
    authority: Authority, pair: tuple[Path, Path], crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "HANDSHAKE_SECONDS", 0.3)
    async with behind(Listener(ListenerTls(*pair)), trust=authority.client_context()) as stage:
        (stranger,) = await crowd(stage.gateway.port, 1)
        assert await stranger.ended() == b""
        assert stage.gateway._acceptor is not None
        await until(lambda: stage.gateway._acceptor.handshakes == 0)  # type: ignore[union-attr]


async def test_one_tls_client_too_many_is_told_so(secure: Stage) -> None:
    secure.gateway.max_clients = 1
    await secure.backend(says(answer(b"{}")))
    await secure.client()
    await until(lambda: len(secure.gateway.clients) == 1)
    refused = await (await secure.client()).receive()
    assert refused.status == 503
    assert b"too_many_connections" in refused.body


async def test_without_descriptors_nothing_is_accepted_until_the_next_tick(
    secure: Stage,
) -> None:
    class Short(socket.socket):
        """A listening socket of a process that has no descriptor left."""

        def accept(self) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

    await secure.backend(says(answer(b"{}")))
    acceptor = secure.gateway._acceptor
    assert acceptor is not None
    (listening_at,) = acceptor._sockets
    acceptor.ready(Short(fileno=os.dup(listening_at.fileno())))
    assert len(acceptor._paused) == 1
    acceptor._paused[0].close()
    acceptor._paused[:] = [listening_at]
    asyncio.get_running_loop().remove_reader(listening_at.fileno())
    asking = asyncio.ensure_future(secure.ask())
    await asyncio.sleep(0.1)
    assert not asking.done()
    secure.tick()
    assert (await asking).status == 200


async def test_a_drain_ends_handshakes_that_are_under_way(secure: Stage, crowd: Crowd) -> None:
    (stranger,) = await crowd(secure.gateway.port, 1)
    acceptor = secure.gateway._acceptor
    assert acceptor is not None
    await until(lambda: acceptor.handshakes == 1)
    await secure.gateway.drain(0.1)
    assert await stranger.ended() == b""


def test_a_port_that_is_taken_is_an_error(pair: tuple[Path, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="in use"):
            bind("127.0.0.1", taken.getsockname()[1], backlog=1)
        bound = bind("localhost", 0, backlog=1)
        assert len({each.getsockname()[1] for each in bound}) == 1
        for each in bound:
            each.close()


# The flags


def test_what_the_flags_name_must_be_usable(pair: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = pair
    with pytest.raises(UnusableFile, match=r"tls.crt, .*tls.crt: no PEM certificate chain"):
        listener_of(Settings(tls_cert_file=certificate, tls_key_file=certificate))
    with pytest.raises(UnusableFile, match="No such file"):
        listener_of(Settings(tls_cert_file=certificate, tls_key_file=tmp_path / "none"))
    assert str(listener_of(Settings(tls_cert_file=certificate, tls_key_file=key))) == " with TLS"
    assert str(listener_of(Settings())) == ""


def test_an_encrypted_private_key_asks_nobody_for_a_passphrase(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    certificate, key = pair
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"phrase"),
        )
    )
    with pytest.raises(UnusableFile, match="encrypted: write it without a passphrase"):
        ListenerTls(certificate, locked)


def test_keys_in_clear_beyond_this_machine_are_warned_of(
    keys_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener_of(Settings(client_keys_file=keys_file))
    assert not caplog.records
    assert str(listener_of(Settings(client_keys_file=keys_file, listen=Address("0.0.0.0", 1))))
    assert [record.message for record in caplog.records] == [
        "clients' keys travel in clear: give --tls-cert-file and --tls-key-file too"
    ]
