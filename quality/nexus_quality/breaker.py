"""The local breaker: one proxy's own protection, as a table of transitions.

Promises that whatever moves a breaker is a row of TRANSITIONS, named as in the contract (L1, L2,
…), and that applying an event is pure arithmetic on the breaker handed in. It counts no windows
and sends nothing; `monitor` feeds it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace

from nexus_quality.backoff import exclusion_seconds, faded
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


Guard = Callable[[Breaker, Facts], bool]
Action = Callable[[Breaker, Facts], None]


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the contract's table. `to` None: the state stays."""

    row: str
    states: frozenset[BreakerState]
    event: Event
    guard: Guard
    to: BreakerState | None
    action: Action


def _always(_: Breaker, __: Facts) -> bool:
    return True


def _nothing(_: Breaker, __: Facts) -> None:
    return None


def _stale(breaker: Breaker, facts: Facts) -> bool:
    return facts.began < breaker.changed_at


def _timely(breaker: Breaker, facts: Facts) -> bool:
    return facts.began >= breaker.changed_at


def _row_after(breaker: Breaker, facts: Facts) -> Row:
    row = breaker.row
    if breaker.latest_success > facts.began:
        return row
    if row.length and facts.now - row.began <= ROW_SECONDS:
        return replace(row, length=row.length + 1, began=min(row.began, facts.began))
    return Row(1, facts.began, facts.requests, facts.errors)


def _row_opens(breaker: Breaker, facts: Facts) -> bool:
    return _long_enough(_row_after(breaker, facts), breaker.policy, facts)


def _together_opens(breaker: Breaker, facts: Facts) -> bool:
    return _long_enough(facts.row, breaker.policy, facts)


def _long_enough(row: Row, policy: Policy, facts: Facts) -> bool:
    if not policy.enforce or policy.consecutive_failures <= 0:
        return False
    needed = policy.row_needed(errors=row.errors, requests=row.requests)
    return needed <= row.length and facts.unanswered <= row.length


def _lengthen(breaker: Breaker, facts: Facts) -> None:
    breaker.row = _row_after(breaker, facts)


def _ends_row(breaker: Breaker, facts: Facts) -> bool:
    return facts.began >= breaker.row.began


def _end_row(breaker: Breaker, facts: Facts) -> None:
    breaker.row = NO_ROW


def _open(breaker: Breaker, facts: Facts) -> None:
    _trip(breaker, facts, _row_after(breaker, facts))


def _open_together(breaker: Breaker, facts: Facts) -> None:
    _trip(breaker, facts, facts.row)


def _trip(breaker: Breaker, facts: Facts, row: Row) -> None:
    breaker.row = row
    breaker.k += 1
    breaker.until = facts.now + exclusion_seconds(breaker.k, breaker.policy, facts.random)
    breaker.orphan = False
    _forget_probes(breaker, facts)


def _enforced(breaker: Breaker, _: Facts) -> bool:
    return breaker.policy.enforce


def _open_as_told(breaker: Breaker, facts: Facts) -> None:
    # Two processes whose rows end at once tell each other: both keep the later end.
    known = breaker.until if breaker.state is BreakerState.OPEN else 0.0
    breaker.until = max(known, facts.until)
    breaker.k = max(breaker.k, facts.k)
    breaker.row = facts.row
    breaker.orphan = False
    _forget_probes(breaker, facts)


def _forget_probes(breaker: Breaker, facts: Facts) -> None:
    breaker.probe_successes = 0
    breaker.probe_in_flight = False
    breaker.spent = False


def _half_open(breaker: Breaker, facts: Facts) -> None:
    _forget_probes(breaker, facts)
    breaker.orphan = breaker.state is not BreakerState.OPEN


def _close(breaker: Breaker, facts: Facts) -> None:
    _forget_probes(breaker, facts)
    breaker.row = NO_ROW
    breaker.orphan = False
    breaker.recovered = facts.now
    breaker.calm_since = facts.now


def _close_as_shared(breaker: Breaker, facts: Facts) -> None:
    _close(breaker, facts)
    breaker.recovered = breaker.shared.recovered


def _reset(breaker: Breaker, facts: Facts) -> None:
    _close(breaker, facts)
    breaker.recovered = None


def _renew(breaker: Breaker, facts: Facts) -> None:
    _reset(breaker, facts)
    breaker.k = 0


def _follow(breaker: Breaker, facts: Facts) -> None:
    _forget_probes(breaker, facts)
    breaker.row = NO_ROW
    breaker.until = 0.0
    breaker.orphan = False


def _mark_probe(breaker: Breaker, facts: Facts) -> None:
    breaker.probe_in_flight = True


def _free_probe(breaker: Breaker, facts: Facts) -> None:
    breaker.probe_in_flight = False


def _probe_succeeded(breaker: Breaker, facts: Facts) -> None:
    breaker.probe_in_flight = False
    breaker.probe_successes += 1
    breaker.row = NO_ROW


def _probes_suffice(breaker: Breaker, facts: Facts) -> bool:
    enough = breaker.probe_successes + 1 >= breaker.policy.probation_successes
    return enough and _timely(breaker, facts)


def _spend(breaker: Breaker, facts: Facts) -> None:
    breaker.probe_in_flight = False
    breaker.spent = not facts.outdated


def _orphan(breaker: Breaker, _: Facts) -> bool:
    return breaker.orphan


_S = BreakerState
_ALL = frozenset(_S)
_OWN = frozenset({_S.CLOSED, _S.OPEN, _S.HALF_OPEN})
_FOLLOWING = frozenset({_S.FOLLOW_EXCLUDED, _S.FOLLOW_PROBATION})
_PROBING = frozenset({_S.HALF_OPEN, _S.FOLLOW_PROBATION})


def _in(*states: BreakerState) -> frozenset[BreakerState]:
    return frozenset(states)


# The order matters where two rows share state and event: the first whose guard holds is taken.
# What is not `_timely` began before the breaker last turned: it speaks of another time (L3).
TRANSITIONS: tuple[Transition, ...] = (
    Transition("L3", _in(_S.CLOSED), Event.FAILURE, _stale, None, _nothing),
    Transition("L1", _in(_S.CLOSED), Event.FAILURE, _row_opens, _S.OPEN, _open),
    Transition("L1", _in(_S.CLOSED), Event.MODELS_FAILED, _together_opens, _S.OPEN, _open_together),
    Transition("L1", _OWN, Event.PEER_OPENED, _enforced, _S.OPEN, _open_as_told),
    Transition("L2", _in(_S.CLOSED), Event.FAILURE, _always, None, _lengthen),
    Transition("L2", _in(_S.CLOSED), Event.SUCCESS, _ends_row, None, _end_row),
    Transition("L5", _in(_S.OPEN), Event.DEADLINE, _always, _S.HALF_OPEN, _half_open),
    Transition("L6", _in(_S.HALF_OPEN), Event.PROBE_SENT, _always, None, _mark_probe),
    Transition("L7", _in(_S.HALF_OPEN), Event.PROBE_SUCCESS, _probes_suffice, _S.CLOSED, _close),
    Transition("L7", _in(_S.HALF_OPEN), Event.PROBE_SUCCESS, _timely, None, _probe_succeeded),
    Transition("L7", _in(_S.OPEN, _S.HALF_OPEN), Event.PEER_CLOSED, _always, _S.CLOSED, _close),
    Transition("L8", _in(_S.HALF_OPEN), Event.PROBE_FAILURE, _timely, _S.OPEN, _open),
    Transition("L9", _PROBING, Event.PROBE_NEUTRAL, _timely, None, _free_probe),
    Transition("L10", _OWN, Event.NEWER_EXCLUDED, _always, _S.FOLLOW_EXCLUDED, _follow),
    # A proxy that missed the exclusion in between follows a second probation all the same.
    Transition("L11", _ALL, Event.NEWER_PROBATION, _always, _S.FOLLOW_PROBATION, _follow),
    Transition("L12", _in(_S.FOLLOW_PROBATION), Event.PROBE_SENT, _always, None, _mark_probe),
    Transition("L12", _in(_S.FOLLOW_PROBATION), Event.PROBE_SUCCESS, _timely, None, _free_probe),
    Transition("L13", _in(_S.FOLLOW_PROBATION), Event.PROBE_FAILURE, _timely, None, _spend),
    Transition("L15", _FOLLOWING, Event.NEWER_ACTIVE, _always, _S.CLOSED, _close_as_shared),
    Transition("L17", _FOLLOWING, Event.NEWER_EXCLUDED, _always, _S.FOLLOW_EXCLUDED, _follow),
    Transition("L18", _in(_S.FOLLOW_EXCLUDED), Event.ORPHANED, _always, _S.HALF_OPEN, _half_open),
    Transition("L19", _in(_S.FOLLOW_PROBATION), Event.ORPHANED, _always, _S.HALF_OPEN, _half_open),
    Transition("L20", _in(_S.HALF_OPEN), Event.NEWER_ACTIVE, _orphan, _S.CLOSED, _close_as_shared),
    Transition("L21", _ALL, Event.RESPECIFIED, _always, _S.CLOSED, _renew),
    Transition("L21", _ALL, Event.AUDIT, _always, _S.CLOSED, _reset),
    # A model's own breaker has no say while its backend is out, and begins anew with it; where it
    # follows the model's verdict it stays, for that is frozen.
    Transition("S17", _OWN, Event.BACKEND_TURNED, _always, _S.CLOSED, _reset),
)

_INDEX: dict[tuple[BreakerState, Event], tuple[Transition, ...]] = {
    (state, event): tuple(t for t in TRANSITIONS if state in t.states and t.event is event)
    for state in BreakerState
    for event in Event
}


def apply(breaker: Breaker, event: Event, facts: Facts) -> Transition | None:
    """Apply an event; the row taken, or None if no row speaks of it (L3, L14: counters only)."""
    if breaker.state is BreakerState.CLOSED:
        breaker.k, breaker.calm_since = faded(
            breaker.k, breaker.calm_since, facts.now, breaker.policy
        )
    for transition in _INDEX[breaker.state, event]:
        if transition.guard(breaker, facts):
            transition.action(breaker, facts)
            if transition.to is not None:
                breaker.state = transition.to
                breaker.changed_at = facts.now
            breaker.quiet = breaker.state is BreakerState.CLOSED and not breaker.row.length
            return transition
    return None
