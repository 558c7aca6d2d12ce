"""What the engine keeps of one backend, and what a change of its state is told as.

Promises data alone: a docket is what was accepted, a transition what wants to be. What is wanted is
worked out in `hearing`.
"""

from __future__ import annotations

from dataclasses import dataclass

from nexus_api import reasons
from nexus_api.backend import SubjectState
from nexus_quality import words
from nexus_quality.evidence import BACKEND
from nexus_quality.firing import about
from nexus_quality.policy import Policy
from nexus_quality.verdict import Facts, Verdict
from nexus_quality.verdicts import Verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFacts:
    """What the engine knows of a backend's spec; `fingerprint` changes with what makes it new."""

    uid: str
    namespace: str
    name: str
    fingerprint: str
    models: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change of state that wants a write. `event`: the reason of its Event.

    `before` and `after` are those of the subject: the model, or the backend where `model` is "".
    `verdicts`: all of the backend's, once it is accepted; `fingerprint`: of the spec it is about.
    """

    uid: str
    row: str
    before: Verdict
    after: Verdict
    event: str
    message: str
    model: str = BACKEND
    verdicts: Verdicts
    fingerprint: str

    @property
    def rule(self) -> str:
        """The rule that keeps its subject out, "" if none does."""
        firing = None if self.after.state is SubjectState.ACTIVE else self.after.firing
        return firing.rule.value if firing else ""

    def fields(self, backend: str) -> dict[str, str | int]:
        """What its line in a log carries beside the text; `backend`: `namespace/name`."""
        return {
            "backend": backend,
            "model": self.model,
            "row": self.row,
            "before": self.before.state.value,
            "after": self.after.state.value,
            "generation": self.after.generation,
            "rule": self.rule,
        }


@dataclass(slots=True)
class Docket:
    """What the engine keeps of one backend. `edited`: its policy, not judged since. `expected`: how
    many reporters its status counted when this process began, or it had before an absence.
    """

    facts: BackendFacts
    policy: Policy
    verdicts: Verdicts
    respecified: bool = False
    edited: bool = False
    expected: int = 0


EVENTS = {
    "S1": reasons.EVENT_EXCLUDED,
    "S7": reasons.EVENT_PROBATION,
    "S8": reasons.EVENT_RECOVERED,
    "S9": reasons.EVENT_RECOVERED,
    "S11": reasons.EVENT_RECOVERED,
    "S12": reasons.EVENT_EXCLUDED,
    "S15": reasons.EVENT_RELEASED,
    "S16": reasons.EVENT_RELEASED,
    "S17": reasons.EVENT_RELEASED,
}


def transition_of(docket: Docket, model: str, row: str, after: Verdict, facts: Facts) -> Transition:
    """What is to be written and told of a row that moves a subject of a docket."""
    text = words.TURNED.get(row)
    told = after.firing.reason if after.firing else ""
    return Transition(
        uid=docket.facts.uid,
        row=row,
        before=docket.verdicts.of(model),
        after=after,
        event=EVENTS[row],
        message=about(model, text) if text else told,
        model=model,
        verdicts=docket.verdicts.turned(model, after, facts, renewed=row == "S15"),
        fingerprint=docket.facts.fingerprint,
    )
