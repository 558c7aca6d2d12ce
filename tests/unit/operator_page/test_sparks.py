"""The last hour by minute: in order, bounded, and right when something is told late."""

from __future__ import annotations

from collections.abc import Mapping

from nexus_devtools.page_stand import Stand, uid
from nexus_operator.page.sparks import ANEW_MINUTES, MINUTES, YOUNG_MINUTES, Ring, Sparks

BASE = 29_000_000 - 29_000_000 % ANEW_MINUTES + 1


class Book:
    """What is known by minute, and how far back it was asked for."""

    def __init__(self) -> None:
        self.minutes: dict[int, tuple[int, int]] = {}
        self.asked: list[int] = []

    def read(self, _: str, first: int) -> Mapping[int, tuple[int, int]]:
        self.asked.append(first)
        return {minute: pair for minute, pair in self.minutes.items() if minute >= first}


def test_a_spark_is_the_last_hour_of_whole_minutes_in_order() -> None:
    book = Book()
    book.minutes = {BASE - back: (back + 1, 0) for back in range(100)} | {BASE + 1: (999, 9)}
    spark = Sparks(book.read).renew("u", (BASE + 1) * 60 + 5)
    assert spark is not None
    assert spark.minute == BASE
    assert spark.requests == list(range(MINUTES, 0, -1))


def test_within_a_minute_nothing_is_read_and_later_only_what_is_young() -> None:
    book = Book()
    book.minutes = {BASE: (4, 1)}
    sparks = Sparks(book.read)
    assert sparks.renew("u", (BASE + 1) * 60) is not None
    assert sparks.renew("u", (BASE + 1) * 60 + 59) is None
    book.minutes |= {BASE: (6, 1), BASE + 1: (2, 0)}
    spark = sparks.renew("u", (BASE + 2) * 60)
    assert spark is not None
    assert (spark.requests[-2:], spark.errors[-2:]) == ([6, 2], [1, 0])
    assert book.asked == [BASE - MINUTES + 1, BASE + 1 - YOUNG_MINUTES + 1]


def test_what_is_told_very_late_is_there_within_ten_minutes() -> None:
    book = Book()
    sparks = Sparks(book.read)
    sparks.renew("u", (BASE + 1) * 60)
    book.minutes = {BASE - 30: (7, 0)}
    found = [sparks.renew("u", (BASE + 1 + later) * 60) for later in range(1, ANEW_MINUTES + 1)]
    last = found[-1]
    assert last is not None and sum(last.requests) == 7


def test_a_gap_leaves_no_old_figure_behind() -> None:
    book = Book()
    book.minutes = {BASE - back: (5, 5) for back in range(60)}
    sparks = Sparks(book.read)
    sparks.renew("u", (BASE + 1) * 60)
    book.minutes = {}
    spark = sparks.renew("u", (BASE + 500) * 60)
    assert spark is not None and sum(spark.requests) == sum(spark.errors) == 0


def test_a_ring_takes_half_a_kilobyte_and_any_number() -> None:
    ring = Ring()
    assert ring.requests.itemsize * len(ring.requests) + ring.errors.itemsize * MINUTES <= 512
    ring.take({BASE: (10**12, 3)}, first=BASE, last=BASE)
    assert ring.spark().requests[-1] == 2**32 - 1


def test_the_engines_minutes_are_those_of_the_hour(stand: Stand) -> None:
    engine = stand.desk.engine
    minutes = engine.minutes(uid(1), 0)
    hour = engine.figures(uid(1), stand.desk.now).whole.hour
    assert sum(requests for requests, _ in minutes.values()) == hour.requests
    assert sum(errors for _, errors in minutes.values()) == hour.errors
    assert len(minutes) > 30
    newest = max(minutes)
    assert set(engine.minutes(uid(1), newest)) == {newest}
