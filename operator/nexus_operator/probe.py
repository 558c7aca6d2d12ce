"""One health probe of one backend: is it alive, and which models does it have?

Promises one `Answer` whatever happens on the way, each request within the backend's own timeout
and a bound on what is read. Only lists and health pages are asked for, never a completion, which
could cost money. No key is ever sent: a backend with `auth` that answers 401 or 403 is alive, and
its models stay as they were; so do those of one whose list is slow, huge or garbage. A certificate
signed by a private CA is not verified, for the operator reads no Secrets; nothing confidential
travels, and the proxies verify what they send. Thresholds are not applied here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from nexus_api import AuthMode, DiscoveredModel, LLMBackendSpec, reasons
from nexus_api.resolve import auth_mode, endpoint, health_path, models_path
from nexus_quality.health import parse_models

MAX_BODY = 4 * 1024 * 1024
UNAUTHENTICATED = (401, 403)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a probe found. `models` None: not asked, not said, or not readable (`message` why)."""

    ok: bool
    reason: str
    message: str
    latency_ms: int | None = None
    models: tuple[DiscoveredModel, ...] | None = None


class TooMuch(Exception):
    """A body beyond the limit."""


class Doorbell:
    """Two connection pools, one that verifies certificates and one that does not."""

    def __init__(
        self,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._clients = {
            verify: httpx.AsyncClient(
                verify=verify,
                transport=transport,
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
            for verify in (True, False)
        }

    async def close(self) -> None:
        """Closes both pools."""
        for client in self._clients.values():
            await client.aclose()

    async def ring(self, spec: LLMBackendSpec) -> Answer:
        """Probes once."""
        path = health_path(spec)
        began = self._monotonic()
        found = await self._tried(spec, path)
        if isinstance(found, str):
            return _failed(found)
        latency = max(1, round((self._monotonic() - began) * 1000))
        return await self._judged(spec, path, *found, latency=latency)

    async def _tried(self, spec: LLMBackendSpec, path: str) -> tuple[int, bytes] | str:
        """Status and body of an answer, or in one line why there is none."""
        seconds = spec.health_check.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._get(spec, path)
        except TimeoutError:
            return f"GET {path}: no answer within {seconds} s"
        except TooMuch:
            return f"GET {path}: the answer is longer than {MAX_BODY} bytes"
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
            return f"GET {path}: {' '.join(str(error).split()) or type(error).__name__}"

    async def _judged(
        self, spec: LLMBackendSpec, path: str, status: int, body: bytes, *, latency: int
    ) -> Answer:
        if status in UNAUTHENTICATED and auth_mode(spec) is not AuthMode.NONE:
            message = f"GET {path} answers {status} without a key: alive"
            return Answer(
                ok=True,
                reason=reasons.ALIVE_UNAUTHENTICATED,
                message=message,
                latency_ms=latency,
            )
        if not 200 <= status < 300:
            return _failed(f"GET {path} answers {status}{_hint(spec, status)}")
        models, trouble = await self._discovered(spec, path, body)
        return Answer(
            ok=True,
            reason=reasons.PROBE_SUCCEEDED,
            message=f"GET {path} answers {status}{trouble}",
            latency_ms=latency,
            models=models,
        )

    async def _discovered(
        self, spec: LLMBackendSpec, path: str, body: bytes
    ) -> tuple[tuple[DiscoveredModel, ...] | None, str]:
        """The model list, or why there is none; alive is alive, whatever its list is worth."""
        list_path = models_path(spec)
        if spec.models is not None:
            return None, ""
        found = (200, body) if path == list_path else await self._tried(spec, list_path)
        try:
            return parse_models(_listing(found, list_path)), ""
        except ValueError as error:
            return None, f"; its models are unknown ({error}): write spec.models"

    async def _get(self, spec: LLMBackendSpec, path: str) -> tuple[int, bytes]:
        place, tls = endpoint(spec), spec.tls
        unverified = tls is not None and (tls.insecure_skip_verify or tls.ca_secret_ref is not None)
        extensions = {"sni_hostname": tls.server_name} if tls and tls.server_name else {}
        client = self._clients[not unverified]
        async with client.stream("GET", place.origin + path, extensions=extensions) as answer:
            if answer.headers.get("content-encoding", "identity") != "identity":
                return answer.status_code, b""  # not asked for, and a bomb for all we know
            body = bytearray()
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > MAX_BODY:
                    raise TooMuch
            return answer.status_code, bytes(body)


def _listing(found: tuple[int, bytes] | str, path: str) -> bytes:
    """The body of a list that was answered well; ValueError otherwise."""
    if isinstance(found, str):
        raise ValueError(found)
    status, body = found
    if not 200 <= status < 300:
        raise ValueError(f"GET {path} answers {status}")
    return body


def _failed(message: str) -> Answer:
    return Answer(ok=False, reason=reasons.PROBE_FAILED, message=message)


def _hint(spec: LLMBackendSpec, status: int) -> str:
    if status in UNAUTHENTICATED:
        return ": it wants credentials, give it spec.auth"
    if 300 <= status < 400:
        return ": redirects are not followed, write the final address in spec.url"
    if status == 404:
        return ": set spec.healthCheck.path to an address it serves"
    return ""
