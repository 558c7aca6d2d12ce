"""Two gateways of two workers each on a real API server: to the operator, two reporters.

The tests share one world and run in order; each request is a connection of its own, so that any
worker may get it.
"""

from __future__ import annotations

import os
import secrets
import signal
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from nexus_devtools.backends import Fault, FaultKind, Script
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import (
    APPS,
    BACKENDS,
    MODEL,
    PROMPT,
    World,
    backend,
    eventually,
    open_world,
    policy,
)
from nexus_devtools.product import Proxy

REQUEST = {"model": MODEL, "messages": [{"role": "user", "content": "one two three"}]}
BROKEN = Script(headers_seconds=0.01, faults=(Fault(kind=FaultKind.STATUS, status=500),))
WORKERS = ("1", "2")


class Gateways:
    """The world, asked over connections that nobody uses twice."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.http = httpx.Client(
            headers={"connection": "close"},
            limits=httpx.Limits(max_keepalive_connections=0),
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=False,
            timeout=30,
        )

    def ask(self, times: int) -> None:
        """So many requests at each gateway, all of them answered well."""
        for _ in range(times):
            for app in APPS:
                url = f"{self.world.proxies[app].url}/v1/chat/completions"
                assert self.http.post(url, json=REQUEST).status_code == 200

    def sent(self) -> int:
        """The requests that the backends have seen."""
        return sum(each.seen().requests for each in self.world.backends.values())

    def counted(self) -> int:
        """Those that the operator knows of."""
        stats = self.http.get(f"{self.world.operator.url}/v1/stats").json()
        return int(stats["requests"]["total"])

    def models(self, app: str) -> list[str]:
        """What one worker, whichever it is, can serve."""
        answer = self.http.get(f"{self.world.proxies[app].url}/v1/models").json()
        return sorted(each["id"] for each in answer["data"])

    def stats(self, app: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(
            f"{self.world.proxies[app].admin_url}/v1/stats"
        ).json()
        return found


@pytest.fixture(scope="module")
def gateways(crds: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    namespace = f"e2e-{secrets.token_hex(4)}"
    folder = tmp_path_factory.mktemp("workers")
    with ExitStack() as stack:
        flags = ("--workers", str(len(WORKERS)))
        world = open_world(crds, namespace, folder, stack, proxy=flags)
        made = Gateways(world)
        stack.callback(made.http.close)
        recovery = {"baseExclusionSeconds": 2, "maxExclusionSeconds": 4, "slowStartSeconds": 1}
        world.apply(
            policy("default", metricsIntervalSeconds=1, recovery=recovery),
            *(backend(name, world.backends[name].url) for name in BACKENDS),
        )
        for name in BACKENDS:
            world.wait_for_state(name, "Active")
        for app in APPS:
            eventually(lambda a=app: made.models(a), lambda m: m == [MODEL], what="a table")  # type: ignore[misc]
        yield made


def workers_of(proxy: Proxy) -> list[int]:
    """The processes that serve for a gateway."""
    path = Path(f"/proc/{proxy.child.pid}/task/{proxy.child.pid}/children")
    return [int(each) for each in path.read_text().split()]


def test_what_the_operator_counts_is_what_the_backends_saw(gateways: Gateways) -> None:
    before = gateways.sent()
    gateways.ask(60)
    assert gateways.sent() == before + 60 * len(APPS)
    eventually(gateways.counted, lambda n: n == gateways.sent(), what="all counted", seconds=45)
    for app in APPS:
        page = gateways.http.get(f"{gateways.world.proxies[app].admin_url}/metrics").text
        lines = [line for line in page.splitlines() if "worker_requests_total{" in line]
        assert len(lines) == len(WORKERS)
        assert all(float(line.split()[-1]) > 0 for line in lines)
    eventually(
        lambda: [gateways.world.get(name)["status"]["quality"]["reporters"] for name in BACKENDS],
        lambda reporters: reporters == [len(APPS)] * len(BACKENDS),
        what="one reporter for each gateway",
    )


def test_a_changed_object_reaches_every_worker_within_a_second(gateways: Gateways) -> None:
    world = gateways.world
    renamed = {"models": [{"name": "renamed", "upstreamName": MODEL}]}
    world.apply(*(backend(name, world.backends[name].url, **renamed) for name in BACKENDS))
    applied = time.monotonic()
    for app in APPS:
        eventually(
            lambda a=app: {tuple(gateways.models(a)) for _ in range(8)},  # type: ignore[misc]
            lambda seen: seen == {("renamed",)},
            what="the new table at both workers",
            seconds=5,
        )
    assert time.monotonic() - applied < 2.0  # a second, and the looks themselves
    world.apply(*(backend(name, world.backends[name].url) for name in BACKENDS))
    for app in APPS:
        eventually(
            lambda a=app: {tuple(gateways.models(a)) for _ in range(8)},  # type: ignore[misc]
            lambda seen: seen == {(MODEL,)},
            what="the old table again",
        )


def test_a_backend_that_fails_is_out_for_all_workers_and_comes_back(gateways: Gateways) -> None:
    world = gateways.world
    gateways.ask(20)
    world.backends["beta"].set(BROKEN)
    failing = world.backends["beta"].seen().since_script.requests
    deadline = time.monotonic() + 30
    while world.state("beta") != "Excluded":
        gateways.ask(4)  # nobody notices
        assert time.monotonic() < deadline
    # Five in each gateway, however many processes it has, and what travels meanwhile; one more
    # for each probe of a breaker that the verdict has not replaced yet.
    assert world.backends["beta"].seen().since_script.requests - failing <= 2 * (5 + 3)
    world.backends["beta"].set(PROMPT)
    while world.state("beta") != "Active":
        gateways.ask(4)
        assert time.monotonic() < deadline + 30


def test_a_killed_worker_takes_nothing_along_that_was_told(gateways: Gateways) -> None:
    proxy = gateways.world.proxies[APPS[0]]
    eventually(gateways.counted, lambda n: n == gateways.sent(), what="all counted", seconds=45)
    gateways.ask(20)
    time.sleep(0.2)  # several ticks: everything was told
    total = gateways.stats(APPS[0])["requests"]["total"]
    victim = workers_of(proxy)[0]
    os.kill(victim, signal.SIGKILL)
    eventually(
        lambda: workers_of(proxy),
        lambda found: len(found) == len(WORKERS) and victim not in found,
        what="another worker",
    )
    eventually(
        lambda: gateways.http.get(f"{proxy.admin_url}/readyz").status_code,
        lambda status: status == 200,
        what="readiness",
    )
    gateways.ask(20)
    eventually(
        lambda: gateways.stats(APPS[0])["requests"]["total"],
        lambda n: n == total + 20,
        what="every request in the statistics",
    )
    eventually(gateways.counted, lambda n: n == gateways.sent(), what="all counted", seconds=45)


def test_a_drain_tells_everything_before_the_end(gateways: Gateways) -> None:
    gateways.ask(10)
    for app in APPS:
        assert gateways.world.proxies[app].child.stop(grace_seconds=20) == 0
    eventually(gateways.counted, lambda n: n == gateways.sent(), what="all counted", seconds=5)
