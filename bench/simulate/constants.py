"""The constants that were chosen by judgement, and what becomes of the fleet with others.

Promises that a variation holds within `varied` and nowhere else: it replaces names of the shipped
modules in this process and puts them back. Everything else of a run is the shipped code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from nexus_api.backend import ExclusionRule
from nexus_quality import (
    breaker_table,
    calm,
    engine,
    evidence,
    hearing,
    monitor,
    policy,
    rules,
    stall,
    verdict_table,
)
from nexus_quality.attempt import Attempt
from nexus_quality.breaker import Event
from nexus_quality.rules import Case
from nexus_quality.subject import Subject

NOTHING_VARIED = ""
RECENT_SECONDS = 5.0
VARIED_SEEDS, CHANCE_SEEDS = 5, 20  # what happens by chance takes more of them to be seen

Change = tuple[Any, str, Any]  # a module or class, a name in it, what it is to be


@dataclass(frozen=True, slots=True)
class Variation:
    """A constant with another value; `shipped`: the one it has, `scenarios`: where it matters."""

    constant: str
    value: str
    shipped: str
    scenarios: tuple[str, ...]
    changes: Callable[[], tuple[Change, ...]]

    @property
    def name(self) -> str:
        """Which of all this is."""
        return f", {self.constant}: {self.value}"


def _alive(seconds: float) -> tuple[Change, ...]:
    modules = (calm, engine, evidence, stall)
    silent = [(module, "ALIVE_SECONDS", seconds) for module in modules]
    return (*silent, (monitor, "UNANSWERED_SECONDS", seconds))


def _orphan(seconds: float) -> tuple[Change, ...]:
    return (monitor, "ORPHAN_AFTER_SECONDS", seconds), (hearing, "LATE_SECONDS", seconds)


def _no_fleet_row() -> tuple[Change, ...]:
    rest = tuple(rule for rule in rules.RULES if rule.name is not ExclusionRule.FLEET_ROW)
    return ((rules, "RULES", rest),)


def _twice_the_volume() -> tuple[Change, ...]:
    def error_rate(case: Case) -> bool:
        enough = case.all.requests >= 2 * case.policy.min_requests
        return enough and rules.error_rate(case)

    found = tuple(
        replace(rule, holds=error_rate) if rule.name is ExclusionRule.ERROR_RATE else rule
        for rule in rules.RULES
    )
    return ((rules, "RULES", found),)


def _at_the_second(guard: verdict_table.Guard) -> verdict_table.Guard:
    return lambda before, facts: facts.probes.failures >= 2 and guard(before, facts)


def _first_to_two() -> tuple[Change, ...]:
    """The second failed probe excludes, the first does not; nor does it spend its proxy (L13)."""
    shared = tuple(
        replace(row, guard=_at_the_second(row.guard)) if row.row == "S12" else row
        for row in verdict_table.TRANSITIONS
    )
    spent = (row for row in breaker_table.TRANSITIONS if row.row == "L12" and row.to is None)
    freed = next(row for row in spent if row.event is Event.PROBE_SUCCESS).action
    local = {
        key: tuple(replace(row, action=freed) if row.row == "L13" else row for row in found)
        for key, found in breaker_table._INDEX.items()
    }
    return (verdict_table, "TRANSITIONS", shared), (breaker_table, "_INDEX", local)


def _recent_unanswered() -> tuple[Change, ...]:
    """An attempt that has been silent for long is no success to wait for."""
    shipped = Subject.failed
    moment = [0.0]

    def failed(self: Subject, attempt: Attempt, now: float, *, connect: bool) -> None:
        moment[0] = now
        shipped(self, attempt, now, connect=connect)

    def unanswered(self: Subject, subjects: list[Subject], since: float) -> int:
        return sum(
            isinstance(a, Attempt)
            and not a.known
            and a.began >= max(since, moment[0] - RECENT_SECONDS)
            and a.subject in subjects
            for a in self.backend.open_attempts
        )

    return (Subject, "failed", failed), (Subject, "unanswered", unanswered)


def _named(
    constant: str,
    shipped: str,
    scenarios: tuple[str, ...],
    **values: Callable[[], tuple[Change, ...]],
) -> tuple[Variation, ...]:
    return tuple(
        Variation(constant, value.strip("_").replace("_", " "), shipped, scenarios, changes)
        for value, changes in values.items()
    )


VARIATIONS: tuple[Variation, ...] = (
    *_named(
        "row factor", "6", ("30 % at 2 rps", "30 % at 10 rps", "B"),
        _0=lambda: ((policy, "ROW_FACTOR", 0),), _12=lambda: ((policy, "ROW_FACTOR", 12),),
    ),
    *_named(
        "errors of the rest in a quorum", "3", ("Honest", "K9"),
        _1=lambda: ((rules, "LEAST_ERRORS_OF_REST", 1),),
        _6=lambda: ((rules, "LEAST_ERRORS_OF_REST", 6),),
    ),
    *_named(
        "silent after", "90 s", ("Away", "P"),
        _45_s=lambda: _alive(45.0), _180_s=lambda: _alive(180.0),
    ),
    *_named(
        "orphan after", "60 s", ("Away",),
        _30_s=lambda: _orphan(30.0), _120_s=lambda: _orphan(120.0),
    ),
    *_named("row of the fleet", "as it is", ("Honest", "K9"), none=_no_fleet_row),
    *_named(
        "failed probes that exclude", "1", ("A", "K", "30 % at 2 rps", "30 % at 10 rps"),
        _2_before_2_successes=_first_to_two,
    ),
    *_named(
        "minRequests of a young hour", "as it is", ("I1", "30 % at 0.2 rps", "30 % at 2 rps"),
        twice=_twice_the_volume,
    ),
    *_named(
        "unanswered attempts that hold up a row", "all", ("C", "C120", "30 % at 10 rps"),
        those_of_the_last_5_s=_recent_unanswered,
    ),
)  # fmt: skip
_BY_NAME = {variation.name: variation for variation in VARIATIONS}


@contextmanager
def varied(name: str) -> Iterator[None]:
    """Within this block the constant is another; NOTHING_VARIED: all are as shipped."""
    with ExitStack() as stack:
        for target, attribute, value in _BY_NAME[name].changes() if name else ():
            stack.enter_context(patch.object(target, attribute, value))
        yield
