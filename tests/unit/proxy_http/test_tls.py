"""TLS to backends: verified by name, no connection otherwise, and let go of at once."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nexus_devtools.authority import Authority
from nexus_devtools.rawhttp.messages import (
    SSE_HEAD,
    STREAM_BODY,
    Message,
    answer,
    chunk,
    event,
    post,
)
from nexus_devtools.rawhttp.peers import Peer, Upstream, says, until
from nexus_devtools.rawhttp.stage import Stage
from nexus_quality.outcome import Outcome

NAME = "llm.example.com"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for NAME and 127.0.0.2, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.2"))]
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return path


AddBackend = Callable[..., Awaitable[Upstream]]


@pytest.fixture
async def secure(stage: Stage, certificate: Path) -> AsyncIterator[AddBackend]:
    """Adds a backend that speaks TLS, reached as `server_name` and trusted through `trusted`."""

    async def add(data: bytes, *, server_name: str | None = NAME, trusted: bool = True) -> Upstream:
        upstream = await stage.backend(says(data))
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate)
        await upstream.restart(server)
        client = ssl.create_default_context(cafile=certificate if trusted else None)
        backend = stage.backend_of(len(stage.upstreams) - 1)
        backend.origin = replace(
            backend.origin, scheme="https", port=upstream.port, tls=client, server_name=server_name
        )
        return upstream

    yield add


async def test_a_trusted_name_is_spoken_to(stage: Stage, secure: AddBackend) -> None:
    upstream = await secure(answer(b'{"id":1}'))
    client = await stage.client()
    for _ in range(3):
        await client.send(post())
        assert (await client.receive()).body == b'{"id":1}'
    assert upstream.connections == 1


@pytest.mark.parametrize("wrong", [{"server_name": "other"}, {"server_name": None}])
async def test_a_certificate_for_another_name_is_a_connect_error(
    stage: Stage, secure: AddBackend, wrong: dict[str, str | None]
) -> None:
    upstream = await secure(answer(b"{}"), **wrong)
    await stage.backend(says(answer(b'{"id":"next"}')))
    assert (await stage.ask()).body == b'{"id":"next"}'
    assert stage.outcomes(0) == [Outcome.CONNECT_ERROR]
    assert upstream.requests == []


async def test_an_unknown_authority_is_a_connect_error(stage: Stage, secure: AddBackend) -> None:
    upstream = await secure(answer(b"{}"), trusted=False)
    assert (await stage.ask()).status == 503
    assert stage.outcomes() == [Outcome.CONNECT_ERROR]
    assert upstream.requests == []


async def test_a_handshake_that_gets_nowhere_is_a_connect_error(stage: Stage) -> None:
    upstream = await stage.backend(says(answer(b"{}")))  # plain, and waiting for a line's end
    backend = stage.backend_of()
    backend.origin = replace(backend.origin, tls=ssl.create_default_context(), server_name=NAME)
    client = await stage.client()
    await client.send(post())
    await until(lambda: upstream.peers)
    stage.tick(6)
    assert (await client.receive()).status == 503
    await until(upstream.peers[0].lost.is_set)
    assert stage.outcomes() == [Outcome.CONNECT_ERROR]


async def test_a_client_that_leaves_frees_a_tls_backend_at_once(
    stage: Stage, secure: AddBackend
) -> None:
    upstream = await secure(SSE_HEAD + chunk(event("a")))
    client = await stage.client()
    await client.send(post(STREAM_BODY))
    await until(lambda: stage.counters.active_streams)
    began = stage.clock()
    client.abort()
    await until(upstream.peers[0].lost.is_set)
    assert stage.clock() - began < 1.0
    assert stage.outcomes() == [Outcome.CLIENT_GONE]


async def rotated(stage: Stage, tmp_path: Path, upstream: Upstream) -> Authority:
    """The backend listens anew with a certificate of a new authority, and the proxy is told."""
    authority = Authority()
    await upstream.restart(authority.issue(NAME).server_context(tmp_path))
    backend = stage.backend_of()
    backend.origin = replace(
        backend.origin,
        scheme="https",
        port=upstream.port,
        tls=authority.client_context(),
        server_name=NAME,
    )
    return authority


async def test_an_authority_that_rotates_ends_what_was_trusted_before(
    stage: Stage, tmp_path: Path
) -> None:
    upstream = await stage.backend(says(answer(b"{}")))
    await rotated(stage, tmp_path, upstream)
    client = await stage.client()
    await client.send(post())
    assert (await client.receive()).status == 200
    await rotated(stage, tmp_path, upstream)
    await client.send(post())
    assert (await client.receive()).status == 200
    assert upstream.connections == 2
    await until(upstream.peers[0].lost.is_set)
    (pool,) = stage.gateway.pools
    assert pool.origin is stage.backend_of().origin


async def test_an_authority_that_is_taken_away_trusts_nobody_any_more(
    stage: Stage, tmp_path: Path
) -> None:
    upstream = await stage.backend(says(answer(b"{}")))
    await rotated(stage, tmp_path, upstream)
    assert (await stage.ask()).status == 200
    backend = stage.backend_of()
    backend.origin = replace(backend.origin, tls=Authority().client_context())
    refused = await stage.ask()
    assert refused.status == 503
    assert b"CERTIFICATE_VERIFY_FAILED" in refused.body
    assert len(upstream.requests) == 1


async def test_what_is_to_be_tls_is_never_sent_in_clear(stage: Stage) -> None:
    upstream = await stage.backend(says(answer(b"{}")))
    backend = stage.backend_of()
    backend.origin = replace(backend.origin, scheme="https", tls=None)
    refused = await stage.ask()
    assert refused.status == 503
    assert b"its TLS cannot be set up: see the Secret of its CA certificate" in refused.body
    assert upstream.connections == 0


async def test_a_retry_after_a_stale_connection_uses_the_trust_of_now(
    stage: Stage, tmp_path: Path
) -> None:
    async def rotates_and_closes(peer: Peer, _request: Message) -> None:
        await rotated(stage, tmp_path, upstream)
        await peer.close()

    upstream = await stage.backend(says(answer(b"1")), rotates_and_closes, says(answer(b"3")))
    await rotated(stage, tmp_path, upstream)
    client = await stage.client()
    await client.send(post())
    assert (await client.receive()).body == b"1"
    await client.send(post())
    assert (await client.receive()).body == b"3"
    assert stage.outcomes() == [Outcome.SUCCESS] * 2
    (pool,) = stage.gateway.pools
    assert pool.origin is stage.backend_of().origin
    assert pool.idle == 1
