"""What a proxy has spent: one counter per namespace and slot of 30 s, in nano-USD.

Slots are numbered by UTC (the API server's, in a cluster), so that each lies in one month, and a
cost never moves to another slot: what was spent before a moment is the same sum whoever adds it
up, and how often. Promises that a slot which a report has called complete never grows again, and
that a slot stays listed until a report with it was answered. It knows no prices and no limits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

SLOT_SECONDS = 30
KEPT_SLOTS = 24 * 3600 // SLOT_SECONDS
MOST_NANO_USD = 10**15

Slot = Annotated[int, Meta(ge=0, le=2**40)]


class Spend(msgspec.Struct, omit_defaults=True, kw_only=True, frozen=True):
    """What was spent so far in one slot by one proxy on backends of one namespace."""

    namespace: Annotated[str, Meta(max_length=253)]
    slot: Slot
    nano_usd: Annotated[int, Meta(ge=0, le=MOST_NANO_USD)]


def slot_at(epoch_seconds: float) -> int:
    """The slot of a moment."""
    return int(epoch_seconds // SLOT_SECONDS)


def slot_time(slot: int) -> float:
    """When a slot begins, in epoch seconds."""
    return float(slot * SLOT_SECONDS)


def month_at(epoch_seconds: float) -> str:
    """The UTC month of a moment, such as `2026-01`."""
    return time.strftime("%Y-%m", time.gmtime(epoch_seconds))


def month_slot(month: str) -> int:
    """The first slot of a month."""
    year, number = map(int, month.split("-"))
    days = (year - 1970) * 365 + (year - 1969) // 4 - (year - 1901) // 100 + (year - 1601) // 400
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days += sum((31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[: number - 1])
    return days * 86_400 // SLOT_SECONDS


class Spending:
    """All that one proxy process spent. `utc` turns its clock into epoch seconds; `alarmed` is
    called, once, when the process has spent `alarm_at` nano-USD.
    """

    __slots__ = (
        "_floor",
        "_months",
        "_pending",
        "_slots",
        "_under_way",
        "alarm_at",
        "alarmed",
        "total",
        "utc",
    )

    def __init__(self, utc: Callable[[float], float]) -> None:
        self.utc = utc
        self.total = 0
        self.alarm_at = math.inf
        self.alarmed: Callable[[], None] = _nobody
        self._floor = 0
        self._slots: dict[str, dict[int, int]] = {}
        self._months: dict[tuple[str, str], int] = {}
        self._pending: set[tuple[str, int]] = set()
        self._under_way: set[tuple[str, int]] = set()

    def charge(self, namespace: str, nano_usd: int, now: float) -> None:
        """Count a cost at `now` on the proxy's clock."""
        # Never before what a report has called complete, whatever a clock does.
        slot = max(slot_at(self.utc(now)), self._floor)
        slots = self._slots.setdefault(namespace, {})
        slots[slot] = slots.get(slot, 0) + nano_usd
        key = namespace, month_at(slot_time(slot))
        self._months[key] = self._months.get(key, 0) + nano_usd
        self._pending.add((namespace, slot))
        self.total += nano_usd
        if self.total >= self.alarm_at:
            self.alarm_at = math.inf
            self.alarmed()

    def since(self, namespace: str, slot: int, month: str) -> int:
        """What was spent in a month in this slot or later, or was not told to anybody."""
        if slot <= month_slot(month):
            return self._months.get((namespace, month), 0)
        first, untold = month_slot(month), self._pending | self._under_way
        return sum(
            nano_usd
            for each, nano_usd in self._slots.get(namespace, {}).items()
            if each >= slot or (each >= first and (namespace, each) in untold)
        )

    def settle(self, namespace: str, slot: int) -> None:
        """All before this slot is in a published sum: it need not be kept."""
        self._drop(namespace, slot)

    def report(self, now: float, *, everything: bool) -> tuple[list[Spend], int]:
        """What to report, and the slot before which that is all there will ever be.

        Without `everything`, what no answered report has told yet.
        """
        current = slot_at(self.utc(now))
        self._floor = max(self._floor, current)
        for namespace in self._slots:
            self._drop(namespace, current - KEPT_SLOTS, even_untold=True)
        self._under_way, self._pending = self._pending, set()
        keys = self._under_way
        if everything:
            keys = {(name, slot) for name, slots in self._slots.items() for slot in slots}
        told = [
            Spend(namespace=name, slot=slot, nano_usd=min(self._slots[name][slot], MOST_NANO_USD))
            for name, slot in sorted(keys)
            if slot in self._slots.get(name, {})
        ]
        return told, self._floor

    def acknowledged(self) -> None:
        """The report under way was answered."""
        self._under_way = set()

    def unanswered(self) -> None:
        """It was not: what it told is still to be told."""
        self._pending |= self._under_way
        self._under_way = set()

    @property
    def untold(self) -> bool:
        """Something was spent that no answered report has told."""
        return bool(self._pending)

    def _drop(self, namespace: str, slot: int, *, even_untold: bool = False) -> None:
        slots = self._slots.get(namespace, {})
        for old in [s for s in slots if s < slot]:
            key = namespace, old
            if even_untold or (key not in self._pending and key not in self._under_way):
                del slots[old]
                self._pending.discard(key)


def _nobody() -> None:
    """Nobody wants to know."""
