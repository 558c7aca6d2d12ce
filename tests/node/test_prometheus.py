"""Prometheus in a pod, with the documented rights and configuration, finds what is on the node."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nexus_devtools.node import pods
from nexus_devtools.node.cluster import Cluster
from nexus_devtools.node.programs import PROMETHEUS, built
from nexus_devtools.node.shop import Shop
from nexus_devtools.prometheus import CONFIGURATION, RIGHTS, RULE_FILE

GATEWAY = Path(__file__).parents[2] / "manifests" / "overlays" / "gateway"
NAME = "prometheus"
SYSTEM = "monitoring"
PROGRAM = "/opt/prometheus"
CONFIGURED = "/etc/prometheus"
ASK = "import sys, httpx; print(httpx.get(sys.argv[1], params={'query': sys.argv[2]}).text)"

Labels = dict[str, str]


def prometheus_pod() -> dict[str, Any]:
    """It reads its configuration from a ConfigMap and asks the API server as its own account."""
    files = f"--config.file={CONFIGURED}/{CONFIGURATION.name}"
    made = pods.pod(NAME, [f"{PROGRAM}/prometheus", files, "--storage.tsdb.path=/tmp/data"])
    spec = made["spec"]
    spec |= {"serviceAccountName": NAME, "automountServiceAccountToken": True}
    mounts = {"program": PROGRAM, "configuration": CONFIGURED}
    spec["containers"][0]["volumeMounts"] += [
        {"name": name, "mountPath": path, "readOnly": True} for name, path in mounts.items()
    ]
    spec["volumes"] += [
        {"name": "program", "hostPath": {"path": str(built(PROMETHEUS))}},
        {"name": "configuration", "configMap": {"name": NAME}},
    ]
    return made


class Watch:
    """That pod, and what it is asked."""

    def __init__(self, system: Shop) -> None:
        self._system = system

    def query(self, expression: str) -> list[tuple[Labels, float]]:
        url = "http://127.0.0.1:9090/api/v1/query"
        told = self._system.in_network(NAME, sys.executable, "-c", ASK, url, expression)
        answer = json.loads(told)
        assert answer["status"] == "success", answer
        return [(each["metric"], float(each["value"][1])) for each in answer["data"]["result"]]

    def up(self, job: str, **labels: str) -> dict[str, float]:
        """The targets of a job that have these labels: whether each answers, by its pod."""
        wanted = "".join(f',{name}="{value}"' for name, value in labels.items())
        seen = self.query(f'up{{job="{job}"{wanted}}}')
        return {each.get("pod", each["instance"]): value for each, value in seen}


@pytest.fixture
def watch(cluster: Cluster) -> Iterator[Watch]:
    """`docs/examples/prometheus`, looking every two seconds instead of every fifteen."""
    system = Shop(cluster.kubectl, SYSTEM)
    cluster.kubectl.run("create", "namespace", SYSTEM, check=True)
    try:
        cluster.kubectl.run("apply", "-f", RIGHTS, check=True)
        configuration = CONFIGURATION.read_text()
        assert "15s" in configuration
        files = {
            CONFIGURATION.name: configuration.replace("15s", "2s"),
            RULE_FILE.name: RULE_FILE.read_text(),
        }
        kept = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": files}
        system.apply(kept, prometheus_pod())
        system.ready(NAME)
        yield Watch(system)
    finally:
        cluster.kubectl.run("delete", "-f", RIGHTS, check=True)
        cluster.kubectl.run("delete", "namespace", SYSTEM, check=True)


def gateways(shop: Shop) -> set[str]:
    """`manifests/overlays/gateway` in this namespace; the names of its pods once they serve."""
    documents = list(yaml.safe_load_all(shop.run("kustomize", GATEWAY)))
    for document in documents:
        document["metadata"]["namespace"] = shop.namespace
        for subject in document.get("subjects", ()):
            subject["namespace"] = shop.namespace
    shop.apply(*documents)
    shop.run("rollout", "status", "deployment/nexus-gateway", "--timeout=120s")
    chosen = ("get", "pods", "-l", "app.kubernetes.io/name=nexus-gateway", "-o", "name")
    return {name.removeprefix("pod/") for name in shop.run(*chosen).split()}


def test_operator_gateways_and_sidecars_are_found_by_the_names_of_their_ports(
    shop: Shop, watch: Watch
) -> None:
    shop.open_up("sim-a", "sim-b")
    shop.app()
    once = pods.pod("once", ["/bin/true"], labels={"nexus.dev/inject": "true"}, restart="Never")
    shop.apply(once)
    serving = gateways(shop)
    assert len(serving) == 3
    shop.until(
        "the job's pod ends", lambda: shop.get("pod", "once")["status"]["phase"] == "Succeeded"
    )
    found = dict.fromkeys((*serving, "app"), 1.0)
    place = {"namespace": shop.namespace}
    shop.until("the proxies answer", lambda: watch.up("nexus-proxy", **place) == found)
    shop.until("the operator answers", lambda: [*watch.up("nexus-operator").values()] == [1.0])
    statuses, _ = shop.shopping("app", seconds=4).done()
    assert statuses == {"200": 40}
    asked = f'nexus_proxy_requests_total{{namespace="{shop.namespace}",pod="app",status="200"}}'
    shop.until("its requests", lambda: [n for _, n in watch.query(asked)] == [40.0])
    states = f'nexus_operator_backend_state{{agent_id=~"{shop.namespace}/.*",state="Active"}}'
    shop.until("both backends", lambda: len(watch.query(states)) == 2)
    shop.until("the recorded rate", lambda: bool(watch.query("nexus:requests:rate5m")))
