"""One timing wheel for every deadline of the byte path.

Promises that what has a deadline is looked at by the first tick after it and, as long as nothing is
due, that time costs nothing: neither a timer nor a look at what waits. A deadline that moves on is
found out when the first one comes; only one that comes nearer must be told.
"""

from __future__ import annotations

import math
from typing import Generic, Protocol, TypeVar

NEVER = math.inf
PER_SECOND = 4  # slots: deadlines are told apart as far as that


class Timed(Protocol):
    """Something to look at: `due` is the wheel's, when that will be (NEVER: not at all)."""

    due: float


Item = TypeVar("Item", bound=Timed)


class Wheel(Generic[Item]):
    """Items by the slot of their `due`."""

    def __init__(self) -> None:
        self._slots: dict[int, set[Item]] = {}
        self._earliest = NEVER

    def by(self, item: Item, when: float) -> None:
        """Look at an item at `when`, if it is not looked at before."""
        if when >= item.due:
            return
        self.drop(item)
        item.due = when
        slot = _slot(when)
        members = self._slots.get(slot)
        if members is None:
            self._slots[slot] = {item}
            self._earliest = min(self._earliest, slot)
        else:
            members.add(item)

    def drop(self, item: Item) -> None:
        """Forget an item."""
        if item.due == NEVER:
            return
        slot = _slot(item.due)
        item.due = NEVER
        members = self._slots[slot]
        members.discard(item)
        if not members:
            del self._slots[slot]

    def take(self, now: float) -> list[Item]:
        """The items that are due; they are in the wheel no more."""
        current = math.floor(now * PER_SECOND)
        if self._earliest > current:
            return []
        found: list[Item] = []
        for slot in sorted(slot for slot in self._slots if slot <= current):
            found += self._slots.pop(slot)
        for item in found:
            item.due = NEVER
        self._earliest = min(self._slots, default=NEVER)
        return found

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))


def _slot(when: float) -> int:
    """The first slot that is not before `when`."""
    return math.ceil(when * PER_SECOND)
