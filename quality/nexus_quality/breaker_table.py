"""The local breaker's states as a table of transitions.

Promises that whatever moves a breaker is a row of TRANSITIONS, named as in the contract (L1, L2,
…), and that applying an event is pure arithmetic on the breaker handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from nexus_quality.backoff import exclusion_seconds, faded
from nexus_quality.breaker import NO_ROW, ROW_SECONDS, Breaker, BreakerState, Event, Facts, Row
from nexus_quality.policy import Policy

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
