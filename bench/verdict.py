"""From the outcome that completes the evidence to the moment every proxy acts on the verdict.

Measured from outside: the clock starts when the broken backend has answered its last failure
before both proxies' own breakers keep it away, and stops when `/v1/explain` of every proxy shows
the shared verdict. Both are polled, so a figure is exact to about the polling interval.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
from bench.table import percentile, show
from bench.world import world

from nexus_devtools.backends import Fault, FaultKind, Script
from nexus_devtools.e2e import BACKENDS, MODEL, PROMPT, World, backend, policy

ROUNDS = 20
POLL_SECONDS = 0.005
GOAL_SECONDS = 1.0
BROKEN = Script(headers_seconds=0.01, faults=(Fault(kind=FaultKind.STATUS, status=500),))
QUESTION = {"model": MODEL, "messages": [{"role": "user", "content": "?"}]}


def main() -> None:
    """Print p50 and p99 over some rounds of breaking and mending one backend."""
    with world("verdict") as place:
        place.apply(policy("default", metricsIntervalSeconds=1))
        _renew(place, 0)
        stop = threading.Event()
        traffic = [
            threading.Thread(target=_traffic, args=(proxy.url, stop), daemon=True)
            for proxy in place.proxies.values()
        ]
        for thread in traffic:
            thread.start()
        try:
            delays = [_round(place, number) for number in range(1, ROUNDS + 1)]
        finally:
            stop.set()
            for thread in traffic:
                thread.join()
    acts = [delay for delay, _ in delays]
    failed = [float(attempts) for _, attempts in delays]
    show(
        ["outcome to every proxy acting", "p50", "p99", "goal"],
        [
            ["seconds", f"{percentile(acts, 0.5):.3f}", f"{percentile(acts, 0.99):.3f}",
             f"<= {GOAL_SECONDS:g}"],
            ["failed attempts before, two proxies", f"{percentile(failed, 0.5):.0f}",
             f"{percentile(failed, 0.99):.0f}", "~10"],
        ],
    )  # fmt: skip
    print(f"({ROUNDS} rounds, two proxies, about 40 requests a second each)")


def _traffic(url: str, stop: threading.Event) -> None:
    with httpx.Client(base_url=url, trust_env=False, timeout=10) as client:
        while not stop.is_set():
            client.post("/v1/chat/completions", json=QUESTION)
            stop.wait(0.01)


def _renew(place: World, number: int) -> None:
    """Make all backends new to the verdict: a change of URL releases and forgets."""
    suffix = "/v1" if number % 2 else ""
    place.apply(*[backend(name, place.backends[name].url + suffix) for name in BACKENDS])
    for name in BACKENDS:
        place.wait_for_state(name, "Active", seconds=30)


def _round(place: World, number: int) -> tuple[float, int]:
    broken = place.backends["alpha"]
    time.sleep(2.0)  # ordinary traffic, so that each proxy has a usual rate
    before = broken.seen().requests
    broken.set(BROKEN)
    last_failure = time.monotonic()
    attempts = before
    waiting = dict(place.proxies)
    with httpx.Client(trust_env=False, timeout=2) as client:
        while waiting:
            now = time.monotonic()
            seen = broken.seen().requests
            if seen != attempts:
                attempts, last_failure = seen, now
            for app, proxy in list(waiting.items()):
                if _acts(client.post(f"{proxy.admin_url}/v1/explain", json=QUESTION).json()):
                    del waiting[app]
            if now - last_failure > 30:
                raise RuntimeError(f"round {number}: no verdict within 30 s")
            time.sleep(POLL_SECONDS)
    took = time.monotonic() - last_failure
    broken.set(PROMPT)
    _renew(place, number)
    return took, attempts - before


def _acts(explained: dict[str, Any]) -> bool:
    """True if the proxy leaves alpha out by the shared verdict, not by its own breaker alone."""
    for leg in explained.get("legs", []):
        for candidate in leg["candidates"]:
            reason = candidate.get("reason", "")
            if candidate["backend"] == "alpha" and reason and "proxy's breaker" not in reason:
                return True
    return False
