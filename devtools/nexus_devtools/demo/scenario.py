"""The demo's timeline as data: what happens to the backends, what is awaited, what a person reads.

Promises: the steps end by themselves in under two minutes together, whatever happens. It is NOT the
director: nothing here runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from nexus_devtools.backends import Fault, FaultKind, Script

NAMESPACE = "demo"
APPS = ("app-one", "app-two")
CHAT_MODEL = "demo-chat"
REAL, BREAKING, SLOWING = "gemma", "sim-a", "sim-b"
QUESTION = "What is the capital of France?"
REQUESTS_PER_SECOND = 8.0
"""Of each application."""
QUESTIONS_PER_SECOND = 0.25
"""Of each application, to the real model."""
EXCLUSION_GOAL_SECONDS = 10.0
PATIENCE_SECONDS = 20.0
"""How long a client waits for an answer before it is a failure."""

PROMPT = Script(first_token_seconds=0.04, token_seconds=0.005, tokens=12)
FAILING = Script(
    first_token_seconds=0.04,
    token_seconds=0.005,
    tokens=12,
    faults=(Fault(kind=FaultKind.STATUS, status=500),),
)
SLOW = Script(headers_seconds=0.6, first_token_seconds=0.6, token_seconds=0.005, tokens=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One stretch of the timeline: act, wait for states (not for ever), then go on a while."""

    name: str
    text: str
    scripts: tuple[tuple[str, Script], ...] = ()
    """Backends that change their behaviour as the step begins."""
    awaited: tuple[tuple[str, str], ...] = ()
    """(backend, state) that must all hold before the step goes on."""
    at_most_seconds: float = 0.0
    hold_seconds: float = 0.0


HEALTHY, BREAKS, REPAIRED, SLOWS = "healthy", "breaks", "repaired", "slows"

STEPS: tuple[Step, ...] = (
    Step(
        name=HEALTHY,
        text="all is well: two applications, each through its own proxy, share sim-a and sim-b",
        awaited=((REAL, "Active"), (BREAKING, "Active"), (SLOWING, "Active")),
        at_most_seconds=15,
        hold_seconds=10,
    ),
    Step(
        name=BREAKS,
        text="sim-a breaks: every request to it is answered with status 500",
        scripts=((BREAKING, FAILING),),
        awaited=((BREAKING, "Excluded"),),
        at_most_seconds=EXCLUSION_GOAL_SECONDS,
        hold_seconds=5,
    ),
    Step(
        name=REPAIRED,
        text="sim-a is repaired: its exclusion ends by itself, then a few requests probe it",
        scripts=((BREAKING, PROMPT),),
        awaited=((BREAKING, "Active"),),
        at_most_seconds=30,
        hold_seconds=14,
    ),
    Step(
        name=SLOWS,
        text="sim-b grows slow: 1.2 s to the first token; it is no failure, but it costs score",
        scripts=((SLOWING, SLOW),),
        hold_seconds=14,
    ),
)

SETTLE_SECONDS = 4.0
"""After a backend grew slow: how long its share may take to follow before it is measured."""
SHARE_WINDOW_SECONDS = 5.0
"""Length of the window in which a share is measured or shown."""


def longest_seconds(steps: tuple[Step, ...] = STEPS) -> float:
    """How long it takes if nothing that is awaited ever happens and the last answer never comes."""
    return PATIENCE_SECONDS + sum(step.at_most_seconds + step.hold_seconds for step in steps)
