"""Asks backends that refuse their key, now and then, whether they take it again.

Promises that a refusal that passes by itself (an outage of the provider's own accounts, say) needs
no person: while a key is out, the backend's model list is asked for with it each health-check
period, at once at first. Only a list that refused the key before says anything by taking it. It
never asks for a completion, decides nothing else, and asks nobody whose key is in use.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import httpx

from nexus_api import LLMBackend, resolve
from nexus_proxy.routing.candidate import Backend
from nexus_quality.monitor import Monitor

TICK_SECONDS = 1.0
JITTER = 0.1
CONCURRENCY = 4
REFUSED = (401, 403)
_NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(slots=True)
class _Case:
    """A key that is out. `refused`: the model list refused it, too."""

    serial: int
    due: float
    refused: bool = False


class KeyCheck:
    """`backends` are all there are, `live` what is known of one as a place to send requests to."""

    def __init__(
        self,
        *,
        monitor: Monitor,
        backends: Callable[[], Iterable[LLMBackend]],
        live: Callable[[str], Backend | None],
        clock: Callable[[], float],
        random: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._monitor = monitor
        self._backends = backends
        self._live = live
        self._clock = clock
        self._random = random
        self._transport = transport
        self._cases: dict[str, _Case] = {}

    async def run(self) -> None:
        """Looks once a second until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Asks those that are due."""
        now, out = self._clock(), self._monitor.refused_keys()
        self._cases = {
            uid: case for uid, case in self._cases.items() if out.get(uid) == case.serial
        }
        due = []
        for backend in self._backends() if out else ():
            uid = backend.metadata.uid
            if uid not in out or not backend.spec.health_check.enabled:
                continue
            case = self._cases.setdefault(uid, _Case(out[uid], now))
            if now >= case.due:
                due.append((backend, case))
        for start in range(0, len(due), CONCURRENCY):
            await asyncio.gather(*(self._ask(*one) for one in due[start : start + CONCURRENCY]))

    async def _ask(self, backend: LLMBackend, case: _Case) -> None:
        live, check = self._live(backend.metadata.uid), backend.spec.health_check
        wait = check.period_seconds * (1 + JITTER * (2 * self._random() - 1))
        case.due = self._clock() + wait
        if live is None or not live.credentials.header_line:
            return
        status = await self._status(backend, live)
        if status in REFUSED:
            case.refused = True
        elif case.refused and 200 <= status < 300:
            self._monitor.key_accepted(backend.metadata.uid, case.serial)

    async def _status(self, backend: LLMBackend, live: Backend) -> int:
        """The status of the model list asked for with the key, 0 without an answer."""
        spec, origin = backend.spec, live.origin
        name, _, value = live.credentials.header_line.decode("ascii").partition(":")
        try:
            async with (
                asyncio.timeout(spec.health_check.timeout_seconds),
                httpx.AsyncClient(
                    transport=self._transport, verify=origin.tls or _NO_TRUST, trust_env=False
                ) as client,
                client.stream(
                    "GET",
                    resolve.endpoint(spec).origin + resolve.models_path(spec),
                    headers={name: value.strip()},
                    extensions={"sni_hostname": origin.server_name} if origin.tls else {},
                ) as answer,
            ):
                return answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError):
            return 0
