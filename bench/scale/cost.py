"""What reports and looks cost the operator in CPU time, in one process and without a network.

Promises the shipped way of a report (decode, merge, judge, plan the write, accept it) on simulated
time, so that a busy machine changes little. Connections, the API server and memory are not in it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import msgspec
from bench.scale.fleet import Fleet, Proxy
from bench.scale.plan import NAMESPACE, Size, manifest, uid_of
from bench.table import percentile, show

from nexus_api.meta import BACKEND_PLURAL
from nexus_operator import assembly
from nexus_operator.app import COLLECTOR
from nexus_operator.assembly import Parts
from nexus_operator.credentials import Credentials
from nexus_operator.identity import Reporter
from nexus_operator.plan import Key
from nexus_operator.settings import Settings
from nexus_operator.wires import Wires
from nexus_quality.report import Report, decode_report, encode

Stored = dict[str, Any]
STARTING_SECONDS = 61.0


@dataclass(slots=True)
class Cost:
    """CPU seconds of one kind of step, and how often it was taken."""

    spent: list[float] = field(default_factory=list)

    def measure(self, action: Callable[[], Any]) -> Any:
        """Takes the step."""
        began = time.thread_time()
        result = action()
        self.spent.append(time.thread_time() - began)
        return result

    def row(self, name: str) -> tuple[str, ...]:
        """Number, mean, p99 and most, in milliseconds."""
        spent = self.spent or [0.0]
        figures = (sum(spent) / len(spent), percentile(spent, 0.99), max(spent))
        return (name, str(len(self.spent)), *(f"{1000 * figure:.2f}" for figure in figures))


class Desk:
    """The operator's parts on a clock that is set by hand, and a fleet that talks to them."""

    def __init__(self, size: Size) -> None:
        self.now = time.time()
        wires = Wires(
            load=lambda: Credentials(server="http://api", origin="bench", namespace=NAMESPACE),
            deposed=lambda: None,
            fail=_failed,
            why_not_ready=lambda: None,
            replaced=lambda: None,
        )
        with mock.patch.object(assembly, "Clock", lambda: lambda: self.now):
            self.parts = Parts(Settings(namespaces=(NAMESPACE,)), wires, own_slot=True)
        self._version = size.backends
        self.parts.engine.begin(self.now)
        for number in range(size.backends):
            self.parts.observer.see(BACKEND_PLURAL, manifest(number))
        self.uids = [uid_of(number) for number in range(size.backends)]
        self.fleet = Fleet(size, 0, clock=lambda: self.now)
        self.decode, self.merge, self.judge, self.write = Cost(), Cost(), Cost(), Cost()
        self.look, self.report = Cost(), Cost()

    def reset(self) -> None:
        """Begins new measurements."""
        for cost in (self.decode, self.merge, self.judge, self.write, self.look, self.report):
            cost.spent.clear()

    def rows(self) -> Iterator[tuple[str, ...]]:
        """What it came to."""
        yield self.report.row("a report, all in all")
        yield self.decode.row("  decode")
        yield self.merge.row("  merge")
        yield self.judge.row("  judge, per backend touched")
        yield self.write.row("a status planned and accepted")
        yield self.look.row("all backends looked at")

    def tell(self, number: int, proxy: Proxy, *, full: bool) -> None:
        """One report of a proxy, and all that comes of it."""
        report = proxy.monitor.report(self.now, full=full)
        if report is None:
            return
        body = encode(report)
        began = time.thread_time()
        taken: Report = self.decode.measure(lambda: decode_report(body))
        sender = Reporter(key=f"{NAMESPACE}/pod-{number}", namespace=NAMESPACE, user={})
        answer = self.merge.measure(lambda: self.parts.evaluator.merge(sender, taken))
        self.report.spent.append(time.thread_time() - began)
        proxy.monitor.acknowledged(report, answer, self.now)
        for uid in self.parts.evaluator.take_touched():
            urgent = self.judge.measure(partial(self.parts.planner.urgent, uid))
            self.report.spent[-1] += self.judge.spent[-1]
            if urgent:
                self.apply(uid)

    def look_at_all(self) -> int:
        """A look at every backend whose interval is over; how many of them want a write."""
        due = [uid for uid in self.uids if self.parts.planner.due(uid)]
        for uid in due:
            self.apply(uid)
        return len(due)

    def apply(self, uid: str) -> None:
        """The write that is due, accepted."""
        plan = self.write.measure(lambda: self.parts.planner.plan(Key(BACKEND_PLURAL, uid)))
        while plan is not None:
            self._version += 1
            backend = self.parts.registry.backends.get(uid)
            assert backend is not None
            number = int(uid[-12:])
            stored = manifest(number) | {"status": msgspec.to_builtins(plan.status)}
            stored["metadata"]["resourceVersion"] = str(self._version)
            self.write.measure(partial(plan.accepted, stored))
            self.fleet.changed(stored)
            plan = self.parts.planner.plan(Key(BACKEND_PLURAL, uid))

    def second(self, *, storm: bool, full_every: int = 20) -> None:
        """A second of the fleet's life: in a storm every proxy reports."""
        for number, proxy in enumerate(self.fleet.proxies):
            proxy.serve(self.now)
            proxy.monitor.tick(self.now)
            full = int(self.now) % full_every == number % full_every
            if storm or full:
                self.tell(number, proxy, full=full)
        self.now += 1.0


def costs(size: Size, *, quiet: int, storm: int) -> None:
    """Prints a table for the start, for quiet seconds and for a storm."""
    gc.set_threshold(*COLLECTOR)
    desk = Desk(size)
    for number, proxy in enumerate(desk.fleet.proxies):
        desk.tell(number, proxy, full=True)
    _print("start: every reporter replays", desk)
    desk.now += STARTING_SECONDS
    desk.look_at_all()
    for title, seconds, stormy in (("quiet", quiet, False), ("storm", storm, True)):
        desk.reset()
        broken = max(1, round(size.failing * size.backends))
        for second in range(seconds):
            first = second * max(1, broken // 20)
            numbers = range(first, first + broken) if stormy else ()
            desk.fleet.broken = {uid_of(number % size.backends) for number in numbers}
            desk.second(storm=stormy)
        for _ in range(3):
            desk.look.measure(lambda: [desk.parts.planner.due(uid) for uid in desk.uids])
            desk.now += 10.0
        _print(f"{title}: {seconds} s", desk)


def _print(title: str, desk: Desk) -> None:
    print(f"\n{title}")
    show(("CPU ms", "times", "mean", "p99", "most"), list(desk.rows()))


def _failed(problem: Exception) -> None:
    raise problem
