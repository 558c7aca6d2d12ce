"""The operator's HTTP server: liveness, readiness, metrics, statistics, and the intake's address.

Promises that it listens as soon as the process works on anything, that `/readyz` says in one line
why not, and that a stop lets every request in hand finish. What a page says comes from elsewhere.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from nexus_operator.problems import Fatal, port_taken
from nexus_operator.settings import Settings
from nexus_quality.report import MAX_BYTES

DRAIN_SECONDS = 10.0
RETRY_AFTER_SECONDS = "2"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """`why_not_ready` gives the line for `/readyz`, None when ready."""

    def __init__(
        self,
        *,
        settings: Settings,
        why_not_ready: Callable[[], str | None],
        metrics_page: Callable[[], bytes],
        stats_page: Callable[[], dict[str, Any]],
        intake: Handler,
    ) -> None:
        self._settings = settings
        self._why_not_ready = why_not_ready
        self._metrics_page = metrics_page
        self._stats_page = stats_page
        self._intake = intake
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        """Listens; raises `Fatal` when the address is taken or the certificate unusable."""
        app = web.Application(client_max_size=MAX_BYTES)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/stats", self._stats)
        app.router.add_post("/v1/outcomes", self._outcomes)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=DRAIN_SECONDS)
        await runner.setup()
        host, port = self._settings.host, self._settings.port
        site = web.TCPSite(runner, host, port, ssl_context=self._tls())
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise port_taken(host, port, error) from None
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def stop(self) -> None:
        """Accepts no more, and lets requests in hand finish."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _tls(self) -> ssl.SSLContext | None:
        certificate, key = self._settings.tls_cert_file, self._settings.tls_key_file
        if certificate is None or key is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise Fatal(
                f"--tls-cert-file {certificate} and --tls-key-file {key}: {error}"
            ) from None
        return context

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reason = self._why_not_ready()
        if reason is None:
            return web.Response(text="ok\n")
        return web.Response(status=503, text=f"{reason}\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics_page(), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def _stats(self, _: web.Request) -> web.Response:
        return web.Response(
            body=json.dumps(self._stats_page()).encode(), content_type="application/json"
        )

    async def _outcomes(self, request: web.Request) -> web.StreamResponse:
        reason = self._why_not_ready()
        if reason is not None:
            again = {"Retry-After": RETRY_AFTER_SECONDS}
            return web.json_response({"error": reason}, status=503, headers=again)
        return await self._intake(request)
