"""The operator is killed, and a proxy ends for good: with its store nothing of it is lost, without
it the conditions say how much.

The tests share one world and run in order. The long waits pass 10 times as fast.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import (
    APPS,
    BACKENDS,
    MODEL,
    World,
    backend,
    eventually,
    open_world,
    policy,
)

REQUEST = {"model": MODEL, "messages": [{"role": "user", "content": "one two three"}]}
COUNTED = "nexus_operator_store_batches_total"


@dataclass
class Kept:
    """A world whose operator keeps what it counts in `data`."""

    world: World
    data: Path
    lives: int = 1

    @property
    def url(self) -> str:
        return self.world.operator.url

    def ask(self, app: str, times: int) -> None:
        for _ in range(times):
            url = f"{self.world.proxies[app].url}/v1/chat/completions"
            assert httpx.post(url, json=REQUEST, trust_env=False, timeout=30).status_code == 200

    def counted(self) -> int:
        """The requests of 24 h that the operator knows of now."""
        stats = httpx.get(f"{self.url}/v1/stats", trust_env=False).json()
        return int(stats["requests"]["total"])

    def published(self) -> dict[str, int]:
        return {
            name: self.status(name).get("quality", {}).get("requests24h", 0) for name in BACKENDS
        }

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.world.get(name).get("status", {})
        return found

    def within_policy(self, name: str) -> str:
        conditions = {c["type"]: c for c in self.status(name).get("conditions", [])}
        return str(conditions["WithinPolicy"]["message"])

    def metric(self, name: str) -> float:
        page = httpx.get(f"{self.url}/metrics", trust_env=False).text
        lines = [line for line in page.splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def wait_published(self, total: int) -> dict[str, int]:
        return eventually(
            self.published, lambda p: sum(p.values()) == total, what=f"{total} published"
        )

    def wait_told(self, name: str, text: str) -> None:
        eventually(
            lambda: self.within_policy(name), lambda message: text in message, what=text, seconds=30
        )

    def wait_stored(self) -> None:
        """Two more batches: whatever was counted before this call is in the first of them."""
        before = self.metric(COUNTED)
        eventually(lambda: self.metric(COUNTED), lambda n: n >= before + 2, what="batches")

    def restart(self, *arguments: str) -> None:
        """SIGKILL, and another process at the same address."""
        self.world.operator.child.kill()
        self.lives += 1
        self.world.operator = self.world.product.operator(
            *arguments,
            address=self.url.removeprefix("http://"),
            name=f"nexus-operator-{self.lives}",
        )


def wait_routed(url: str) -> None:
    eventually(
        lambda: httpx.get(url, trust_env=False).text,
        lambda text: MODEL in text,
        what="a proxy that routes",
    )


@pytest.fixture(scope="module")
def kept(crds: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp("store")
    data = folder / "data"
    with ExitStack() as stack:
        world = open_world(
            crds,
            f"e2e-{secrets.token_hex(4)}",
            folder,
            stack,
            settings={"NEXUS_TEST_PACE": "10"},
            operator=[f"--data-dir={data}"],
        )
        world.apply(policy("quick", metricsIntervalSeconds=1, minReporters=1))
        world.apply(*(backend(name, world.backends[name].url) for name in BACKENDS))
        for name in BACKENDS:
            world.wait_for_state(name, "Active")
        for proxy in world.proxies.values():
            wait_routed(f"{proxy.url}/v1/models")
        yield Kept(world, data)


def test_what_a_proxy_that_is_gone_had_sent_outlives_a_killed_operator(kept: Kept) -> None:
    for app in APPS:
        kept.ask(app, 30)
    kept.wait_published(60)
    kept.world.proxies[APPS[1]].child.kill()  # for good, without a goodbye
    kept.wait_stored()
    kept.restart(f"--data-dir={kept.data}")
    assert kept.counted() == 60  # before anything was repeated, and after
    kept.ask(APPS[0], 12)
    kept.wait_published(72)
    assert kept.counted() == 72
    assert kept.metric("nexus_operator_store_ok") == 1
    assert all("missing" not in kept.within_policy(name) for name in BACKENDS)


def test_without_its_store_the_conditions_say_how_many_requests_are_missing(kept: Kept) -> None:
    before = kept.published()
    kept.world.operator.child.kill()
    shutil.rmtree(kept.data)
    kept.restart(f"--data-dir={kept.data}")
    after = kept.wait_published(42)
    for name in BACKENDS:
        if missing := before[name] - after[name]:
            kept.wait_told(name, f"up to {missing} requests of the last 24 h are missing")
            kept.wait_told(name, "the operator's store was lost")
    assert sum(before.values()) - sum(after.values()) == 30


def test_a_corrupt_file_costs_the_file_alone(kept: Kept) -> None:
    kept.wait_stored()
    kept.world.operator.child.kill()
    for ending in ("", "-wal"):  # either of them alone may hold all there is
        (kept.data / f"nexus-operator.sqlite{ending}").write_bytes(b"no database at all" * 500)
    kept.restart(f"--data-dir={kept.data}")
    eventually(kept.counted, lambda n: n == 42, what="repeated by the proxy that lives")
    assert len(list(kept.data.glob("*.corrupt-*"))) >= 1
    assert kept.metric("nexus_operator_store_ok") == 1
