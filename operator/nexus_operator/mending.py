"""What a person must mend about a backend: the fleet's claim in words, and when it holds.

Promises that a claim about a Secret that the spec does not name says nothing, that what was said
once stays in the same words while it lasts, and that nothing is taken back only because nobody is
there to say it. What the fleet claims is `nexus_quality.stall`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from nexus_api import (
    Exclusion,
    ExclusionRule,
    LLMBackend,
    LLMBackendSpec,
    LLMBackendStatus,
    reasons,
)
from nexus_api.quantities import format_time
from nexus_quality import words
from nexus_quality.keys import REFUSALS
from nexus_quality.shared import stalled_by
from nexus_quality.stall import Opinion, Stall
from nexus_quality.words import Words, split


@dataclass(frozen=True, slots=True, kw_only=True)
class Mending:
    """The condition Stalled=True: its reason, its words, the refusals behind it."""

    reason: str
    words: Words
    refusals: int = 0

    @property
    def rejected(self) -> bool:
        """The key is refused, so that no proxy must use it; else each sees what it lacks itself."""
        return self.reason == reasons.CREDENTIALS_REJECTED

    def exclusion(self, before: Exclusion | None, *, count: int, now: float) -> Exclusion:
        """What a status says of a refused key in the place of an exclusion by the verdict."""
        again = before is not None and before.rule is ExclusionRule.CREDENTIALS_REJECTED
        return Exclusion(
            start_time=before.start_time if before and again else format_time(now),
            rule=ExclusionRule.CREDENTIALS_REJECTED,
            errors=self.refusals,
            requests=self.refusals,
            reason=self.words.reason,
            suggested_action=self.words.action,
            count=count or None,
        )


def mending(backend: LLMBackend, opinion: Opinion, *, hold: bool) -> Mending | None:
    """What is to be mended; `hold`: what was published stays, if nobody says otherwise."""
    found = of_stall(backend.spec, opinion.stall)
    if found is None:
        return published(backend.status) if hold else None
    known = published(backend.status)
    # More refusals are no news: what was said first is the evidence.
    same = known is not None and (known.reason, known.words.action) == (
        found.reason,
        found.words.action,
    )
    return known if same else found


def of_stall(spec: LLMBackendSpec, stall: Stall | None) -> Mending | None:
    """A claim in words; None if it is about a Secret that the spec does not name."""
    if stall is None:
        return None
    tls, auth = spec.tls, spec.auth
    ref = (tls.ca_secret_ref if tls else None) if stall.ca else auth.secret_ref if auth else None
    if ref is None:
        return None
    if stall.reason == reasons.CREDENTIALS_REJECTED:
        said = words.key_rejected(
            secret=ref.name, key=ref.key, refusals=stall.refusals, threshold=REFUSALS
        )
    elif stall.reason == reasons.SECRET_NOT_FOUND:
        said = words.secret_missing(secret=ref.name, key=ref.key)
    else:
        said = words.secret_key_missing(secret=ref.name, key=ref.key)
    return Mending(reason=stall.reason, words=said, refusals=stall.refusals)


def published(status: LLMBackendStatus) -> Mending | None:
    """What a status says is to be mended."""
    stalled = stalled_by(status)
    if stalled is None:
        return None
    refusals = (status.exclusion.errors or 0) if status.exclusion else 0
    return Mending(reason=stalled[0], words=split(stalled[1]), refusals=refusals)
