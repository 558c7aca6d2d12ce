"""Sums that are kept are those that adding up everything anew would give."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_quality.counts import Counts, total
from nexus_quality.figures import figures
from nexus_quality.ledger import Ledger
from nexus_quality.report import Cell, Report
from nexus_quality.window import Family

NOW = 1_700_000_000.0
UIDS = ("uid-a", "uid-b")
MODELS = ("tiny", "large", "")
STEPS = (1.0, 11.0, 70.0, 700.0, 4_000.0, 30_000.0, 91_000.0)


def some_report(chance: random.Random, now: float, grown: dict[tuple[object, ...], Cell]) -> Report:
    """A few cells that grew, some of them late, some for the third time."""
    elapsed = now - NOW + 100_000.0
    cells = []
    for _ in range(chance.randint(1, 4)):
        family = chance.choice(list(Family))
        bucket = int(elapsed // family) - chance.choice((0, 0, 1, 5, 30))
        uid, model, generation = chance.choice(UIDS), chance.choice(MODELS), chance.randint(0, 2)
        key = (family, bucket, uid, model, generation)
        cell = grown.setdefault(
            key,
            Cell(family=int(family), bucket=bucket, uid=uid, model=model, generation=generation),
        )
        cell.requests += chance.randint(1, 9)
        cell.errors += chance.randint(0, 1)
        cell.throttled += chance.randint(0, 1)
        if family == Family.MINUTE:
            cell.ttft_bins[chance.randint(0, 90)] = cell.requests
        cells.append(cell)
    return Report(incarnation="a" * 32, now_ms=int(elapsed * 1000), cells=cells)


def added_up(ledger: Ledger, uid: str, model: str, family: Family, now: float) -> Counts:
    """Every bucket of every reporter that is within the window."""
    found = Counts()
    series_of = [r.of(uid).get(model) for r in ledger.reporters.values()]
    # All share one window of hours.
    shared = family is Family.HOUR
    for series in [one for one in series_of if one is not None][: 1 if shared else None]:
        span = float(family * (family.span - 1))
        found.add(series.windows[family].last(span + family, now - now % family))
    return found


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 25))
def test_the_sums_of_a_backend_are_those_of_its_buckets(seed: int, rounds: int) -> None:
    chance, now = random.Random(seed), NOW
    ledger, grown = Ledger(NOW), [dict[tuple[object, ...], Cell]() for _ in range(3)]
    for _ in range(rounds):
        now += chance.choice(STEPS)
        number = chance.randrange(3)
        ledger.take(f"pod-{number}", some_report(chance, now, grown[number]), now, UIDS)
        if chance.random() < 0.3:
            ledger.expire(now)
        if chance.random() < 0.1:
            ledger.forget(chance.choice(UIDS))
    for uid in UIDS:
        wholes = ledger.whole(uid, now)
        for model in MODELS:
            kept = wholes.get(model)
            for family, sums in (
                (Family.MINUTE, kept.hour if kept else Counts()),
                (Family.HOUR, kept.day if kept else Counts()),
            ):
                assert sums.same_numbers(added_up(ledger, uid, model, family, now))


def test_a_reporter_that_is_forgotten_leaves_nothing_in_a_sum() -> None:
    ledger, grown = Ledger(NOW), dict[tuple[object, ...], Cell]()
    ledger.take("pod-1", some_report(random.Random(1), NOW, grown), NOW, UIDS)
    later = NOW + 26 * 3600
    ledger.expire(later)
    assert not ledger.reporters
    for uid in UIDS:
        assert not ledger.users(uid)
        found = figures(ledger, uid, later)
        assert total((found.whole.hour, found.whole.day)).empty
        assert found.reporters == 0


def test_only_the_users_of_a_backend_are_looked_at() -> None:
    ledger = Ledger(NOW)
    for number, uid in enumerate(UIDS):
        cell = Cell(family=60, bucket=10, uid=uid, model="tiny", requests=1)
        report = Report(incarnation="a" * 32, now_ms=650_000, cells=[cell])
        ledger.take(f"pod-{number}", report, NOW, UIDS)
    assert [list(ledger.users(uid)) for uid in UIDS] == [["pod-0"], ["pod-1"]]
    ledger.forget("uid-a")
    assert not ledger.users("uid-a")
