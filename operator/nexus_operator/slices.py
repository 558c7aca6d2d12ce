"""Long computations in short pieces: the event loop gets its turn in between.

Promises that no piece lasts much longer than `SLICE_SECONDS`, however long the whole takes. What is
computed may change between two pieces; a caller that needs one moment's picture is wrong here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final, TypeVar

SLICE_SECONDS: Final = 0.005
_T = TypeVar("_T")


class Slice:
    """`turn` lets others run if this piece has lasted long enough."""

    __slots__ = ("_began", "_seconds")

    def __init__(self, seconds: float = SLICE_SECONDS) -> None:
        self._seconds = seconds
        self._began = time.monotonic()

    async def turn(self) -> bool:
        """To be awaited between two small steps; True if others had their turn."""
        if time.monotonic() - self._began < self._seconds:
            return False
        await asyncio.sleep(0)
        self._began = time.monotonic()
        return True


async def through(steps: Iterable[object]) -> None:
    """Takes all steps."""
    piece = Slice()
    for _ in steps:
        await piece.turn()


async def gathered(steps: Iterable[_T]) -> list[_T]:
    """All that `steps` yields."""
    found, piece = [], Slice()
    for step in steps:
        found.append(step)
        await piece.turn()
    return found
