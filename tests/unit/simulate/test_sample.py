"""A sample of `bench simulate`: goals that no chance decides, and that they notice a loss."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest
from bench.simulate.goals import Goal, goals
from bench.simulate.runner import run, tasks
from bench.simulate.scenarios import BY_NAME
from bench.simulate.simulation import NEXUS

from nexus_quality import breaker_table, hearing

SAMPLE = {
    "A": (
        "down (A), no retries: lost requests, of the seed's",
        "down (A), retries: failed attempts, of the seed's",
        "down (A), retries: lost requests more than the seed",
    ),
    "F3": (
        "dead (A, F3): left out after a proxy's fifth failed attempt, worst",
        "dead (F3): every proxy after the evidence suffices, worst",
        "dead (A, F3): failed attempts of a proxy before it leaves it out, worst",
    ),
    "Q4xx": ("4xx storm (Q4xx): exclusions in all seeds",),
    "O": ("one bad model (O): times the other one was left out, all seeds",),
    "Poison": ("one liar of ten (Poison): exclusions in all seeds",),
}


def sampled(name: str) -> list[Goal]:
    """The goals of the sample that one scenario measures, of one run."""
    scenario = BY_NAME[name]
    # What is compared with the seed's is so with and without retries; the rest needs neither.
    policies, retries = ((NEXUS, "seed"), (0, 2)) if name == "A" else ((NEXUS,), (0,))
    todo = tasks([replace(scenario, policies=policies, retries=retries)], 1, ())
    found = {goal.text: goal for goal in goals(run(todo, seeds=1, quiet=True))}
    return [found[text] for text in SAMPLE[name]]


@pytest.mark.parametrize("name", SAMPLE)
def test_a_run_of_the_simulation_meets_its_goals(name: str) -> None:
    assert [(goal.text, goal.verdict) for goal in sampled(name)] == [
        (text, "met") for text in SAMPLE[name]
    ]


def test_a_fleet_that_excludes_nothing_misses_them() -> None:
    with (
        patch.object(hearing, "fire_backend", lambda *_: None),
        patch.object(hearing, "fire_model", lambda *_: None),
        patch.object(hearing, "fire_unreached", lambda *_: None),
        patch.object(breaker_table, "_long_enough", lambda *_: False),
    ):
        lost, failed, _ = sampled("A")
    assert lost.verdict.startswith("missed by ") and failed.verdict.startswith("missed by ")
