"""Where a proxy's objects and verdicts come from: a cluster, or a folder of files. One
protocol, two modes.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from prometheus_client.core import Metric

from nexus_api import Quality
from nexus_proxy.control import Control, Objects, Shared
from nexus_proxy.secrets import SecretSource
from nexus_quality.monitor import Monitor
from nexus_quality.report import Answer


class Source(Protocol):
    """What the application needs of a mode."""

    secrets: SecretSource
    shared: Shared

    def bind(self, control: Control, monitor: Monitor, apply: Callable[[Objects], None]) -> None:
        """Hand all objects to `apply` after each change, from now on."""

    def utc(self, now: float) -> float:
        """Epoch seconds at `now` on the proxy's clock."""

    def tasks(self) -> Iterable[Coroutine[Any, Any, None]]:
        """What must run for it; none of them ever ends."""

    async def deliver(self, body: bytes) -> Answer:
        """Take one report. Raises Undelivered."""

    def waiting_for(self) -> str:
        """What the first table is waiting for, in one line."""

    def quality_of(self, uid: str) -> Quality | None:
        """The published figures of a backend."""

    def metrics(self) -> Iterable[Metric]:
        """Metrics that only this mode has."""

    def tick(self, now: float) -> None:
        """Called once a second."""

    async def close(self) -> None:
        """Close connections."""
