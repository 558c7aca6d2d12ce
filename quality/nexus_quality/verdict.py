"""The shared verdict on one subject, and what its next one is made of.

Promises values that nothing changes: what moves one is a row of `verdict_table`. Suspended and
Unhealthy are overlays that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nexus_api.backend import SubjectState
from nexus_api.pace import paced
from nexus_quality.firing import Firing
from nexus_quality.policy import Policy

LATE_SECONDS = paced(60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict of one subject. Times are epoch seconds of the operator's clock.

    `generation`: the backend's verdictGeneration at this subject's last transition. `firing`: the
    evidence of the latest exclusion, kept while its figures are of use. `probing_since`: when its
    probation began. `ended_by`: the reporter whose failed probe ended the last probation.
    """

    state: SubjectState = SubjectState.ACTIVE
    generation: int = 0
    count: int = 0
    calm_since: float = 0.0
    started: float | None = None
    until: float | None = None
    firing: Firing | None = None
    successes: int = 0
    probing_since: float | None = None
    share_basis_points: int | None = None
    eligible_rate: float = 0.0
    recovered: float | None = None
    ended_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """What came of the probes of the current generation. `failed_by`: reporters with a failure.

    `unanswered`: under way now. A probe that died with its proxy is not among them. `undecided`:
    neutral ones of reporters other than the one that ended the last probation.
    """

    unanswered: int = 0
    successes: int = 0
    failures: int = 0
    failed_by: tuple[str, ...] = ()
    undecided: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything a row may look at beside the verdict.

    `next_generation`: what the backend's counter becomes with a transition. `young`: the operator
    has just started or come back; `unheard`: and has not heard all of the fleet yet; `starting`:
    and not even a quorum of it. `late`: `until` passed while nobody looked. `eligible_rate`:
    requests a second that only the verdict keeps away, `eligible_reporters` who has them.
    `recent_successes`: under this generation since `until`, of each reporter no more than may
    count. `respecified`, `policy_edited`: what changed since the last step. `model`: the subject's
    name, "" for the backend. `thawed`: the model's backend is Active again, or waits on probation
    for requests that only this model has.
    """

    now: float
    policy: Policy
    next_generation: int
    firing: Firing | None = None
    young: bool = False
    unheard: bool = False
    starting: bool = False
    probes: Probes = Probes()
    eligible_rate: float = 0.0
    eligible_reporters: tuple[str, ...] = ()
    recent_successes: int = 0
    late: bool = False
    respecified: bool = False
    policy_edited: bool = False
    model: str = ""
    thawed: bool = False
    random: Callable[[], float] = lambda: 0.0
