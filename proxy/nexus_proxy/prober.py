"""The standalone mode's health probes and model discovery, one task per backend.

It asks a backend's health path each period, and its model list where the manifest names no models,
with the same credentials and TLS as traffic, at an address that a resolver of the byte path's kind
remembers: a name that cannot be looked up makes no backend sick. What the answers mean is
`nexus_quality.health`'s business.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from nexus_api import ConditionStatus, DiscoveredModel, LLMBackend, reasons, resolve
from nexus_proxy.http.resolver import Name, Resolver
from nexus_proxy.routing.candidate import Backend
from nexus_quality.health import Health, after_probe, eager, parse_models

# Plain HTTP needs no trust store; a TLS backend whose CA is missing must not be asked without one.
_NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

# First probes do not start all at once: requests are served between them.
APART_SECONDS = 0.005
# A probe that waited for others' connections would time out for their slowness.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)

_log = logging.getLogger("nexus.proxy.standalone")


@dataclass(slots=True)
class _Client:
    """A client of one trust; `users` are the probes under way with it."""

    http: httpx.AsyncClient
    users: int = 0


Probed = Callable[[str, Health, "tuple[DiscoveredModel, ...] | None"], None]


class Prober:
    """Probes the backends it is told of. `probed(uid, health, models)` is called after each
    probe.
    """

    def __init__(
        self,
        *,
        backend_of: Callable[[str], Backend | None],
        random: Callable[[], float],
        resolver: Resolver | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._backend_of = backend_of
        self._random = random
        self._resolver = resolver
        self._names: dict[str, Name] = {}  # by UID: what nobody holds is forgotten
        self._transport = transport
        self._tasks: dict[str, tuple[LLMBackend, asyncio.Task[None]]] = {}
        self._clients: dict[ssl.SSLContext | None, _Client] = {}

    def watch(self, backends: tuple[LLMBackend, ...], probed: Probed) -> None:
        """Probe these backends from now on, and no others."""
        wanted = {b.metadata.uid: b for b in backends if b.spec.health_check.enabled}
        for uid, (known, task) in list(self._tasks.items()):
            if uid not in wanted or wanted[uid].spec != known.spec:
                task.cancel()
                del self._tasks[uid]
                self._names.pop(uid, None)
        for order, uid in enumerate(wanted.keys() - self._tasks.keys()):
            first = self._probe_forever(wanted[uid], probed, wait=order * APART_SECONDS)
            self._tasks[uid] = (wanted[uid], asyncio.create_task(first))

    async def _probe_forever(self, backend: LLMBackend, probed: Probed, *, wait: float) -> None:
        health, period = Health(), backend.spec.health_check.period_seconds
        await asyncio.sleep(wait)
        for tries in itertools.count():
            after, models = await self.probe(backend, health)
            soon = eager(health, tries) if after.failures else None
            # Of those in quick succession the first failure alone counts.
            if soon is None or tries == 0:
                health = after
                probed(backend.metadata.uid, health, models)
            await asyncio.sleep(min(soon or period, period) * (0.9 + 0.2 * self._random()))

    async def probe(
        self, backend: LLMBackend, health: Health
    ) -> tuple[Health, tuple[DiscoveredModel, ...] | None]:
        """One probe: the health after it, and the models if they were asked for and answered."""
        check = backend.spec.health_check
        latency_ms: int | None = None
        models: tuple[DiscoveredModel, ...] | None = None
        try:
            response, latency_ms = await self._get(backend, resolve.health_path(backend.spec))
            ok, reason, message = _judged(response)
            if ok and backend.spec.models is None:
                models = await self._discover(backend, response)
        except (httpx.TransportError, OSError, ValueError) as error:
            detail = " ".join(str(error).split()) or type(error).__name__
            ok, reason, message = False, reasons.PROBE_FAILED, detail
        if not ok and not health.failures and health.status is not ConditionStatus.FALSE:
            name = f"{backend.metadata.namespace}/{backend.metadata.name}"
            _log.warning("%s: probe 1 of %d failed: %s", name, check.failure_threshold, message)
        after = after_probe(
            health,
            ok=ok,
            reason=reason,
            message=message,
            failure_threshold=check.failure_threshold,
            success_threshold=check.success_threshold,
            latency_ms=latency_ms,
            now=time.monotonic(),
        )
        return after, models

    async def _discover(
        self, backend: LLMBackend, answered: httpx.Response
    ) -> tuple[DiscoveredModel, ...]:
        path = resolve.models_path(backend.spec)
        if answered.request.url.path != path:
            answered, _ = await self._get(backend, path)
        if answered.status_code != httpx.codes.OK:
            raise ValueError(f"the model list answered {answered.status_code}: write models[]")
        return parse_models(answered.content)

    async def _get(self, backend: LLMBackend, path: str) -> tuple[httpx.Response, int]:
        """The answer, and how many milliseconds it took, set-up left out."""
        live = self._backend_of(backend.metadata.uid)
        origin = live.origin if live else None
        place = resolve.endpoint(backend.spec)
        headers = {"host": place.authority}
        if live and live.credentials.header_line:
            name, _, value = live.credentials.header_line.decode("ascii").partition(":")
            headers[name] = value.strip()
        checked = origin.server_name if origin and origin.server_name else place.host
        extensions = {"sni_hostname": checked} if place.tls else {}
        async with self._client(origin.tls if origin else None) as client:
            began = time.monotonic()
            response = await self._ask(client, backend, path, headers, extensions)
            return response, max(1, round((time.monotonic() - began) * 1000))

    async def _ask(
        self,
        client: httpx.AsyncClient,
        backend: LLMBackend,
        path: str,
        headers: Mapping[str, str],
        extensions: Mapping[str, str],
    ) -> httpx.Response:
        """What the first address says that takes a connection."""
        place, seconds = resolve.endpoint(backend.spec), backend.spec.health_check.timeout_seconds
        failed: httpx.ConnectError | None = None
        for address in await self._addresses(backend.metadata.uid, place.host, seconds):
            url = place._replace(host=address).origin + path
            try:
                return await client.get(
                    url, headers=headers, timeout=float(seconds), extensions=dict(extensions)
                )
            except httpx.ConnectError as error:
                failed = error
        assert failed is not None, "a resolver has an address or says why not"
        raise failed

    async def _addresses(self, uid: str, host: str, seconds: int) -> tuple[str, ...]:
        if self._resolver is None:
            return (host,)
        name = self._names[uid] = self._resolver.name(host)
        try:
            async with asyncio.timeout(seconds):
                return await self._resolver.addresses(name)
        except TimeoutError:
            raise OSError(f"no address of {host} in time") from None

    @asynccontextmanager
    async def _client(self, context: ssl.SSLContext | None) -> AsyncIterator[httpx.AsyncClient]:
        client = self._clients.get(context)
        if client is None:
            await self._close_unused()
            made = httpx.AsyncClient(
                transport=self._transport,
                verify=context or _NO_TRUST,
                trust_env=False,
                limits=_LIMITS,
            )
            client = self._clients.setdefault(context, _Client(made))
        client.users += 1
        try:
            yield client.http
        finally:
            client.users -= 1

    async def _close_unused(self) -> None:
        """A new trust mostly takes the place of another: end those that no backend has any more."""
        backends = [self._backend_of(uid) for uid in self._tasks]
        trusts = {backend.origin.tls for backend in backends if backend is not None}
        for context, client in list(self._clients.items()):
            if context not in trusts and not client.users:
                del self._clients[context]
                await client.http.aclose()

    async def close(self) -> None:
        """Stop probing."""
        for _, task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*(t for _, t in self._tasks.values()), return_exceptions=True)
        self._tasks.clear()
        for client in self._clients.values():
            await client.http.aclose()


def _judged(response: httpx.Response) -> tuple[bool, str, str]:
    status = response.status_code
    if status < 400:
        return True, reasons.PROBE_SUCCEEDED, f"The probe was answered with {status}"
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return True, reasons.ALIVE_UNAUTHENTICATED, f"Alive: the probe was answered with {status}"
    return False, reasons.PROBE_FAILED, f"The probe was answered with {status}"
