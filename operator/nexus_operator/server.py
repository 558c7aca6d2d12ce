"""The operator's HTTP server: liveness, readiness, metrics, statistics, and the intake's address.

Promises that it listens as soon as the process works on anything, that `/readyz` says in one line
why not, that a stop lets every request in hand finish, and that connections are bounded in number
and in the time they take to ask. What a page says comes from elsewhere; `page` adds the
addresses of the one for people.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from nexus_operator.body import expected
from nexus_operator.problems import port_taken
from nexus_operator.server_tls import ServerTls
from nexus_operator.settings import Settings
from nexus_quality.report import MAX_BYTES

DRAIN_SECONDS = 10.0
MAX_CONNECTIONS = 4096
FIRST_REQUEST_SECONDS = 10.0
IDLE_SECONDS = 75.0
UNREAD_SECONDS = 2.0
RETRY_AFTER_SECONDS = "2"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """`why_not_ready` gives the line for `/readyz`, None when ready."""

    def __init__(
        self,
        *,
        settings: Settings,
        why_not_ready: Callable[[], str | None],
        metrics_page: Callable[[], Awaitable[bytes]],
        stats_page: Callable[[], Awaitable[bytes]],
        intake: Handler,
        turned_away: Callable[[], None] = lambda: None,
        page: Callable[[web.Application], None] = lambda app: None,
        max_connections: int = MAX_CONNECTIONS,
        first_request_seconds: float = FIRST_REQUEST_SECONDS,
    ) -> None:
        self._settings = settings
        self._why_not_ready = why_not_ready
        self._metrics_page = metrics_page
        self._stats_page = stats_page
        self._intake = intake
        self._turned_away = turned_away
        self._page = page
        self._max_connections = max_connections
        self._first_request_seconds = first_request_seconds
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._silent: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}
        self.port = 0

    async def start(self) -> None:
        """Listens; raises `Fatal` when the address is taken or the certificate unusable."""
        app = web.Application(client_max_size=MAX_BYTES, middlewares=[self._note])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/stats", self._stats)
        app.router.add_post("/v1/outcomes", self._outcomes, expect_handler=expected)
        self._page(app)
        tls = self._tls()
        runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=DRAIN_SECONDS,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=UNREAD_SECONDS,
            auto_decompress=False,
        )
        await runner.setup()
        host, port = self._settings.host, self._settings.port
        loop = asyncio.get_running_loop()
        try:
            listener = await loop.create_server(
                self._connected,
                host,
                port,
                ssl=tls,
                ssl_handshake_timeout=self._first_request_seconds if tls else None,
                backlog=512,
            )
        except OSError as error:
            await runner.cleanup()
            raise port_taken(host, port, error) from None
        self._runner, self._listener = runner, listener
        self.port = listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Accepts no more, and lets requests in hand finish."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _connected(self) -> asyncio.BaseProtocol:
        """The protocol of a new connection."""
        serving = self._runner.server if self._runner else None
        if serving is None or len(serving.connections) >= self._max_connections:
            self._turned_away()
            return _TurnedAway()
        protocol = serving()
        self._silent[protocol] = asyncio.get_running_loop().call_later(
            self._first_request_seconds, self._overdue, protocol
        )
        return protocol

    def _overdue(self, protocol: web.RequestHandler) -> None:
        # aiohttp ends connections that idle after a request, but waits for ever for the first one.
        del self._silent[protocol]
        protocol.force_close()

    @web.middleware
    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if first := self._silent.pop(request.protocol, None):
            first.cancel()
        return await handler(request)

    def _tls(self) -> ssl.SSLContext | None:
        certificate, key = self._settings.tls_cert_file, self._settings.tls_key_file
        if certificate is None or key is None:
            return None
        return ServerTls(certificate, key).context

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reason = self._why_not_ready()
        if reason is None:
            return web.Response(text="ok\n")
        return web.Response(status=503, text=f"{reason}\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=await self._metrics_page(), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def _stats(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._stats_page(), content_type="application/json")

    async def _outcomes(self, request: web.Request) -> web.StreamResponse:
        reason = self._why_not_ready()
        if reason is not None:
            again = {"Retry-After": RETRY_AFTER_SECONDS}
            return web.json_response({"error": reason}, status=503, headers=again)
        return await self._intake(request)


class _TurnedAway(asyncio.Protocol):
    """A connection too many: closed as soon as it is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
