"""Debian's Prometheus beside a product at work: processes, on a real API server.

It finds what the test names, labelled as the documented discovery would (Debian builds its
Prometheus without Kubernetes: that part is tried in test_prometheus.py); all that follows from the
labels, the rules and the dashboard are as they ship. The tests share one world and run in order.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import yaml

from nexus_devtools.backends import Fault, FaultKind, Script
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import (
    APPS,
    BACKENDS,
    PROMPT,
    World,
    backend,
    eventually,
    open_world,
    policy,
)
from nexus_devtools.prometheus import (
    DASHBOARD,
    EXAMPLES,
    RULE_FILE,
    Prometheus,
    documented,
    found,
    quick,
)

BROKEN = Script(headers_seconds=0.01, faults=(Fault(kind=FaultKind.STATUS, status=500),))
RECOVERY = {"baseExclusionSeconds": 20, "maxExclusionSeconds": 20, "slowStartSeconds": 2}
PRICE = {"inputUSDPerMillionTokens": "1000", "outputUSDPerMillionTokens": "10000"}
NOBODY = "127.0.0.1:9"
VARIABLES = {"$__rate_interval": "1m", "$namespace": ".*", "$backend": ".*"}
LONELY = {"model": "lonely", "messages": [{"role": "user", "content": "?"}]}


@dataclass
class Watched:
    """A product at work, and the Prometheus that looks at it."""

    world: World
    prometheus: Prometheus

    @property
    def namespace(self) -> str:
        return self.world.product.namespace

    def alert(self, name: str, state: str | None, *, seconds: float = 30.0, **labels: str) -> None:
        """Wait until an alert is in a state, None: until there is none of its name."""
        wanted = {} if state is None else {json.dumps(labels, sort_keys=True): state}
        eventually(
            lambda: self.prometheus.alerts(name),
            lambda seen: seen == wanted,
            what=f"{name} {state}",
            seconds=seconds,
        )


def rules_of_the_example(plane: ControlPlane) -> dict[str, Any]:
    """What the Prometheus Operator gets of docs/examples/prometheus-operator."""
    folder = EXAMPLES.with_name("prometheus-operator")
    rendered = yaml.safe_load_all(plane.run_kubectl("kustomize", folder, check=True).stdout)
    (rule,) = (each for each in rendered if each["kind"] == "PrometheusRule")
    spec: dict[str, Any] = rule["spec"]
    return spec


def sights(world: World) -> list[tuple[str, Mapping[str, str]]]:
    """What discovery tells of the pods: two with a proxy, and what is to be left out."""
    common = {"namespace": world.product.namespace, "pod_phase": "Running"}
    port = {"pod_container_port_name": "nexus-admin"}
    proxies = [
        (proxy.admin_url.removeprefix("http://"), {**common, **port, "pod_name": f"{app}-pod"})
        for app, proxy in world.proxies.items()
    ]
    done = {**common, **port, "pod_name": "job", "pod_phase": "Succeeded"}
    other = {**common, "pod_container_port_name": "http", "pod_name": "app"}
    return [*proxies, (NOBODY, done), (NOBODY, other)]


@pytest.fixture(scope="module")
def watched(crds: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Three backends, one of them with a price, a budget, two proxies, one Prometheus."""
    folder = tmp_path_factory.mktemp("live")
    with ExitStack() as stack:
        world = open_world(crds, f"live-{secrets.token_hex(4)}", folder, stack)
        routing = policy("budget", budget={"monthlyLimitUSD": "100"}) | {"kind": "RoutingPolicy"}
        items = [backend(name, world.backends[name].url, pricing=PRICE) for name in BACKENDS]
        world.apply(policy("p", metricsIntervalSeconds=1, recovery=RECOVERY), routing, *items)
        for name in BACKENDS:
            world.wait_for_state(name, "Active")
        meta = {"service_name": "nexus-operator", "endpointslice_port_name": "http"}
        config = found(quick(documented()), "nexus-proxy", *sights(world))
        operator = world.operator.url.removeprefix("http://")
        config = found(
            config, "nexus-operator", (operator, meta), (NOBODY, meta | {"service_name": "x"})
        )
        prometheus = Prometheus(folder, config, rules_of_the_example(crds))
        stack.callback(prometheus.stop)
        yield Watched(world, prometheus)


def test_the_rules_are_those_that_ship_but_for_one_time(crds: ControlPlane) -> None:
    changed, shipped = rules_of_the_example(crds), yaml.safe_load(RULE_FILE.read_text())
    alert = changed["groups"][1]["rules"][0]
    assert (alert["alert"], alert["for"]) == ("BackendExcluded", "5s")
    assert changed != shipped
    alert["for"] = "1m"
    assert changed == shipped


def test_operator_and_proxies_are_found_and_nothing_else(watched: Watched) -> None:
    targets = eventually(
        watched.prometheus.targets,
        lambda seen: len(seen) == 3 and {each["health"] for each in seen} == {"up"},
        what="three targets that are up",
    )
    labels = {each["labels"]["job"]: {*each["labels"]} for each in targets}
    assert labels == {
        "nexus-operator": {"job", "instance"},
        "nexus-proxy": {"job", "instance", "namespace", "pod"},
    }
    pods = {each["labels"].get("pod") for each in targets} - {None}
    assert pods == {f"{app}-pod" for app in APPS}
    # The namespace of a budget is that of its policy, as the operator says.
    (limit,) = eventually(
        lambda: watched.prometheus.query("nexus_budget_limit_usd"), bool, what="a budget's limit"
    )
    assert limit["metric"]["namespace"] == watched.namespace
    assert "exported_namespace" not in limit["metric"]


def test_an_alert_fires_while_a_backend_is_excluded_and_resolves(watched: Watched) -> None:
    world = watched.world
    assert world.send(20, stream=True).failures == 0
    world.backends["alpha"].set(BROKEN)
    world.send_until(lambda: world.state("alpha") == "Excluded", what="alpha excluded", seconds=20)
    labels = {"agent_id": f"{watched.namespace}/alpha", "severity": "warning"}
    watched.alert("BackendExcluded", "firing", **labels)
    world.backends["alpha"].set(PROMPT)
    world.send_until(lambda: world.state("alpha") == "Active", what="alpha active", seconds=90)
    watched.alert("BackendExcluded", None)
    told = 'ALERTS{alertname="BackendExcluded"}'
    eventually(lambda: watched.prometheus.query(told), lambda now: not now, what="no alert")
    was = watched.prometheus.query(f"max_over_time({told}[10m])")
    assert {each["metric"]["alertstate"] for each in was} == {"pending", "firing"}


def test_requests_that_find_no_backend_are_told(watched: Watched) -> None:
    world = watched.world
    models = [{"name": LONELY["model"]}]
    world.apply(backend("delta", world.backends["beta"].url, models=models, suspend=True))
    world.wait_for_state("delta", "Suspended")

    def ask() -> tuple[int, list[str]]:
        url = f"{world.proxies[APPS[0]].url}/v1/chat/completions"
        status = httpx.post(url, json=LONELY, trust_env=False, timeout=30).status_code
        return status, list(watched.prometheus.alerts("NoBackendForModel").values())

    eventually(ask, lambda seen: seen == (503, ["pending"]), what="NoBackendForModel")


def test_every_query_of_the_dashboard_has_an_answer(watched: Watched) -> None:
    world, prometheus = watched.world, watched.prometheus
    refused = httpx.post(f"{world.operator.url}/v1/outcomes", content=b"{}", trust_env=False)
    assert refused.status_code == 401
    assert world.send(20, stream=True).failures == 0

    def silent() -> list[str]:
        return [f"{title}: {query}" for title, query in queries() if not prometheus.query(query)]

    eventually(silent, lambda left: not left, what="no panel without data", seconds=60)
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            assert values(prometheus, variable["query"]["query"]), variable["name"]


def queries() -> list[tuple[str, str]]:
    """The title of each panel with each of its queries, as Grafana sends it for all there is."""
    told = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"]
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            assert "$" not in query, query
            told.append((panel["title"], query))
    return told


def values(prometheus: Prometheus, query: str) -> set[str]:
    """What Grafana offers for a variable."""
    match = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
    assert match is not None, query
    series = prometheus.get("series", **{"match[]": match[1].replace("$namespace", ".*")})
    return {each[match[2]] for each in series}


def test_no_operator_is_told_and_one_that_comes_is_seen(watched: Watched) -> None:
    world = watched.world
    address = world.operator.url.removeprefix("http://")
    world.operator.child.kill()
    watched.alert("OperatorAbsent", "pending", severity="critical")
    world.operator = world.product.operator(address=address, name="nexus-operator-again")
    watched.alert("OperatorAbsent", None, seconds=60)
