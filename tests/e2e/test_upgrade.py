"""From the previous release to this one and back, under traffic: no request fails, no verdict
and no cent is lost, with a store no history either, and each side works with the other's release.

The previous release is a commit of this repository; its operator and proxies run from its sources,
on its custom resources and rights. The product's long waits pass 10 times as fast.
"""

from __future__ import annotations

import io
import os
import secrets
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from nexus_devtools.backends import Fault, FaultKind, Script
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import APPS, MODEL, PROMPT, World, backend, eventually, open_world, policy
from nexus_devtools.product import REPOSITORY, Proxy
from nexus_devtools.traffic import Traffic

Stored = dict[str, Any]
PREVIOUS = "d66390ed76ae3917ef402a8d361a413bbe9acd86"
PACKAGES = ("crds", "quality", "operator", "proxy")
GRACE_SECONDS = 40.0
SETTLED_SECONDS = 100.0  # two slots of 30 s of the budget, a write and a busy machine
PAID = "paid-model"
PRICE = {"inputUSDPerMillionTokens": "1000", "outputUSDPerMillionTokens": "10000"}
BROKEN = Script(headers_seconds=0.01, faults=(Fault(kind=FaultKind.STATUS, status=500),))
QUICK = {"baseExclusionSeconds": 2, "maxExclusionSeconds": 4, "slowStartSeconds": 1}
LASTING = {"baseExclusionSeconds": 3000, "maxExclusionSeconds": 3000}


def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(("git", *arguments), cwd=REPOSITORY, capture_output=True, check=False)


def previous_commit() -> str:
    """The previous release, or in a clone without it the oldest commit that there is."""
    if git("cat-file", "-e", f"{PREVIOUS}^{{commit}}").returncode == 0:
        return PREVIOUS
    known = git("rev-list", "HEAD").stdout.decode().split()
    shallow = git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
    if not shallow or len(known) < 2:
        pytest.fail(
            f"the release before this one ({PREVIOUS[:7]}) is not in this clone: "
            "git fetch --unshallow (a copy without .git cannot run this test)"
        )
    return known[-1]


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the previous release."""
    folder = tmp_path_factory.mktemp("previous")
    packed = git("archive", previous_commit())
    assert packed.returncode == 0, packed.stderr.decode()
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def settings_of(sources: Path) -> dict[str, str]:
    """Variables that make a process run from these sources."""
    settings = {"PYTHONPATH": os.pathsep.join(str(sources / name) for name in PACKAGES)}
    where = "import nexus_api, nexus_operator as o, nexus_proxy as p; print(o.__file__, p.__file__)"
    told = subprocess.run(
        (sys.executable, "-c", where),
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(path.startswith(str(sources)) for path in told.split()), told
    return settings | {"NEXUS_TEST_PACE": "10"}


@dataclass
class Fleet:
    """A world whose parts change their release one by one, under traffic."""

    world: World
    stack: ExitStack
    operator_flags: tuple[str, ...]
    flows: dict[str, Traffic] = field(default_factory=dict)
    ended: list[Traffic] = field(default_factory=list)
    spent: Decimal = Decimal(0)
    lives: int = 1

    def begin(self) -> None:
        for app, proxy in self.world.proxies.items():
            self.flow(app, proxy)

    def flow(self, app: str, proxy: Proxy) -> None:
        """Traffic through a proxy that routes already."""
        eventually(
            lambda: httpx.get(f"{proxy.url}/v1/models", trust_env=False).text,
            lambda text: MODEL in text and PAID in text,
            what=f"{app} routes",
        )
        self.flows[app] = traffic = Traffic({app: proxy.url}, MODEL)
        traffic.__enter__()
        self.stack.callback(traffic.__exit__, None, None, None)

    def roll_operator(self, sources: Path) -> None:
        """As a Deployment that recreates: the old one ends in order, then the new one starts."""
        product = self.world.product
        address = self.world.operator.url.removeprefix("http://")
        assert self.world.operator.child.stop(grace_seconds=GRACE_SECONDS) == 0
        self.lives += 1
        product.settings = settings_of(sources)
        self.world.operator = product.operator(
            *self.operator_flags, address=address, name=f"nexus-operator-{self.lives}"
        )

    def roll_proxy(self, app: str, sources: Path) -> None:
        """As behind a Service: clients go to the new one before the old one ends."""
        old, before = self.world.proxies[app], self.flows[app]
        self.world.product.settings = settings_of(sources)
        new = self.world.product.proxy(app, operator_url=self.world.operator.url)
        self.flow(app, new)
        before.__exit__(None, None, None)
        self.ended.append(before)
        assert old.child.stop(grace_seconds=GRACE_SECONDS) == 0
        self.world.proxies = {**self.world.proxies, app: new}

    def apply_release(self, sources: Path) -> None:
        """Its custom resources and its rights, over those that are there."""
        plane = self.world.product.plane
        plane.run_kubectl("apply", "--server-side", "-f", sources / "crds", check=True)
        rights = sources / "manifests" / "rbac" / "operator"
        plane.run_kubectl("apply", "-k", rights, check=True)

    def spend(self) -> None:
        """A few requests that cost, through both proxies."""
        body = {"model": PAID, "messages": [{"role": "user", "content": "one two three"}]}
        for app in APPS:
            url = f"{self.world.proxies[app].url}/v1/chat/completions"
            for _ in range(5):
                answer = httpx.post(url, json=body, trust_env=False, timeout=30)
                assert answer.status_code == 200, answer.text
                self.spent += Decimal(answer.headers["x-nexus-cost-estimated"])

    def verdict(self) -> None:
        """A verdict made and taken back by the releases as they are now."""
        before = self.generation("beta")
        self.world.backends["beta"].set(BROKEN)
        self.world.wait_for_state("beta", "Excluded", seconds=60)
        self.world.backends["beta"].set(PROMPT)
        self.world.wait_for_state("beta", "Active", seconds=60)
        assert self.generation("beta") >= before + 2
        self.spend()
        assert self.failures == []

    def generation(self, name: str) -> int:
        return int(self.world.get(name)["status"]["verdictGeneration"])

    @property
    def failures(self) -> list[str]:
        return [line for flow in (*self.ended, *self.flows.values()) for line in flow.failed]

    def settle(self) -> None:
        """The published sum comes to be what clients were told, to the cent."""
        eventually(
            lambda: Decimal(self.budget.get("spentUSD", "0")),
            lambda spent: spent == self.spent,
            what=f"{self.spent} USD are accounted for",
            seconds=SETTLED_SECONDS,
        )

    @property
    def budget(self) -> Stored:
        found: Stored = self.world.api.get_namespaced_custom_object(
            *("nexus.dev", "v1alpha1", self.world.product.namespace, "routingpolicies", "team")
        )
        return found.get("status", {}).get("budget") or {}

    def counted(self) -> int:
        """The requests of 24 h that the operator knows of."""
        stats = httpx.get(f"{self.world.operator.url}/v1/stats", trust_env=False).json()
        return int(stats["requests"]["total"])

    def arrived(self) -> int:
        """The requests that reached a backend."""
        return sum(each.seen().requests for each in self.world.backends.values())

    def refused(self) -> float:
        """Parts of reports that the operator did not take."""
        page = httpx.get(f"{self.world.operator.url}/metrics", trust_env=False).text
        name = "nexus_operator_report_refusals_total"
        lines = [line for line in page.splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def objects(world: World) -> list[Stored]:
    url = {name: simulated.url for name, simulated in world.backends.items()}
    alpha = backend("alpha", url["alpha"])
    alpha["metadata"]["labels"] = {"verdict": "lasting"}
    paid = [{"name": PAID, "upstreamName": MODEL}]
    lasting = {"matchLabels": {"verdict": "lasting"}}
    return [
        policy("quick", metricsIntervalSeconds=1, recovery=QUICK),
        policy("lasting", metricsIntervalSeconds=1, recovery=LASTING, targetSelector=lasting),
        {
            "apiVersion": "nexus.dev/v1alpha1",
            "kind": "RoutingPolicy",
            "metadata": {"name": "team"},
            "spec": {"budget": {"monthlyLimitUSD": "1000"}},
        },
        alpha,
        backend("beta", url["beta"]),
        backend("gamma", url["gamma"]),
        backend("cloud", url["gamma"], type="openai", models=paid, pricing=PRICE),
    ]


@pytest.fixture(params=["store", "memory"])
def fleet(
    request: pytest.FixtureRequest, crds: ControlPlane, previous: Path, tmp_path: Path
) -> Iterator[Fleet]:
    """The previous release at work, with a verdict and some spending of its own."""
    flags = (f"--data-dir={tmp_path / 'data'}",) if request.param == "store" else ()
    with ExitStack() as stack:
        stack.callback(crds.apply_crds)
        crds.run_kubectl("apply", "--server-side", "-f", previous / "crds", check=True)
        settings = settings_of(previous)
        name = f"e2e-{secrets.token_hex(4)}"
        world = open_world(crds, name, tmp_path, stack, settings=settings, operator=flags)
        fleet = Fleet(world, stack, flags)
        fleet.apply_release(previous)
        world.apply(*objects(world))
        for each in ("alpha", "beta", "gamma", "cloud"):
            world.wait_for_state(each, "Active")
        fleet.begin()
        world.backends["alpha"].set(BROKEN)
        world.wait_for_state("alpha", "Excluded", seconds=60)
        fleet.spend()
        yield fleet


def test_up_and_back_under_traffic_nothing_is_lost(fleet: Fleet, previous: Path) -> None:
    exclusion = fleet.world.get("alpha")["status"]["exclusion"]
    one, two = APPS
    # Up: the kinds and rights first, then the operator, then the proxies.
    fleet.apply_release(REPOSITORY)
    fleet.verdict()
    fleet.roll_operator(REPOSITORY)
    fleet.verdict()  # this operator, the previous proxies
    fleet.roll_proxy(one, REPOSITORY)
    fleet.roll_proxy(two, REPOSITORY)
    fleet.verdict()
    if not fleet.operator_flags:
        fleet.settle()  # what proxies that are gone had spent is in the status
    # Back, in the same order: the previous operator meets this release's proxies.
    fleet.roll_operator(previous)
    fleet.verdict()
    fleet.roll_proxy(one, previous)
    fleet.roll_proxy(two, previous)
    fleet.apply_release(previous)
    fleet.verdict()
    for flow in fleet.flows.values():
        flow.__exit__(None, None, None)
    assert fleet.failures == []
    status = fleet.world.get("alpha")["status"]
    assert (status["state"], status["verdictGeneration"]) == ("Excluded", 1)
    assert status["exclusion"] == exclusion
    if not fleet.operator_flags:
        fleet.settle()
    assert fleet.refused() == 0
    if fleet.operator_flags:
        eventually(fleet.counted, lambda n: n == fleet.arrived(), what=f"{fleet.arrived()} counted")


def test_a_clone_without_the_previous_release_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PREVIOUS", "0" * 40)
    if git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true":
        assert previous_commit() == git("rev-list", "HEAD").stdout.decode().split()[-1]
    else:
        with pytest.raises(pytest.fail.Exception, match="git fetch --unshallow"):
            previous_commit()
