"""A bounded table of answers that grow old.

Promises that an answer is fresh for a time, and of use for a longer one when nobody can be asked;
and that the oldest make room. It asks nobody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

SIZE = 8192
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[_V]):
    value: _V
    fresh: float
    last: float


class Memory(Generic[_V]):
    """Answers by question. Times are on the clock handed in, in seconds."""

    def __init__(self, clock: Callable[[], float], size: int = SIZE) -> None:
        self._clock = clock
        self._size = size
        self._entries: OrderedDict[object, _Entry[_V]] = OrderedDict()

    def fresh(self, key: object) -> tuple[_V] | None:
        """The answer in a tuple while nobody needs to ask again, else None."""
        entry = self._entries.get(key)
        if entry is None or entry.fresh <= self._clock():
            return None
        return (entry.value,)

    def last(self, key: object) -> tuple[_V] | None:
        """The answer in a tuple while it is of use when nobody can be asked, else None."""
        entry = self._entries.get(key)
        if entry is None or entry.last <= self._clock():
            return None
        return (entry.value,)

    def put(self, key: object, value: _V, *, fresh: float, last: float) -> None:
        """Remembers an answer, fresh and of use until these times."""
        self._entries[key] = _Entry(value, fresh, last)
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)
