"""Who leads: the decisions about one coordination.k8s.io/v1 Lease, without any I/O.

Promises that no two machines' clocks are compared: a lease has run out when this process saw it
unchanged for its whole duration, by its own monotonic clock. A leader stops writing
`RENEW_DEADLINE_SECONDS` after it last began to renew, so before anybody can see the lease run out.
Times written into the Lease are for people to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

LEASE_NAME: Final = "nexus-operator"
LEASE_SECONDS: Final = 15
RENEW_SECONDS: Final = 5.0
RENEW_DEADLINE_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 2.0
SHORTEST_PAUSE_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Record:
    """What a Lease says. `holder` is empty when nobody holds it; `renewed` is only compared."""

    holder: str
    renewed: str
    transitions: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Sighting:
    """A record, and since when (own monotonic seconds) this process sees it as it is."""

    record: Record
    since: float

    @property
    def ends(self) -> float:
        """When the lease has run out, if nothing changes until then."""
        return self.since + self.record.seconds


class Move(Enum):
    """What to do about the Lease now."""

    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"
    LOST = "lost"


def read(stored: Mapping[str, Any]) -> Record:
    """The record of a stored Lease; one without a spec is held by nobody."""
    spec = stored.get("spec") or {}
    return Record(
        holder=spec.get("holderIdentity") or "",
        renewed=spec.get("renewTime") or "",
        transitions=spec.get("leaseTransitions") or 0,
        seconds=float(spec.get("leaseDurationSeconds") or LEASE_SECONDS),
    )


def sight(before: Sighting | None, record: Record, now: float) -> Sighting:
    """The sighting after a look: its time moves only when the record did."""
    if before is not None and before.record == record:
        return before
    return Sighting(record, now)


def decide(seen: Sighting, *, me: str, tenure: int | None, own_slot: bool, now: float) -> Move:
    """The move of `me`. `tenure`: the `leaseTransitions` it leads under, None if it does not.

    `own_slot`: whether a lease in this name can only be that of a process this one replaces.
    """
    record = seen.record
    if tenure is not None:
        ours = record.holder == me and record.transitions == tenure
        return Move.RENEW if ours else Move.LOST
    free = not record.holder or (own_slot and record.holder == me)
    return Move.TAKE if free or now >= seen.ends else Move.WAIT


def next_look(seen: Sighting | None, *, leading: bool, healthy: bool, now: float) -> float:
    """Seconds until the next look: no later than the end of somebody else's lease."""
    if leading:
        return RENEW_SECONDS if healthy else RETRY_SECONDS
    left = RETRY_SECONDS if seen is None or now >= seen.ends else seen.ends - now
    return max(SHORTEST_PAUSE_SECONDS, min(RETRY_SECONDS, left))


def held(spec: Mapping[str, Any], *, me: str, transitions: int, stamp: str) -> dict[str, Any]:
    """The spec of a Lease that `me` takes or renews; `stamp` is the time, for people."""
    same = spec.get("holderIdentity") == me and spec.get("leaseTransitions") == transitions
    return {
        "holderIdentity": me,
        "leaseDurationSeconds": LEASE_SECONDS,
        "acquireTime": (spec.get("acquireTime") if same else None) or stamp,
        "renewTime": stamp,
        "leaseTransitions": transitions,
    }


def released(spec: Mapping[str, Any], *, stamp: str) -> dict[str, Any]:
    """The spec of a Lease that nobody holds any more; the count of its holders stays."""
    return {
        "holderIdentity": "",
        "leaseDurationSeconds": 1,
        "renewTime": stamp,
        "leaseTransitions": spec.get("leaseTransitions") or 0,
    }
