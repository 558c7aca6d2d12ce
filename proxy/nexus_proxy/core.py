"""The deciding half of a process: monitor, router, and what keeps both in step with the objects.

Promises the same wiring whoever serves the requests, one process alone or several of one proxy. It
opens nothing, fetches nothing and starts no task.
"""

from __future__ import annotations

import asyncio
import random as chance
from collections.abc import Callable

from nexus_proxy.clock import boot_clock
from nexus_proxy.control import Control, LimitsOf, Shared
from nexus_proxy.counters import Counters
from nexus_proxy.descriptors import clients_that_fit, limit
from nexus_proxy.http.gateway import Gateway
from nexus_proxy.pricing.limits import limits
from nexus_proxy.routing.live import LiveBackends
from nexus_proxy.routing.queue import Queue
from nexus_proxy.routing.retry import RetryBudget
from nexus_proxy.routing.router import Router
from nexus_proxy.secrets import SecretSource
from nexus_quality.monitor import Monitor
from nexus_quality.spend import month_at


class Core:
    """Monitor, router, live backends and control of one process.

    `shared` says what the verdict on a backend is, `limits_of` how far the month's budget is spent;
    `utc` turns the boot clock into epoch seconds; `on_urgent(seconds)`: tell of outcomes by then.
    """

    def __init__(
        self,
        *,
        secrets: SecretSource,
        shared: Shared,
        utc: Callable[[float], float],
        counters: Counters,
        incarnation: str,
        started: float,
        on_urgent: Callable[[float], None],
        limits_of: LimitsOf = limits,
        retries: RetryBudget | None = None,
    ) -> None:
        self.router = Router(counters=counters, retries=retries)
        self.monitor = Monitor(
            incarnation=incarnation,
            started=started,
            random=chance.random,
            on_change=self.router.invalidate,
            on_urgent=on_urgent,
            utc=utc,
        )
        self.live = LiveBackends(
            subject=self.monitor.subject,
            secrets=secrets,
            journal=self.router.journal,
            key=self.monitor.key,
        )
        self.control = Control(
            monitor=self.monitor,
            router=self.router,
            live=self.live,
            shared=shared,
            utc_month=lambda: month_at(utc(boot_clock())),
            limits_of=limits_of,
        )


def make_queue(core: Core, counters: Counters) -> Queue:
    """Where requests wait, woken by whatever this core learns."""
    queue = Queue(core.router, clock=boot_clock, later=_later, counters=counters.queue)
    core.router.woken = queue.stir
    return queue


def make_gateway(core: Core, counters: Counters, queue: Queue | None = None) -> Gateway:
    """The serving half: requests wait, cost and are counted as this core decides."""
    return Gateway(
        router=core.router,
        clock=boot_clock,
        counters=counters,
        queue=queue or make_queue(core, counters),
        spending=core.monitor.spending,
        max_clients=clients_that_fit(limit()),
    )


def _later(seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(seconds, callback)
