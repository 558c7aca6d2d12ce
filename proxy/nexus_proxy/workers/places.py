"""How the places of a backend are shared between workers that each count their own requests.

Each worker keeps to the limit by adding to its own requests a number that stands for the others'.
While places are free, or nobody waits, that is what the others have in flight, as they last told:
then the limit may be exceeded by what they begin at the same moment. Once requests wait, each
worker is kept to its fair part of the limit, so that none takes every place that becomes free.
Pure; what is left over when a limit does not divide goes around with `turn`.
"""

from __future__ import annotations

from collections.abc import Sequence


def beside(
    limit: int | None, in_flight: Sequence[int], waiting: Sequence[int], turn: int
) -> list[int]:
    """For each worker the requests that it has to count beside its own."""
    total = sum(in_flight)
    others = [total - own for own in in_flight]
    if limit is None or not any(waiting) or len(in_flight) < 2:
        return others
    wanted = [own + queued for own, queued in zip(in_flight, waiting, strict=True)]
    if sum(wanted) <= limit:
        return others
    parts = fair(limit, wanted, turn)
    # Who has more than its part lately gives it back as its requests end; until then the others
    # may have what is free, and no more.
    short = [max(0, part - own) for part, own in zip(parts, in_flight, strict=True)]
    more = fair(max(0, limit - total), short, turn)
    allowed = [min(p, own + m) for p, own, m in zip(parts, in_flight, more, strict=True)]
    return [limit - most for most in allowed]


def fair(limit: int, wanted: Sequence[int], turn: int) -> list[int]:
    """Parts of `limit`, none above what is wanted, the least of them as large as can be."""
    parts = [0] * len(wanted)
    left = limit
    hungry = [place for place, want in enumerate(wanted) if want > 0]
    while left > 0 and hungry:
        each = max(1, left // len(hungry))
        start = turn % len(hungry)
        for place in hungry[start:] + hungry[:start]:
            more = min(each, wanted[place] - parts[place], left)
            parts[place] += more
            left -= more
        hungry = [place for place in hungry if parts[place] < wanted[place]]
    return parts
