"""What one reporter may claim and may make the ledger keep."""

from __future__ import annotations

from typing import Any

import pytest

from nexus_quality import ledger as ledger_module
from nexus_quality import limits, reporters
from nexus_quality.ledger import Ledger, Taken
from nexus_quality.limits import MAX_INCARNATIONS, Known, Room, possible, possible_pulse
from nexus_quality.report import Cell, Pulse, Report
from nexus_quality.window import Family

NOW = 1_700_000_000.0
UID = "uid-a"
UP_MS = 600_000


def life(number: int) -> str:
    return f"{number:032x}"


def cell(**given: Any) -> Cell:
    return Cell(**{"family": 10, "bucket": 59, "uid": UID, "model": "m", "requests": 1} | given)


def take(
    ledger: Ledger,
    *cells: Cell,
    number: int = 1,
    now: float = NOW,
    known: Known | None = None,
    pulses: tuple[Pulse, ...] = (),
    name: str = "pod",
) -> Taken:
    report = Report(incarnation=life(number), now_ms=UP_MS, cells=list(cells), pulses=list(pulses))
    return ledger.take(name, report, now, {UID}, lambda uid: known or Known())


def reasons(taken: Taken) -> set[str]:
    return {refusal.reason for refusal in taken.refused}


def counted(ledger: Ledger, name: str = "pod") -> dict[str, int]:
    models = ledger.reporters[name].of(UID)
    return {m: s.windows[Family.TEN_SECONDS].totals().requests for m, s in models.items()}


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        ({}, True),
        ({"requests": 1_000_000}, True),
        ({"requests": 1_000_001}, False),
        ({"requests": 60_000, "family": 60}, True),
        ({"requests": -1}, False),
        ({"errors": 2}, False),
        ({"eligible": 1_000_001}, False),
        ({"throttled": 1_000_001}, False),
        ({"probes": 1_000_001}, False),
        ({"probe_neutrals": 1_000_001}, False),
        ({"cost_nano_usd": 10**13}, True),
        ({"cost_nano_usd": 10**15 + 1}, False),
        ({"ttft_count": 1, "ttft_ms_sum": 3_600_000, "ttft_bins": {9: 1}}, True),
        ({"ttft_count": 1, "ttft_ms_sum": 3_600_001}, False),
        ({"ttft_count": 1, "ttft_bins": {9: 1, 10: 1}}, False),
        ({"ttft_count": 1, "ttft_bins": {9: -1}}, False),
    ],
)
def test_a_cell_holds_what_a_process_can_count(claim: dict[str, Any], holds: bool) -> None:
    assert possible(cell(**claim)) is holds


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        ({"row": 10_000_000, "row_began_ms": UP_MS, "success_began_ms": -1}, True),
        ({"row": 10_000_001}, False),
        ({"in_flight": 100_001}, False),
        ({"row": 1, "row_began_ms": UP_MS + 2001}, False),
        ({"success_began_ms": UP_MS + 2001}, False),
    ],
)
def test_a_pulse_says_what_a_process_can_be_like(claim: dict[str, Any], holds: bool) -> None:
    assert possible_pulse(Pulse(uid=UID, **claim), UP_MS) is holds


def test_a_model_that_the_backend_does_not_have_is_counted_as_other_each_for_itself() -> None:
    ledger, known = Ledger(), Known(models=("m", "n"))
    for requests in (3, 5):
        cells = [cell(model=model, requests=requests) for model in ("m", "x", "y", "")]
        assert not take(ledger, *cells, known=known).refused
    assert counted(ledger) == {"m": 5, "other": 15}


def test_what_a_cell_was_counted_as_it_stays_whatever_is_known_later() -> None:
    ledger = Ledger()
    take(ledger, cell(model="new", requests=3), known=Known(models=("m",)))
    later = Known(models=("m", "new"))
    take(ledger, cell(model="new", requests=10), known=later)
    assert counted(ledger) == {"other": 10}
    take(ledger, cell(model="new", generation=1, requests=4), known=later)
    assert counted(ledger) == {"other": 10, "new": 4}


def test_of_a_backend_whose_models_are_unknown_some_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_MODELS", 3)
    ledger = Ledger()
    take(ledger, *(cell(model=f"m{number}") for number in range(10)))
    assert counted(ledger) == {"m0": 1, "m1": 1, "m2": 1, "other": 7}


def test_a_generation_that_is_still_to_come_is_refused_and_the_next_one_is_not() -> None:
    ledger, known = Ledger(), Known(generation=4)
    assert not take(ledger, cell(generation=5), known=known).refused
    taken = take(ledger, cell(generation=6), known=known)
    assert reasons(taken) == {"a generation that is still to come"}
    assert counted(ledger) == {"m": 1}


def test_generations_in_a_bucket_are_bounded_and_those_there_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_GENERATIONS", 4)
    ledger = Ledger()
    taken = take(ledger, *(cell(generation=number) for number in range(6)))
    assert reasons(taken) == {"too many generations in a bucket"}
    assert counted(ledger) == {"m": 4}
    assert not take(ledger, cell(generation=0, requests=9), cell(bucket=58, generation=7)).refused
    assert counted(ledger) == {"m": 13}


def test_cells_of_a_reporter_are_bounded_over_its_incarnations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reporters, "MAX_KEPT", 5)
    ledger = Ledger()
    assert not take(ledger, *(cell(bucket=number) for number in range(55, 59)), number=1).refused
    taken = take(ledger, *(cell(bucket=number) for number in range(55, 59)), number=2)
    assert reasons(taken) == {"too many buckets of one reporter"}
    assert not take(ledger, cell(bucket=58, requests=7), number=1).refused
    assert not take(ledger, cell(), number=3, name="another").refused
    assert counted(ledger) == {"m": 11}


def test_series_of_a_reporter_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporters, "MAX_SERIES", 2)
    ledger = Ledger()
    taken = take(
        ledger, cell(model="a"), cell(model="b"), cell(model="c"), cell(model="a", bucket=5)
    )
    assert reasons(taken) == {"too many series of one reporter"}
    assert set(counted(ledger)) == {"a", "b"}


def test_room_is_taken_once() -> None:
    room = Room(cells=2, series=1)
    assert room.refusal(new_series=True, generations=0) is None
    assert room.refusal(new_series=False, generations=9) is None
    assert room.refusal(new_series=False, generations=0) == "too many buckets of one reporter"


def test_a_restart_loop_takes_the_place_of_its_own_past_which_is_not_counted_again() -> None:
    ledger, now = Ledger(), NOW
    for number in range(MAX_INCARNATIONS):
        take(ledger, cell(), number=number, now=now)
    assert reasons(take(ledger, cell(), number=9999, now=now + 80)) == {
        "too many incarnations at once"
    }
    for number in range(MAX_INCARNATIONS, MAX_INCARNATIONS + 50):
        assert not take(ledger, cell(bucket=59), number=number, now=now + 95).refused
    reporter = ledger.reporters["pod"]
    assert len(reporter.incarnations) == MAX_INCARNATIONS
    assert counted(ledger) == {"m": MAX_INCARNATIONS + 50}
    # One whose cells are forgotten comes back with all it has.
    assert reasons(take(ledger, cell(requests=5), number=0, now=now + 96)) == {
        "an incarnation that has ended"
    }
    assert counted(ledger) == {"m": MAX_INCARNATIONS + 50}


def test_ended_incarnations_are_remembered_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_INCARNATIONS", 2)
    monkeypatch.setattr(ledger_module, "MAX_ENDED", 3)
    ledger = Ledger()
    for number in range(50):
        assert not take(ledger, number=number, now=NOW + 100.0 * number).refused
    assert len(ledger.reporters["pod"].ended) == 3


def test_pulses_that_cannot_be_are_left_out_and_names_are_as_in_the_counters() -> None:
    ledger, known = Ledger(), Known(models=("m",), generation=2)
    pulses = (
        Pulse(uid=UID, row=3, row_began_ms=5),
        Pulse(uid=UID, model="m", row=2**50),
        Pulse(uid=UID, model="x", row=4, row_began_ms=5),
        Pulse(uid=UID, model="n", row=4, generation=4),
        Pulse(uid="nobody", row=4),
    )
    taken = take(ledger, pulses=pulses, known=known)
    assert reasons(taken) == {"numbers that cannot be"}
    (one,) = ledger.reporters["pod"].incarnations.values()
    assert {model: pulse.row for model, pulse in one.pulses[UID].items()} == {"": 3, "other": 4}
