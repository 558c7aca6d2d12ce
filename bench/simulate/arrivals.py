"""Who asks for what, and when: Poisson arrivals, drawn before any policy has a say.

Promises that the requests of a (seed, proxy) are the same under every policy and with or without a
fault: their times, models, lengths and bad luck are drawn from a stream of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from bench.simulate.world import World


@dataclass(frozen=True, slots=True)
class Demand:
    """A model that is asked for. Times in seconds; `weight` is its part of the requests."""

    model: str = "m"
    weight: float = 1.0
    prefill_median: float = 0.3
    decode_mean: float = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """The requests of one proxy. `unlucky`: the share that fails at its first attempt anyway;
    `leaving`: the share of clients that leave after `patience` seconds on average.
    """

    rps: float
    demands: tuple[Demand, ...] = (Demand(),)
    unlucky: float = 0.002
    leaving: float = 0.0
    patience: float = 2.0


@dataclass(slots=True)
class Request:
    """One request of a client. `prefill` and `decode`: seconds it takes on an idle backend."""

    number: int
    at: float
    model: str
    prefill: float
    decode: float
    unlucky: bool
    leaves_after: float | None


class Arrivals:
    """Draws the requests of one proxy and hands each to `deliver` at its time."""

    def __init__(
        self, world: World, traffic: Traffic, name: str, deliver: Callable[[Request], None]
    ) -> None:
        self._world, self._traffic, self._deliver = world, traffic, deliver
        self._chance = world.chance(f"arrivals/{name}")
        self._weights = [demand.weight for demand in traffic.demands]
        self._number = 0
        self.stopped = False
        self._next()

    def _next(self) -> None:
        self._world.after(self._chance.expovariate(self._traffic.rps), self._arrive)

    def _arrive(self) -> None:
        if self.stopped:
            return
        self._number += 1
        self._deliver(self._draw())
        self._next()

    def _draw(self) -> Request:
        chance, traffic = self._chance, self._traffic
        demand = chance.choices(traffic.demands, self._weights)[0]
        leaves = chance.random() < traffic.leaving
        patience = chance.expovariate(1 / traffic.patience)
        return Request(
            number=self._number,
            at=self._world.now,
            model=demand.model,
            prefill=chance.lognormvariate(math.log(demand.prefill_median), 0.4),
            decode=chance.expovariate(1 / demand.decode_mean),
            unlucky=chance.random() < traffic.unlucky,
            leaves_after=patience if leaves else None,
        )
