"""The whole product, and a person who looks at it: the page of a real operator in a real browser.

Measured from what the API server has to what the page shows. The tests share one world and run in
order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio

from nexus_devtools.backends import Fault, FaultKind, Script
from nexus_devtools.browser import Chromium, Tab, browsing, ready_chromium
from nexus_devtools.e2e import BACKENDS, PROMPT, World, backend, policy

BROKEN = Script(headers_seconds=0.01, faults=(Fault(kind=FaultKind.STATUS, status=500),))
RECOVERY = {"baseExclusionSeconds": 3, "maxExclusionSeconds": 12, "slowStartSeconds": 2}
LIVE = "document.getElementById('link').dataset.state === 'live'"
STATES = (
    "Object.fromEntries([...document.querySelectorAll('#rows tr')].map((tr) => "
    "[tr.querySelector('.of-name a').textContent, tr.querySelector('.state').textContent]))"
)
SHOWN_SECONDS = 2.0


@pytest.fixture(scope="module")
def chromium() -> Chromium:
    """The pinned browser."""
    return ready_chromium()


@pytest.fixture(scope="module", autouse=True)
def applied(world: World) -> None:
    """Three backends and a policy, applied with kubectl."""
    quality = policy("default", metricsIntervalSeconds=1, minReporters=1, recovery=RECOVERY)
    world.apply(quality, *(backend(name, world.backends[name].url) for name in BACKENDS))
    for name in BACKENDS:
        world.wait_for_state(name, "Active")


@pytest_asyncio.fixture
async def tab(chromium: Chromium, world: World) -> AsyncIterator[Tab]:
    """The page, as it is when all is well."""
    async with browsing(chromium) as tab:
        await tab.goto(f"{world.operator.url}/")
        await tab.until(LIVE)
        yield tab


async def traffic(world: World, tab: Tab, done: Callable[[dict[str, str]], bool]) -> None:
    """Keeps requests flowing until the page shows something."""
    async with asyncio.timeout(60):
        while not done(await tab.run(STATES)):
            await asyncio.to_thread(world.send, 8)


async def read(url: str) -> dict[str, Any]:
    """A JSON document."""
    async with httpx.AsyncClient(trust_env=False) as client:
        found: dict[str, Any] = (await client.get(url)).json()
    return found


def ready_since(found: dict[str, Any]) -> float:
    """When the API server's object says that Ready turned."""
    said = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    return datetime.fromisoformat(said["lastTransitionTime"]).timestamp()


async def test_a_verdict_is_on_the_page_within_two_seconds_and_so_is_the_way_back(
    world: World, tab: Tab
) -> None:
    await tab.until(f"Object.values({STATES}).join() === 'Active,Active,Active'")
    world.backends["alpha"].set(BROKEN)
    await traffic(world, tab, lambda states: states["alpha"] == "Excluded")
    seen = time.time()
    found = await asyncio.to_thread(world.get, "alpha")
    # The condition has whole seconds.
    assert seen - ready_since(found) < SHOWN_SECONDS + 1
    world.backends["alpha"].set(PROMPT)
    await traffic(world, tab, lambda states: states["alpha"] == "Active")
    await tab.run("void (location.hash = '#/backend/" + world.product.namespace + "/alpha')")
    moments = (
        "[...document.querySelectorAll('#backend .timeline .state')].map((e) => e.textContent)"
    )
    await tab.until(f"({moments}).length >= 4")
    assert (await tab.run(moments))[:4] == ["Active", "Probation", "Excluded", "Active"]
    assert tab.errors == []


async def test_figures_are_those_of_the_statistics(world: World, tab: Tab) -> None:
    async def counted() -> dict[str, int]:
        told = await read(f"{world.operator.url}/v1/stats")
        return {each["name"]: each.get("request_count_1h", 0) for each in told["backends"]}

    shown = (
        "Object.fromEntries([...document.querySelectorAll('#rows tr')].map((tr) => "
        "[tr.querySelector('.of-name a').textContent, "
        "Number(tr.children[7].textContent.replaceAll(',', ''))]))"
    )
    async with asyncio.timeout(60):
        told = await counted()
        assert sum(told.values()) > 0
        # What the proxies have not reported yet comes meanwhile.
        while await tab.run(shown) != told:
            told = await counted()


async def test_the_page_survives_the_operator_and_its_timeline_goes_on(
    world: World, tab: Tab
) -> None:
    address = world.operator.url.removeprefix("http://")
    await asyncio.to_thread(world.operator.child.kill)
    await tab.until("document.getElementById('link').dataset.state === 'lost'")
    # Not in a thread: the process would end with it.
    world.operator = world.product.operator(address=address, name="nexus-operator-two")
    await tab.until(f"{LIVE} && Object.keys({STATES}).length === 3", seconds=20)
    await tab.until("document.getElementById('notice').hidden", seconds=20)
    world.backends["beta"].set(BROKEN)
    await traffic(world, tab, lambda states: states["beta"] == "Excluded")
    world.backends["beta"].set(PROMPT)
    assert [error for error in tab.errors if "net::ERR_" not in error] == []
    name = f"namespace={world.product.namespace}&name=alpha"
    told = await read(f"{world.operator.url}/page/backend?{name}")
    assert [each["state"] for each in told["timeline"]][-2:] == ["Active", "Excluded"]


async def test_an_operator_that_stops_in_order_does_not_wait_for_the_page(
    world: World, tab: Tab
) -> None:
    began = time.monotonic()
    await asyncio.to_thread(lambda: world.operator.child.stop(grace_seconds=20))
    assert time.monotonic() - began < 8
    await tab.until("document.getElementById('link').dataset.state === 'lost'")
