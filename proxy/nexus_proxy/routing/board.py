"""Candidates by score, so that the best few are found without looking at all of them.

A board holds numbers from 0 to `size` - 1, each with a score of 0 to 100 or off the board. Putting,
taking off and drawing cost the same with three numbers and with a thousand. It knows nothing of
what the numbers stand for.
"""

from __future__ import annotations

from collections.abc import Callable

from nexus_proxy.routing.score import MAX_SCORE

OFF = -1


class Board:
    """Numbers in buckets by score."""

    __slots__ = ("_best", "_buckets", "_place", "score")

    def __init__(self, size: int) -> None:
        self.score = [OFF] * size
        self._place = [0] * size
        self._buckets: list[list[int]] = [[] for _ in range(MAX_SCORE + 1)]
        self._best = OFF

    def put(self, number: int, score: int) -> None:
        """Give a number a new score; `OFF` takes it from the board."""
        old = self.score[number]
        if old == score:
            return
        if old >= 0:
            bucket = self._buckets[old]
            last = bucket.pop()
            if last != number:
                place = self._place[number]
                bucket[place] = last
                self._place[last] = place
        if score >= 0:
            bucket = self._buckets[score]
            self._place[number] = len(bucket)
            bucket.append(number)
            if score > self._best:
                self._best = score
        self.score[number] = score

    def best(self) -> int:
        """The highest score on the board, `OFF` when it is empty."""
        best = self._best
        buckets = self._buckets
        while best >= 0 and not buckets[best]:
            best -= 1
        self._best = best
        return best

    def near(self, width: int) -> list[int]:
        """The numbers within `width` points of the best; the caller must not change the list."""
        best = self.best()
        if best < 0:
            return []
        filled = [bucket for bucket in self._buckets[max(0, best - width) : best + 1] if bucket]
        if len(filled) == 1:
            return filled[0]
        return [number for bucket in filled for number in bucket]

    def two(self, width: int, random: Callable[[], float]) -> tuple[int, int]:
        """Two different numbers drawn from `near(width)`, the same one twice if it is alone.

        `(OFF, OFF)` when the board is empty.
        """
        buckets = self._buckets
        best = self._best
        if best < 0 or not buckets[best]:
            best = self.best()
            if best < 0:
                return OFF, OFF
        top = buckets[best]
        lower = buckets[best - width if best > width else 0 : best]
        above = total = len(top)
        for bucket in lower:
            if bucket:
                total += len(bucket)
        if total == 1:
            return top[0], top[0]
        first = int(random() * total)
        second = int(random() * (total - 1))
        if second >= first:
            second += 1
        return (
            top[first] if first < above else _at(lower, first - above),
            top[second] if second < above else _at(lower, second - above),
        )


def _at(lower: list[list[int]], position: int) -> int:
    for bucket in lower:
        if position < len(bucket):
            return bucket[position]
        position -= len(bucket)
    raise IndexError("position beyond the last bucket")
