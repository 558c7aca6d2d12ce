"""Figures from recorded times, outcomes and counts."""

from __future__ import annotations

import pytest

from nexus_devtools.demo.measure import (
    Chronicle,
    Outcome,
    Transition,
    by_app,
    failures,
    served_within,
    share,
)


def outcome(began: float, backend: str | None = "a", **fields: object) -> Outcome:
    given = {"app": "one", "ok": True, "streamed": False} | fields
    return Outcome(began=began, backend=backend, **given)  # type: ignore[arg-type]


def test_only_changes_of_state_are_recorded() -> None:
    chronicle = Chronicle()
    assert chronicle.note("a", "Active", 1.0)
    assert not chronicle.note("a", "Active", 2.0)
    assert chronicle.note("b", "Active", 3.0)
    assert chronicle.note("a", "Excluded", 4.0)
    assert chronicle.state("a") == "Excluded"
    assert chronicle.state("c") is None
    assert chronicle.transitions[-1] == Transition(4.0, "a", "Excluded")
    assert len(chronicle.transitions) == 3


def test_seconds_to_a_state_count_from_the_step_and_ignore_what_was_before() -> None:
    chronicle = Chronicle()
    chronicle.note("a", "Active", 1.0)
    chronicle.note("a", "Excluded", 12.5)
    chronicle.note("a", "Probation", 22.0)
    chronicle.note("a", "Active", 25.0)
    chronicle.began["breaks"] = 10.0
    chronicle.began["repaired"] = 20.0
    assert chronicle.seconds_to("a", "Excluded", since="breaks") == 2.5
    assert chronicle.seconds_to("a", "Active", since="repaired") == 5.0
    assert chronicle.seconds_to("b", "Active", since="repaired") is None
    assert chronicle.seconds_to("a", "Active", since="never began") is None


def test_spans_of_a_state_end_with_the_next_or_now() -> None:
    chronicle = Chronicle()
    for at, state in ((1.0, "Active"), (2.0, "Excluded"), (5.0, "Probation"), (6.0, "Excluded")):
        chronicle.note("a", state, at)
        chronicle.note("b", "Active", at)
    assert chronicle.spans("a", "Excluded", until=9.0) == [(2.0, 5.0), (6.0, 9.0)]
    assert chronicle.spans("c", "Excluded", until=9.0) == []


def test_a_share_is_of_the_window_and_of_answers_that_name_a_backend() -> None:
    outcomes = [
        outcome(0.9, "b"),
        outcome(1.0, "a"),
        outcome(1.5, "b"),
        outcome(1.6, "a"),
        outcome(1.7, None, ok=False, detail="status 502"),
        outcome(1.8, "a"),
        outcome(2.0, "b"),
    ]
    assert share(outcomes, "a", start=1.0, end=2.0) == pytest.approx(0.75)
    assert share(outcomes, "c", start=1.0, end=2.0) == 0.0
    assert share(outcomes, "a", start=5.0, end=6.0) is None


def test_failures_are_counted_by_what_was_wrong_and_requests_by_application() -> None:
    outcomes = [
        outcome(1, app="one"),
        outcome(2, app="two", ok=False, detail="status 503"),
        outcome(3, app="two", ok=False, detail="status 503"),
        outcome(4, app="two", ok=False, detail="cut"),
    ]
    assert failures(outcomes) == {"status 503": 2, "cut": 1}
    assert by_app(outcomes) == {"one": 1, "two": 3}


def test_what_was_served_in_a_span_leaves_out_its_first_moment_and_others() -> None:
    outcomes = [outcome(10.5), outcome(11.5), outcome(11.6, "b"), outcome(15.0)]
    assert served_within(outcomes, "a", [(10.0, 15.0)]) == 1
    assert served_within(outcomes, "a", []) is None
