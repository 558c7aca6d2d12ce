"""Memory at rest and time to readiness, of real processes on a real API server over TLS."""

from __future__ import annotations

import time
from pathlib import Path

from bench.table import show
from bench.world import world

from nexus_devtools.backends import Child
from nexus_devtools.e2e import World, backend, eventually

PROXY_GOAL_MB = 45
OPERATOR_GOAL_MB = 120
READY_GOAL_SECONDS = 1.0
STARTS = 5
MANY = 100


def main() -> None:
    """Print memory of operator and proxy with 3 and with 100 backends, and starts of a proxy."""
    with world("footprint") as place:
        rows = [_memory(place, 0)]
        for count in (3, MANY):
            url = place.backends["alpha"].url
            place.apply(*[backend(f"backend-{n}", url, suspend=n > 2) for n in range(count)])
            _wait_for_states(place, count)
            rows.append(_memory(place, count))
        show(["backends", "proxy RSS MB", "goal", "operator RSS MB", "goal"], rows)
        starts = [_start(place, n) for n in range(STARTS)]
        starts.sort()
        print()
        show(
            ["proxy start to ready, s", "goal"],
            [[f"{starts[0]:.2f} / {starts[len(starts) // 2]:.2f} / {starts[-1]:.2f}",
              f"<= {READY_GOAL_SECONDS:g}"]],
        )  # fmt: skip
        print("(least / median / most of", STARTS, "starts, process start to /readyz 200)")


def _wait_for_states(place: World, count: int) -> None:
    def states() -> list[str]:
        return place.kubectl("get", "llmb", "-o", "jsonpath={.items[*].status.state}").split()

    eventually(states, lambda seen: len(seen) == count, what=f"{count} states", seconds=60)


def _memory(place: World, count: int) -> list[object]:
    time.sleep(3.0)  # at rest: what listing and probing left behind has been let go
    proxy = max(rss_mb(proxy.child) for proxy in place.proxies.values())
    return [
        count,
        f"{proxy:.1f}",
        f"<= {PROXY_GOAL_MB}",
        f"{rss_mb(place.operator.child):.1f}",
        f"<= {OPERATOR_GOAL_MB}",
    ]


def rss_mb(child: Child) -> float:
    """Resident memory of a process, in MB."""
    for line in Path(f"/proc/{child.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"{child.name} has no VmRSS")


def _start(place: World, number: int) -> float:
    app = f"extra-{number}"
    place.product.install(app)
    place.product.credentials(app)
    began = time.monotonic()
    proxy = place.product.proxy(app, operator_url=place.operator.url)
    took = time.monotonic() - began
    proxy.child.stop()
    return took
