"""What the processes of one proxy tell each other, so that their breakers turn as one.

A failure, a success that may end a row, a probe and its end, a breaker that opened or closed by
what its own process saw, a key that is taken again. Times are the boot clock's, which they share.
Promises nothing about delivery: what comes late or not at all leaves each breaker with what its own
process saw. It counts nothing.
"""

from __future__ import annotations

import enum

import msgspec

from nexus_quality.breaker import NO_ROW, BreakerState, Event, Row


class Saw(enum.StrEnum):
    """What a process saw."""

    FAILURE = "Failure"
    UNANSWERED = "Unanswered"
    SUCCESS = "Success"
    PROBE_SENT = "ProbeSent"
    PROBE_SUCCESS = "ProbeSuccess"
    PROBE_FAILURE = "ProbeFailure"
    PROBE_NEUTRAL = "ProbeNeutral"
    OPENED = "Opened"
    CLOSED = "Closed"
    KEY_ACCEPTED = "KeyAccepted"


SAW_EVENT = {
    Event.SUCCESS: Saw.SUCCESS,
    Event.PROBE_SENT: Saw.PROBE_SENT,
    Event.PROBE_SUCCESS: Saw.PROBE_SUCCESS,
    Event.PROBE_FAILURE: Saw.PROBE_FAILURE,
    Event.PROBE_NEUTRAL: Saw.PROBE_NEUTRAL,
}
"""What befalls both breakers of a subject alike, here and in the other processes."""
EVENTS = {saw: event for event, saw in SAW_EVENT.items()}
SAW_TURN = {BreakerState.OPEN: Saw.OPENED, BreakerState.CLOSED: Saw.CLOSED}


class Sight(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="sight"):
    """One such thing about (backend, model); `model` "": the backend itself, or its own breaker.

    `by`: the number of the process. `began`: when the attempt of an outcome began. `outdated`: it
    is tagged with an older generation than the present one. `unanswered`: attempts without an
    answer that the process has begun there since the row did, told with a failure and, by those
    that hear of one, if it is another number than before. `until`, `k` and `row` are those of a
    breaker that opened.
    """

    saw: Saw
    uid: str
    model: str = ""
    by: int = 0
    began: float = 0.0
    connect: bool = False
    outdated: bool = False
    unanswered: int = 0
    until: float = 0.0
    k: int = 0
    row: Row = NO_ROW
