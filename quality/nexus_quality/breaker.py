"""The local breaker: one proxy's own protection, and what can happen to it.

Promises data alone: what moves a breaker is a row of `breaker_table`. It counts no windows and
sends nothing; `monitor` feeds it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from nexus_quality.policy import DEFAULT_POLICY, Policy
from nexus_quality.shared import SharedVerdict

ROW_SECONDS = 3600.0


class BreakerState(enum.Enum):
    """Ordinary traffic flows only in CLOSED."""

    CLOSED = "Closed"
    OPEN = "Open"
    HALF_OPEN = "HalfOpen"
    FOLLOW_EXCLUDED = "FollowExcluded"
    FOLLOW_PROBATION = "FollowProbation"


class Event(enum.Enum):
    """What can happen to a breaker."""

    FAILURE = enum.auto()
    MODELS_FAILED = enum.auto()
    SUCCESS = enum.auto()
    PROBE_SENT = enum.auto()
    PROBE_SUCCESS = enum.auto()
    PROBE_FAILURE = enum.auto()
    PROBE_NEUTRAL = enum.auto()
    DEADLINE = enum.auto()
    ORPHANED = enum.auto()
    NEWER_ACTIVE = enum.auto()
    NEWER_EXCLUDED = enum.auto()
    NEWER_PROBATION = enum.auto()
    BACKEND_TURNED = enum.auto()
    PEER_OPENED = enum.auto()
    PEER_CLOSED = enum.auto()
    RESPECIFIED = enum.auto()
    AUDIT = enum.auto()


@dataclass(frozen=True, slots=True)
class Row:
    """Failures in a row: their number, and when the first of them began (proxy clock).

    `requests` and `errors` are those of the hour before the row.
    """

    length: int = 0
    began: float = 0.0
    requests: int = 0
    errors: int = 0


NO_ROW = Row()


class Breaker:
    """The state of one breaker. Times are on the proxy's clock; `k` is its own exclusion count.

    `quiet`: a success has nothing to end here, the hot path's shortcut.
    """

    __slots__ = (
        "calm_since",
        "changed_at",
        "generation",
        "k",
        "latest_success",
        "orphan",
        "policy",
        "probe_in_flight",
        "probe_successes",
        "quiet",
        "recovered",
        "row",
        "shared",
        "spent",
        "state",
        "until",
    )

    def __init__(self) -> None:
        self.policy: Policy = DEFAULT_POLICY
        self.shared = SharedVerdict()
        self.state = BreakerState.CLOSED
        self.generation = -1
        self.k = 0
        self.calm_since = 0.0
        self.until = 0.0
        self.changed_at = float("-inf")
        self.recovered: float | None = None
        self.row = NO_ROW
        self.latest_success = float("-inf")
        self.probe_successes = 0
        self.probe_in_flight = False
        self.spent = False
        self.orphan = False
        self.quiet = True

    def start(self, state: BreakerState) -> None:
        """The state of a process that begins (L22)."""
        self.state = state
        self.quiet = state is BreakerState.CLOSED

    def settle(self, now: float) -> None:
        """Forget a slow start that is over."""
        if self.recovered is not None and now >= self.recovered + self.policy.slow_start_seconds:
            self.recovered = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a row may look at beside the breaker.

    `began`: when the attempt of the outcome began. `unanswered`: attempts begun since the row's
    first failure and still open. `requests`, `errors`: of the hour before, if this failure starts
    a row. `row`: that of several models together. `outdated`: it is tagged with a generation that
    is not the present one. `until`, `k`, `row`: those of the same breaker in another process of
    this proxy.
    """

    now: float
    began: float = 0.0
    unanswered: int = 0
    requests: int = 0
    errors: int = 0
    row: Row = NO_ROW
    outdated: bool = False
    until: float = 0.0
    k: int = 0
    random: Callable[[], float] = lambda: 0.0
