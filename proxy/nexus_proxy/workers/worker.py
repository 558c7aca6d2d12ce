"""A worker: accepts and serves, with a breaker and a queue of its own, and knows what it is told.

Promises to serve only once it has a routing table, to tell everything before it ends, and to end
when its parent does: requests under way are then told so. It watches, probes and reports nothing.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import socket
from collections.abc import Mapping, Sequence

from nexus_proxy.clock import boot_clock
from nexus_proxy.core import Core, make_gateway, make_queue
from nexus_proxy.counters import Counters
from nexus_proxy.http.listener import listener_of
from nexus_proxy.routing.retry import ALWAYS_PER_SECOND, RetryBudget
from nexus_proxy.secrets import FileSecrets, MountedSecrets, NoSecrets, SecretSource
from nexus_proxy.settings import Settings
from nexus_proxy.workers.inbox import Inbox
from nexus_proxy.workers.link import Link
from nexus_proxy.workers.outbox import Outbox
from nexus_proxy.workers.wire import Abort, Drained, Peers, Serving, Stop, World, decode_down
from nexus_quality.peers import Sight

TICK_SECONDS = 1.0
SECRETS_SECONDS = 10

_log = logging.getLogger("nexus.proxy.workers")


class ParentGone(Exception):
    """The parent ended without a word."""


class Worker:
    """One worker of `settings.workers`, which accepts from `sockets`."""

    def __init__(
        self, settings: Settings, environ: Mapping[str, str], sockets: Sequence[socket.socket]
    ) -> None:
        self._sockets = sockets
        self._counters = counters = Counters()
        self._inbox = Inbox(_secrets(settings, environ))
        self._stop, self._abort, self._alone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._seconds = 0.0
        self._adopting: asyncio.Task[None] | None = None
        self._link = Link(self._take, self._alone.set)
        self._core = core = Core(
            secrets=self._inbox.secrets,
            shared=self._inbox.shared,
            utc=lambda now: now,  # the parent dates what is spent
            counters=counters,
            incarnation=secrets.token_hex(16),
            started=boot_clock(),
            on_urgent=lambda seconds: self._outbox.urgent(seconds),
            limits_of=self._inbox.limits_of,
            retries=RetryBudget(always=-(-ALWAYS_PER_SECOND // settings.workers)),
        )
        core.monitor.tell = self._link.send
        self._queue = make_queue(core, counters)
        self._gateway = make_gateway(core, counters, self._queue)
        self._gateway.listener = listener_of(settings)
        self._outbox = Outbox(
            core,
            counters,
            self._queue,
            beside=self._inbox.beside,
            send=self._link.send,
            behind=lambda: self._link.behind,
            clock=boot_clock,
        )

    async def run(self, pair: socket.socket) -> None:
        """Serve until the parent says stop. Raises ParentGone if it ends instead."""
        await self._link.open(pair)
        tasks = [asyncio.create_task(each) for each in (self._tick(), self._outbox.run())]
        ends = [asyncio.create_task(event.wait()) for event in (self._alone, self._stop)]
        try:
            done, _ = await asyncio.wait((*tasks, *ends), return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task in done:
                    task.result()
            whole = await self._drain()
        finally:
            for each in (*tasks, *ends):
                each.cancel()
            await asyncio.gather(*tasks, *ends, return_exceptions=True)
        if self._alone.is_set():
            raise ParentGone
        self._outbox.tell(everything=True)
        self._link.send(Drained(whole))
        self._link.close()
        await self._alone.wait()

    async def _drain(self) -> bool:
        """Let requests finish for as long as the parent allows and is there."""
        drain = asyncio.create_task(self._gateway.drain(self._seconds))
        cuts = [asyncio.create_task(event.wait()) for event in (self._abort, self._alone)]
        try:
            await asyncio.wait((drain, *cuts), return_when=asyncio.FIRST_COMPLETED)
            whole = drain.done() and drain.result()
        finally:
            for each in (drain, *cuts):
                each.cancel()
            await asyncio.gather(drain, *cuts, return_exceptions=True)
        if not whole:
            await self._gateway.cut_short()
        return whole

    def _take(self, body: bytes) -> None:
        message = decode_down(body)
        if isinstance(message, Sight):
            self._core.monitor.hear(message, boot_clock())
        elif isinstance(message, Peers):
            self._inbox.peers(message, self._core, self._queue)
        elif isinstance(message, World):
            self._world(message)
        elif isinstance(message, Stop):
            self._seconds = message.seconds
            self._stop.set()
        elif isinstance(message, Abort):
            self._abort.set()

    def _world(self, world: World) -> None:
        self._inbox.world(world, self._core, boot_clock())
        self._outbox.moved(world.gone)
        if self._adopting is None:
            gc.collect()
            gc.freeze()
            self._adopting = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        await self._gateway.adopt(self._sockets)
        self._link.send(Serving())

    async def _tick(self) -> None:
        beats = 0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = boot_clock()
            self._core.monitor.tick(now)
            self._gateway.tick(now)
            beats += 1
            due = beats % SECRETS_SECONDS == 0 or self._inbox.secrets.changed()
            if due and self._core.router.ready:
                self._core.control.reinstall()


def _secrets(settings: Settings, environ: Mapping[str, str]) -> SecretSource:
    if settings.manifests is not None:
        return FileSecrets({}, environ)
    return MountedSecrets(settings.credentials_dir) if settings.credentials_dir else NoSecrets()
