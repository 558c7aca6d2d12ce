"""Events that the writer could not tell at once: a process died, or an answer was lost.

Promises that each is created once or found to be there, one after the other and beside all other
work. What there is to tell is `retold`'s for a status found at the start, the planner's for a write
that was accepted without an answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from nexus_api import LLMBackend, ObjectMeta
from nexus_operator.events import event, post
from nexus_operator.kube import Kube
from nexus_operator.metrics import Metrics
from nexus_operator.notes import Note
from nexus_operator.registry import Registry, full_name
from nexus_operator.retold import retold

log = logging.getLogger(__name__)

Told = tuple[ObjectMeta, Iterable[Note]]


class Herald:
    """`found` and `late` take what is to be told; `run` tells it."""

    def __init__(
        self, *, kube: Kube, registry: Registry, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._kube = kube
        self._registry = registry
        self._metrics = metrics
        self._clock = clock
        self._queue: asyncio.Queue[Callable[[], Told]] = asyncio.Queue()

    def found(self, backend: LLMBackend) -> None:
        """A backend with a status of another process; its policies may be read after it."""
        self._queue.put_nowait(lambda: (backend.metadata, self._retold(backend)))

    def late(self, metadata: ObjectMeta, notes: Iterable[Note]) -> None:
        """What is known now to have been written a while ago."""
        self._queue.put_nowait(lambda: (metadata, notes))

    async def run(self) -> None:
        """Tells until cancelled."""
        while True:
            waiting = await self._queue.get()
            try:
                await self._tell(*waiting())
            except asyncio.CancelledError:
                self._queue.put_nowait(waiting)  # for the next life of the watch
                raise

    async def _tell(self, metadata: ObjectMeta, notes: Iterable[Note]) -> None:
        for note in notes:
            body = event(metadata, note, now=self._clock())
            if await post(self._kube, self._metrics, metadata.namespace, body):
                name = full_name(metadata)
                log.info("%s: %s: %s (told late)", name, note.reason, note.message)

    def _retold(self, backend: LLMBackend) -> list[Note]:
        return retold(backend, self._registry.thresholds(backend), self._clock())
