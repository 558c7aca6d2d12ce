"""One health probe of one backend: is it alive, and which models does it have?

Promises one `Answer` whatever happens on the way, within the backend's own timeout. No key is ever
sent: a backend with `auth` that answers 401 or 403 is alive, and its models stay as they were. A
certificate signed by a private CA is not verified, for the operator reads no Secrets; nothing
confidential travels, and the proxies verify what they send. Thresholds are not applied here.
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
    """What a probe found. `models` None: not asked, not said, or not readable."""

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
                headers={"User-Agent": "nexus-operator", "Accept": "application/json"},
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
        seconds = spec.health_check.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._ask(spec)
        except TimeoutError:
            return _failed(f"no answer within {seconds} s")
        except TooMuch:
            return _failed(f"the answer is longer than {MAX_BODY} bytes")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
            return _failed(" ".join(str(error).split()) or type(error).__name__)

    async def _ask(self, spec: LLMBackendSpec) -> Answer:
        path, list_path = health_path(spec), models_path(spec)
        began = self._monotonic()
        status, body = await self._get(spec, path)
        latency = max(1, round((self._monotonic() - began) * 1000))
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
        if spec.models is not None:
            models = None
        else:
            models = await self._discover(spec, body if path == list_path else None)
        return Answer(
            ok=True,
            reason=reasons.PROBE_SUCCEEDED,
            message=f"GET {path} answers {status}",
            latency_ms=latency,
            models=models,
        )

    async def _discover(
        self, spec: LLMBackendSpec, body: bytes | None
    ) -> tuple[DiscoveredModel, ...] | None:
        """The model list; a backend that is alive but does not say keeps what it had."""
        if body is None:
            status, body = await self._get(spec, models_path(spec))
            if not 200 <= status < 300:
                return None
        try:
            return parse_models(body)
        except ValueError:
            return None

    async def _get(self, spec: LLMBackendSpec, path: str) -> tuple[int, bytes]:
        place, tls = endpoint(spec), spec.tls
        unverified = tls is not None and (tls.insecure_skip_verify or tls.ca_secret_ref is not None)
        extensions = {"sni_hostname": tls.server_name} if tls and tls.server_name else {}
        client = self._clients[not unverified]
        async with client.stream("GET", place.origin + path, extensions=extensions) as answer:
            body = bytearray()
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > MAX_BODY:
                    raise TooMuch
            return answer.status_code, bytes(body)


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
