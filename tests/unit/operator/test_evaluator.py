"""The evaluator goes on whatever happens to the objects between two of its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from nexus_api import LLMBackend
from nexus_operator.engine import FleetEngine
from nexus_operator.evaluator import Evaluator
from nexus_operator.metrics import Metrics
from nexus_operator.plan import Key
from nexus_operator.registry import Registry
from nexus_quality.engine import BackendFacts
from nexus_quality.policy import DEFAULT_POLICY

NOW = 1000.0


class Planner:
    """Has every backend written, and deletes the others while it is asked about the first."""

    def __init__(self, registry: Registry, engine: FleetEngine) -> None:
        self._registry, self._engine = registry, engine
        self.asked: list[str] = []
        self.called = asyncio.Event()

    def due(self, uid: str) -> bool:
        self.asked.append(uid)
        self.called.set()
        for other in self._registry.backends.uids() - {uid}:
            self._registry.backends.remove(other)
            self._engine.remove(other)
        return True

    def last_written(self, uid: str) -> float:
        return 0.0


async def test_backends_deleted_in_the_middle_of_a_round_are_left_out(
    backend: Callable[..., LLMBackend],
) -> None:
    registry = Registry()
    engine = FleetEngine(epoch="e", started=0.0, random=lambda: 0.0)
    for name in "abc":
        thing = backend(name)
        registry.backends.put(thing)
        facts = BackendFacts(
            uid=thing.metadata.uid, namespace="shop", name=name, fingerprint="f", models=None
        )
        engine.upsert(facts, DEFAULT_POLICY, NOW)
    planner: Any = Planner(registry, engine)
    audits = SimpleNamespace(look=lambda uid: None, asked=lambda uid: False)
    policies: Any = SimpleNamespace(mark=lambda namespace: None, audits=audits)
    marked: list[Key] = []
    evaluator = Evaluator(
        registry=registry,
        engine=engine,
        planner=planner,
        policies=policies,
        metrics=Metrics(lambda: ()),
        clock=lambda: NOW,
        mark=marked.append,
    )
    task = asyncio.create_task(evaluator.run())
    async with asyncio.timeout(5):
        await planner.called.wait()
        await asyncio.sleep(0.01)
    assert not task.done()
    assert planner.asked == ["uid-a"] and len(marked) == 1
    task.cancel()
