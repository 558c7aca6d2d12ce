"""The judged specs through the operator's store: whatever becomes of the file, none is missing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nexus_api import LLMBackend
from nexus_api.fingerprint import verdict_fingerprint
from nexus_operator.engine import FleetEngine
from nexus_operator.metrics import Metrics
from nexus_operator.specs import SpecRow
from nexus_operator.store import FILE, Store
from nexus_operator.store_keeper import RETRY_SECONDS, Keeper
from nexus_operator.store_trouble import StoreProblem, Trouble
from nexus_quality.engine import BackendFacts
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.saved import Batch

Build = Callable[..., LLMBackend]
NOW = 1_700_000_000.0


class Fallible(Store):
    """A store whose writes fail with `trouble` while there is any."""

    trouble: Trouble | None = None

    def write(
        self, batch: Batch, specs: Sequence[SpecRow] = (), gone_specs: Sequence[str] = ()
    ) -> None:
        if self.trouble is not None:
            raise StoreProblem(self.trouble, self.path, "as the test has it")
        super().write(batch, specs, gone_specs)


class Process:
    """A keeper and an engine that knows backends `a` and `b`; `begin` is its start."""

    def __init__(self, folder: Path, *uids: str) -> None:
        self.now, self.folder = NOW, folder
        self.engine = FleetEngine(epoch="e", started=NOW, random=lambda: 0.5)
        for uid in uids or ("uid-a", "uid-b"):
            facts = BackendFacts(uid=uid, namespace="shop", name=uid, fingerprint="")
            self.engine.upsert(facts, DEFAULT_POLICY, NOW)
        self.keeper = Keeper(
            folder=folder,
            engine=self.engine,
            clock=lambda: self.now,
            metrics=Metrics(lambda: ()),
            open_store=Fallible,
        )
        self.specs = self.keeper.specs

    def kept(self) -> list[SpecRow]:
        """What is in the file."""
        store = self.keeper._store
        assert store is not None
        return store.specs()

    async def ends(self, *uids: str) -> Process:
        """It ends, and the next one begins."""
        await self.keeper.close()
        after = Process(self.folder, *uids)
        await after.keeper.begin()
        return after


@pytest.fixture
async def process(tmp_path: Path) -> Process:
    process = Process(tmp_path)
    await process.keeper.begin()
    return process


def judged(backend: Build, name: str, generation: int = 1, **spec: str) -> LLMBackend:
    status = {"observedGeneration": generation}
    return backend(name, meta={"generation": generation}, status=status, **spec)


async def test_a_judged_spec_alone_is_worth_a_batch_and_known_to_the_next_process(
    process: Process, backend: Build
) -> None:
    thing = judged(backend, "a", 3)
    process.specs.published(thing)
    await process.keeper.turn()
    assert process.kept() == [SpecRow("uid-a", 3, verdict_fingerprint(thing.spec))]
    after = await process.ends()
    assert after.specs.fingerprint("uid-a", 3) == verdict_fingerprint(thing.spec)
    await after.keeper.close()


async def test_that_of_a_deleted_backend_goes_at_once_or_with_the_next_start(
    process: Process, backend: Build
) -> None:
    for name in "ab":
        process.specs.published(judged(backend, name))
    await process.keeper.turn()
    process.specs.forget("uid-a")
    await process.keeper.turn()
    assert [row.uid for row in process.kept()] == ["uid-b"]
    after = await process.ends("uid-a")  # deleted while no operator ran
    assert after.specs.fingerprint("uid-b", 1) is None
    await after.keeper.turn()
    assert after.kept() == []
    await after.keeper.close()


@pytest.mark.parametrize("trouble", Trouble)
async def test_a_failed_batch_is_made_up_for_with_what_is_known_by_then(
    process: Process, backend: Build, trouble: Trouble
) -> None:
    process.specs.published(judged(backend, "a"))
    process.specs.published(judged(backend, "b"))
    await process.keeper.turn()
    store = process.keeper._store
    assert isinstance(store, Fallible)
    store.trouble = trouble
    process.specs.published(judged(backend, "a", 2, url="http://other.example:8000"))
    process.specs.forget("uid-b")
    await process.keeper.turn()
    process.now += RETRY_SECONDS
    for _ in range(2):
        await process.keeper.turn()
    assert process.keeper.problem is None
    assert [(row.uid, row.generation) for row in process.kept()] == [("uid-a", 2)]
    await process.keeper.close()


async def test_a_file_from_before_they_were_kept_knows_none_and_takes_them(
    process: Process, backend: Build
) -> None:
    process.specs.published(judged(backend, "a"))
    await process.keeper.close()
    with sqlite3.connect(process.folder / FILE) as connection:
        connection.execute("DROP TABLE spec")
    connection.close()
    after = Process(process.folder)
    await after.keeper.begin()
    assert after.keeper.problem is None and not after.keeper.lost
    assert after.specs.fingerprint("uid-a", 1) is None
    after.specs.published(judged(backend, "a"))
    await after.keeper.turn()
    assert [row.uid for row in after.kept()] == ["uid-a"]
    await after.keeper.close()


async def test_what_this_process_has_judged_is_newer_than_its_file(
    process: Process, backend: Build
) -> None:
    process.specs.published(judged(backend, "a"))
    await process.keeper.close()
    after = Process(process.folder)
    after.specs.published(judged(backend, "a", 2, url="http://other.example:8000"))
    await after.keeper.begin()
    assert after.specs.fingerprint("uid-a", 1) is None
    assert after.specs.fingerprint("uid-a", 2) is not None
    await after.keeper.close()
