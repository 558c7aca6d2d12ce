"""The API server, its etcd, or its memory of the past is away, and the product goes on.

Ten minutes pass in half a minute: the product's long waits are divided by 20, as its configuration
for tests allows. Operator and proxies reach the API server through a gate, so that their watches
can be torn while the API server itself runs on. The tests share one world and run in order.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from nexus_api.meta import BACKEND_PLURAL, GROUP, VERSION
from nexus_devtools.backends import Fault, FaultKind, Script
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import (
    BACKENDS,
    MODEL,
    PROMPT,
    World,
    backend,
    eventually,
    open_world,
    policy,
)
from nexus_devtools.gate import Gate
from nexus_devtools.traffic import Traffic

Stored = dict[str, Any]
PACE = 20
TEN_MINUTES = 600 / PACE
BACK_SECONDS = 30.0
BROKEN = Script(headers_seconds=0.01, faults=(Fault(kind=FaultKind.STATUS, status=500),))
RECOVERY = {"baseExclusionSeconds": 8, "maxExclusionSeconds": 60, "slowStartSeconds": 1}
LEASE = ("get", "lease", "nexus-operator", "--namespace=nexus-system", "--output=json")
# Probing ends no exclusion, but it is one more thing that a busy machine can be late with.
CALM = {"healthCheck": {"enabled": False}, "models": [{"name": MODEL}]}


class Away:
    """A world behind a gate."""

    def __init__(self, world: World, gate: Gate) -> None:
        self.world, self.gate = world, gate
        self.plane = world.product.plane
        self.traffic = Traffic({app: proxy.url for app, proxy in world.proxies.items()}, MODEL)

    @property
    def pages(self) -> list[str]:
        """Who must know of a backend: the operator and both proxies."""
        return [self.world.operator.url, *(p.admin_url for p in self.world.proxies.values())]

    def known(self, url: str) -> set[str]:
        """The backends on a metrics page."""
        page = httpx.get(f"{url}/metrics", trust_env=False, timeout=10).text
        mark = f'agent_id="{self.world.product.namespace}/'
        return {part.split('"', 1)[0] for part in page.split(mark)[1:]}

    def everyone_knows(self, names: set[str]) -> None:
        for url in self.pages:
            eventually(
                lambda url=url: self.known(url),
                lambda found: found == names,
                what=f"what {url} knows",
                seconds=BACK_SECONDS,
            )

    def lease(self) -> Stored:
        found: Stored = json.loads(self.plane.run_kubectl(*LEASE, check=True).stdout)["spec"]
        return found

    def said(self, text: str) -> int:
        return self.world.operator.child.log.read_text().count(text)

    def verdict(self, name: str) -> tuple[str, int, int]:
        status = self.world.get(name)["status"]
        count = (status.get("exclusion") or {}).get("count", 0)
        return status["state"], status["verdictGeneration"], count

    def nothing_died(self) -> None:
        assert self.world.operator.child.exit_code is None
        assert self.said("CRITICAL") == 0
        assert all(proxy.child.exit_code is None for proxy in self.world.proxies.values())


@pytest.fixture(scope="module")
def away(crds: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Away]:
    """Three backends and a policy, with traffic from here to the end."""
    namespace = f"away-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        gate = stack.enter_context(Gate(crds))
        folder = tmp_path_factory.mktemp("away")
        settings = {"NEXUS_TEST_PACE": str(PACE)}
        world = open_world(crds, namespace, folder, stack, settings=settings, way=gate.lead)
        thresholds = policy("default", metricsIntervalSeconds=1, recovery=RECOVERY)
        world.apply(thresholds, *(backend(n, world.backends[n].url, **CALM) for n in BACKENDS))
        for name in BACKENDS:
            world.wait_for_state(name, "Active")
        found = Away(world, gate)
        found.everyone_knows(set(BACKENDS))
        with found.traffic:
            yield found


def test_a_watch_that_the_api_server_forgot_misses_nothing(away: Away) -> None:
    world = away.world
    old = world.get("alpha")["metadata"]["resourceVersion"]
    url = world.backends["beta"].url
    world.apply(backend("removed", url, **CALM), backend("replaced", url, **CALM))
    away.everyone_knows({*BACKENDS, "removed", "replaced"})
    before = world.get("replaced")["metadata"]["uid"]
    away.gate.shut()
    world.kubectl("delete", "llmb", "removed", "replaced")
    world.apply(backend("added", url, **CALM), backend("replaced", url, **CALM))
    away.plane.compact_etcd()
    away.plane.stop_apiserver()
    away.plane.start_apiserver()
    place = f"/apis/{GROUP}/{VERSION}/namespaces/{world.product.namespace}/{BACKEND_PLURAL}"
    watch = f"{place}?watch=1&timeoutSeconds=1&resourceVersion={old}"
    answer = away.plane.run_kubectl("get", "--raw", watch)
    assert "too old resource version" in answer.stdout + answer.stderr
    away.gate.open()
    away.everyone_knows({*BACKENDS, "added", "replaced"})
    for name in ("added", "replaced"):
        world.wait_for_state(name, "Active", seconds=BACK_SECONDS)
    assert world.get("replaced")["metadata"]["uid"] != before
    eventually(lambda: away.traffic.served("added"), lambda n: n > 0, what="added serves")
    world.kubectl("delete", "llmb", "added", "replaced")
    away.everyone_knows(set(BACKENDS))
    away.nothing_died()
    assert away.traffic.failed == []


def test_etcd_stopped_and_started_costs_no_request_and_no_verdict(away: Away) -> None:
    world, lease = away.world, away.lease()
    _, generation, _ = away.verdict("gamma")
    away.plane.stop_etcd()
    try:
        world.backends["gamma"].set(BROKEN)
        time.sleep(6)  # the failures come while nothing can be written
        assert away.traffic.served_in("gamma", 1) == 0
    finally:
        away.plane.start_etcd()
    world_is_back(away)
    eventually(
        lambda: away.verdict("gamma"),
        lambda found: found == ("Excluded", generation + 1, 1),
        what="the verdict that waited",
        seconds=BACK_SECONDS,
    )
    world.backends["gamma"].set(PROMPT)
    world.wait_for_state("gamma", "Active", seconds=BACK_SECONDS)
    world.apply(backend("late", world.backends["beta"].url, **CALM))
    away.everyone_knows({*BACKENDS, "late"})
    world.kubectl("delete", "llmb", "late")
    away.everyone_knows(set(BACKENDS))
    assert away.lease()["leaseTransitions"] == lease["leaseTransitions"]
    away.nothing_died()
    assert away.traffic.failed == []


def world_is_back(away: Away) -> None:
    """The API server answers as if nothing had been."""
    eventually(
        lambda: away.plane.run_kubectl("get", "--raw", "/readyz").returncode,
        lambda code: code == 0,
        what="the API server is ready",
        seconds=BACK_SECONDS,
    )


def test_ten_minutes_without_an_api_server(away: Away) -> None:
    world, traffic = away.world, away.traffic
    lease, left = away.lease(), away.said("leading again: ")
    _, alpha, _ = away.verdict("alpha")
    _, beta, _ = away.verdict("beta")
    world.backends["alpha"].set(BROKEN)
    world.wait_for_state("alpha", "Excluded")
    assert away.verdict("alpha") == ("Excluded", alpha + 1, 1)
    away.plane.stop_apiserver()
    began, before = time.monotonic(), traffic.requests
    try:
        world.backends["alpha"].set(PROMPT)
        world.backends["beta"].set(BROKEN)
        eventually(
            lambda: httpx.get(f"{world.operator.url}/readyz", trust_env=False).text,
            lambda text: "was not renewed in time: nothing is written until it is" in text,
            what="the operator says that it may not write",
        )
        served = traffic.served("alpha")
        eventually(
            lambda: traffic.served("alpha"),
            lambda n: n > served,
            what="the exclusion ends without anybody to say so",
        )
        assert traffic.served_in("beta", 1) == 0
        time.sleep(max(0.0, began + TEN_MINUTES - time.monotonic()))
        assert httpx.get(f"{world.operator.url}/v1/stats", trust_env=False).status_code == 200
    finally:
        away.plane.start_apiserver()
    assert traffic.requests - before > 300
    eventually(
        lambda: away.verdict("beta"),
        lambda found: found == ("Excluded", beta + 1, 1),
        what="the verdict that waited",
        seconds=BACK_SECONDS,
    )
    # Straight back, for it served meanwhile: no probation, no second exclusion.
    eventually(
        lambda: away.verdict("alpha"),
        lambda found: found == ("Active", alpha + 2, 1),
        what="alpha served while the operator was away",
        seconds=BACK_SECONDS,
    )
    after = away.lease()
    assert after["leaseTransitions"] == lease["leaseTransitions"]
    assert after["holderIdentity"] == lease["holderIdentity"]
    assert away.said("leading again: ") == left + 1
    assert away.said("stepping down: ") == 0
    away.nothing_died()
    assert traffic.failed == []
