"""Runs everything: one warm-up per (fleet, policy, retries, seed), then a branch per scenario.

Promises the same summaries whatever the number of workers, and that what was saved in a directory
of batches is not run again. Two processes at most: the machine has other things to do.
"""

from __future__ import annotations

import gc
import logging
import math
import multiprocessing
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from bench.simulate.batches import Batches
from bench.simulate.constants import (
    CHANCE_SEEDS,
    NOTHING_VARIED,
    VARIATIONS,
    VARIED_SEEDS,
    varied,
)
from bench.simulate.measure import Result
from bench.simulate.scenarios import BY_NAME, CHANCES, Scenario
from bench.simulate.simulation import NEXUS, Shape, Simulation, branch
from bench.simulate.summary import Summary, summary

WORKERS = 2
Key = tuple[str, str, int]  # scenario, policy and what is varied in it, retries


@dataclass(frozen=True, slots=True)
class Task:
    """One warm-up and the scenarios that begin where it ends. `variation`: the constant that is
    another, by its name in VARIATIONS.
    """

    names: tuple[str, ...]
    policy: str
    retries: int
    seed: int
    pictures: tuple[str, ...]
    variation: str = NOTHING_VARIED

    @property
    def label(self) -> str:
        """The policy, and what is varied in it."""
        return self.policy + self.variation


@dataclass(slots=True)
class Outcome:
    """All summaries by scenario, policy and retries, in the order of seeds; runs to be drawn.

    `commits`: of the sources that made them, for each policy.
    """

    summaries: dict[Key, list[Summary]] = field(default_factory=dict)
    pictures: dict[Key, Result] = field(default_factory=dict)
    seeds: int = 0
    commits: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def perform(task: Task) -> tuple[Task, dict[str, Summary], dict[str, Result]]:
    """One task, in this process."""
    with varied(task.variation):
        return _perform(task)


def _perform(task: Task) -> tuple[Task, dict[str, Summary], dict[str, Result]]:
    logging.disable(logging.WARNING)
    scenarios = [BY_NAME[name] for name in task.names]
    shape = scenarios[0].shape
    started = Simulation(shape, policy=task.policy, retries=task.retries, seed=task.seed)
    simulation = started.warm_up()
    gc.freeze()
    free = None
    broken = [scenario.seconds for scenario in scenarios if scenario.faults]
    if broken:
        free = branch(lambda: simulation.measure(seconds=max(broken)))
    found, drawn = {}, {}
    for scenario in scenarios:
        result = branch(lambda s=scenario: _measure(simulation, s))  # type: ignore[misc]
        found[scenario.name] = summary(scenario, result, free if scenario.faults else None)
        if scenario.name in task.pictures:
            drawn[scenario.name] = result
    gc.unfreeze()
    return task, found, drawn


def _measure(simulation: Simulation, scenario: Scenario) -> Result:
    return simulation.measure(
        seconds=scenario.seconds, faults=scenario.faults, changes=scenario.changes
    )


def tasks(scenarios: Iterable[Scenario], seeds: int, pictures: tuple[str, ...]) -> list[Task]:
    """What is to be done for some scenarios."""
    groups: dict[tuple[Shape, str, int, int], list[str]] = defaultdict(list)
    for scenario in scenarios:
        for policy in scenario.policies:
            for retries in scenario.retries:
                for seed in range(1, min(seeds, scenario.seeds or seeds) + 1):
                    groups[scenario.shape, policy, retries, seed].append(scenario.name)
    return [
        Task(tuple(names), policy, retries, seed, pictures if seed == 1 else ())
        for (_, policy, retries, seed), names in groups.items()
    ]


def variations(seeds: int) -> list[Task]:
    """The tasks of the table of constants, for so many seeds at most."""
    by_chance = {scenario.name for scenario in CHANCES}
    return [
        Task((name,), NEXUS, 0, seed, (), variation.name)
        for variation in VARIATIONS
        for name in variation.scenarios
        for seed in range(1, min(seeds, CHANCE_SEEDS if name in by_chance else VARIED_SEEDS) + 1)
    ]


def _weight(task: Task) -> float:
    scenarios = [BY_NAME[name] for name in task.names]
    return sum(s.seconds * s.shape.proxies for s in scenarios) + scenarios[0].shape.warm


def run(
    todo: Iterable[Task],
    *,
    seeds: int,
    batches: Batches | None = None,
    minutes: float | None = None,
    quiet: bool = False,
) -> Outcome:
    """Run the tasks, or what of them can be done in so many `minutes`; progress goes to standard
    error.
    """
    wanted = sorted(todo, key=lambda task: (task.seed, -_weight(task)))
    ends = time.monotonic() + 60.0 * minutes if minutes is not None else math.inf
    outcome = Outcome(seeds=seeds)
    by_seed: dict[Key, dict[int, Summary]] = defaultdict(dict)
    for task, commit, found, drawn in _performed(
        wanted, batches or Batches(None), ends, quiet=quiet
    ):
        outcome.commits[task.policy].add(commit)
        for name, one in found.items():
            by_seed[name, task.label, task.retries][task.seed] = one
        for name, result in drawn.items():
            outcome.pictures[name, task.label, task.retries] = result
    outcome.summaries = {
        key: [seen[seed] for seed in sorted(seen)] for key, seen in by_seed.items()
    }
    return outcome


Performed = tuple[Task, str, dict[str, Summary], dict[str, Result]]


def _performed(
    wanted: list[Task], batches: Batches, ends: float, *, quiet: bool
) -> Iterator[Performed]:
    todo = []
    for task in wanted:
        saved = batches.load(task.label, task.retries, task.seed, task.names)
        yield from ((task, one.commit, one.summaries, one.pictures) for one in saved)
        known = {name for one in saved for name in one.summaries}
        names = tuple(name for name in task.names if name not in known)
        if names:
            todo.append(replace(task, names=names))
    began = time.monotonic()
    if not todo or began >= ends:
        return
    with multiprocessing.get_context("fork").Pool(WORKERS, maxtasksperchild=20) as pool:
        for number, (task, found, drawn) in enumerate(pool.imap_unordered(perform, todo), 1):
            batches.save(task.label, task.retries, task.seed, found, drawn)
            yield task, batches.commit, found, drawn
            if time.monotonic() >= ends:
                break
            if not quiet and number % 20 == 0:
                spent = time.monotonic() - began
                print(f"{number} of {len(todo)}, {spent:.0f} s", file=sys.stderr, flush=True)
