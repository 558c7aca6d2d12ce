"""Shares by subject: the whole, the whole without some models, and single models fit together."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_quality.evidence import Evidence, Share, Span, View
from nexus_quality.ledger import Ledger
from nexus_quality.report import Cell, CellKey, Pulse, Report

NOW = 1_700_000_000.0
ELAPSED = 36_005.0
MODELS = ("one", "two", "three")
SUMS = (
    "requests",
    "errors",
    "connect_errors",
    "short_requests",
    "short_errors",
    "short_connect_errors",
    "probe_successes",
    "probe_failures",
)

counted = st.fixed_dictionaries(
    {
        "requests": st.integers(1, 50),
        "errors": st.integers(0, 1),
        "probe_successes": st.integers(0, 3),
        "eligible": st.integers(0, 3),
    }
)
cells = st.dictionaries(
    st.tuples(st.sampled_from(MODELS), st.integers(0, 3), st.sampled_from([0, 2, 90])),
    counted,
    max_size=8,
)
pulses = st.dictionaries(
    st.sampled_from(["", *MODELS]),
    st.fixed_dictionaries(
        {"row": st.integers(0, 4), "open": st.booleans(), "in_flight": st.integers(0, 4)}
    ),
)
fleet = st.lists(st.tuples(cells, pulses), min_size=1, max_size=3)


def heard(fleet: list[tuple[dict[Any, Any], dict[str, dict[str, Any]]]]) -> Ledger:
    """A ledger to which each pod of a fleet has reported; cells by (model, generation, age)."""
    ledger = Ledger(NOW - 40_000.0)
    for number, (counts, standing) in enumerate(fleet):
        made: dict[CellKey, Cell] = {}
        for (model, generation, age), numbers in counts.items():
            for family in (10, 60, 3600):
                key = CellKey(family, int((ELAPSED - age) // family), "uid-a", model, generation)
                cell = made.setdefault(key, Cell(**key._asdict()))
                for name, value in numbers.items():
                    setattr(cell, name, getattr(cell, name) + value)
        report = Report(
            incarnation=f"{number:032x}",
            now_ms=int(ELAPSED * 1000),
            full=True,
            cells=list(made.values()),
            pulses=[
                Pulse(uid="uid-a", model=model, generation=3, **pulse)
                for model, pulse in standing.items()
            ],
        )
        ledger.take(f"pod-{number}", report, NOW, {"uid-a"})
    return ledger


def total(shares: tuple[Share, ...], name: str) -> int:
    return int(sum(getattr(share, name) for share in shares))


@settings(max_examples=60, deadline=None)
@given(fleet=fleet, generations=st.tuples(*[st.integers(0, 3)] * 3))
def test_models_add_up_to_the_backend_and_what_is_left_out_is_missing(
    fleet: Any, generations: tuple[int, int, int]
) -> None:
    spans = {model: Span(g) for model, g in zip(MODELS, generations, strict=True)}
    view = View(now=NOW, short_window_seconds=60, models=spans)
    evidence = Evidence(heard(fleet), "uid-a", view)
    for out in (frozenset[str](), frozenset({"two"}), frozenset({"two", "three"})):
        whole = evidence.whole(out)
        kept = [evidence.model(model) for model in evidence.models - out]
        for name in SUMS:
            assert total(whole, name) == sum(total(shares, name) for shares in kept)
        assert sum(share.row for share in whole) == sum(s.row for shares in kept for s in shares)
        assert {share.reporter for share in whole} == {s.reporter for p in kept for s in p}


@settings(max_examples=60, deadline=None)
@given(fleet=fleet, generations=st.tuples(*[st.integers(0, 3)] * 3))
def test_only_outcomes_tagged_since_a_models_own_transition_count(
    fleet: Any, generations: tuple[int, int, int]
) -> None:
    spans = {model: Span(g) for model, g in zip(MODELS, generations, strict=True)}
    view = View(now=NOW, short_window_seconds=60, models=spans)
    evidence = Evidence(heard(fleet), "uid-a", view)
    for model, span in spans.items():
        expected = sum(
            numbers["requests"]
            for counts, _ in fleet
            for (name, generation, _), numbers in counts.items()
            if name == model and generation >= span.generation
        )
        assert total(evidence.model(model), "requests") == expected


def test_a_proxy_keeps_a_backend_away_by_its_breaker_or_by_those_of_all_models_in_use() -> None:
    used = {("one", 0, 0): {"requests": 5}, ("two", 0, 0): {"requests": 5}}
    for standing, out, expected in (
        ({"": {"open": True}}, frozenset[str](), True),
        ({"one": {"open": True}}, frozenset[str](), False),
        ({"one": {"open": True}, "two": {"open": True}}, frozenset[str](), True),
        ({"one": {"open": True}}, frozenset({"two"}), True),
    ):
        view = View(now=NOW, short_window_seconds=60)
        evidence = Evidence(heard([(used, standing)]), "uid-a", view)
        (share,) = evidence.whole(out)
        assert share.open is expected, standing
        assert share.unreached().open is ("" in standing)
