"""What the quality engine costs: per attempt in a proxy, per report and verdict in the operator.

CPU time of one thread, the best of several rounds, so that a busy machine disturbs little.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator

from bench.table import show

from nexus_quality.engine import BackendFacts, Engine
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.report import Answer, Report, decode_report, encode
from nexus_quality.shared import SharedVerdict
from nexus_quality.subject import Subject

ROUNDS = 7
REPORTERS = (1, 10, 500)
UID = "uid-0"
FILLED = 600.0


def main() -> None:
    """Print both tables."""
    print("In the proxy")
    show(("per attempt", "µs"), [(name, f"{cost:.2f}") for name, cost in _attempts()])
    print("\nIn the operator")
    show(("per call", "reporters", "µs"), _operator())


def microseconds(action: Callable[[int], None], times: int) -> float:
    """CPU microseconds per call of `action`, given its number, in the best of some rounds."""
    best = float("inf")
    for attempt in range(ROUNDS):
        gc.collect()
        gc.disable()
        began = time.process_time()
        for number in range(attempt * times, (attempt + 1) * times):
            action(number)
        spent = time.process_time() - began
        gc.enable()
        best = min(best, spent / times)
    return best * 1e6


def _monitor() -> tuple[Monitor, Subject]:
    chance = random.Random(1)
    monitor = Monitor(
        incarnation=f"{chance.getrandbits(128):032x}",
        started=0.0,
        random=chance.random,
        on_change=lambda: None,
        on_urgent=lambda _: None,
    )
    monitor.configure(UID, policy=DEFAULT_POLICY, shared=SharedVerdict(), fingerprint="", now=0.0)
    return monitor, monitor.subject(UID, "tiny")


def _attempts() -> list[tuple[str, float]]:
    _, subject = _monitor()

    def success(number: int) -> None:
        now = number / 1000
        attempt = subject.begin(now)
        attempt.sent(now)
        attempt.end(Outcome.SUCCESS, now + 0.05)

    def streamed(number: int) -> None:
        now = number / 1000
        attempt = subject.begin(now)
        attempt.sent(now)
        attempt.content(now + 0.02)
        attempt.end(Outcome.SUCCESS, now + 0.05)

    def failure(number: int) -> None:
        now = number / 1000
        attempt = subject.begin(now)
        attempt.end(Outcome.SERVER_ERROR, now + 0.001)
        attempt = subject.begin(now + 0.002)
        attempt.end(Outcome.SUCCESS, now + 0.003)

    plain = microseconds(success, 20_000)
    return [
        ("success", plain),
        ("success, streamed, with TTFT", microseconds(streamed, 20_000)),
        ("failure between successes", microseconds(failure, 5_000) - plain),
    ]


def _operator() -> list[tuple[object, ...]]:
    return [row for reporters in REPORTERS for row in _rows(reporters)]


def _rows(reporters: int) -> Iterator[tuple[object, ...]]:
    engine, bodies = _engine(reporters)
    cells = len(decode_report(bodies[0]).cells)

    def wanted(_: int) -> None:
        engine.wanted(UID, FILLED)

    def wanted_later(number: int) -> None:
        engine.wanted(UID, FILLED + 10.0 * (number % 2))

    def figures(_: int) -> None:
        engine.figures(UID, FILLED).quality()

    for name, action in (
        (f"merge of {cells} cells, all changed", _merge_one(engine, bodies[0])),
        ("wanted, nothing new", wanted),
        ("wanted, first of a ten-second bucket", wanted_later),
        ("figures", figures),
    ):
        yield name, reporters, f"{microseconds(action, 20):.0f}"


def _engine(reporters: int) -> tuple[Engine, list[bytes]]:
    """An engine that heard ten minutes of steady traffic from all its reporters."""
    engine = Engine(epoch="1", started=0.0, random=random.Random(1).random)
    facts = BackendFacts(uid=UID, namespace="shop", name="a", fingerprint="")
    engine.upsert(facts, DEFAULT_POLICY, 0.0)
    bodies = []
    for number in range(reporters):
        monitor, subject = _monitor()
        monitor.incarnation = f"{number:032x}"
        for tenth in range(5_990):
            now = tenth / 10
            attempt = subject.begin(now)
            attempt.sent(now)
            attempt.content(now + 0.2 + number / 1000)
            failed = tenth % 50 == 0
            attempt.end(Outcome.SERVER_ERROR if failed else Outcome.SUCCESS, now + 0.5)
        report = monitor.report(FILLED, full=True)
        assert isinstance(report, Report)
        body = encode(report)
        bodies.append(body)
        answer = engine.merge(f"pod-{number}", decode_report(body), FILLED).answer
        assert isinstance(answer, Answer)
    return engine, bodies


def _merge_one(engine: Engine, body: bytes) -> Callable[[int], None]:
    """Each call merges the first reporter's full report with one more request in every cell."""
    report = decode_report(body)

    def merge(_: int) -> None:
        for cell in report.cells:
            cell.requests += 1
        engine.merge("pod-0", report, FILLED)

    return merge


if __name__ == "__main__":
    main()
