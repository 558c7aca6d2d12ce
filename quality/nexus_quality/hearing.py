"""One backend before the engine: the evidence of a moment, and which change of state it wants now.

Promises the order of the contract: connect-class failures, which no model makes, then the models,
then the backend without its worst model; and one change of state at a time. A model is judged by
itself only beside another one in use. It keeps no clock, and accepts nothing: that is `engine`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nexus_api.backend import SubjectState
from nexus_api.pace import paced
from nexus_quality.docket import Docket, Transition, transition_of
from nexus_quality.evidence import BACKEND, Evidence, Share, Shown, Span, View
from nexus_quality.figures import MAX_MODELS
from nexus_quality.firing import Firing
from nexus_quality.ledger import Ledger
from nexus_quality.report import OTHER_MODEL
from nexus_quality.rules import fire_backend, fire_model, fire_unreached
from nexus_quality.verdict import LATE_SECONDS, Facts, Probes, Verdict
from nexus_quality.verdict_table import step

STARTING_SECONDS = paced(60.0)


class Hearing:
    """A docket and the evidence of one moment. `started`: since when this process judges;
    `listening`: since when it takes reports without a gap; `shown`: evidence of an earlier moment,
    if nobody spoke since.
    """

    def __init__(
        self,
        docket: Docket,
        ledger: Ledger,
        *,
        now: float,
        started: float,
        listening: float,
        random: Callable[[], float],
        shown: Shown | None = None,
    ) -> None:
        self._docket, self._ledger = docket, ledger
        self._now, self._random = now, random
        self._started, self._listening = started, listening
        # What fires is asked for once to move the verdict and once to tell of it.
        self._fired: dict[str, Firing | None] = {}
        self._fired_under = docket.verdicts
        self._models: frozenset[str] | None = None
        view = self._view(everything=False)
        self.evidence = Evidence(ledger, docket.facts.uid, view, shown)

    def wanted(self) -> Transition | None:
        """The change of state that is due; changes without one are made at once."""
        self._make_room()
        for model, firing in self._subjects():
            transition = self._step(model, firing())
            if transition is not None:
                return transition
        self._docket.edited = False
        return None

    def _make_room(self) -> None:
        """A model that nobody has used for an hour gives its place in a full status away."""
        verdicts = self._docket.verdicts
        if len(verdicts.out) < MAX_MODELS or self._now - self._listening < STARTING_SECONDS:
            return
        gone = sorted(verdicts.out - self.evidence.models)
        if gone and not verdicts.frozen:
            oldest = min(gone, key=lambda model: verdicts.of(model).started or 0.0)
            self._docket.verdicts = verdicts.only(verdicts.models.keys() - {oldest})

    def firing(self) -> Firing | None:
        """The rule to tell of: the backend's, else one of a model that is not out."""
        backend = self._backend_firing()
        if backend is not None or self._docket.verdicts.frozen:
            return backend
        found = [f for m in sorted(self._judged) if (f := self._model_firing(m)) is not None]
        return next((f for f in found if f.quorum), found[0] if found else None)

    def whole(self) -> tuple[Share, ...]:
        """The shares of all that used the backend, whatever became of its models."""
        return self.evidence.whole()

    def _subjects(self) -> Iterator[tuple[str, Callable[[], Firing | None]]]:
        docket = self._docket
        if docket.verdicts.frozen or docket.respecified:
            yield BACKEND, self._backend_firing
            yield from ((model, _no_firing) for model in self._stranded())
            return
        if self._unreached_firing() is not None:
            yield BACKEND, self._unreached_firing
        for model in sorted({*self._judged, *docket.verdicts.models}):
            yield model, lambda model=model: self._model_firing(model)  # type: ignore[misc]
        yield BACKEND, self._backend_firing

    @property
    def _judged(self) -> frozenset[str]:
        """The models that may be excluded by themselves.

        Not what a backend is not known to have, nor what a status has no room for.
        """
        if self._models is None:
            self._models = self._may_be_judged()
        return self._models

    def _may_be_judged(self) -> frozenset[str]:
        out, listed = self._docket.verdicts.out, self._docket.facts.models
        used = self.evidence.models - out
        if len(used) < 2 or len(out) >= MAX_MODELS:
            return frozenset()
        return used - {BACKEND, OTHER_MODEL} if listed is None else used & frozenset(listed)

    def _stranded(self) -> list[str]:
        """A model that is out while its backend's probation has requests for such models alone."""
        verdicts = self._docket.verdicts
        if verdicts.backend.state is not SubjectState.PROBATION or not verdicts.out:
            return []
        if any(share.eligible for share in self.evidence.whole(verdicts.out)):
            return []
        rates = {m: sum(s.eligible for s in self.evidence.model(m)) for m in sorted(verdicts.out)}
        most = max(rates, key=rates.__getitem__)
        return [most] if rates[most] > 0.0 else []

    def _step(self, model: str, firing: Firing | None) -> Transition | None:
        docket = self._docket
        for _ in range(4):
            before = docket.verdicts.of(model)
            facts = self._facts(model, firing)
            taken = step(before, facts)
            if taken is None:
                return None
            if taken.moves:
                return transition_of(docket, model, taken.row, taken.verdict, facts)
            docket.verdicts = docket.verdicts.changed(model, taken.verdict)
        return None

    def _facts(self, model: str, firing: Firing | None) -> Facts:
        docket, now = self._docket, self._now
        verdicts, policy = docket.verdicts, docket.policy
        verdict, whole = verdicts.of(model), self.whole()
        parts = self.evidence.model(model) if model else self.evidence.whole(verdicts.out)
        until = verdict.until
        young = now - self._listening < STARTING_SECONDS
        unheard = young and self._unheard(whole)
        eligible = _eligible(parts)
        return Facts(
            now=now,
            policy=policy,
            next_generation=verdicts.generation + 1,
            firing=firing,
            young=young,
            unheard=unheard,
            starting=unheard and len(parts) < policy.min_reporters,
            probes=_probes(parts, self._most_successes(parts, eligible, verdict), verdict.ended_by),
            eligible_rate=sum(eligible.values()),
            eligible_reporters=tuple(name for name, rate in eligible.items() if rate > 0.0),
            recent_successes=self._recent_successes(parts),
            late=until is not None and (now - until > LATE_SECONDS or self._started > until),
            respecified=docket.respecified and not model,
            policy_edited=docket.edited,
            model=model,
            thawed=bool(model) and verdicts.frozen,
            random=self._random,
        )

    def _most_successes(
        self, parts: tuple[Share, ...], eligible: dict[str, float], verdict: Verdict
    ) -> int:
        """How many successes of one reporter count: alone it ends no probation that others could.

        One whose probe failed sends no more of them; others may have none that decide anything, and
        are waited for no longer than LATE_SECONDS.
        """
        policy = self._docket.policy
        needed = policy.probation_successes
        if verdict.probing_since is not None and self._now - verdict.probing_since > LATE_SECONDS:
            return needed
        able = sum(eligible[p.reporter] > 0.0 and not p.probe_failures for p in parts)
        return max(1, needed - 1) if min(able, policy.min_reporters) > 1 else needed

    def _recent_successes(self, parts: tuple[Share, ...]) -> int:
        """What was served since `until`: alone one reporter ends no exclusion that others could."""
        policy = self._docket.policy
        most = max((p.recent_requests - p.recent_errors for p in parts), default=0)
        if min(len(parts), policy.min_reporters) > 1:
            most = max(1, policy.probation_successes - 1)
        return sum(min(p.recent_requests - p.recent_errors, most) for p in parts)

    def _unheard(self, whole: tuple[Share, ...]) -> bool:
        """Whether a reporter that this process knows of has not yet told it everything."""
        if self._ledger.awaiting:
            return self._ledger.awaits(self._docket.facts.uid)
        return sum(share.complete for share in whole) < self._docket.expected

    def _once(self, what: str, found: Callable[[], Firing | None]) -> Firing | None:
        """What was found before under the same verdicts, or is now."""
        if self._fired_under is not self._docket.verdicts:
            self._fired.clear()
            self._fired_under = self._docket.verdicts
        if what not in self._fired:
            self._fired[what] = found()
        return self._fired[what]

    def _model_firing(self, model: str) -> Firing | None:
        return self._once(f"model {model}", lambda: self._of_model(model))

    def _of_model(self, model: str) -> Firing | None:
        verdict, policy = self._docket.verdicts.of(model), self._docket.policy
        if verdict.state is SubjectState.ACTIVE and model not in self._judged:
            return None
        return fire_model(self._windows(verdict), model, policy, self._now)

    def _unreached_firing(self) -> Firing | None:
        return self._once("unreached", self._unreached)

    def _unreached(self) -> Firing | None:
        """What fires by connect-class failures alone, with its quorum; one model speaks for all."""
        out = self._docket.verdicts.out
        if len(self.evidence.models - out) < 2:
            return None
        firing = fire_unreached(self.evidence, out, self._docket.policy, self._now)
        return firing if firing is not None and firing.quorum else None

    def _backend_firing(self) -> Firing | None:
        return self._once("backend", self._of_backend)

    def _of_backend(self) -> Firing | None:
        verdicts, policy = self._docket.verdicts, self._docket.policy
        unreached = None if verdicts.frozen else self._unreached_firing()
        windows = self._windows(verdicts.backend)
        return unreached or fire_backend(windows, verdicts.out, policy, self._now)

    def _windows(self, verdict: Verdict) -> Evidence:
        if self._docket.policy.recovery_enabled or verdict.state is not SubjectState.EXCLUDED:
            return self.evidence
        # S9 asks the windows as they are: of every generation, of silent reporters as well.
        return Evidence(self._ledger, self._docket.facts.uid, self._view(everything=True))

    def _view(self, *, everything: bool) -> View:
        window = self._docket.policy.short_window_seconds
        if everything:
            return View(now=self._now, short_window_seconds=window, silent=True)
        verdicts = self._docket.verdicts
        backend = verdicts.backend
        recent = _ended(backend, self._now)
        models = {
            model: Span(
                max(backend.generation, verdict.generation),
                recent if verdicts.frozen else _ended(verdict, self._now),
            )
            for model, verdict in verdicts.models.items()
        }
        return View(
            now=self._now,
            short_window_seconds=window,
            span=Span(backend.generation, recent),
            models=models,
        )


def _no_firing() -> None:
    return None


def _ended(verdict: Verdict, now: float) -> float | None:
    """When its exclusion ended; a moment that stays, for shares are kept by what they look at."""
    return verdict.until if verdict.until is not None and verdict.until <= now else None


def _eligible(parts: tuple[Share, ...]) -> dict[str, float]:
    """Eligible requests a second per reporter; a claim beyond all others is cut to the next."""
    rates = sorted((p.eligible for p in parts), reverse=True)
    most = rates[1] if len(rates) > 1 and rates[1] > 0.0 else rates[0] if rates else 0.0
    return {p.reporter: min(p.eligible, most) for p in parts}


def _probes(parts: tuple[Share, ...], most: int, ended_by: str) -> Probes:
    return Probes(
        unanswered=sum(p.probing for p in parts),
        successes=sum(min(p.probe_successes, most) for p in parts),
        failures=sum(p.probe_failures for p in parts),
        failed_by=tuple(p.reporter for p in parts if p.probe_failures),
        undecided=sum(p.probe_neutrals for p in parts if p.reporter != ended_by),
    )
