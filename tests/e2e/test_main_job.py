"""The main job on a real API server: kubectl, the OpenAI client, and nothing faked in between.

The tests of this file share one world and run in order, as a day in the life of a product does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from nexus_devtools.backends import Fault, FaultKind, Script
from nexus_devtools.e2e import APPS, BACKENDS, MODEL, PROMPT, World, backend, eventually, policy

# A full report leaves every 10 to 30 s, and figures that moved little wait for ten intervals.
REPORTED_SECONDS = 60.0
BROKEN = Script(headers_seconds=0.01, faults=(Fault(kind=FaultKind.STATUS, status=500),))
QUICK_RECOVERY = {"baseExclusionSeconds": 3, "maxExclusionSeconds": 12, "slowStartSeconds": 2}


@pytest.fixture(scope="module", autouse=True)
def manifests(world: World) -> dict[str, dict[str, Any]]:
    """Three backends and a policy, applied with kubectl; the objects as they were sent."""
    documents = [backend(name, world.backends[name].url) for name in BACKENDS]
    world.apply(policy("default", metricsIntervalSeconds=1, recovery=QUICK_RECOVERY), *documents)
    for name in BACKENDS:
        world.wait_for_state(name, "Active")
    for app in APPS:
        _wait_for_model(world, app)
    return {name: world.get(name) for name in BACKENDS}


def _wait_for_model(world: World, app: str) -> None:
    with world.client(app) as client:
        eventually(
            lambda: [model.id for model in client.models.list()],
            lambda names: MODEL in names,
            what=f"{MODEL} routed by {app}",
        )


def _published(world: World, figure: str) -> int:
    found = [world.get(name).get("status", {}) for name in BACKENDS]
    return sum(status.get("quality", {}).get(figure, 0) for status in found)


def _wait_until_reported(world: World, requests: int) -> None:
    eventually(
        lambda: _published(world, "requests1h"),
        lambda n: n == requests,
        what=f"{requests} requests in status",
        seconds=REPORTED_SECONDS,
    )


def test_traffic_flows_and_the_rates_appear_in_kubectl_get(world: World) -> None:
    tally = world.send(60)
    assert tally.failures == 0
    assert set(tally.served_by) <= set(BACKENDS) and len(tally.served_by) > 1
    _wait_until_reported(world, 60)
    table = world.kubectl("get", "llmbackends")
    header, *rows = table.splitlines()
    assert header.split() == [
        "NAME", "STATE", "ERRORS-1H", "TTFT(MS)", "SUCCESS-24H", "REQUESTS-1H", "LAST-FAILURE",
        "AGE",
    ]  # fmt: skip
    for row in rows:
        name, state, *_ = row.split()
        assert name in BACKENDS and state == "Active"
    assert "0%" in table and "100%" in table


def test_streams_pass_through_and_their_ttft_is_published(world: World) -> None:
    tally = world.send(20, stream=True)
    assert tally.failures == 0
    eventually(
        lambda: _published(world, "ttftSamples1h"),
        lambda n: n == 20,
        what="20 TTFT samples in status",
        seconds=REPORTED_SECONDS,
    )


def test_a_failing_backend_is_left_out_and_no_client_sees_it(world: World) -> None:
    world.backends["alpha"].set(BROKEN)
    failed_before = world.backends["alpha"].seen().requests
    tally = world.send_until(
        lambda: world.state("alpha") == "Excluded", what="alpha excluded", seconds=20
    )
    assert tally.failures == 0, tally
    failed = world.backends["alpha"].seen().requests - failed_before
    assert failed <= 40, f"{failed} attempts failed before the exclusion"
    status = world.get("alpha")["status"]
    assert status["exclusion"]["reason"] and status["exclusion"]["suggestedAction"]
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Excluded")
    events = world.kubectl("get", "events", "-o", "json")
    assert any(
        e["reason"] == "Excluded" and e["involvedObject"]["name"] == "alpha"
        for e in json.loads(events)["items"]
    )


def test_traffic_goes_on_without_it(world: World) -> None:
    before = world.backends["alpha"].seen().requests
    tally = world.send(40)
    assert tally.failures == 0
    # Probes may reach it, at most about one a second; ordinary traffic may not.
    assert world.backends["alpha"].seen().requests - before <= 5
    assert "alpha" not in tally.served_by


def test_it_is_let_back_in_when_it_recovers(world: World) -> None:
    world.backends["alpha"].set(PROMPT)
    tally = world.send_until(
        lambda: world.state("alpha") == "Active", what="alpha active again", seconds=60
    )
    assert tally.failures == 0, tally
    served = world.send_until(
        lambda: world.send(8).served_by.get("alpha", 0) > 0, what="alpha serves", seconds=30
    )
    assert served.failures == 0
    exclusion = world.get("alpha")["status"]["exclusion"]
    assert exclusion["recoveredTime"]


def test_an_edited_policy_takes_effect_without_a_restart(world: World) -> None:
    # One in five fails: well below 50 %, well above 5 %.
    flaky = Fault(kind=FaultKind.STATUS, status=500, probability=0.2)
    world.backends["beta"].set(Script(headers_seconds=0.01, faults=(flaky,), seed=7))
    world.send(120)
    assert world.state("beta") == "Active"
    world.apply(
        policy(
            "default",
            errorRateThreshold="5%",
            metricsIntervalSeconds=1,
            recovery=QUICK_RECOVERY | {"baseExclusionSeconds": 30, "maxExclusionSeconds": 60},
        )
    )
    # The quorum needs three errors beside the worst reporter: traffic goes on until they are there.
    world.send_until(
        lambda: world.state("beta") == "Excluded", what="beta excluded at 5 %", seconds=20
    )
    rule = world.get("beta")["status"]["exclusion"]["rule"]
    assert rule in ("ErrorRate", "ShortWindow")
    world.apply(policy("default", metricsIntervalSeconds=1, recovery=QUICK_RECOVERY))
    world.wait_for_state("beta", "Active", seconds=10)
    world.backends["beta"].set(PROMPT)


def test_an_operator_killed_and_restarted_has_lost_nothing(world: World) -> None:
    world.send(20)
    seen = sum(world.backends[name].seen().requests for name in BACKENDS)
    _wait_until_reported(world, seen)
    address = world.operator.url.removeprefix("http://")
    world.operator.child.kill()
    tally = world.send(20)
    assert tally.failures == 0
    world.operator = world.product.operator(address=address, name="nexus-operator-restarted")
    seen = sum(world.backends[name].seen().requests for name in BACKENDS)
    _wait_until_reported(world, seen)


def test_the_proxies_serve_while_the_api_server_is_away(
    world: World, api_server_away: Callable[[], AbstractContextManager[None]]
) -> None:
    with api_server_away():
        assert world.send(20).failures == 0
        assert world.send(10, stream=True).failures == 0
    delta = backend("delta", world.backends["beta"].url, suspend=True)
    world.apply(delta)
    world.wait_for_state("delta", "Suspended", seconds=60)
    explained = eventually(
        lambda: _explain(world, "app-one"),
        lambda answer: "delta" in answer,
        what="the proxy knows the new backend",
        seconds=60,
    )
    assert "Suspended" in explained or "suspend" in explained
    world.kubectl("delete", "llmbackend", "delta")


def _explain(world: World, app: str) -> str:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "?"}]}
    answer = httpx.post(f"{world.proxies[app].admin_url}/v1/explain", json=body, trust_env=False)
    return answer.text


def test_prometheus_finds_the_seeds_metrics_at_the_operator(world: World) -> None:
    # What was told again to the restarted operator is in no histogram of its own.
    world.send(20, stream=True)
    text = eventually(
        lambda: httpx.get(f"{world.operator.url}/metrics", trust_env=False).text,
        lambda page: "nexus_agent_ttft_seconds_bucket{" in page,
        what="a first token that the restarted operator was told of as it came",
        seconds=60,
    )
    agent = f'agent_id="{world.product.namespace}/alpha"'
    assert f"nexus_agent_error_rate{{{agent}}}" in text
    assert f"nexus_agent_success_rate_24h{{{agent}}}" in text


def test_nothing_of_the_users_objects_was_touched_but_status(
    world: World, manifests: dict[str, dict[str, Any]]
) -> None:
    for name, before in manifests.items():
        after = world.get(name)
        for item in (before, after):
            item.pop("status", None)
            item["metadata"].pop("resourceVersion")
            item["metadata"].pop("managedFields", None)
        assert after == before
        assert "finalizers" not in after["metadata"]
        assert list(after["metadata"].get("annotations", {})) == [
            "kubectl.kubernetes.io/last-applied-configuration"
        ]
