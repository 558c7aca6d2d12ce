"""What an accepted status has to tell a person: a note for each change of state, none else.

Promises that a note about the same change carries the same mark, whichever process makes it and
however often, so that the Event made of it is there once. It creates no Event; what a status tells
whose writer has died is `retold`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nexus_api import BackendState, LLMBackendStatus, SubjectState, reasons
from nexus_quality import words
from nexus_quality.assessment import why_out
from nexus_quality.engine import Transition
from nexus_quality.shared import stalled_by


@dataclass(frozen=True, slots=True)
class Note:
    """An Event to be: its reason and message.

    `mark` tells the change among all of its object, "" if nobody could tell it again; `time`, in
    epoch seconds, when it was, None for now.
    """

    reason: str
    message: str
    mark: str = field(default="", compare=False)
    time: float | None = field(default=None, compare=False)


def overlay_notes(before: LLMBackendStatus, after: LLMBackendStatus) -> list[Note]:
    """What an accepted status says about suspension, health and what is to be mended that the one
    before did not.
    """
    notes = _mending_notes(before, after)
    for state, begins, ends, mark in OVERLAYS:
        if after.state is state and before.state is not state:
            notes.append(Note(begins, told(after, reasons.READY), mark(begins, after)))
        elif before.state is state and after.state is not state:
            notes.append(Note(ends, f"State is {after.state}", mark(ends, after)))
    return notes


def _mending_notes(before: LLMBackendStatus, after: LLMBackendStatus) -> list[Note]:
    was, now = stalled_by(before), stalled_by(after)
    if now is not None and (was is None or was[0] != now[0]):
        return [Note(*now, mending_mark(now[0], after))]
    if was is not None and now is None:
        mark = mending_mark(reasons.EVENT_RELEASED, after)
        return [Note(reasons.EVENT_RELEASED, words.MENDED, mark)]
    return []


def transition_notes(transition: Transition, status: LLMBackendStatus) -> list[Note]:
    """The note of a transition, in the words of the status that was written with it; a clean
    record that begins anew is nothing to tell.
    """
    if transition.before.state is transition.after.state is SubjectState.ACTIVE:
        return []
    message = transition.message
    if transition.model:
        if transition.after.state is SubjectState.EXCLUDED:
            message = why_out(transition.after)
    elif transition.after.state is not SubjectState.ACTIVE:
        message = told(status, reasons.WITHIN_POLICY) or message
    return [Note(transition.event, message, verdict_mark(transition.after.generation))]


def verdict_mark(generation: int) -> str:
    """The mark of a transition: each takes a generation of its own."""
    return f"verdict {generation}"


def mending_mark(reason: str, status: LLMBackendStatus) -> str:
    """The mark of a change of what a person must mend."""
    return f"{reason} {turned_at(status, reasons.STALLED)}"


def health_mark(reason: str, status: LLMBackendStatus) -> str:
    """The mark of a change of health."""
    return f"{reason} {turned_at(status, reasons.HEALTHY)}"


def suspension_mark(reason: str, status: LLMBackendStatus) -> str:
    """The mark of a suspension or its end, each of which makes a new backend (S15)."""
    return f"{reason} {status.verdict_generation}"


def turned_at(status: LLMBackendStatus, condition: str) -> str:
    """When a condition turned, RFC 3339; "" without it."""
    times = (c.last_transition_time for c in status.conditions if c.type == condition)
    return next(times, "")


def told(status: LLMBackendStatus, condition: str) -> str:
    """The message of a condition, "" without it."""
    return next((c.message for c in status.conditions if c.type == condition), "")


# An overlay that comes or goes is no transition of the verdict, but a change of state all the same.
OVERLAYS = (
    (
        BackendState.SUSPENDED,
        reasons.EVENT_SUSPENDED,
        reasons.EVENT_RESUMED,
        suspension_mark,
    ),
    (
        BackendState.UNHEALTHY,
        reasons.EVENT_UNHEALTHY,
        reasons.EVENT_HEALTHY,
        health_mark,
    ),
)
