"""A namespace that goes with everything in it, while others depend on the operator and on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from nexus_devtools.node import pods
from nexus_devtools.node.cluster import Cluster

SIMS = ("sim-a", "sim-b")


def series_of(system: Any, namespace: str) -> list[str]:
    """The operator's series that name the namespace."""
    address = system.get("service", "nexus-operator")["spec"]["clusterIP"]
    text = httpx.get(f"http://{address}:8080/metrics", trust_env=False).text
    return [line for line in text.splitlines() if f'"{namespace}/' in line]


def test_a_namespace_with_backends_goes_and_nothing_of_it_stays(
    cluster: Cluster, make_shop: Callable[[], Any], system: Any
) -> None:
    kept, gone = make_shop(), make_shop()
    for each in (kept, gone):
        each.apply(pods.policy())
        each.open_up(*SIMS)
        each.app()
        assert each.shopping("app", seconds=2).done()[0] == {"200": 20}
        each.whole(SIMS)
    assert series_of(system, gone.namespace)

    shopping = kept.shopping("app", seconds=10)
    # Nothing of ours holds it up: no finalizer, no webhook.
    kept.run("delete", "namespace", gone.namespace, "--timeout=60s")
    statuses, _ = shopping.done()
    assert statuses == {"200": 100}
    kept.until("its series are gone", lambda: not series_of(system, gone.namespace))
    kept.whole(SIMS)
    operator = system.run(
        "get", "pods", "-l", "app.kubernetes.io/name=nexus-operator", "-o", "json"
    )
    assert '"restartCount": 0' in operator

    # The same names again are other objects: they begin at nothing.
    again = make_shop(gone.namespace)
    again.apply(pods.policy())
    again.open_up(*SIMS)
    again.until("it is watched", lambda: again.state("sim-a") == "Active")
    assert again.counted(*SIMS) == 0
    again.app()
    assert again.shopping("app", seconds=1).done()[0] == {"200": 10}
    again.whole(SIMS)
