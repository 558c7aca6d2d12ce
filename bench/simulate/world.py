"""The clock and the queue of events of a simulated world.

Promises that time only goes forward, that events of the same instant happen in the order in which
they were asked for, and that everything random comes from named streams of one seed, so that a run
can be repeated exactly and two policies meet the same requests. It knows nothing of proxies.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

EPOCH = 1_767_225_600.0  # epoch seconds at the beginning of the world

Action = Callable[[], None]
MOMENT = 1e-6
FAST = 0.001  # how much faster a clock runs for each second that it is off: 3.6 s an hour


class World:
    """Simulated seconds since the beginning, and what is going to happen."""

    def __init__(self, seed: str) -> None:
        self.now = 0.0
        self._seed = seed
        self._queue: list[tuple[float, int, Action]] = []
        self._order = itertools.count()

    def chance(self, name: str) -> random.Random:
        """The stream of random numbers of this name: the same for the same seed and name."""
        return random.Random(f"{self._seed}/{name}")

    def at(self, when: float, action: Action) -> None:
        """Have something happen at a time, not before now."""
        heapq.heappush(self._queue, (max(when, self.now), next(self._order), action))

    def after(self, delay: float, action: Action) -> None:
        """Have something happen in `delay` seconds."""
        self.at(self.now + delay, action)

    def every(self, period: float, action: Action, *, first: float) -> None:
        """Have something happen again and again, from `first` seconds from now on."""

        def again() -> None:
            action()
            self.after(period, again)

        self.after(first, again)

    def run(self, until: float) -> None:
        """Let everything happen up to and including a time."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, action = heapq.heappop(queue)
            action()
        self.now = max(self.now, until)


class Clock:
    """The clock of one process: off by `skew` seconds, and running fast or slow by FAST of that."""

    def __init__(self, world: World, skew: float) -> None:
        self._world, self._skew, self._pace = world, skew, 1.0 + FAST * skew

    @property
    def now(self) -> float:
        """Seconds on this clock."""
        return self._world.now * self._pace + self._skew

    def of(self, when: float | None) -> float | None:
        """The world's time on this clock, so far from now as it is."""
        return None if when is None else self.now + (when - self._world.now)

    def ahead(self, when: float) -> float:
        """The world's time when this clock shows `when`, on one that is off a moment later.

        Else rounding could have it show less, and whoever waits for `when` would wait for ever.
        """
        return (when - self._skew) / self._pace + (MOMENT if self._skew else 0.0)
