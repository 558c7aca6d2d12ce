"""What goes wrong in a cluster: clients see no failure that another backend could prevent."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from nexus_devtools.node import pods

RATE = 10.0


@pytest.fixture
def busy(shop: Any) -> Any:
    """Two backends and an application, already used."""
    shop.open_up("sim-a", "sim-b")
    shop.app()
    statuses, _ = shop.shopping("app", seconds=2, rate=RATE).done()
    assert statuses == {"200": 20}
    return shop


def total(shop: Any) -> int:
    found = [shop.get("llmbackend", name)["status"] for name in ("sim-a", "sim-b")]
    return sum(each.get("quality", {}).get("requests1h", 0) for each in found)


def test_a_backend_whose_pod_is_deleted_costs_no_client_an_answer(busy: Any) -> None:
    shopping = busy.shopping("app", seconds=15, rate=RATE)
    time.sleep(3)
    busy.run("delete", "pod", "sim-a", "--grace-period=0", "--force")
    statuses, backends = shopping.done()
    assert statuses == {"200": 150}
    assert backends["sim-b"] > 100
    busy.until("it is excluded", lambda: busy.state("sim-a") in ("Excluded", "Unhealthy"))
    busy.apply(*pods.simulated("sim-a"))
    busy.ready("sim-a")
    again = busy.shopping("app", seconds=60, rate=RATE)
    busy.until("it is back", lambda: busy.state("sim-a") == "Active")
    statuses, backends = again.done()
    assert statuses == {"200": 600}
    assert backends["sim-a"] > 0


def test_a_backend_that_hangs_is_left_and_the_clients_are_answered_elsewhere(shop: Any) -> None:
    for name in ("sim-a", "sim-b"):
        timeouts = {"firstTokenSeconds": 5, "responseSeconds": 5, "connectSeconds": 2}
        backend = pods.backend(name, models=[{"name": "m"}], timeouts=timeouts)
        shop.apply(*pods.simulated(name), backend)
    shop.ready("sim-a", "sim-b")
    shop.app()
    shopping = shop.shopping("app", seconds=25, rate=RATE)
    time.sleep(3)
    shop.signal(signal.SIGSTOP, "sim-a")
    statuses, backends = shopping.done()
    shop.signal(signal.SIGCONT, "sim-a")
    assert statuses == {"200": 250}
    assert backends["sim-b"] > 150


def test_the_operator_is_killed_and_counts_everything_all_the_same(busy: Any, system: Any) -> None:
    before = total(busy)
    shopping = busy.shopping("app", seconds=20, rate=RATE)
    time.sleep(3)
    system.run("delete", "pod", "-l", "app.kubernetes.io/name=nexus-operator", "--force")
    statuses, _ = shopping.done()
    assert statuses == {"200": 200}
    system.run("rollout", "status", "deployment/nexus-operator", "--timeout=90s")
    busy.until("nothing of it is lost or counted twice", lambda: total(busy) == before + 200)


def test_a_proxy_that_is_killed_comes_back_and_its_counts_with_it(busy: Any) -> None:
    before = total(busy)

    def restarts() -> int:
        (proxy,) = busy.get("pod", "app")["status"]["initContainerStatuses"]
        return int(proxy["restartCount"])

    busy.signal(signal.SIGKILL, "app", "nexus-proxy")
    busy.until("it was started again", lambda: restarts() == 1)
    busy.ready("app")
    statuses, _ = busy.shopping("app", seconds=3, rate=RATE).done()
    assert statuses == {"200": 30}
    busy.until("it reports on", lambda: total(busy) == before + 30)
