"""What is made of the results."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from bench.simulate import cli
from bench.simulate.backends import Fault
from bench.simulate.batches import Batches
from bench.simulate.constants import VARIATIONS, varied
from bench.simulate.goals import Goal, goals
from bench.simulate.runner import Outcome as Results
from bench.simulate.runner import perform, run, tasks
from bench.simulate.scenarios import BY_NAME, CHANCES, SCENARIOS
from bench.simulate.summary import Summary
from bench.simulate.svg import timeline
from bench.simulate.tables import report, spread

from nexus_quality.outcome import Outcome

NOTHING: dict[str, Any] = {
    name: None if name.endswith(("lag", "after")) else 0 for name in Summary.__slots__
}


def _results(**lost: int) -> Results:
    summaries = {
        ("A", policy, 0): [Summary(**NOTHING | {"lost_extra": n})] for policy, n in lost.items()
    }
    return Results(summaries=summaries, seeds=1)


def _first_goal(**lost: int) -> Goal:
    return goals(_results(**lost))[0]


def test_a_goal_is_met_missed_by_so_much_or_was_not_run() -> None:
    assert _first_goal(nexus=6, seed=100).verdict == "met"
    assert _first_goal(nexus=10, seed=100).verdict == "missed by 4 %"
    assert _first_goal(seed=100).verdict == "not run"


def test_a_spread_is_median_and_range_without_what_never_came() -> None:
    assert spread([3, None, 1, 2.5]) == "2.5 (1–3)"
    assert spread([4, 4]) == "4"
    assert spread([None]) == "–"


def test_a_report_has_the_goals_and_a_table_for_what_was_run() -> None:
    text = report(_results(nexus=6, seed=100))
    assert "| down (A), no retries: lost requests, of the seed's | ≤ 6 % | 6 % | met |" in text
    assert "**A**: one of three down" in text
    assert "**B**" not in text


def test_an_unknown_scenario_is_named_with_those_there_are(capsys) -> None:
    assert cli.main(["--scenario", "A,Z"]) == 2
    assert "no scenario 'Z': there are A, " in capsys.readouterr().err


def test_names_are_unique_and_every_letter_of_the_plan_is_there() -> None:
    names = [scenario.name for scenario in (*SCENARIOS, *CHANCES)]
    assert len(names) == len(set(names))
    letters = {name[0] for name in names}
    # R is A: nothing but traffic is probed here, and the probe would answer well throughout.
    assert set("ABCDEFGHIJKLMNOPQST") <= letters


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda one: one.name)
def test_a_constant_is_another_while_it_is_varied_and_then_as_shipped(variation) -> None:
    changes = variation.changes()
    before = [getattr(target, name) for target, name, _ in changes]
    with varied(variation.name):
        varied_to = [getattr(target, name) for target, name, _ in variation.changes()]
        assert all(now is not then for now, then in zip(varied_to, before, strict=True))
    assert [getattr(target, name) for target, name, _ in changes] == before


def test_every_constant_is_tried_where_it_is_simulated_anyway() -> None:
    assert {name for one in VARIATIONS for name in one.scenarios} <= BY_NAME.keys()
    assert len({one.name for one in VARIATIONS}) == len(VARIATIONS)


def test_what_was_saved_is_not_run_again_and_tells_its_commit(tmp_path) -> None:
    todo = [t for t in tasks([BY_NAME["T"]], 1, ("T",)) if t.policy == "seed" and not t.retries]
    first = run(todo, seeds=1, batches=Batches(tmp_path), quiet=True)
    again = run(todo, seeds=1, batches=Batches(tmp_path), minutes=0.0, quiet=True)
    assert again.summaries == first.summaries
    assert again.pictures.keys() == first.pictures.keys() == {("T", "seed", 0)}
    assert again.commits == first.commits
    assert report(again).startswith("seed: 1 seeds, commit ")


def test_a_constants_table_sets_the_same_seeds_side_by_side() -> None:
    one = VARIATIONS[0]
    name = one.scenarios[0]
    shipped = [Summary(**NOTHING | {"outs": n}) for n in (1, 2, 30)]
    other = [Summary(**NOTHING | {"outs": n}) for n in (3, 4)]
    labels = ["nexus" + v.name for v in VARIATIONS if v.constant == one.constant]
    varied_too = {(name, label, 0): other for label in labels}
    text = report(Results(summaries={(name, "nexus", 0): shipped, **varied_too}, seeds=3))
    assert f"| {one.constant} | {name} | 2 | **6** | 0 | – | – | 3.00 |" in text
    assert "|  |  |  | 0 | 0 | – | – | 7.00 |" in text
    assert "|  |  |  | 12 | 0 | – | – | 7.00 |" in text


def test_scenarios_of_one_fleet_share_a_warm_up() -> None:
    found = tasks([BY_NAME["A"], BY_NAME["B"], BY_NAME["E"]], 2, ("A",))
    assert len(found) == 2 * 4 * 2 * 2  # fleets, policies, retries, seeds
    together = [task for task in found if task.names == ("A", "B")]
    assert len(together) == 16
    assert {task.seed for task in together if task.pictures} == {1}


def test_a_drawing_is_svg_with_a_panel_per_policy(simulate) -> None:
    fault = Fault(outcome=Outcome.SERVER_ERROR, end=60.0)
    runs = [(policy, simulate(policy, fault)) for policy in ("nexus", "seed")]
    root = ElementTree.fromstring(timeline(BY_NAME["A"], runs))
    namespace = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{namespace}polyline")) == 4
    assert {"Nexus", "seed"} <= {text.text for text in root.findall(f"{namespace}text")}


@pytest.mark.parametrize("policy", ["nexus", "seed"])
def test_a_task_runs_to_its_summary(policy: str) -> None:
    (task,) = [t for t in tasks([BY_NAME["T"]], 1, ()) if t.policy == policy and not t.retries]
    _, found, drawn = perform(task)
    assert found["T"].arrived > 1000
    assert found["T"].slow > 50
    assert drawn == {}
