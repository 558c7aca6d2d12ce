"""Who reports: a reporter's lives and windows, and the sums over all reporters.

Promises that several lives of a pod are one reporter, and that a sum over the fleet is that of its
windows as of the latest moment they were asked for. What comes in is `taking`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nexus_quality.counts import Counts
from nexus_quality.limits import MAX_KEPT, MAX_SERIES, Room
from nexus_quality.lives import Incarnation
from nexus_quality.window import Family, Horizon, Window


class Whole:
    """One (backend, model) over all reporters: of any generation, as of the last `expire`.

    `minutes` and `days`: by bucket; no verdict looks back further than the hour, so the reporters
    have no hours of their own. `last_failure`: epoch seconds.
    """

    __slots__ = ("days", "horizon", "last_failure", "minutes", "model", "uid")

    def __init__(self, uid: str = "", model: str = "") -> None:
        self.uid, self.model = uid, model
        self.minutes = Window(Family.MINUTE, sketched=True)
        self.days = Window(Family.HOUR, sketched=True)
        self.horizon = Horizon()
        self.last_failure: float | None = None

    @property
    def hour(self) -> Counts:
        """The counters of the last hour."""
        return self.minutes.totals()

    @property
    def day(self) -> Counts:
        """The counters of the last day."""
        return self.days.totals()

    def expire(self, now: float) -> None:
        """Let old buckets go, here and at all reporters."""
        self.horizon.at = max(self.horizon.at, now)
        self.minutes.expire(now)
        self.days.expire(now)


class Series:
    """One (backend, model) at one reporter: a window per family, each adding to the whole.

    That of hours is the whole's own.
    """

    __slots__ = ("minutes", "tens", "whole")

    def __init__(self, whole: Whole | None = None) -> None:
        self.whole = Whole() if whole is None else whole
        self.tens = Window(Family.TEN_SECONDS, horizon=self.whole.horizon)
        self.minutes = Window(Family.MINUTE, whole=self.whole.minutes, horizon=self.whole.horizon)

    @property
    def windows(self) -> Mapping[Family, Window]:
        """The windows by family."""
        return {
            Family.TEN_SECONDS: self.tens,
            Family.MINUTE: self.minutes,
            Family.HOUR: self.whole.days,
        }

    def window(self, family: int) -> Window:
        """One of them."""
        if family == 10:
            return self.tens
        return self.minutes if family == 60 else self.whole.days

    def expire(self, now: float) -> None:
        """Let old buckets go."""
        self.tens.expire(now)
        self.minutes.expire(now)
        self.whole.minutes.expire(now)
        self.whole.days.expire(now)


@dataclass(slots=True)
class Reporter:
    """One pod or service account; its incarnations are one reporter to every quorum.

    `complete`: it has sent all it has at least once. `gone`: it has said goodbye. `ended`: its
    incarnations that made room for later ones, whose cells are not known any more. `restored`: it
    is known from a store; `awaited`: it was alive then, or before an absence. `series`: by backend
    and model. `derived`: what others worked out of a backend's series and pulses, dropped when
    those change.
    """

    name: str
    heard: float = 0.0
    complete: bool = False
    gone: bool = False
    restored: bool = False
    awaited: bool = False
    incarnations: dict[str, Incarnation] = field(default_factory=dict)
    ended: dict[str, None] = field(default_factory=dict)
    series: dict[str, dict[str, Series]] = field(default_factory=dict)
    derived: dict[str, dict[tuple[object, ...], Any]] = field(default_factory=dict)

    def of(self, uid: str) -> Mapping[str, Series]:
        """The series of a backend by model."""
        return self.series.get(uid, _NO_SERIES)

    def room(self) -> Room:
        """What it may still add."""
        return Room(
            cells=MAX_KEPT - sum(life.size for life in self.incarnations.values()),
            series=MAX_SERIES - sum(map(len, self.series.values())),
        )


_NO_SERIES: Mapping[str, Series] = {}
