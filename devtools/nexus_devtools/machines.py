"""`make docs`: docs/state-machines.md, drawn from the tables of transitions themselves.

Promises that every row there is appears in a diagram and in a table, with the states it leads to
found by taking it; and that a guard or action nobody has explained appears by its name. It is NOT
the machines: a difference between page and code is a page that is old.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from nexus_api.backend import ExclusionRule, SubjectState
from nexus_devtools.machine_texts import BREAKER, EXPLAINED, INTRODUCTION, ROWS_ELSEWHERE, VERDICT
from nexus_quality import breaker_table as breakers
from nexus_quality import engine as engines
from nexus_quality import verdict_table as verdicts
from nexus_quality import words
from nexus_quality.breaker import BreakerState
from nexus_quality.firing import Firing
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.verdict import Facts, Probes, Verdict

PAGE = Path(__file__).resolve().parents[2] / "docs" / "state-machines.md"
Edge = tuple[str, str, str]


def page() -> str:
    """The whole document."""
    return "\n".join(
        [
            INTRODUCTION,
            VERDICT,
            diagram(verdict_edges(), "Active"),
            table(("row", "state", "guard", "new state", "action", "Event"), verdict_rows()),
            ROWS_ELSEWHERE,
            BREAKER,
            diagram(breaker_edges(), "Closed"),
            table(("row", "state", "event", "guard", "new state", "action"), breaker_rows()),
        ]
    )


def diagram(edges: Iterable[Edge], first: str) -> str:
    """A mermaid diagram of (from, to, row); rows between the same two states share an arrow."""
    arrows: dict[tuple[str, str], dict[str, None]] = {}
    for begin, end, row in edges:
        arrows.setdefault((begin, end), {})[row] = None
    lines = [f"    {a} --> {b}: {', '.join(rows)}" for (a, b), rows in arrows.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", f"    [*] --> {first}", *lines, "```", ""])


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def explained(function: Callable[..., object]) -> str:
    """What a guard or an action does, in words."""
    name = function.__name__
    return EXPLAINED.get(name, name.strip("_").replace("_", " "))


# The shared verdict


def outcome_of(row: verdicts.Transition, state: SubjectState) -> SubjectState:
    """The state that a row leads to."""
    sample = Facts(
        now=1000.0,
        policy=DEFAULT_POLICY,
        next_generation=1,
        firing=Firing(
            rule=ExclusionRule.ERROR_RATE, errors=1, requests=1, reason="", suggested_action=""
        ),
        probes=Probes(successes=1, failures=1, failed_by=("pod",)),
    )
    return row.action(Verdict(state=state), sample).state


def verdict_edges() -> Iterator[Edge]:
    """The arrows of the verdict's diagram; rows that stay are in the table alone."""
    for row in verdicts.TRANSITIONS:
        for state in SubjectState:
            if state in row.states and row.moves:
                yield state.value, outcome_of(row, state).value, row.row


def verdict_rows() -> Iterator[tuple[str, ...]]:
    """The verdict's table, in the order in which rows are tried."""
    for row in verdicts.TRANSITIONS:
        states = [state for state in SubjectState if state in row.states]
        ends = dict.fromkeys(outcome_of(row, state).value for state in states)
        yield (
            row.row,
            _states(states, len(SubjectState)),
            explained(row.guard),
            ", ".join(ends) if row.moves else "stays",
            explained(row.action),
            _event(row.row) if row.moves else "",
        )


def _event(row: str) -> str:
    """The reason of the Event, and its text where that is always the same."""
    message = words.TURNED.get(row, "")
    return f"`{engines.EVENTS[row]}`" + (f": {message}" if message else "")


# The local breaker


def breaker_edges() -> Iterator[Edge]:
    """The arrows of the breaker's diagram."""
    for row in breakers.TRANSITIONS:
        for state in BreakerState:
            if state in row.states and row.to not in (None, state):
                assert row.to is not None
                yield state.value, row.to.value, row.row


def breaker_rows() -> Iterator[tuple[str, ...]]:
    """The breaker's table, in the order in which rows are tried."""
    for row in breakers.TRANSITIONS:
        states = [state for state in BreakerState if state in row.states]
        yield (
            row.row,
            _states(states, len(BreakerState)),
            row.event.name.lower().replace("_", " "),
            explained(row.guard),
            row.to.value if row.to else "stays",
            explained(row.action),
        )


def _states(states: list[SubjectState] | list[BreakerState], there_are: int) -> str:
    return "any" if len(states) == there_are else ", ".join(state.value for state in states)


def functions() -> set[str]:
    """The names of all guards and actions of both tables."""
    used: list[Callable[..., object]] = []
    for row in verdicts.TRANSITIONS:
        used += (row.guard, row.action)
    for one in breakers.TRANSITIONS:
        used += (one.guard, one.action)
    return {function.__name__ for function in used}


def main() -> int:
    """Writes the page."""
    PAGE.write_text(page())
    print(f"wrote {PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
