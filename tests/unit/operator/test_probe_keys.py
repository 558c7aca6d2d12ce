"""The full probe: with the key of a Secret that the operator may read, to whom it may be shown."""

from __future__ import annotations

import base64
import datetime
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from nexus_api import LLMBackend
from nexus_api.backend import SecretKeyRef
from nexus_devtools.controlplane.certificates import Certificates, write_certificates
from nexus_operator.credentials import Credentials
from nexus_operator.kube import Kube
from nexus_operator.named_secrets import FRESH_SECONDS, REFUSED_SECONDS, NamedSecrets
from nexus_operator.probe import Answer, Doorbell

Build = Callable[..., LLMBackend]
REF = SecretKeyRef(name="s", key="k")
KEY: dict[str, Any] = {"secretRef": {"name": "s", "key": "k"}}
MODELS = {"data": [{"id": "m1"}]}


class Secrets:
    """What the operator may read, by namespace, name and key."""

    def __init__(self, **values: str) -> None:
        self.values = {("shop", *name.split("_")): value for name, value in values.items()}
        self.forgotten: list[tuple[str, SecretKeyRef]] = []

    async def get(self, namespace: str, ref: SecretKeyRef) -> str | None:
        return self.values.get((namespace, ref.name, ref.key))

    def forget(self, namespace: str, ref: SecretKeyRef) -> None:
        self.forgotten.append((namespace, ref))


class Guarded:
    """Lists its models to who shows the key `good`; remembers what it was shown."""

    def __init__(self, header: str = "authorization") -> None:
        self.header = header
        self.shown: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.shown.append(request.headers.get(self.header))
        good = self.shown[-1] in ("Bearer good", "good")
        return httpx.Response(200, json=MODELS) if good else httpx.Response(401)


async def probe(server: Guarded | None, secrets: Secrets | None, backend: LLMBackend) -> Answer:
    transport = None if server is None else httpx.MockTransport(server)
    doorbell = Doorbell(secrets=secrets, transport=transport)
    try:
        return await doorbell.ring("shop", backend.spec)
    finally:
        await doorbell.close()


async def test_with_its_key_the_models_of_a_backend_are_found(backend: Build) -> None:
    server = Guarded()
    answer = await probe(server, Secrets(s_k="good"), backend(type="openai", auth=KEY))
    assert (answer.ok, answer.reason) == (True, "ProbeSucceeded")
    assert [model.name for model in answer.models or ()] == ["m1"]
    assert server.shown == ["Bearer good"]


async def test_the_key_goes_into_the_header_of_the_type(backend: Build) -> None:
    server = Guarded("x-api-key")
    answer = await probe(server, Secrets(s_k="good"), backend(type="anthropic", auth=KEY))
    assert (answer.reason, server.shown) == ("ProbeSucceeded", ["good"])


@pytest.mark.parametrize(
    ("secrets", "says"),
    [
        (None, "without a key: alive; its models are unknown: write spec.models, or let "),
        (Secrets(), "or let nexus-operator read Secret s"),
        (Secrets(s_k="bad"), "to the key in Secret s, key k: alive"),
        (Secrets(s_k="line\nbreak"), "without a key"),
        (Secrets(s_other="good"), "without a key"),
    ],
)
async def test_without_a_key_that_is_taken_it_is_alive_and_says_what_to_do(
    backend: Build, secrets: Secrets | None, says: str
) -> None:
    answer = await probe(Guarded(), secrets, backend(type="openai", auth=KEY))
    assert (answer.ok, answer.reason, answer.models) == (True, "AliveUnauthenticated", None)
    assert answer.message.startswith("GET /v1/models answers 401 ") and says in answer.message
    refused = secrets is not None and "to the key" in says
    assert (secrets.forgotten if secrets else []) == ([("shop", REF)] if refused else [])


async def test_a_health_page_needs_no_key_but_a_list_that_does_says_so(backend: Build) -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200 if request.url.path == "/health" else 401)

    doorbell = Doorbell(transport=httpx.MockTransport(serve))
    answer = await doorbell.ring("shop", backend(type="vllm", auth=KEY).spec)
    await doorbell.close()
    assert answer.message == (
        "GET /health answers 200; its models are unknown (GET /v1/models answers 401): "
        "write spec.models, or let nexus-operator read Secret s"
    )


@pytest.mark.parametrize("auth", [None, {"mode": "None"}, {"mode": "PassThrough"}])
async def test_a_key_that_is_not_the_backends_is_not_shown(backend: Build, auth: Any) -> None:
    server, spec = Guarded(), {} if auth is None else {"auth": auth}
    await probe(server, Secrets(s_k="good"), backend(type="openai", **spec))
    assert server.shown == [None]


@asynccontextmanager
async def https(made: Certificates, shown: list[str | None]) -> AsyncIterator[str]:
    """A backend with a certificate of a private CA; its address."""

    async def models(request: web.Request) -> web.Response:
        shown.append(request.headers.get("authorization"))
        return web.json_response(MODELS)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.server.certificate, made.server.key)
    app = web.Application()
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    now = datetime.datetime.now(datetime.UTC)
    return write_certificates(tmp_path_factory.mktemp("ca"), now=now)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    now = datetime.datetime.now(datetime.UTC)
    return write_certificates(tmp_path_factory.mktemp("other"), now=now)


CA = {"caSecretRef": {"name": "ca", "key": "crt"}}


def text(path: Path) -> str:
    return path.read_text()


async def test_a_key_is_shown_to_who_proves_to_be_the_backend_alone(
    backend: Build, made: Certificates, other: Certificates
) -> None:
    right, wrong = text(made.authority.certificate), text(other.authority.certificate)
    shown: list[str | None] = []
    async with https(made, shown) as url:
        thing = backend(type="openai", url=url, auth=KEY, tls=CA)
        answer = await probe(None, Secrets(s_k="good", ca_crt=right), thing)
        assert (answer.reason, shown) == ("ProbeSucceeded", ["Bearer good"])
        answer = await probe(None, Secrets(s_k="good", ca_crt=wrong), thing)
        assert (answer.ok, len(shown)) == (False, 1)
        assert "CERTIFICATE_VERIFY_FAILED" in answer.message
        for unreadable in ({}, {"ca_crt": ""}, {"ca_crt": "no certificate"}):
            answer = await probe(None, Secrets(s_k="good", **unreadable), thing)
            assert (answer.ok, shown.pop()) == (True, None)
        skip = {"insecureSkipVerify": True}
        open_door = backend(type="openai", url=url, auth=KEY, tls=skip)
        answer = await probe(None, Secrets(s_k="good"), open_door)
        assert (answer.ok, shown.pop()) == (True, "Bearer good")  # as the proxies do


class Cluster:
    """An API server with one Secret in `shop`, read as far as it says; `asked` counts."""

    def __init__(self) -> None:
        self.now, self.asked, self.status = 1000.0, 0, 200
        self.data = {"k": base64.b64encode(b"good\n").decode(), "raw": "/w==", "bad": "x"}
        credentials = Credentials(server="http://api", origin="x", namespace="d")
        self.kube = Kube(credentials, transport=httpx.MockTransport(self.answer))
        self.secrets = NamedSecrets(self.kube, lambda: self.now)

    def answer(self, request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.path) == ("GET", "/api/v1/namespaces/shop/secrets/s")
        self.asked += 1
        if self.status == 0:
            raise httpx.ConnectError("refused")
        body = {"data": self.data} if self.status == 200 else {"message": "no"}
        return httpx.Response(self.status, json=body)

    async def get(self, key: str = "k") -> str | None:
        return await self.secrets.get("shop", SecretKeyRef(name="s", key=key))


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    yield cluster
    await cluster.kube.close()


async def test_a_secret_is_read_once_a_minute_or_when_its_key_was_refused(cluster: Cluster) -> None:
    assert [await cluster.get() for _ in range(3)] == ["good"] * 3
    assert [await cluster.get(key) for key in ("raw", "bad", "none")] == [None] * 3
    assert cluster.asked == 1
    cluster.now += FRESH_SECONDS
    assert (await cluster.get(), cluster.asked) == ("good", 2)
    cluster.data = {"k": base64.b64encode(b"new").decode()}
    cluster.secrets.forget("shop", REF)
    assert (await cluster.get(), cluster.asked) == ("new", 3)


@pytest.mark.parametrize(
    ("status", "seconds"), [(403, REFUSED_SECONDS), (404, FRESH_SECONDS), (500, 0.0), (0, 0.0)]
)
async def test_what_may_not_be_read_is_asked_for_seldom(
    cluster: Cluster, status: int, seconds: float
) -> None:
    cluster.status = status
    assert (await cluster.get(), cluster.asked) == (None, 1)
    cluster.status = 200
    if seconds:
        cluster.now += seconds - 1
        assert (await cluster.get(), cluster.asked) == (None, 1)
        cluster.now += 1
    assert (await cluster.get(), cluster.asked) == ("good", 2)
