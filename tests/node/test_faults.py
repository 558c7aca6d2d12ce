"""What goes wrong in a cluster: clients see no failure that another backend could prevent.

Afterwards the operator has counted exactly what the proxies have: nothing lost, nothing twice.
"""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest

from nexus_devtools.node import containers, pods

RATE = 10.0
SIMS = ("sim-a", "sim-b")
IMPATIENT = {"firstTokenSeconds": 3, "responseSeconds": 3, "connectSeconds": 1}
OPERATOR = "app.kubernetes.io/name=nexus-operator"


@pytest.fixture
def busy(shop: Any) -> Any:
    """Two backends and an application, already used."""
    shop.apply(pods.policy())
    shop.open_up(*SIMS, timeouts=IMPATIENT)
    shop.app()
    statuses, _ = shop.shopping("app", seconds=2, rate=RATE).done()
    assert statuses == {"200": 20}
    return shop


def proxy_status(shop: Any) -> dict[str, Any]:
    (proxy,) = shop.get("pod", "app")["status"]["initContainerStatuses"]
    found: dict[str, Any] = proxy
    return found


def test_a_backend_whose_pod_is_deleted_costs_no_client_an_answer(busy: Any) -> None:
    shopping = busy.shopping("app", seconds=10, rate=RATE)
    time.sleep(2)
    busy.run("delete", "pod", "sim-a", "--grace-period=0", "--force")
    statuses, backends = shopping.done()
    assert statuses == {"200": 100}
    assert backends["sim-b"] > 60
    busy.until("it is left", lambda: busy.state("sim-a") in ("Excluded", "Probation", "Unhealthy"))
    busy.apply(*pods.simulated("sim-a"))
    busy.ready("sim-a")
    served, whole = 0, {"200": int(5 * RATE)}
    for _ in range(16):
        statuses, backends = busy.shopping("app", seconds=5, rate=RATE).done()
        assert statuses == whole
        served += backends.get("sim-a", 0)
        if busy.state("sim-a") == "Active":
            break
    assert busy.state("sim-a") == "Active"
    assert served > 0
    busy.whole(SIMS)


def test_a_backend_that_hangs_is_left_and_the_clients_are_answered_elsewhere(busy: Any) -> None:
    shopping = busy.shopping("app", seconds=10, rate=RATE)
    time.sleep(2)
    busy.signal(signal.SIGSTOP, "sim-a")
    statuses, backends = shopping.done()
    busy.signal(signal.SIGCONT, "sim-a")
    assert statuses == {"200": 100}
    assert backends["sim-b"] > 60
    busy.whole(SIMS)


def test_a_backend_whose_packets_are_dropped_costs_no_client_an_answer(busy: Any) -> None:
    drop = ("INPUT", "-p", "tcp", "--dport", str(pods.PORT), "-j", "DROP")
    shopping = busy.shopping("app", seconds=10, rate=RATE)
    time.sleep(2)
    busy.in_network("sim-a", "iptables", "-I", *drop)
    statuses, backends = shopping.done()
    busy.in_network("sim-a", "iptables", "-D", *drop)
    assert statuses == {"200": 100}
    assert backends["sim-b"] > 60
    busy.whole(SIMS)


def test_the_operator_is_killed_and_counts_everything_all_the_same(busy: Any, system: Any) -> None:
    shopping = busy.shopping("app", seconds=8, rate=RATE)
    time.sleep(2)
    system.run("delete", "pod", "-l", OPERATOR, "--grace-period=0", "--force")
    statuses, _ = shopping.done()
    assert statuses == {"200": 80}
    system.run("rollout", "status", "deployment/nexus-operator", "--timeout=90s")
    assert sum(busy.attempts("app").values()) == 100
    busy.whole(SIMS)


def test_the_operator_is_evicted_and_counts_everything_all_the_same(busy: Any, system: Any) -> None:
    (name,) = system.run("get", "pods", "-l", OPERATOR, "-o", "name").split()
    pod = name.removeprefix("pod/")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": system.namespace},
    }
    shopping = busy.shopping("app", seconds=8, rate=RATE)
    time.sleep(2)
    path = f"/api/v1/namespaces/{system.namespace}/pods/{pod}/eviction"
    system.run("create", "--raw", path, "-f", "-", input=json.dumps(eviction))
    statuses, _ = shopping.done()
    assert statuses == {"200": 80}
    system.run("wait", "--for=delete", name, "--timeout=60s")
    system.run("rollout", "status", "deployment/nexus-operator", "--timeout=90s")
    assert sum(busy.attempts("app").values()) == 100
    busy.whole(SIMS)


def test_a_proxy_that_is_killed_comes_back_and_its_counts_with_it(busy: Any) -> None:
    busy.whole(SIMS)
    busy.signal(signal.SIGKILL, "app", "nexus-proxy")
    busy.until("it was started again", lambda: proxy_status(busy)["restartCount"] == 1)
    busy.ready("app")
    statuses, _ = busy.shopping("app", seconds=3, rate=RATE).done()
    assert statuses == {"200": 30}
    busy.until("both lives are counted", lambda: busy.counted(*SIMS) == 20 + 30)


def test_a_proxy_out_of_memory_is_killed_by_the_kernel_and_serves_on(busy: Any) -> None:
    busy.whole(SIMS)
    identifier = containers.identifier(busy.get("pod", "app"), "nexus-proxy")
    limit = containers.memory_limit(identifier)
    usage = limit.with_name(limit.name.replace("limit_in_bytes", "usage_in_bytes"))
    usage = usage.with_name(usage.name.replace("memory.max", "memory.current"))
    limit.write_text(str(int(usage.read_text()) + 2 * 2**20))
    flood = (
        "import httpx, os, concurrent.futures as f\n"
        "body = {'model': 'm', 'messages': [{'role': 'user', 'content': 'x' * 8_000_000}]}\n"
        "def ask(_):\n"
        "    try: httpx.post(os.environ['OPENAI_BASE_URL'] + '/chat/completions', json=body)\n"
        "    except httpx.HTTPError: pass\n"
        "list(f.ThreadPoolExecutor(4).map(ask, range(8)))\n"
    )
    busy.run("exec", "app", "-c", "main", "--", pods.PYTHON, "-c", flood)
    busy.until("it was started again", lambda: proxy_status(busy)["restartCount"] >= 1)
    assert proxy_status(busy)["lastState"]["terminated"]["reason"] == "OOMKilled"
    busy.ready("app")
    before = busy.counted(*SIMS) - sum(busy.attempts("app").values())
    statuses, _ = busy.shopping("app", seconds=3, rate=RATE).done()
    assert statuses == {"200": 30}
    busy.until(
        "it reports on",
        lambda: busy.counted(*SIMS) == before + sum(busy.attempts("app").values()) >= 20 + 30,
    )
