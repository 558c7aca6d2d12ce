"""The verdicts on a backend and on each of its models, under one counter of generations.

Promises that a transition of any of them takes the backend's next generation and leaves the others'
last transitions where they were, and that models stand still while their backend is not Active and
begin anew with it (S17). What moves a single verdict is `verdict`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

from nexus_api.backend import SubjectState
from nexus_quality.verdict import Facts, Verdict
from nexus_quality.verdict_table import step

_CLEAN = Verdict()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """`generation`: what the latest transition of any subject has set. A model that is not in
    `models` has a clean record.
    """

    generation: int = 0
    backend: Verdict = _CLEAN
    models: Mapping[str, Verdict] = field(default_factory=dict)

    def of(self, model: str) -> Verdict:
        """The verdict on a model; "": on the backend."""
        return self.models.get(model, _CLEAN) if model else self.backend

    @property
    def out(self) -> frozenset[str]:
        """The models that are Excluded or on Probation."""
        found = (m for m, v in self.models.items() if v.state is not SubjectState.ACTIVE)
        return frozenset(found)

    @property
    def frozen(self) -> bool:
        """True if the models' verdicts stand still, because the backend is not Active."""
        return self.backend.state is not SubjectState.ACTIVE

    def end(self) -> float | None:
        """The earliest `until` that is waited for, of the backend or of its models."""
        waiting = [self.backend] if self.frozen else self.models.values()
        ends = [
            v.until for v in waiting if v.state is SubjectState.EXCLUDED and v.until is not None
        ]
        return min(ends, default=None)

    def changed(self, model: str, verdict: Verdict) -> Verdicts:
        """With another verdict on one subject, which changes no state."""
        if not model:
            return replace(self, backend=verdict)
        return replace(self, models={**self.models, model: verdict})

    def taken(self, model: str, after: Verdict) -> Verdicts:
        """With another verdict on one subject, which has taken the next generation."""
        return replace(self.changed(model, after), generation=after.generation)

    def turned(self, model: str, after: Verdict, facts: Facts, *, renewed: bool) -> Verdicts:
        """After a transition of one subject to `after`; `renewed`: to a new backend (S15)."""
        turned = self.taken(model, after)
        if model or turned.frozen:
            return turned
        models = {} if renewed else {m: _with_backend(v, facts) for m, v in self.models.items()}
        return replace(turned, models={m: v for m, v in models.items() if v.count})

    def only(self, models: Set[str]) -> Verdicts:
        """Without the verdicts on models that the backend does not have."""
        if self.models.keys() <= models:
            return self
        return replace(self, models={m: v for m, v in self.models.items() if m in models})


def _with_backend(verdict: Verdict, facts: Facts) -> Verdict:
    taken = step(verdict, replace(facts, thawed=True, respecified=False, firing=None))
    return taken.verdict if taken is not None and taken.row == "S17" else verdict
