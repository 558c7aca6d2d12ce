"""A world put together: backends, a fleet of proxies under one policy, their traffic.

Promises that two simulations of one seed differ in the policy alone, and that `branch` leaves the
simulation it started from untouched, so that one warm-up serves many scenarios.
"""

from __future__ import annotations

import gc
import os
import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.simulate.arrivals import Arrivals, Request, Traffic
from bench.simulate.backends import Fault, SimBackend
from bench.simulate.baselines import BASELINES
from bench.simulate.journey import Gate, Journey
from bench.simulate.measure import Log, Result
from bench.simulate.objects import objects
from bench.simulate.operator import Delays, Operator
from bench.simulate.proxy import NexusProxy
from bench.simulate.world import EPOCH, World

from nexus_quality.engine import Engine
from nexus_quality.window import Family

NEXUS = "nexus"
ALONE = "alone"  # the product's own breakers without an operator
POLICIES = (NEXUS, *BASELINES)
DRAIN_SECONDS = 200.0
LAST_REPORTS_SECONDS = 100.0  # a full report of everybody, and the last copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A fleet and its backends. `traffic` is each proxy's; `warm`: seconds before the measured
    part; `quality`: the spec of the QualityPolicy, the defaults where it is silent. `skew`: the
    clocks of the proxies are off by so many seconds more from one to the next, the middle one's
    not at all. `audited`: at the end what the operator counted is held against the proxies' own.
    """

    traffic: Traffic
    proxies: int = 1
    backends: int = 3
    slots: int = 32
    queue: int = 1000
    warm: float = 3600.0
    quality: tuple[tuple[str, Any], ...] = ()
    delays: Delays = field(default_factory=Delays)
    skew: float = 0.0
    audited: bool = False


class Simulation:
    """One run."""

    def __init__(self, shape: Shape, *, policy: str, retries: int, seed: int) -> None:
        self.shape, self.policy, self.retries = shape, policy, retries
        self.world = world = World(str(seed))
        self.log = Log(world)
        self.backends = [
            SimBackend(world, number, slots=shape.slots, queue=shape.queue)
            for number in range(shape.backends)
        ]
        self.operator: Operator | None = None
        self._proxies: list[NexusProxy] = []
        self.gates: list[Gate] = list(self._gates())
        self.arrivals = [
            Arrivals(world, shape.traffic, str(number), self._deliver_to(number))
            for number in range(shape.proxies)
        ]

    def _gates(self) -> Iterator[Gate]:
        shape, world = self.shape, self.world
        if self.policy in BASELINES:
            make = BASELINES[self.policy]
            for number in range(shape.proxies):
                yield make(world, self.log, number, self.retries, shape.backends)
            return
        models = [demand.model for demand in shape.traffic.demands]
        self._objects = objects(
            backends=shape.backends,
            models=models,
            retries=self.retries,
            quality=dict(shape.quality),
        )
        self.operator = Operator(world, self.log, self._objects, shape.delays)
        if self.policy == ALONE:
            self.operator.away()
        for number in range(shape.proxies):
            yield self._proxy(number)

    def _proxy(self, number: int, life: int = 0) -> NexusProxy:
        assert self.operator is not None
        skew = self.shape.skew * (number - self.shape.proxies // 2)
        made = NexusProxy(
            self.world, self.log, self.operator, self._objects, number, life=life, skew=skew
        )
        self._proxies.append(made)
        return made

    def restart_proxy(self, number: int, life: int) -> None:
        """A proxy is killed and started again; requests on their way go on."""
        old = self.gates[number]
        if isinstance(old, NexusProxy) and self.operator is not None:
            old.stop()
            self.gates[number] = self._proxy(number, life)

    def _deliver_to(self, number: int) -> Callable[[Request], None]:
        def deliver(request: Request) -> None:
            gate = self.gates[number]
            Journey(self.world, self.log, self.backends, gate, number, request).start()

        return deliver

    def warm_up(self) -> Simulation:
        """Let it run to the begin of the measured part."""
        self.world.run(self.shape.warm)
        self.log.reset()
        return self

    def measure(
        self,
        *,
        seconds: float,
        faults: tuple[Fault, ...] = (),
        changes: tuple[tuple[float, Callable[[Simulation], None]], ...] = (),
    ) -> Result:
        """Run the measured part, then let what is under way end."""
        began = self.world.now
        for backend in self.backends:
            backend.break_by(faults)
        for at, change in changes:
            self.world.after(at, lambda change=change: change(self))  # type: ignore[misc]
        self.world.run(began + seconds)
        for arrivals in self.arrivals:
            arrivals.stopped = True
        end = began + seconds + DRAIN_SECONDS
        while self.log.open and self.world.now < end:
            self.world.run(self.world.now + 10.0)
        if self.shape.audited and self.operator is not None:
            self.world.run(self.world.now + LAST_REPORTS_SECONDS)
            now = EPOCH + self.world.now
            self.log.result.miscounted = miscounted(self.operator.engine, self._proxies, now)
        return self.log.close(seconds)


def miscounted(engine: Engine, proxies: Sequence[NexusProxy], now: float) -> int:
    """Requests and errors of the hour of which the operator has another number than the proxies."""
    wrong = 0
    for uid in engine.backends():
        series = [s for p in proxies for (u, _), s in p.monitor.recorder.series.items() if u == uid]
        cells = [cell for one in series for cell in one.cells() if cell.family == Family.MINUTE]
        hour = engine.figures(uid, now).whole.hour
        wrong += abs(hour.requests - sum(cell.requests for cell in cells))
        wrong += abs(hour.errors - sum(cell.errors for cell in cells))
    return wrong


def branch(run: Callable[[], Result]) -> Result:
    """Run in a copy of this process: whatever it changes is gone afterwards."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            gc.disable()
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(run(), pipe)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError("a branch of the simulation failed: its traceback is above")
    result: Result = pickle.loads(data)
    return result
