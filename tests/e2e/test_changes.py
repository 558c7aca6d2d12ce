"""What people do to a product in use, with traffic flowing: policies edited, audits that become
serious, addresses mended, backends deleted, recreated, and come and gone by the hundred.

The tests share one world; each leaves it as it found it: three sound backends and one policy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from nexus_api.meta import BACKEND_PLURAL, GROUP, VERSION
from nexus_devtools.backends import Fault, FaultKind, Script
from nexus_devtools.chronicle import Chronicle
from nexus_devtools.e2e import BACKENDS, MODEL, PROMPT, World, backend, eventually, policy
from nexus_devtools.product import free_address
from nexus_devtools.reports import Counters
from nexus_devtools.traffic import Traffic

Stored = dict[str, Any]
BROKEN = Script(headers_seconds=0.01, faults=(Fault(kind=FaultKind.STATUS, status=500),))
FLAKY = Script(
    headers_seconds=0.01,
    faults=(Fault(kind=FaultKind.STATUS, status=500, probability=0.2),),
    seed=7,
)
INTERVAL = 2
LEEWAY_SECONDS = 10
RECOVERY = {"baseExclusionSeconds": 60, "maxExclusionSeconds": 60, "slowStartSeconds": 2}


def thresholds(**spec: Any) -> Stored:
    return policy("default", metricsIntervalSeconds=INTERVAL, recovery=RECOVERY, **spec)


@pytest.fixture(scope="module", autouse=True)
def chronicle(world: World) -> Chronicle:
    """Three backends and a policy, at work; everything that is ever stored of them."""
    world.apply(thresholds(), *(backend(name, world.backends[name].url) for name in BACKENDS))
    for name in BACKENDS:
        world.wait_for_state(name, "Active")
    product = world.product
    return Chronicle(product.plane, product.namespace, product.folder, product.stack)


@pytest.fixture
def traffic(world: World) -> Iterator[Traffic]:
    with Traffic({app: proxy.url for app, proxy in world.proxies.items()}, MODEL) as flowing:
        eventually(lambda: flowing.requests, lambda n: n > 40, what="traffic flows")
        flowing.failed.clear()  # a proxy that has only just seen its first backends
        yield flowing
    for name in BACKENDS:
        world.backends[name].set(PROMPT)


def condition(world: World, name: str, kind: str = "WithinPolicy") -> Stored:
    said = world.get(name).get("status", {}).get("conditions", [])
    return next((c for c in said if c["type"] == kind), {})


def policy_status(world: World) -> Stored:
    found: Stored = json.loads(world.kubectl("get", "qp", "default", "-o", "json"))
    return found.get("status") or {}


def metric(world: World, name: str, **labels: str) -> float:
    """The sum of a metric's series of the operator that carry these labels."""
    page = httpx.get(f"{world.operator.url}/metrics", trust_env=False).text
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = [line for line in page.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
    return sum(float(line.split()[-1]) for line in lines if all(w in line for w in wanted))


def test_a_policy_edited_twenty_times_ends_where_the_last_edit_says(
    world: World, chronicle: Chronicle, traffic: Traffic
) -> None:
    world.backends["beta"].set(FLAKY)
    began = time.monotonic()
    before = {name: chronicle.figure_writes(name) for name in BACKENDS}
    policies = metric(world, "nexus_operator_status_writes_total", kind="QualityPolicy")
    for n in range(20):
        world.apply(thresholds(errorRateThreshold="50%" if n % 2 == 0 else "5%"))
        time.sleep(0.4)
    world.wait_for_state("beta", "Excluded")
    exclusion = world.get("beta")["status"]["exclusion"]
    assert "threshold 5%" in exclusion["reason"]
    world.apply(thresholds())
    world.wait_for_state("beta", "Active", seconds=INTERVAL + LEEWAY_SECONDS)
    edits, intervals = 21, (time.monotonic() - began) / INTERVAL + 2
    generations = chronicle.generations("beta")
    assert generations == list(range(len(generations)))
    # At most out by one edit and back by the next; what says no more than figures waits its turn.
    transitions = generations[-1]
    assert transitions <= edits
    for name in BACKENDS:
        assert chronicle.figure_writes(name) - before[name] <= intervals
    for name in ("alpha", "gamma"):
        assert chronicle.generations(name) == [0]
    written = metric(world, "nexus_operator_status_writes_total", kind="QualityPolicy") - policies
    assert written <= edits + 2 * transitions + intervals
    assert metric(world, "nexus_operator_status_writes_total", result="invalid") == 0
    assert traffic.failed == []


def test_audit_first_then_enforce_then_audit_again(world: World, traffic: Traffic) -> None:
    before = world.get("alpha")["status"]["verdictGeneration"]
    world.apply(thresholds(enforcement="Audit"))
    eventually(
        lambda: policy_status(world).get("observedGeneration"),
        lambda seen: seen == json.loads(world.kubectl("get", "qp", "default", "-o", "json"))[
            "metadata"
        ]["generation"],
        what="the audit is seen",
    )  # fmt: skip
    world.backends["alpha"].set(BROKEN)
    said = eventually(
        lambda: condition(world, "alpha"),
        lambda c: c.get("reason") == "WouldBeExcluded",
        what="alpha would be excluded",
    )
    assert said["status"] == "False" and said["message"].startswith("Would be excluded: ")
    eventually(
        lambda: policy_status(world).get("wouldExclude"),
        lambda names: names == ["alpha"],
        what="the policy names whom it would exclude",
    )
    status = world.get("alpha")["status"]
    assert (status["state"], status["verdictGeneration"]) == ("Active", before)
    attempts = world.backends["alpha"].seen().requests
    eventually(
        lambda: world.backends["alpha"].seen().requests - attempts,
        lambda n: n > 10,
        what="an audit keeps no request away",
    )
    world.apply(thresholds(enforcement="Enforce"))
    world.wait_for_state("alpha", "Excluded", seconds=INTERVAL + LEEWAY_SECONDS)
    eventually(
        lambda: policy_status(world).get("excludedBackends"),
        lambda n: n == 1,
        what="the policy counts it",
    )
    world.backends["alpha"].set(PROMPT)
    world.apply(thresholds(enforcement="Audit"))
    world.wait_for_state("alpha", "Active", seconds=INTERVAL + LEEWAY_SECONDS)
    status = world.get("alpha")["status"]
    assert status["exclusion"]["recoveredTime"]
    assert status["verdictGeneration"] == before + 2
    eventually(lambda: traffic.served("alpha"), lambda n: n > 0, what="alpha serves again")
    assert traffic.failed == []
    world.apply(thresholds())


def test_a_wrong_url_is_excluded_and_mended_with_one_apply(world: World, traffic: Traffic) -> None:
    nowhere = f"http://{free_address()}"
    unprobed = {"healthCheck": {"enabled": False}, "models": [{"name": MODEL}]}
    world.apply(backend("typo", nowhere, **unprobed))
    world.wait_for_state("typo", "Excluded", seconds=20)
    status = world.get("typo")["status"]
    assert status["exclusion"]["suggestedAction"]
    assert traffic.served("typo") == 0
    began = time.monotonic()
    world.apply(backend("typo", world.backends["beta"].url, **unprobed))
    world.wait_for_state("typo", "Active", seconds=3)
    status = world.get("typo")["status"]
    assert "exclusion" not in status and status["verdictGeneration"] == 2
    eventually(lambda: traffic.served("typo"), lambda n: n > 0, what="typo serves", seconds=5)
    assert time.monotonic() - began < 6
    assert traffic.failed == []
    world.kubectl("delete", "llmb", "typo")


def test_a_backend_deleted_and_recreated_has_no_history(world: World, traffic: Traffic) -> None:
    unprobed = {"healthCheck": {"enabled": False}, "models": [{"name": MODEL}]}
    nowhere, sound = f"http://{free_address()}", world.backends["gamma"].url
    world.apply(backend("phoenix", nowhere, **unprobed))
    world.wait_for_state("phoenix", "Excluded", seconds=20)
    old = world.get("phoenix")["metadata"]["uid"]
    world.kubectl("delete", "llmb", "phoenix")
    world.apply(backend("phoenix", sound, **unprobed))
    world.wait_for_state("phoenix", "Active", seconds=3)
    found = world.get("phoenix")
    assert found["metadata"]["uid"] != old
    assert found["status"]["verdictGeneration"] == 0
    assert "exclusion" not in found["status"]
    eventually(lambda: traffic.served("phoenix"), lambda n: n > 10, what="phoenix serves")
    quality = eventually(
        lambda: world.get("phoenix")["status"].get("quality"),
        bool,
        what="its own figures, once a full report came",
        seconds=40,
    )
    assert quality["errors1h"] == 0
    assert late_report(world, old) == [{"reason": "unknown backend", "uid": old}]
    assert world.get("phoenix")["status"]["verdictGeneration"] == 0
    assert traffic.failed == []
    for proxy in world.proxies.values():
        log = proxy.child.log.read_text()
        assert "refused a part of the report" not in log
    world.kubectl("delete", "llmb", "phoenix")


def late_report(world: World, uid: str) -> list[Stored]:
    """What the intake refuses of a report about a backend that is gone."""
    counters = Counters()
    counters.count(uid, requests=40, errors=40)
    product = world.product
    token = product.plane.identity(product.namespace, "late", audience="nexus-operator")
    answer = httpx.post(
        f"{world.operator.url}/v1/outcomes",
        content=counters.full(),
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
    )
    assert answer.status_code == 200
    refused: list[Stored] = answer.json()["refused"]
    return refused


CROWD = 500


def crowd(world: World) -> list[Stored]:
    """Backends that share a label, each served by one of the sound ones, probed never."""
    found = []
    for n in range(CROWD):
        url = world.backends[BACKENDS[n % len(BACKENDS)]].url
        document = backend(
            f"crowd-{n:03}", url, healthCheck={"enabled": False}, models=[{"name": MODEL}]
        )
        document["metadata"]["labels"] = {"crowd": "yes"}
        found.append(document)
    return found


def resident_kb(pid: int) -> int:
    """The resident memory of a process."""
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def knows(url: str, part: str) -> int:
    """How many lines of a metrics page speak of backends whose names begin so."""
    page = httpx.get(f"{url}/metrics", trust_env=False, timeout=10).text
    return sum(f"/{part}" in line for line in page.splitlines())


def test_five_hundred_backends_come_and_go_under_traffic(world: World, traffic: Traffic) -> None:
    processes = {"operator": world.operator.child.pid} | {
        app: proxy.child.pid for app, proxy in world.proxies.items()
    }
    pages = [world.operator.url, *(proxy.admin_url for proxy in world.proxies.values())]
    after: list[dict[str, int]] = []
    place = f"/apis/{GROUP}/{VERSION}/namespaces/{world.product.namespace}/{BACKEND_PLURAL}"
    everyone = f"{place}?labelSelector=crowd%3Dyes"
    for _ in range(2):
        # Two requests less for each than apply makes, for kubectl allows itself 50 a second.
        world.kubectl("create", "-f", "-", input=yaml.safe_dump_all(crowd(world)))
        eventually(
            lambda: world.kubectl(
                "get", "llmb", "-l", "crowd=yes", "-o", "jsonpath={.items[*].status.state}"
            ).split(),
            lambda states: states == ["Active"] * CROWD,
            what="every one of the crowd is Active",
            seconds=40,
        )
        for url in pages:
            eventually(lambda url=url: knows(url, "crowd-"), lambda n: n >= CROWD, what=url)
        world.kubectl("delete", "--raw", everyone)
        for url in pages:
            eventually(lambda url=url: knows(url, "crowd-"), lambda n: n == 0, what=f"{url} empty")
        after.append({name: resident_kb(pid) for name, pid in processes.items()})
    assert traffic.failed == []
    stats = httpx.get(f"{world.operator.url}/v1/stats", trust_env=False).text
    assert "crowd-" not in stats
    assert metric(world, "nexus_operator_backends") == len(BACKENDS)
    # A second crowd fits where the first one was: what one leaves behind does not add up.
    for name, first in after[0].items():
        assert after[1][name] - first < 12_000, f"{name}: {after}"
    for name in BACKENDS:
        assert world.state(name) == "Active"
