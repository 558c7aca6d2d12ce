"""The idle connections to one origin, and the only place where new ones are made.

Promises that a connection is used by one exchange at a time, that the most recently used is taken
first, and that none is taken which has idled long enough for its server to be closing it, as far as
the server says (`Keep-Alive: timeout=`) or has shown when that is; and that none is used for ever:
behind one address there may be pods that came later. A task exists for a new connection only, and
only until it stands.
"""

from __future__ import annotations

import asyncio
import random as chance
from typing import TYPE_CHECKING

from nexus_proxy.http.dial import dial
from nexus_proxy.http.upstream import UpstreamConnection

if TYPE_CHECKING:
    from nexus_proxy.http.exchange import Exchange
    from nexus_proxy.http.gateway import Gateway
    from nexus_proxy.routing.candidate import Backend, Origin

MAX_IDLE_SECONDS = 55.0  # load balancers and firewalls forget a connection after 60 s or more
# uvicorn, the server under most backends, closes after 5 s.
SAFE_IDLE_SECONDS = 4.0
MOST_BEYOND = 8  # of a burst's connections so many idle for longer than that
MARGIN_SECONDS = 1.0
LONGER = 1.25
MAX_AGE_SECONDS = (240.0, 360.0)  # not all at once


class Pool:
    """Connections to `origin`; `retired` once its backend has moved elsewhere; `patience` is how
    many seconds one may idle: shorter when the server has closed one before, longer again with each
    that it left open.
    """

    __slots__ = (
        "__weakref__",
        "_gateway",
        "_idle",
        "_name",
        "_told",
        "origin",
        "patience",
        "retired",
    )

    def __init__(self, gateway: Gateway, origin: Origin) -> None:
        self.origin = origin
        self.retired = False
        self.patience = MAX_IDLE_SECONDS
        self._told = -1.0
        self._gateway = gateway
        self._name = gateway.resolver.name(origin.host)
        self._idle: list[UpstreamConnection] = []

    def take(self, now: float) -> UpstreamConnection | None:
        """An idle connection that may be used, or None."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if now - connection.idle_since < self.patience:
                return connection
            connection.transport.abort()
        return None

    def put(self, connection: UpstreamConnection) -> None:
        """Keep a connection whose exchange is over."""
        now = self._gateway.now
        if self.retired or now >= connection.until:
            connection.transport.abort()
            return
        connection.idle_since = now
        self._idle.append(connection)

    def told(self, seconds: float) -> None:
        """The server says how long it lets connections idle."""
        if seconds != self._told:
            self._told = seconds
            safe = max(seconds - MARGIN_SECONDS, seconds / 2)
            self.patience = min(safe, MAX_IDLE_SECONDS)

    def drop(self, connection: UpstreamConnection) -> None:
        """Forget a connection that is of no use any more."""
        if connection in self._idle:
            self._idle.remove(connection)

    def closed(self, connection: UpstreamConnection) -> None:
        """Forget a connection that its server closed, idle or not."""
        if connection not in self._idle:
            return
        self._idle.remove(connection)
        idled = self._gateway.clock() - connection.idle_since
        if self._told < 0:
            # What it idled is counted from the tick before: up to a second too much.
            learnt = max(SAFE_IDLE_SECONDS, idled - 1.0 - MARGIN_SECONDS)
            self.patience = min(self.patience, learnt)

    def expire(self, now: float) -> None:
        """Close what has idled too long, or leads to an address that its name has no more; called
        at every tick.
        """
        idle = self._idle
        while idle and now - idle[0].idle_since >= self._allowed(len(idle)):
            if now - idle[0].idle_since >= self.patience and self._told < 0:
                self.patience = min(self.patience * LONGER, MAX_IDLE_SECONDS)
            idle.pop(0).transport.abort()
        if idle and not self._name.fixed:
            self._name.used = now
            recent = self._name.recent
            for connection in [each for each in idle if each.address not in recent]:
                idle.remove(connection)
                connection.transport.abort()

    def _allowed(self, number: int) -> float:
        return self.patience if number <= MOST_BEYOND else min(self.patience, SAFE_IDLE_SECONDS)

    def retire(self) -> None:
        """Close what is idle now, and each connection in use when it comes back."""
        self.retired = True
        while self._idle:
            self._idle.pop().transport.abort()

    @property
    def idle(self) -> int:
        return len(self._idle)

    def connect(self, exchange: Exchange) -> asyncio.Task[None]:
        """Begin a new connection for `exchange`, which is told how it went."""
        self._gateway.counters.upstream_connects += 1
        return asyncio.get_running_loop().create_task(self._connect(exchange))

    @property
    def late(self) -> str:
        """Why a connection that was begun does not stand yet."""
        name = self._name
        return "no connection in time" if name.known else f"no address of {name.host} in time"

    async def _connect(self, exchange: Exchange) -> None:
        connection: UpstreamConnection | None = None
        failed = ""
        try:
            connection = await dial(
                self.origin,
                await self._gateway.resolver.addresses(self._name),
                lambda: UpstreamConnection(self),
                failed=self._shun,
            )
        except (OSError, UnicodeError) as error:
            failed = str(error) or type(error).__name__
        try:
            if connection is not None:
                connection.until = self._gateway.clock() + chance.uniform(*MAX_AGE_SECONDS)
                exchange.connected(connection)
            else:
                exchange.connect_failed(failed)
        except Exception as error:
            exchange.client.crashed(error)

    def _shun(self, address: str) -> None:
        self._name.shun(address, self._gateway.now)


def pool_of(backend: Backend, gateway: Gateway) -> Pool:
    """The pool of a backend, a new one when its origin has changed."""
    pool = backend.pool
    origin = backend.origin
    if pool is not None and pool.origin is origin:
        return pool  # type: ignore[no-any-return]
    if pool is not None:
        if pool.origin == origin:
            pool.origin = origin
            return pool  # type: ignore[no-any-return]
        gateway.pools.discard(pool)
        pool.retire()
    backend.pool = pool = Pool(gateway, origin)
    gateway.pools.add(pool)
    return pool
