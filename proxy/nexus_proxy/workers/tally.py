"""The counters of several workers as those of one proxy.

Promises that a total only ever grows by what a worker counted since it last told, that a worker
which is gone takes its gauges along, never its counts, and that whatever `Counters` comes to count
is summed. Pure: it reads and adds.
"""

from __future__ import annotations

from nexus_proxy.counters import Counters
from nexus_proxy.workers.wire import Tally

_FRESH = Counters()
_FIELDS = [name for name in sorted(dir(_FRESH)) if not name.startswith("_")]

NUMBERS = tuple(name for name in _FIELDS if isinstance(getattr(_FRESH, name), int))
"""The plain counters and gauges, in the order in which a tally has them."""

LABELLED = tuple(
    name for name in _FIELDS if isinstance(getattr(_FRESH, name), dict) and name != "requests"
)
"""Those by one label, in order; that of requests by endpoint and status is of another shape."""

GAUGES = tuple(name for name in NUMBERS if name.startswith("active_"))


def tally_of(counters: Counters) -> Tally:
    """What a worker has counted so far: to be encoded at once, for it holds live tables."""
    queue = counters.queue
    return Tally(
        numbers=tuple(getattr(counters, name) for name in NUMBERS),
        labelled=tuple(getattr(counters, name) for name in LABELLED),
        requests=tuple((path, status, n) for (path, status), n in counters.requests.items()),
        depths=(queue.high, queue.normal),
        waits=queue.outcomes,
        wait_buckets=tuple(queue.buckets),
        wait_seconds=queue.seconds,
    )


NOTHING = tally_of(Counters())


def grow(total: Counters, before: Tally, after: Tally) -> None:
    """Add to `total` what a worker counted between two of its tallies."""
    for name, old, new in zip(NUMBERS, before.numbers, after.numbers, strict=True):
        if new != old:
            setattr(total, name, getattr(total, name) + new - old)
    for name, was, now in zip(LABELLED, before.labelled, after.labelled, strict=True):
        _grow(getattr(total, name), was, now)
    known = {(path, status): n for path, status, n in before.requests}
    for path, status, n in after.requests:
        key = path, status
        total.requests[key] = total.requests.get(key, 0) + n - known.get(key, 0)
    queue = total.queue
    queue.high += after.depths[0] - before.depths[0]
    queue.normal += after.depths[1] - before.depths[1]
    _grow(queue.outcomes, before.waits, after.waits)
    queue.seconds += after.wait_seconds - before.wait_seconds
    pairs = zip(before.wait_buckets, after.wait_buckets, strict=True)
    for place, (was_there, is_there) in enumerate(pairs):
        queue.buckets[place] += is_there - was_there


def retire(total: Counters, last: Tally) -> None:
    """Take from `total` what a worker that is gone had under way."""
    for name, value in zip(NUMBERS, last.numbers, strict=True):
        if name in GAUGES:
            setattr(total, name, getattr(total, name) - value)
    total.queue.high -= last.depths[0]
    total.queue.normal -= last.depths[1]


def _grow(total: dict[str, int], before: dict[str, int], after: dict[str, int]) -> None:
    for name, n in after.items():
        more = n - before.get(name, 0)
        if more:
            total[name] = total.get(name, 0) + more
