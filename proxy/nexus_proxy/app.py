"""The process: wires source, monitor, router, byte path, reports and administration, runs them,
drains them.

SIGTERM or SIGINT stops listening and lets every request in flight finish; a second signal, or the
end of the drain time, ends them with an error that says so. Exit codes: 0 stopped as asked, 1
failed, 2 wrong usage. Each failure that a person can mend is one line.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random as chance
import secrets
import signal
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.process_collector import ProcessCollector

from nexus_proxy.admin.metrics import ProxyCollector
from nexus_proxy.admin.routes import AdminRoutes
from nexus_proxy.admin.server import AdminServer
from nexus_proxy.admin.stats import stats
from nexus_proxy.build import build
from nexus_proxy.clock import boot_clock
from nexus_proxy.cluster import ClusterSource
from nexus_proxy.control import Objects
from nexus_proxy.core import Core, make_gateway
from nexus_proxy.counters import Counters
from nexus_proxy.http.listener import listener_of
from nexus_proxy.keycheck import KeyCheck
from nexus_proxy.kube.kubeconfig import find_access
from nexus_proxy.reporting import Reporter
from nexus_proxy.settings import Address, Settings
from nexus_proxy.source import Source

if TYPE_CHECKING:
    from nexus_proxy.workers.crew import Crew

TICK_SECONDS = 1.0
SECRETS_SECONDS = 10

_log = logging.getLogger("nexus.proxy")


class CannotListen(Exception):
    """A port could not be taken; the message names it and the flag."""


class Front(Protocol):
    """What serves the clients: a gateway in this process, or workers."""

    port: int

    async def start(self, host: str, port: int) -> None: ...

    def tick(self, now: float) -> None: ...

    async def drain(self, timeout: float) -> bool: ...

    async def cut_short(self) -> None: ...


class Application:
    """One proxy: this process alone, or the parent of its workers."""

    def __init__(self, settings: Settings, source: Source, counters: Counters) -> None:
        self._settings = settings
        self._source = source
        self._started = boot_clock()
        self._reporter = Reporter(
            deliver=source.deliver, clock=boot_clock, random=chance.random, counters=counters
        )
        self._listener = listener_of(settings)
        crew = _crew(settings, source, counters)
        core = Core(
            secrets=source.secrets,
            shared=crew.noting(source.shared) if crew else source.shared,
            utc=source.utc,
            counters=counters,
            incarnation=secrets.token_hex(16),
            started=self._started,
            on_urgent=self._reporter.urgent,
        )
        self.router, self._monitor, self._control = core.router, core.monitor, core.control
        self._reporter.attach(self._monitor)
        self._keys = KeyCheck(
            monitor=self._monitor,
            backends=lambda: self._control.objects.backends,
            live=lambda uid: self._control.table.backends.get(uid),
            clock=boot_clock,
            random=chance.random,
        )
        source.bind(self._control, self._monitor, self._apply)
        self.front: Front
        if crew is None:
            self.front = gateway = make_gateway(core, counters)
            gateway.listener = self._listener
        else:
            self.front = crew
            crew.attach(core)
        self._routes = self._admin_routes(counters, crew)
        self.admin = AdminServer(self._routes.answer)

    def _admin_routes(self, counters: Counters, crew: Crew | None) -> AdminRoutes:
        registry = CollectorRegistry(auto_describe=False)
        waits = self._waits_for if crew is None else lambda: self._waits_for() or crew.lacking()
        ready = lambda: not waits()  # noqa: E731
        registry.register(ProxyCollector(counters, self.router, self._source.metrics, ready=ready))
        if crew is None:
            ProcessCollector(registry=registry)
        else:
            from nexus_proxy.admin.processes import Processes

            registry.register(Processes(crew.pids))
            registry.register(crew)
        return AdminRoutes(
            router=self.router,
            registry=registry,
            stats=lambda: stats(
                self.router.table,
                counters,
                self._source.quality_of,
                uptime_seconds=boot_clock() - self._started,
                budget=self._control.budget_stats(),
            ),
            clock=boot_clock,
            waits_for=waits,
        )

    def _waits_for(self) -> str:
        """What routing waits for, "" once there is a table."""
        return "" if self.router.ready else self._source.waiting_for()

    def _apply(self, objects: Objects) -> None:
        was_ready = self.router.ready
        self._control.apply(objects, boot_clock())
        if not was_ready:
            took = boot_clock() - self._started
            _log.info("ready after %.2f s with %d backends", took, len(objects.backends))
            # What lives from here to the end need not be looked at by every collection.
            gc.collect()
            gc.freeze()

    async def start(self) -> None:
        """Listen on both addresses. Raises CannotListen."""
        await _listen(self.admin, self._settings.admin_listen, "--admin-listen")
        await _listen(self.front, self._settings.listen, "--listen")
        listen, admin = self._settings.listen, self._settings.admin_listen
        where = Address(listen.host, self.front.port)
        _log.info("serving on %s%s (%s)", where, self._listener, build())
        _log.info("health and metrics on %s", Address(admin.host, self.admin.port))

    async def run(self, stop: asyncio.Event, abort: asyncio.Event) -> None:
        """Run until `stop`, then drain until done or `abort`. Raises what a task raised."""
        running = [self._tick(), self._reporter.run(), self._keys.run(), *self._source.tasks()]
        tasks = [asyncio.create_task(each) for each in running]
        try:
            await _first(stop.wait(), tasks)
            _log.info("stopping: requests in flight may finish")
            self._routes.draining = True
            drain = self.front.drain(float(self._settings.drain_seconds))
            await _first(_either(drain, abort.wait()), tasks)
            await self.front.cut_short()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Send the last report and close what is open."""
        await self._reporter.final()
        await self.admin.close()
        await self._source.close()

    async def _tick(self) -> None:
        beats = 0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = boot_clock()
            self._monitor.tick(now)
            self.front.tick(now)
            self._source.tick(now)
            beats += 1
            due = beats % SECRETS_SECONDS == 0 or self._source.secrets.changed()
            if due and self.router.ready:
                self._control.reinstall()


def _crew(settings: Settings, source: Source, counters: Counters) -> Crew | None:
    if settings.workers == 1:
        return None
    # One process alone needs nothing of this.
    from nexus_proxy.workers.crew import Crew

    return Crew(
        workers=settings.workers,
        arguments=sys.argv[1:],
        secrets=source.secrets,
        counters=counters,
    )


async def _listen(server: Front | AdminServer, address: Address, flag: str) -> None:
    try:
        await server.start(address.host, address.port)
    except OSError as error:
        detail = os.strerror(error.errno) if error.errno else str(error)
        raise CannotListen(f"cannot listen on {address} ({flag}): {detail}") from None


async def _first(main: Coroutine[Any, Any, Any], tasks: list[asyncio.Task[None]]) -> None:
    """Wait for `main`, or for a task that fails first."""
    waited = asyncio.create_task(main)
    done, _ = await asyncio.wait({waited, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    if waited not in done:
        waited.cancel()
    for task in done:
        task.result()


async def _either(first: Coroutine[Any, Any, Any], second: Coroutine[Any, Any, Any]) -> None:
    pair = [asyncio.create_task(first), asyncio.create_task(second)]
    try:
        await asyncio.wait(pair, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in pair:
            task.cancel()
        await asyncio.gather(*pair, return_exceptions=True)


def make_source(
    settings: Settings, environ: Mapping[str, str], home: Path, counters: Counters
) -> Source:
    """The mode the settings ask for. Raises ConfigError or InvalidManifests."""
    if settings.manifests is not None:
        # The engine and the manifests' reader are dead weight in a cluster's sidecar.
        from nexus_proxy.standalone import StandaloneSource

        return StandaloneSource(settings, environ, clock=boot_clock)
    access = find_access(environ, home=home)
    return ClusterSource(settings, access, clock=boot_clock, counters=counters)


async def serve(settings: Settings, environ: Mapping[str, str], home: Path) -> None:
    """Run one proxy until a signal. Raises ConfigError, InvalidManifests, UnusableFile or
    CannotListen.
    """
    counters = Counters()
    source = make_source(settings, environ, home, counters)
    application = Application(settings, source, counters)
    stop, abort = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def signalled() -> None:
        (abort if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    await application.start()
    try:
        await application.run(stop, abort)
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await application.close()
