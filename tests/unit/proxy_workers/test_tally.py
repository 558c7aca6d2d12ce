"""The counters of several workers as one proxy's."""

from __future__ import annotations

import copy
import inspect

import msgspec

from nexus_proxy.counters import Counters
from nexus_proxy.workers.tally import (
    GAUGES,
    LABELLED,
    NOTHING,
    NUMBERS,
    grow,
    retire,
    tally_of,
)
from nexus_proxy.workers.wire import Tally


def tally(counters: Counters) -> Tally:
    """As it comes out of a message."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(tally_of(counters)), type=Tally)


def busy(times: int = 1) -> Counters:
    counters = Counters()
    for place, name in enumerate(NUMBERS):
        setattr(counters, name, (place + 1) * times)
    for place, name in enumerate(LABELLED):
        getattr(counters, name).update({"a": (place + 1) * times, "b": times})
    for _ in range(times):
        counters.request("/v1/chat/completions", 200)
        counters.queue.began(high=True)
        counters.queue.began(high=False)
        counters.queue.began(high=False)
        counters.queue.ended("served", 0.2, high=False)
    return counters


def picture(counters: Counters) -> dict[str, object]:
    names = (*NUMBERS, *LABELLED, "requests")
    queue = counters.queue
    found: dict[str, object] = {name: copy.deepcopy(getattr(counters, name)) for name in names}
    return found | {name: copy.deepcopy(getattr(queue, name)) for name in type(queue).__slots__}


def test_nothing_that_a_proxy_counts_is_left_out() -> None:
    counted = {name for name, _ in inspect.getmembers(Counters, inspect.isdatadescriptor)}
    assert counted - {"__weakref__"} == {*NUMBERS, *LABELLED, "requests", "queue"}
    assert GAUGES == ("active_downstreams", "active_streams")


def test_the_total_is_the_sum_and_hearing_it_twice_changes_nothing() -> None:
    total, one, other = Counters(), tally(busy(1)), tally(busy(2))
    grow(total, NOTHING, one)
    grow(total, NOTHING, other)
    grow(total, other, other)
    assert picture(total) == picture(busy(3))


def test_what_was_missed_comes_with_the_next() -> None:
    total, first, last = Counters(), tally(busy(1)), tally(busy(5))
    grow(total, NOTHING, first)
    grow(total, first, last)
    assert picture(total) == picture(busy(5))


def test_a_worker_that_is_gone_leaves_its_counts_and_takes_its_gauges() -> None:
    total, gone = Counters(), tally(busy(2))
    grow(total, NOTHING, gone)
    retire(total, gone)
    expected = busy(2)
    for name in GAUGES:
        setattr(expected, name, 0)
    expected.queue.high = expected.queue.normal = 0
    assert picture(total) == picture(expected)
