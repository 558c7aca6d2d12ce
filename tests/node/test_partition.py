"""The second node is cut off: each half serves with what it has, and afterwards all is counted."""

from __future__ import annotations

import json
import time
from typing import Any

from nexus_devtools.node import network, pods
from nexus_devtools.node.cluster import Cluster

IMPATIENT = {"firstTokenSeconds": 3, "responseSeconds": 3, "connectSeconds": 1}
HALVES = {"node1": ("sim-a", "app-1"), "node2": ("sim-b", "app-2")}


def is_ready(cluster: Cluster, node: str) -> bool:
    text = cluster.kubectl.run("get", "node", node, "-o", "json", check=True).stdout
    conditions = json.loads(text)["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def test_both_halves_of_a_partitioned_cluster_serve_and_all_is_counted(
    shop: Any, cluster: Cluster
) -> None:
    second = cluster.nodes[1]
    for node, (backend, _) in HALVES.items():
        shop.apply(*pods.simulated(backend, node=node))
    shop.ready("sim-a", "sim-b")
    for backend in ("sim-a", "sim-b"):
        # By address: the cluster's DNS is in the first half.
        url = f"http://{shop.get('pod', backend)['status']['podIP']}:{pods.PORT}"
        shop.apply(pods.policy(), shop.backend(backend, url=url, timeouts=IMPATIENT))
    for node, (_, app) in HALVES.items():
        shop.app(app, node=node)
        statuses, _ = shop.shopping(app, seconds=2).done()
        assert statuses == {"200": 20}
    shoppings = [shop.shopping_behind(app, seconds=30, rate=5) for app in ("app-1", "app-2")]
    time.sleep(2)
    network.cut(second)
    try:
        shop.until("the node is lost", lambda: not is_ready(cluster, second.name))
    finally:
        network.mend(second)
    (near, near_by), (far, far_by) = [shopping.done() for shopping in shoppings]
    assert near == far == {"200": 150}
    assert near_by["sim-a"] > 100 and far_by["sim-b"] > 100
    shop.until("the node is back", lambda: is_ready(cluster, second.name))
    shop.whole(["sim-a", "sim-b"], ["app-1", "app-2"])
