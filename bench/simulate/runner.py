"""Runs everything: one warm-up per (fleet, policy, retries, seed), then a branch per scenario.

Promises the same summaries whatever the number of workers. Two processes at most: the machine has
other things to do.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.simulate.measure import Result
from bench.simulate.scenarios import BY_NAME, Scenario
from bench.simulate.simulation import Shape, Simulation, branch
from bench.simulate.summary import Summary, summary

WORKERS = 2
Key = tuple[str, str, int]  # scenario, policy, retries


@dataclass(frozen=True, slots=True)
class Task:
    """One warm-up and the scenarios that begin where it ends."""

    names: tuple[str, ...]
    policy: str
    retries: int
    seed: int
    pictures: tuple[str, ...]


@dataclass(slots=True)
class Outcome:
    """All summaries by scenario, policy and retries, in the order of seeds; runs to be drawn."""

    summaries: dict[Key, list[Summary]] = field(default_factory=dict)
    pictures: dict[Key, Result] = field(default_factory=dict)
    seeds: int = 0


def perform(task: Task) -> tuple[Task, dict[str, Summary], dict[str, Result]]:
    """One task, in this process."""
    logging.disable(logging.WARNING)
    scenarios = [BY_NAME[name] for name in task.names]
    shape = scenarios[0].shape
    started = Simulation(shape, policy=task.policy, retries=task.retries, seed=task.seed)
    simulation = started.warm_up()
    gc.freeze()
    longest = max(scenario.seconds for scenario in scenarios)
    free = None
    if any(scenario.faults for scenario in scenarios):
        free = branch(lambda: simulation.measure(seconds=longest))
    found, drawn = {}, {}
    for scenario in scenarios:
        result = branch(lambda s=scenario: _measure(simulation, s))  # type: ignore[misc]
        found[scenario.name] = summary(scenario, result, free)
        if scenario.name in task.pictures:
            drawn[scenario.name] = result
    gc.unfreeze()
    return task, found, drawn


def _measure(simulation: Simulation, scenario: Scenario) -> Result:
    return simulation.measure(
        seconds=scenario.seconds, faults=scenario.faults, changes=scenario.changes
    )


def tasks(scenarios: Iterable[Scenario], seeds: int, pictures: tuple[str, ...]) -> list[Task]:
    """The tasks, the long ones first."""
    groups: dict[tuple[Shape, str, int, int], list[str]] = defaultdict(list)
    for scenario in scenarios:
        for policy in scenario.policies:
            for retries in scenario.retries:
                for seed in range(1, min(seeds, scenario.seeds or seeds) + 1):
                    groups[scenario.shape, policy, retries, seed].append(scenario.name)
    found = [
        Task(tuple(names), policy, retries, seed, pictures if seed == 1 else ())
        for (_, policy, retries, seed), names in groups.items()
    ]
    return sorted(found, key=_weight, reverse=True)


def _weight(task: Task) -> float:
    scenarios = [BY_NAME[name] for name in task.names]
    return sum(s.seconds * s.shape.proxies for s in scenarios) + scenarios[0].shape.warm


def run(
    scenarios: Iterable[Scenario],
    *,
    seeds: int,
    pictures: tuple[str, ...] = (),
    quiet: bool = False,
) -> Outcome:
    """Run the scenarios; progress goes to standard error."""
    todo = tasks(scenarios, seeds, pictures)
    by_seed: dict[Key, dict[int, Summary]] = defaultdict(dict)
    outcome = Outcome(seeds=seeds)
    began = time.monotonic()
    with multiprocessing.get_context("fork").Pool(WORKERS, maxtasksperchild=20) as pool:
        for number, (task, found, drawn) in enumerate(pool.imap_unordered(perform, todo), 1):
            for name, one in found.items():
                by_seed[name, task.policy, task.retries][task.seed] = one
            for name, result in drawn.items():
                outcome.pictures[name, task.policy, task.retries] = result
            if not quiet and number % 20 == 0:
                spent = time.monotonic() - began
                print(f"{number} of {len(todo)}, {spent:.0f} s", file=sys.stderr, flush=True)
    outcome.summaries = {
        key: [seen[seed] for seed in sorted(seen)] for key, seen in by_seed.items()
    }
    return outcome
