"""One health probe of one backend: is it alive, and which models does it have?

Promises one `Answer` whatever happens on the way, each request within the backend's own timeout
and a bound on what is read. Only lists and health pages are asked for, never a completion, which
could cost money. A key is sent where the operator may read its Secret, and only over a connection
that is verified as the proxies verify theirs. Without one a backend with `auth` that answers 401 or
403 is alive, and its models stay as they were; so do those of one whose list is slow, huge or
garbage. A certificate of a private CA that may not be read is not verified: nothing confidential
travels then. Thresholds are not applied here.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import httpx

from nexus_api import AuthMode, DiscoveredModel, LLMBackendSpec, reasons
from nexus_api.backend import SecretKeyRef
from nexus_api.resolve import auth_header, auth_mode, endpoint, health_path, models_path
from nexus_operator import probe_words
from nexus_operator.probe_words import UNAUTHENTICATED
from nexus_quality.health import parse_models

MAX_BODY = 4 * 1024 * 1024


class Secrets(Protocol):
    """Where keys and CAs are read, as far as they may be."""

    async def get(self, namespace: str, ref: SecretKeyRef) -> str | None:
        """A value, None if there is none for us."""
        ...

    def forget(self, namespace: str, ref: SecretKeyRef) -> None:
        """It was refused by the backend that it is for."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a probe found. `models` None: not asked, not said, or not readable (`message` why)."""

    ok: bool
    reason: str
    message: str
    latency_ms: int | None = None
    models: tuple[DiscoveredModel, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How a backend is asked: with which key, and trusting which CA; None for none of its own."""

    spec: LLMBackendSpec
    key: str | None = None
    ca: ssl.SSLContext | None = None

    @property
    def headers(self) -> dict[str, str]:
        if self.key is None:
            return {}
        header = auth_header(self.spec)
        return {header.name: header.value(self.key)}


class TooMuch(Exception):
    """A body beyond the limit."""


class Doorbell:
    """Two connection pools, one that verifies certificates and one that does not; a CA of the
    backend's own gets one for each probe.
    """

    def __init__(
        self,
        *,
        secrets: Secrets | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._secrets = secrets
        self._transport = transport
        self._monotonic = monotonic
        self._clients = {verify: self._client(verify) for verify in (True, False)}

    def _client(self, verify: bool | ssl.SSLContext) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=verify,
            transport=self._transport,
            trust_env=False,
            timeout=None,
            # Not compressed: what is small on the wire could be huge here.
            headers={
                "User-Agent": "nexus-operator",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
            # A kept connection would tell of the past: each probe connects anew.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def close(self) -> None:
        """Closes both pools."""
        for client in self._clients.values():
            await client.aclose()

    async def ring(self, namespace: str, spec: LLMBackendSpec) -> Answer:
        """Probes a backend of a namespace once."""
        way, path = await self._way(namespace, spec), health_path(spec)
        began = self._monotonic()
        found = await self._tried(way, path)
        if isinstance(found, str):
            return _failed(found)
        latency = max(1, round((self._monotonic() - began) * 1000))
        answer = await self._judged(way, path, *found, latency=latency)
        if way.key is not None and answer.reason == reasons.ALIVE_UNAUTHENTICATED:
            self._forget(namespace, spec)
        return answer

    async def _way(self, namespace: str, spec: LLMBackendSpec) -> _Way:
        """As the proxies would, as far as Secrets may be read; no key to who is not verified."""
        ca = None
        if spec.tls is not None and spec.tls.ca_secret_ref is not None and endpoint(spec).tls:
            ca = _trust(await self._secret(namespace, spec.tls.ca_secret_ref))
            if ca is None:
                return _Way(spec=spec)
        ref = _ref(spec)
        key = None if ref is None else await self._secret(namespace, ref)
        usable = key is not None and key.isascii() and key.isprintable()
        return _Way(spec=spec, key=key if usable else None, ca=ca)

    async def _secret(self, namespace: str, ref: SecretKeyRef) -> str | None:
        return None if self._secrets is None else await self._secrets.get(namespace, ref)

    def _forget(self, namespace: str, spec: LLMBackendSpec) -> None:
        ref = _ref(spec)
        if self._secrets is not None and ref is not None:
            self._secrets.forget(namespace, ref)

    async def _tried(self, way: _Way, path: str) -> tuple[int, bytes] | str:
        """Status and body of an answer, or in one line why there is none."""
        seconds = way.spec.health_check.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._get(way, path)
        except TimeoutError:
            return probe_words.silent(path, seconds)
        except TooMuch:
            return probe_words.too_long(path, MAX_BODY)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
            return probe_words.unreachable(path, error)

    async def _judged(
        self, way: _Way, path: str, status: int, body: bytes, *, latency: int
    ) -> Answer:
        spec = way.spec
        if status in UNAUTHENTICATED and auth_mode(spec) is not AuthMode.NONE:
            return Answer(
                ok=True,
                reason=reasons.ALIVE_UNAUTHENTICATED,
                message=f"{probe_words.answers(path, status)} {_refused(way)}",
                latency_ms=latency,
            )
        if not 200 <= status < 300:
            return _failed(probe_words.answers(path, status) + probe_words.hint(status))
        models, trouble = await self._discovered(way, path, body)
        return Answer(
            ok=True,
            reason=reasons.PROBE_SUCCEEDED,
            message=probe_words.answers(path, status) + trouble,
            latency_ms=latency,
            models=models,
        )

    async def _discovered(
        self, way: _Way, path: str, body: bytes
    ) -> tuple[tuple[DiscoveredModel, ...] | None, str]:
        """The model list, or why there is none; alive is alive, whatever its list is worth."""
        list_path = models_path(way.spec)
        if way.spec.models is not None:
            return None, ""
        found = (200, body) if path == list_path else await self._tried(way, list_path)
        try:
            return parse_models(_listing(found, list_path)), ""
        except ValueError as error:
            closed = not isinstance(found, str) and found[0] in UNAUTHENTICATED
            unread = _unread(way) if closed else ""
            return None, probe_words.no_models(error, unread=unread)

    async def _get(self, way: _Way, path: str) -> tuple[int, bytes]:
        place, tls = endpoint(way.spec), way.spec.tls
        extensions = {"sni_hostname": tls.server_name} if tls and tls.server_name else {}
        async with (
            self._connected(way) as client,
            client.stream(
                "GET", place.origin + path, headers=way.headers, extensions=extensions
            ) as answer,
        ):
            if answer.headers.get("content-encoding", "identity") != "identity":
                return answer.status_code, b""  # not asked for, and a bomb for all we know
            body = bytearray()
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > MAX_BODY:
                    raise TooMuch
            return answer.status_code, bytes(body)

    @asynccontextmanager
    async def _connected(self, way: _Way) -> AsyncIterator[httpx.AsyncClient]:
        if way.ca is not None:
            async with self._client(way.ca) as client:
                yield client
            return
        tls = way.spec.tls
        unverified = tls is not None and (tls.insecure_skip_verify or tls.ca_secret_ref is not None)
        yield self._clients[not unverified]


def _trust(ca: str | None) -> ssl.SSLContext | None:
    """A context that trusts this CA alone, None if there is none or it is none."""
    try:
        return ssl.create_default_context(cadata=ca) if ca else None
    except ssl.SSLError:
        return None


def _refused(way: _Way) -> str:
    """To whom a backend answers 401 or 403, and what to do where that leaves its models unknown."""
    ref = _ref(way.spec)
    shown = (ref.name, ref.key) if way.key is not None and ref is not None else None
    if way.spec.models is not None:
        return probe_words.alive(shown)
    return probe_words.alive_without_models(shown, unread=_unread(way))


def _unread(way: _Way) -> str:
    """The Secret whose key could not be shown, "" if none."""
    ref = _ref(way.spec)
    return "" if ref is None or way.key is not None else ref.name


def _ref(spec: LLMBackendSpec) -> SecretKeyRef | None:
    """Where the backend's key is."""
    return spec.auth.secret_ref if spec.auth and auth_mode(spec) is AuthMode.SECRET else None


def _listing(found: tuple[int, bytes] | str, path: str) -> bytes:
    """The body of a list that was answered well; ValueError otherwise."""
    if isinstance(found, str):
        raise ValueError(found)
    status, body = found
    if not 200 <= status < 300:
        raise ValueError(probe_words.answers(path, status))
    return body


def _failed(message: str) -> Answer:
    return Answer(ok=False, reason=reasons.PROBE_FAILED, message=message)
