"""The shared verdict: Active, Excluded, Probation, as a table of transitions.

Promises that whatever moves a verdict is a row of TRANSITIONS, named as in the contract (S1, S4,
…), and that `step` is pure: the same verdict and facts give the same answer. Rows that only change
what is said (S2, S3, S5, S6, S13) are in `assessment`, the refused write (S18) in `engine`, what a
backend's transition means to its models in `verdicts`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from nexus_api.backend import ExclusionRule, SubjectState
from nexus_quality import words
from nexus_quality.backoff import exclusion_seconds, faded
from nexus_quality.firing import Firing, about, would_fire
from nexus_quality.probing import failed_at, failure_counts, probation_share, wanted_share
from nexus_quality.verdict import Facts, Verdict

Guard = Callable[[Verdict, Facts], bool]
Action = Callable[[Verdict, Facts], Verdict]


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the contract's table; `moves`: it changes the state (generation, write, Event)."""

    row: str
    states: frozenset[SubjectState]
    guard: Guard
    action: Action
    moves: bool


@dataclass(frozen=True, slots=True)
class Step:
    """The row that was taken, and the verdict after it."""

    row: str
    verdict: Verdict
    moves: bool


def _exclude(verdict: Verdict, facts: Facts, firing: Firing | None) -> Verdict:
    count = verdict.count + 1
    until: float | None = None
    if facts.policy.recovery_enabled:
        length = exclusion_seconds(count, facts.policy, facts.random)
        until = float(math.ceil(facts.now + length))
    return Verdict(
        state=SubjectState.EXCLUDED,
        generation=facts.next_generation,
        count=count,
        started=facts.now,
        until=until,
        firing=firing,
        ended_by=verdict.ended_by,
    )


def _activate(verdict: Verdict, facts: Facts, *, recovered: float | None) -> Verdict:
    return Verdict(
        state=SubjectState.ACTIVE,
        generation=facts.next_generation,
        count=verdict.count,
        calm_since=facts.now,
        started=verdict.started,
        firing=verdict.firing,
        recovered=recovered,
        ended_by=verdict.ended_by,
    )


# Guards and actions, in the order of the contract's rows.


def _respecified(_: Verdict, facts: Facts) -> bool:
    return facts.respecified


def _renew(_: Verdict, facts: Facts) -> Verdict:
    return Verdict(generation=facts.next_generation, calm_since=facts.now)


def _thawed(_: Verdict, facts: Facts) -> bool:
    return facts.thawed


def _released(verdict: Verdict, facts: Facts) -> bool:
    if not facts.policy.enforce:
        return True
    firing = verdict.firing
    return (
        facts.policy_edited
        and firing is not None
        and not would_fire(
            firing.rule, errors=firing.errors, requests=firing.requests, policy=facts.policy
        )
    )


def _release(verdict: Verdict, facts: Facts) -> Verdict:
    return _activate(verdict, facts, recovered=facts.now)


def _over_long(verdict: Verdict, facts: Facts) -> bool:
    until = _capped(verdict, facts)
    return facts.policy_edited and until != verdict.until


def _capped(verdict: Verdict, facts: Facts) -> float | None:
    if not facts.policy.recovery_enabled:
        return None
    latest = float(math.ceil(facts.now + facts.policy.max_exclusion_seconds))
    return latest if verdict.until is None else min(verdict.until, latest)


def _cap(verdict: Verdict, facts: Facts) -> Verdict:
    return replace(verdict, until=_capped(verdict, facts))


def _fires(_: Verdict, facts: Facts) -> bool:
    firing = facts.firing
    return firing is not None and firing.quorum and facts.policy.enforce and not facts.starting


def _exclude_by_rule(verdict: Verdict, facts: Facts) -> Verdict:
    return _exclude(verdict, facts, facts.firing)


def _calm(verdict: Verdict, facts: Facts) -> bool:
    return faded(verdict.count, verdict.calm_since, facts.now, facts.policy)[0] < verdict.count


def _fade(verdict: Verdict, facts: Facts) -> Verdict:
    count, since = faded(verdict.count, verdict.calm_since, facts.now, facts.policy)
    if count == 0:
        return Verdict(generation=verdict.generation, calm_since=since)
    return replace(verdict, count=count, calm_since=since)


def _served_meanwhile(verdict: Verdict, facts: Facts) -> bool:
    return (
        facts.late
        and not facts.starting
        and _due(verdict, facts)
        and facts.firing is None
        and facts.recent_successes >= facts.policy.probation_successes
    )


def _due(verdict: Verdict, facts: Facts) -> bool:
    return verdict.until is not None and facts.now >= verdict.until


def _due_and_heard(verdict: Verdict, facts: Facts) -> bool:
    return _due(verdict, facts) and not (facts.late and facts.unheard)


def _begin_probation(verdict: Verdict, facts: Facts) -> Verdict:
    return replace(
        verdict,
        state=SubjectState.PROBATION,
        generation=facts.next_generation,
        successes=0,
        probing_since=facts.now,
        share_basis_points=probation_share(facts.eligible_rate),
        eligible_rate=facts.eligible_rate,
    )


def _seed_recovers(verdict: Verdict, facts: Facts) -> bool:
    return not facts.policy.recovery_enabled and facts.firing is None and not facts.young


def _return_at_once(verdict: Verdict, facts: Facts) -> Verdict:
    return _activate(verdict, facts, recovered=None)


def _probe_failed(verdict: Verdict, facts: Facts) -> bool:
    return failure_counts(verdict, facts)


def _exclude_again(verdict: Verdict, facts: Facts) -> Verdict:
    probes = facts.probes
    ended = probes.failures + probes.successes
    firing = Firing(
        rule=ExclusionRule.FAILED_PROBATION,
        errors=probes.failures,
        requests=ended,
        reason=about(facts.model, words.probe_failed(failures=probes.failures, probes=ended)),
        suggested_action=words.wait_or(words.LOOK),
    )
    return replace(_exclude(verdict, facts, firing), ended_by=failed_at(verdict, facts))


def _proven(_: Verdict, facts: Facts) -> bool:
    return facts.probes.successes >= facts.policy.probation_successes


def _progressed(verdict: Verdict, facts: Facts) -> bool:
    return facts.probes.successes > verdict.successes


def _progress(verdict: Verdict, facts: Facts) -> Verdict:
    return replace(verdict, successes=facts.probes.successes)


def _share_is_off(verdict: Verdict, facts: Facts) -> bool:
    return wanted_share(verdict, facts)[0] != verdict.share_basis_points


def _adjust_share(verdict: Verdict, facts: Facts) -> Verdict:
    share, rate = wanted_share(verdict, facts)
    return replace(verdict, share_basis_points=share, eligible_rate=rate)


_ANY = frozenset(SubjectState)
_ACTIVE = frozenset({SubjectState.ACTIVE})
_EXCLUDED = frozenset({SubjectState.EXCLUDED})
_PROBATION = frozenset({SubjectState.PROBATION})

# The first row of a state whose guard holds is taken; S4 stands before S1 so that an exclusion
# counts on what is left, S12 before S11 so that a failure and a success that arrive together do
# not end a probation well.
TRANSITIONS: tuple[Transition, ...] = (
    Transition("S15", _ANY, _respecified, _renew, moves=True),
    Transition("S17", _EXCLUDED | _PROBATION, _thawed, _return_at_once, moves=True),
    Transition("S16", _EXCLUDED | _PROBATION, _released, _release, moves=True),
    Transition("S16", _EXCLUDED, _over_long, _cap, moves=False),
    Transition("S4", _ACTIVE, _calm, _fade, moves=False),
    Transition("S1", _ACTIVE, _fires, _exclude_by_rule, moves=True),
    Transition("S8", _EXCLUDED, _served_meanwhile, _release, moves=True),
    Transition("S7", _EXCLUDED, _due_and_heard, _begin_probation, moves=True),
    Transition("S9", _EXCLUDED, _seed_recovers, _return_at_once, moves=True),
    Transition("S12", _PROBATION, _probe_failed, _exclude_again, moves=True),
    Transition("S11", _PROBATION, _proven, _release, moves=True),
    Transition("S10", _PROBATION, _progressed, _progress, moves=False),
    Transition("S14", _PROBATION, _share_is_off, _adjust_share, moves=False),
)


def step(verdict: Verdict, facts: Facts) -> Step | None:
    """Take the first row that applies; None if nothing changes."""
    for row in TRANSITIONS:
        if verdict.state in row.states and row.guard(verdict, facts):
            return Step(row.row, row.action(verdict, facts), row.moves)
    return None
