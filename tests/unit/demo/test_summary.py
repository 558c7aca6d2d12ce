"""The summary claims nothing that was not measured."""

from __future__ import annotations

import dataclasses

import pytest

from nexus_devtools.demo import scenario, summary
from nexus_devtools.demo.measure import Answer, Figures

GOOD = Figures(
    answer=Answer(
        question="What?", text="The capital of France is Paris.", backend="gemma", seconds=0.4
    ),
    requests=900,
    requests_by_app={"app-one": 450, "app-two": 450},
    streamed=600,
    client_failures={},
    retried=7,
    seconds_to_exclude=0.84,
    attempts_failed=9,
    served_while_excluded=0,
    seconds_to_probation=5.2,
    seconds_to_return=7.96,
    share_before=0.51,
    share_after=0.02,
    score_before=74,
    score_after=55,
    seconds=61.4,
)


def test_a_run_that_measured_everything_exits_with_0() -> None:
    judged = summary.claims(GOOD)
    assert all(claim.held for claim in judged)
    assert summary.exit_code(judged) == 0


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        ({"answer": None}, "language model"),
        ({"answer": dataclasses.replace(GOOD.answer, text=" ")}, "language model"),
        ({"answer": dataclasses.replace(GOOD.answer, backend="sim-a")}, "language model"),
        ({"seconds_to_exclude": None}, "excluded within"),
        ({"seconds_to_exclude": scenario.EXCLUSION_GOAL_SECONDS + 0.1}, "excluded within"),
        ({"served_while_excluded": 1}, "sent no traffic"),
        ({"served_while_excluded": None}, "sent no traffic"),
        ({"client_failures": {"status 503": 1}}, "no client"),
        ({"requests_by_app": {"app-one": 450}}, "no client"),
        ({"seconds_to_return": None}, "came back"),
        ({"share_before": None}, "slow backend"),
        ({"share_after": None}, "slow backend"),
        ({"share_after": 0.3}, "slow backend"),
        ({"share_before": 0.0, "share_after": 0.0}, "slow backend"),
    ],
)
def test_one_thing_not_shown_fails_its_claim_alone_and_the_run(
    change: dict[str, object], claim: str
) -> None:
    judged = summary.claims(dataclasses.replace(GOOD, **change))
    assert [claim in entry.text for entry in judged if not entry.held] == [True]
    assert summary.exit_code(judged) == 1


def test_the_figures_are_printed_with_their_units() -> None:
    text = "\n".join(summary.lines(GOOD, summary.claims(GOOD)))
    assert "900 (app-one 450, app-two 450; 600 streamed) in 61 s" in text
    assert "0.8 s" in text
    assert "9 (counted by the backend itself)" in text
    assert "51 % -> 2 %, score 74 -> 55" in text
    assert "NOT SHOWN" not in text


def test_what_is_missing_is_called_not_measured_and_failures_are_named() -> None:
    figures = dataclasses.replace(
        GOOD,
        seconds_to_exclude=None,
        attempts_failed=None,
        share_after=None,
        client_failures={"status 503: none left": 2},
    )
    text = "\n".join(summary.lines(figures, summary.claims(figures)))
    assert text.count("not measured") == 3
    assert "a client saw: status 503: none left (2 times)" in text
    assert text.count("NOT SHOWN") == 3


def test_the_summary_says_what_is_simulated_and_what_differs_from_the_defaults() -> None:
    text = "\n".join(summary.lines(GOOD, summary.claims(GOOD)))
    assert "sim-a and sim-b are simulated" in text
    assert "exclusion 10 s" in text


def test_a_failure_among_tasks_is_told_in_its_own_words() -> None:
    from nexus_devtools.demo.main import _known
    from nexus_devtools.demo.processes import DemoError

    ended = DemoError("nexus-proxy-app-one ended with code -9")
    assert _known(ExceptionGroup("tasks", [ExceptionGroup("more", [ended])])) is ended
    assert _known(ExceptionGroup("tasks", [ValueError("a bug")])) is None
