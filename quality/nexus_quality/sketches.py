"""The packed sketches of many rows: those of the newest apart, all older ones in one piece.

Promises the same bytes as a list of them in less memory. A change of an old one takes the piece
apart, which hardly ever happens.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

NEWEST = 12
MANY = 24


class Sketches:
    """A list of bytes, as far as rows need one."""

    __slots__ = ("_ends", "_new", "_old")

    def __init__(self, sketches: Iterable[bytes]) -> None:
        self._old, self._ends = b"", array("I")
        self._new = list(sketches)
        self._join()

    def __len__(self) -> int:
        return len(self._ends) + len(self._new)

    def __getitem__(self, index: int) -> bytes:
        if index >= len(self._ends):
            return self._new[index - len(self._ends)]
        return self._old[self._ends[index - 1] if index else 0 : self._ends[index]]

    def __setitem__(self, index: int, data: bytes) -> None:
        if index < len(self._ends):
            self._split()
        self._new[index - len(self._ends)] = data

    def __delitem__(self, first: slice) -> None:
        """Drops the first ones."""
        count, known = first.stop, len(self._ends)
        if count < known:
            cut = self._ends[count - 1] if count else 0
            self._old = self._old[cut:]
            self._ends = array("I", [end - cut for end in self._ends[count:]])
        else:
            self._old, self._ends = b"", array("I")
            del self._new[: count - known]

    def insert(self, index: int, data: bytes) -> None:
        """Makes room for another."""
        if index < len(self._ends):
            self._split()
        self._new.insert(index - len(self._ends), data)
        if len(self._new) > MANY:
            self._join()

    def _join(self) -> None:
        pieces, self._new = self._new[:-NEWEST], self._new[-NEWEST:]
        end = len(self._old)
        self._old = b"".join((self._old, *pieces))
        for piece in pieces:
            end += len(piece)
            self._ends.append(end)

    def _split(self) -> None:
        self._new = [self[index] for index in range(len(self))]
        self._old, self._ends = b"", array("I")
