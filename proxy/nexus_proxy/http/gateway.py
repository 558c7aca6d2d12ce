"""The listening side of the byte path: server, clock tick, drain.

Promises that time is told once: by the wheel at each `tick` and nowhere else, so no request costs a
timer, and a tick looks at those alone whose deadline has come. It makes no decisions about
requests.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from nexus_proxy.http.acceptor import Acceptor, bind
from nexus_proxy.http.downstream import ClientConnection
from nexus_proxy.http.listener import Listener
from nexus_proxy.http.resolver import Resolver
from nexus_proxy.http.wheel import Wheel

if TYPE_CHECKING:
    from nexus_proxy.counters import Counters
    from nexus_proxy.http.exchange import Exchange
    from nexus_proxy.http.pool import Pool
    from nexus_proxy.routing.candidate import Backend
    from nexus_proxy.routing.queue import Queue
    from nexus_proxy.routing.router import Routing
    from nexus_quality.spend import Spending

MAX_BODY_BYTES = 64 * 1024 * 1024
BACKLOG = 2048
CRASH_LOG_SECONDS = 10.0
LAST_WORDS_SECONDS = 1.0  # for clients to take the end of what is cut short
MAX_CLIENTS = 1 << 20


_log = logging.getLogger("nexus.proxy")


class Gateway:
    """Serves clients through `router`; `clock` gives the same seconds that `tick` is called with;
    `queue` is where requests wait, if the router has any wait; `spending` counts what they cost;
    connections beyond `max_clients` are told to come back; `resolver` knows where names lead.

    `listener` says how clients come in and is set before they do. `now` is the time of the last
    tick, good enough for everything that is compared at ticks.
    """

    def __init__(
        self,
        *,
        router: Routing,
        clock: Callable[[], float],
        counters: Counters,
        queue: Queue | None = None,
        spending: Spending | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_clients: int = MAX_CLIENTS,
        resolver: Resolver | None = None,
    ) -> None:
        self.router = router
        self.clock = clock
        self.counters = counters
        self.queue = queue
        self._spending = spending
        self.max_body_bytes = max_body_bytes
        self.max_clients = max_clients
        self.resolver = resolver or Resolver(clock=clock, told=counters.looked_up)
        self.listener = Listener()
        self.now = clock()
        self._crashes = 0
        self._silent_until = self.now
        self.draining = False
        self.exchanges: set[Exchange] = set()
        self.clients: set[ClientConnection] = set()
        self.wheel: Wheel[ClientConnection] = Wheel()
        self.pools: weakref.WeakSet[Pool] = weakref.WeakSet()
        self.port = 0
        self._servers: list[asyncio.Server] = []
        self._acceptor: Acceptor | None = None  # of clients that are to speak TLS
        self._emptied: asyncio.Event = asyncio.Event()

    async def start(self, host: str, port: int) -> None:
        """Listen; `port` 0 takes a free one, found in `self.port`. Raises OSError if it cannot."""
        if self.listener.tls is not None:
            bound = bind(host, port, backlog=BACKLOG)
            self.port = bound[0].getsockname()[1]
            await self.adopt(bound)
            return
        await self._listen(host=host, port=port)
        sockets = cast(Any, self._servers[0]).sockets  # uvloop's are in a list, not in a tuple
        self.port = sockets[0].getsockname()[1]

    async def adopt(self, sockets: Iterable[socket.socket]) -> None:
        """Accept from sockets that somebody else has bound."""
        for each in sockets:
            if self.listener.tls is None:
                await self._listen(sock=each)
            else:
                self._acceptor_of_tls().listen(each)

    def _acceptor_of_tls(self) -> Acceptor:
        if self._acceptor is None:
            self._acceptor = Acceptor(
                lambda: ClientConnection(self),
                room=lambda: self.max_clients - len(self.clients),
                turned_away=self._turned_away,
                options=self.listener.options(),
            )
        return self._acceptor

    def _turned_away(self) -> None:
        self.counters.turned_away += 1

    async def _listen(self, **where: Any) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: ClientConnection(self), backlog=BACKLOG, **where)
        self._servers.append(server)

    def tick(self, now: float) -> None:
        """Once a second (or more often): end what has waited too long."""
        self.now = now
        for client in self.wheel.take(now):
            when = now
            try:
                when = client.check(now)
            except Exception as error:
                client.crashed(error)
            if client in self.clients:
                self.wheel.by(client, when)
        for pool in tuple(self.pools):
            pool.expire(now)
        self.resolver.tick(now)
        self.listener.look()
        if self._acceptor is not None:
            self._acceptor.tick()

    def charge(self, backend: Backend, nano_usd: int, now: float, *, estimated: bool) -> None:
        """An attempt cost so much."""
        costs, basis = self.counters.costs, "estimate" if estimated else "usage"
        costs[basis] = costs.get(basis, 0) + nano_usd
        if self._spending is not None:
            self._spending.charge(backend.namespace, nano_usd, now)

    def report_crash(self, error: Exception) -> None:
        """The byte path itself failed: one log line, and none for the next seconds."""
        self._crashes += 1
        if self.now >= self._silent_until:
            self._silent_until = self.now + CRASH_LOG_SECONDS
            text = "the proxy failed on a request (%d so far): %s"
            _log.error(text, self._crashes, error, exc_info=error)

    def forget(self, client: ClientConnection) -> None:
        """A client connection is gone."""
        self.clients.discard(client)
        self.wheel.drop(client)
        self.counters.active_downstreams -= 1
        if not self.clients:
            self._emptied.set()

    async def drain(self, timeout: float) -> bool:
        """Accept no connection more, let running requests finish; after `timeout` seconds end them,
        and say so to each client. Idle connections may send one request more, for 2 seconds.

        True when every request could finish.
        """
        self.draining = True
        if self.queue is not None:
            self.queue.closed = True
        for server in self._servers:
            server.close()
        if self._acceptor is not None:
            self._acceptor.close()
        for client in tuple(self.clients):
            client.drain()
        finished = await self._empty(timeout)
        await self.cut_short()
        return finished

    async def cut_short(self) -> None:
        """End everything now: streams with an error event, what is unanswered with a 503."""
        if self._acceptor is not None:
            self._acceptor.cut_short()
        for client in tuple(self.clients):
            client.cut_short()
        await self._empty(LAST_WORDS_SECONDS)
        for client in tuple(self.clients):
            client.transport.abort()
        for pool in tuple(self.pools):
            pool.retire()
        self.resolver.close()
        await self._empty(1.0)

    async def _empty(self, timeout: float) -> bool:
        self._emptied.clear()
        if not self.clients:
            return True
        try:
            # Not wait_for: the last client's end would swallow a cancellation.
            async with asyncio.timeout(timeout):
                await self._emptied.wait()
        except TimeoutError:
            return False
        return True
