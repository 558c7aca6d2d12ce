"""The cluster mode: objects from the API server, verdicts from their status, reports to the
operator.
"""

from __future__ import annotations

import asyncio
import random as chance
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from prometheus_client.core import Metric

from nexus_api import (
    Quality,
    decode_backend,
    decode_quality_policy,
    decode_routing_policy,
)
from nexus_api.meta import BACKEND_PLURAL, QUALITY_POLICY_PLURAL, ROUTING_POLICY_PLURAL
from nexus_proxy.control import Control, Objects, shared_by_status
from nexus_proxy.counters import Counters
from nexus_proxy.intake import OperatorIntake
from nexus_proxy.kube.client import KubeClient, ServerClock
from nexus_proxy.kube.kubeconfig import Access
from nexus_proxy.kube.reflector import Reflector
from nexus_proxy.kube.store import Store
from nexus_proxy.secrets import MountedSecrets, NoSecrets, SecretSource
from nexus_proxy.settings import Settings
from nexus_quality.monitor import Monitor
from nexus_quality.report import Answer

# Events come in bursts; one table for all of a burst.
SETTLE_SECONDS = 0.02


class ClusterSource:
    """Watches the three kinds in one namespace."""

    def __init__(
        self,
        settings: Settings,
        access: Access,
        *,
        clock: Callable[[], float],
        counters: Counters,
        client: KubeClient | None = None,
    ) -> None:
        folder = settings.credentials_dir
        self.secrets: SecretSource = MountedSecrets(folder) if folder else NoSecrets()
        self.namespace = settings.namespace or access.namespace
        self._clock = clock
        self._counters = counters
        self._client = client or KubeClient(access)
        self._server_clock = ServerClock(now=clock(), local=time.time())
        self.shared = shared_by_status(self._server_clock)
        self._intake = OperatorIntake(settings.operator_url, settings.report_token_file)
        self._apply: Callable[[Objects], None] = lambda _objects: None
        self._settling: asyncio.TimerHandle | None = None
        self.backends = Store(BACKEND_PLURAL, decode_backend, on_change=self._changed)
        self.quality_policies = Store(
            QUALITY_POLICY_PLURAL, decode_quality_policy, on_change=self._changed
        )
        self.routing_policies = Store(
            ROUTING_POLICY_PLURAL, decode_routing_policy, on_change=self._changed
        )
        self._stores: tuple[Store[Any], ...] = (
            self.backends,
            self.quality_policies,
            self.routing_policies,
        )

    def bind(self, control: Control, monitor: Monitor, apply: Callable[[Objects], None]) -> None:
        """Hand all objects to `apply` after each change, once every kind was listed."""
        self._apply = apply

    def utc(self, now: float) -> float:
        """The API server's clock."""
        return self._server_clock.at(now)

    def tasks(self) -> Iterable[Coroutine[Any, Any, None]]:
        """One reflector per kind."""
        for store in self._stores:
            yield Reflector(
                self._client,
                store,
                namespace=self.namespace,
                clock=self._clock,
                server_clock=self._server_clock,
                random=chance.random,
                on_restart=self._restarted,
            ).run()

    def _restarted(self) -> None:
        self._counters.watch_restarts += 1

    def _changed(self) -> None:
        if self._settling is None and all(store.synced for store in self._stores):
            loop = asyncio.get_running_loop()
            self._settling = loop.call_later(SETTLE_SECONDS, self._settled)

    def _settled(self) -> None:
        self._settling = None
        self._apply(
            Objects(
                backends=tuple(self.backends.objects.values()),
                quality_policies=tuple(self.quality_policies.objects.values()),
                routing_policies=tuple(self.routing_policies.objects.values()),
            )
        )

    async def deliver(self, body: bytes) -> Answer:
        """Send one report to the operator. Raises Undelivered."""
        return await self._intake.deliver(body)

    def waiting_for(self) -> str:
        """Which kinds were not listed yet."""
        missing = ", ".join(store.plural for store in self._stores if not store.synced)
        return f"waiting for the first list of {missing} in namespace {self.namespace}"

    def quality_of(self, uid: str) -> Quality | None:
        """The figures the operator published."""
        backend = self.backends.objects.get(uid)
        return backend.status.quality if backend else None

    def metrics(self) -> Iterable[Metric]:
        """None of its own: the operator exports the quality of the fleet."""
        return ()

    def tick(self, now: float) -> None:
        """Nothing to do by the clock."""

    async def close(self) -> None:
        """Close the connections to the API server and the operator."""
        await self._client.close()
        await self._intake.close()
