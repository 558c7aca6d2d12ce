"""How probation is decided: how many requests probe a backend, and whose failures count.

Promises arithmetic on a verdict and its facts; what follows is a row of `verdict_table`.
"""

from __future__ import annotations

from nexus_api.quantities import BASIS_POINTS
from nexus_quality.verdict import Facts, Verdict

PROBES_PER_SECOND = 1.0
UNANSWERED_PROBES = 5
UNDECIDED_PROBES = 5


def probation_share(eligible_rate: float) -> int:
    """The share of eligible requests, in basis points, that makes one probe a second."""
    if eligible_rate <= PROBES_PER_SECOND:
        return BASIS_POINTS
    return max(1, int(BASIS_POINTS * PROBES_PER_SECOND / eligible_rate))


def wanted_share(verdict: Verdict, facts: Facts) -> tuple[int | None, float]:
    """The share to have now, 0 while too many are unanswered, and the eligible rate it is for."""
    if facts.probes.unanswered >= UNANSWERED_PROBES:
        return 0, verdict.eligible_rate
    before, now = max(verdict.eligible_rate, 1.0), max(facts.eligible_rate, 1.0)
    if verdict.share_basis_points and before / 2 < now < before * 2:
        return verdict.share_basis_points, verdict.eligible_rate
    return probation_share(facts.eligible_rate), facts.eligible_rate


def failure_counts(verdict: Verdict, facts: Facts) -> bool:
    """Whether a failed probe ends the probation: not where the reporter that ended the last one
    alone saw it, and others could decide.
    """
    # It sends no more of them (L13): where the others' decide nothing either, its own must count.
    alone = set(facts.eligible_reporters) <= {verdict.ended_by}
    alone = alone or facts.probes.undecided >= UNDECIDED_PROBES
    return any(name != verdict.ended_by or alone for name in facts.probes.failed_by)


def failed_at(verdict: Verdict, facts: Facts) -> str:
    """The reporter whose failed probe ends the probation; another than the last time, if any."""
    others = (name for name in facts.probes.failed_by if name != verdict.ended_by)
    return next(others, facts.probes.failed_by[0])
