"""Microseconds per routing decision, by number of candidates: `python bench/decision.py`.

Each round chooses, begins and ends an attempt on the chosen backend and folds in a latency, so that
the board has real changes to follow; what the bookkeeping alone costs is measured apart and taken
off. CPU time, so that a busy machine disturbs less.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

from nexus_proxy.routing.candidate import Backend, Candidate, Origin, Traits
from nexus_proxy.routing.choice import Choice
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.request import Call, analyze
from nexus_proxy.routing.router import Router
from nexus_proxy.routing.table import Table
from nexus_quality.monitor import Monitor
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.shared import SharedVerdict

CANDIDATES = (3, 100, 1000)
DECISIONS = 20_000
ROUNDS = 5
BODY = b'{"model":"m","messages":[{"role":"user","content":"' + b"word " * 400 + b'"}]}'


def router_of(size: int) -> Router:
    """A router with one model on `size` backends of mixed priority."""
    router = Router(random=random.Random(1).random)
    monitor = Monitor(
        incarnation="0" * 32,
        started=0.0,
        random=random.random,
        on_change=router.invalidate,
        on_urgent=lambda _seconds: None,
    )
    origin = Origin("http", "localhost", 1, b"localhost:1", b"", {})
    members = []
    for number in range(size):
        backend = Backend(
            f"uid-{number}",
            "default",
            f"backend-{number}",
            origin=origin,
            changed=router.journal.changed,
        )
        monitor.configure(
            backend.uid, policy=DEFAULT_POLICY, shared=SharedVerdict(), fingerprint="", now=0.0
        )
        traits = Traits(priority=50 + number % 3, ttft_threshold_ms=3000)
        subject = monitor.subject(backend.uid, "m")
        members.append(Candidate(backend, "m", subject=subject, traits=traits))
    router.install(Table({"m": tuple(members)}, {c.backend.uid: c.backend for c in members}))
    return router


def _per_call(action: Callable[[], object], calls: int) -> float:
    began = time.process_time()
    for _ in range(calls):
        action()
    return (time.process_time() - began) / calls * 1e6


def _decide(router: Router, call: Call) -> Callable[[], None]:
    def decide() -> None:
        choice = router.choose(call, 1.0)
        assert type(choice) is Choice
        _serve(choice.candidate.backend)

    return decide


def _serve(backend: Backend) -> None:
    backend.in_flight += 1
    backend.observe_latency(50.0)
    backend.in_flight -= 1


def measure(size: int) -> float:
    """Median microseconds of one decision among `size` candidates."""
    router = router_of(size)
    decide = _decide(router, analyze(Endpoint.CHAT, BODY))
    decide()
    backend = next(iter(router.table.backends.values()))
    return statistics.median(
        _per_call(decide, DECISIONS) - _per_call(lambda: _serve(backend), DECISIONS)
        for _ in range(ROUNDS)
    )


def main() -> None:
    """Print the table."""
    print(f"{'candidates':>10}  {'µs per decision':>15}")
    for size in CANDIDATES:
        print(f"{size:>10}  {measure(size):>15.2f}")
    analysis = _per_call(lambda: analyze(Endpoint.CHAT, BODY), DECISIONS)
    print(f"reading a request body of {len(BODY)} bytes: {analysis:.2f} µs")


if __name__ == "__main__":
    main()
