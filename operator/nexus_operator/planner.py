"""What should be written now, for each object: draws status, materiality and verdict together.

Promises that a transition is accepted by the engine exactly when its write was, also when the
answer was lost and the watch brings the news; and that a generation nobody here wrote ends this
process' claim to the verdict. It sends nothing and keeps no object but through the registry.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from msgspec.structs import replace as replace_struct

from nexus_api import (
    BackendState,
    ConditionStatus,
    LLMBackend,
    LLMBackendStatus,
    SubjectState,
    decode_backend,
    reasons,
)
from nexus_api.meta import BACKEND_PLURAL, QUALITY_POLICY_PLURAL, ROUTING_POLICY_PLURAL
from nexus_operator.engine import FleetEngine
from nexus_operator.events import Note, overlay_notes
from nexus_operator.history import History
from nexus_operator.material import LONG, Worth, moved, worth
from nexus_operator.mending import Mending, mending, published
from nexus_operator.metrics import Metrics
from nexus_operator.policy_plans import PolicyPlans
from nexus_operator.prober import Findings, Prober
from nexus_operator.problems import Fatal, outranked, rivalled
from nexus_operator.registry import Registry, full_name
from nexus_operator.rivals import Rivals
from nexus_operator.specs import Specs
from nexus_operator.status import Knowledge, build_status, keep_what_was_published
from nexus_operator.writer import Key, Plan
from nexus_quality.assessment import Assessment, WithinPolicy, why_out, within_policy
from nexus_quality.engine import STARTING_SECONDS, Transition
from nexus_quality.figures import Figures
from nexus_quality.health import judged
from nexus_quality.stall import Opinion
from nexus_quality.verdicts import Verdicts

log = logging.getLogger(__name__)


def transition_notes(transition: Transition, status: LLMBackendStatus) -> list[Note]:
    """The Event of a transition, in the words of the status that was written with it; a clean
    record that begins anew is nothing to tell.
    """
    if transition.before.state is transition.after.state is SubjectState.ACTIVE:
        return []
    message = transition.message
    if transition.model:
        if transition.after.state is SubjectState.EXCLUDED:
            message = why_out(transition.after)
    elif transition.after.state is not SubjectState.ACTIVE:
        told = (c.message for c in status.conditions if c.type == reasons.WITHIN_POLICY)
        message = next(told, message)
    return [Note(transition.event, message)]


@dataclass(frozen=True, slots=True)
class Draft:
    """A status as it would be written now, and the transition that comes with it."""

    status: LLMBackendStatus
    transition: Transition | None
    worth: Worth


def _sign(known: Knowledge) -> tuple[object, ...]:
    """All that decides whether a status must be written at once, where no transition does."""
    within = known.within
    return (
        known.backend,
        known.verdicts,
        within.status,
        within.reason,
        known.traffic,
        known.findings,
        known.mending,
        known.partly,
        known.policy,
    )


class Planner:
    """Implements `writer.Planner`. `see` and `gone` are told of objects as a conflict shows them;
    `fail` ends the process.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        engine: FleetEngine,
        prober: Prober,
        metrics: Metrics,
        clock: Callable[[], float],
        policies: PolicyPlans,
        history: History,
        specs: Specs,
        see: Callable[[str, Mapping[str, Any]], None],
        gone: Callable[[Key], None],
        fail: Callable[[Fatal], None],
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._prober = prober
        self._metrics = metrics
        self._clock = clock
        self._policies = policies
        self._history = history
        self._specs = specs
        self._see, self._gone = see, gone
        self._fail = fail
        self._sent: dict[str, Transition] = {}
        self._written: dict[str, float] = {}
        self._inherited: dict[str, bool] = {}
        self._settled: dict[str, tuple[object, ...] | None] = {}
        self._rivals = Rivals(clock=clock, started=lambda: engine.started)
        self._stepped_down = False
        self._plans: Mapping[str, Callable[[str], Plan | None]] = {
            BACKEND_PLURAL: self._backend_plan,
            QUALITY_POLICY_PLURAL: policies.quality,
            ROUTING_POLICY_PLURAL: policies.routing,
        }

    def plan(self, key: Key) -> Plan | None:
        """The write that is due for an object; none once another operator was given way to."""
        return None if self._stepped_down else self._plans[key.plural](key.uid)

    def reread(self, key: Key, stored: Mapping[str, Any] | None) -> None:
        """Takes in an object read again after a conflict."""
        if stored is None:
            self._gone(key)
        else:
            # All of the operator must hear of it: the watch brings the same version again, which
            # is no news then.
            self._see(key.plural, stored)

    def observed(self, backend: LLMBackend, stored: Mapping[str, Any]) -> None:
        """Compares what the API server has with what this process knows of, and steps down for
        another operator: one that moved the verdict, or hears no fewer proxies.
        """
        uid, theirs = backend.metadata.uid, backend.status.verdict_generation or 0
        sent = self._sent.get(uid)
        if sent is not None and theirs == sent.after.generation:
            self._accept(uid, sent)
        ours = self._engine.verdicts(uid).generation
        rival = self._rivals.wrote(backend, stored)
        if theirs > ours:
            self._step_down(outranked(name=full_name(backend.metadata), theirs=theirs, ours=ours))
        elif rival and self._hears_no_more(backend):
            self._step_down(rivalled(name=full_name(backend.metadata)))

    def forget(self, uid: str) -> None:
        """A backend is gone."""
        self._sent.pop(uid, None)
        self._written.pop(uid, None)
        self._inherited.pop(uid, None)
        self._settled.pop(uid, None)
        self._history.forget(uid)
        self._rivals.forget(uid)

    def urgent(self, uid: str) -> bool:
        """Whether a state or condition of a backend changed since it was last written."""
        draft = self._draft(uid, self._clock(), figures=False)
        return draft is not None and draft.worth is Worth.AT_ONCE

    def due(self, uid: str) -> bool:
        """Whether anything about a backend is worth a write; to be asked once an interval."""
        draft = self._draft(uid, self._clock(), figures=True)
        return draft is not None and draft.worth is not Worth.NOTHING

    def last_written(self, uid: str) -> float:
        """When this process last wrote a backend's status; its own start if it never did."""
        return self._written.get(uid, self._engine.started)

    def _backend_plan(self, uid: str) -> Plan | None:
        now = self._clock()
        draft = self._draft(uid, now, figures=True)
        if draft is None or draft.worth is Worth.NOTHING:
            return None
        if draft.transition is not None:
            self._sent[uid] = draft.transition
        backend = self._registry.backends.get(uid)
        assert backend is not None
        self._rivals.sending(uid, draft.status)
        return Plan(
            metadata=backend.metadata,
            status=draft.status,
            accepted=lambda stored: self._backend_written(uid, backend, draft, stored),
        )

    def _draft(self, uid: str, now: float, *, figures: bool) -> Draft | None:
        backend = self._registry.backends.get(uid)
        if backend is None:
            return None
        transition = self._engine.wanted(uid, now)
        assessment = self._engine.assess(uid, now)
        known = self._knowledge(backend, transition, assessment, now)
        starting = self._unheard(backend, assessment, now)
        sign = None if transition is not None else (*_sign(known), starting)
        settled = sign is not None and self._settled.get(uid) == sign
        found = self._engine.figures(uid, now) if figures else None
        if settled and (found is None or self._dull(backend, found, now, starting=starting)):
            return None
        if found is not None:
            known = replace(
                known,
                quality=found.quality(),
                model_quality=found.model_quality(known.verdicts.models),
                models_omitted=found.models_omitted,
            )
        draft = self._drawn(known, transition, now, starting=starting)
        self._settled[uid] = None if draft.worth is Worth.AT_ONCE else sign
        return draft

    def _drawn(
        self, known: Knowledge, transition: Transition | None, now: float, *, starting: bool
    ) -> Draft:
        backend, uid = known.backend, known.backend.metadata.uid
        status = build_status(known, now=now)
        if starting:
            status = keep_what_was_published(status, backend.status, verdicts=known.verdicts)
        value = worth(
            backend.status,
            status,
            since_write=now - self.last_written(uid),
            interval=self._engine.policy(uid).metrics_interval_seconds,
        )
        return Draft(status=status, transition=transition, worth=value)

    def _dull(self, backend: LLMBackend, found: Figures, now: float, *, starting: bool) -> bool:
        """Whether the figures of a backend that is settled are not worth a write either."""
        uid = backend.metadata.uid
        since, interval = (
            now - self.last_written(uid),
            self._engine.policy(uid).metrics_interval_seconds,
        )
        if starting or since >= LONG * interval:
            return False
        return since < interval or not moved(backend.status.quality, found.quality())

    def _knowledge(
        self,
        backend: LLMBackend,
        transition: Transition | None,
        assessment: Assessment,
        now: float,
    ) -> Knowledge:
        """All but the figures, which are as they were published."""
        uid, before = backend.metadata.uid, backend.status
        policy = self._registry.policy_in_force(backend)
        verdicts, within = self._judgement(uid, transition, assessment)
        opinion = self._engine.opinion(uid, now)
        return Knowledge(
            backend=backend,
            verdicts=verdicts,
            within=replace(within, message=within.message + self._history.remark(backend, now)),
            traffic=assessment.traffic,
            findings=self._findings(backend, assessment, now),
            mending=self._mending(backend, opinion, now),
            partly=opinion.partly,
            policy=policy.metadata.name if policy else None,
            quality=before.quality,
            model_quality=before.model_quality,
            models_omitted=before.models_omitted or 0,
        )

    def _findings(self, backend: LLMBackend, assessment: Assessment, now: float) -> Findings:
        """What probes found, and what the proxies' successes make of it."""
        uid, check = backend.metadata.uid, backend.spec.health_check
        findings = self._prober.findings(uid)
        if findings.health.status is not ConditionStatus.FALSE:
            return findings
        span = check.failure_threshold * check.period_seconds
        was_out = backend.status.state is BackendState.UNHEALTHY
        since = findings.health.failing_since
        heard = since is None or self._engine.heard(since, now)
        health = judged(
            findings.health,
            suspect=findings.suspect,
            served=self._engine.served(uid, span, now),
            heard=was_out or (heard and not self._starting(backend, assessment, now)),
            failure_threshold=check.failure_threshold,
            period_seconds=check.period_seconds,
        )
        return replace(findings, health=health)

    def _mending(self, backend: LLMBackend, opinion: Opinion, now: float) -> Mending | None:
        """What a person must mend; silence takes nothing back, nor does a start."""
        uid = backend.metadata.uid
        inherited = self._inherited.setdefault(uid, published(backend.status) is not None)
        if inherited and (opinion.stall is not None or self._engine.renewed(uid)):
            inherited = self._inherited[uid] = False
        young = now - self._engine.started < STARTING_SECONDS
        hold = not self._engine.renewed(uid) and (not opinion.voices or (inherited and young))
        return mending(backend, opinion, hold=hold)

    def _judgement(
        self, uid: str, transition: Transition | None, assessment: Assessment
    ) -> tuple[Verdicts, WithinPolicy]:
        """The verdicts to publish: with a transition, those it leads to."""
        if transition is None:
            return assessment.verdicts, assessment.within_policy
        policy, traffic = self._engine.policy(uid), assessment.traffic
        # A transition begins new windows: no rule can fire on them yet.
        after = transition.verdicts
        return after, within_policy(after, None, policy, traffic=traffic, starting=True)

    def _starting(self, backend: LLMBackend, assessment: Assessment, now: float) -> bool:
        """Whether the proxies known from the status have not all been heard yet."""
        published = backend.status.quality
        if published is None or now - self._engine.started >= STARTING_SECONDS:
            return False
        return assessment.reporters < max(1, published.reporters or 0)

    def _unheard(self, backend: LLMBackend, assessment: Assessment, now: float) -> bool:
        """Whether what was published says more than this process can know so soon."""
        young = now - self._engine.started < STARTING_SECONDS
        none = young and backend.status.state is not None and not assessment.reporters
        return none or self._starting(backend, assessment, now)

    def _backend_written(
        self, uid: str, before: LLMBackend, draft: Draft, stored: Mapping[str, Any]
    ) -> list[Note]:
        self._written[uid] = self._clock()
        # What was sent, not what is stored: a field that another writer shares with us would
        # otherwise look like a difference for ever, and be written for ever.
        if uid in self._registry.backends.uids():
            written = decode_backend(stored)
            self._rivals.stored(uid, written.status)
            written = replace_struct(written, status=draft.status)
            self._registry.backends.put(written)
            self._specs.published(written)
        notes = overlay_notes(before.status, draft.status)
        if draft.transition is not None:
            self._accept(uid, draft.transition)
        for note in notes:
            log.info("%s: %s: %s", full_name(before.metadata), note.reason, note.message)
        if draft.transition is not None:
            notes = self._told(before, draft.transition, draft.status) + notes
        if before.status.state is not draft.status.state:
            self._policies.mark(before.metadata.namespace)
        return notes

    def _hears_no_more(self, backend: LLMBackend) -> bool:
        """Whether a status speaks of at least as many reporters as this process hears."""
        published = backend.status.quality
        theirs = (published.reporters or 0) if published else 0
        return theirs >= self._engine.assess(backend.metadata.uid, self._clock()).reporters

    def _step_down(self, problem: Fatal) -> None:
        self._stepped_down = True
        self._fail(problem)

    def _told(
        self, backend: LLMBackend, transition: Transition, status: LLMBackendStatus
    ) -> list[Note]:
        """The Event of a transition, and its one line in the log."""
        notes, name = transition_notes(transition, status), full_name(backend.metadata)
        message = notes[0].message if notes else transition.message
        log.info("%s: %s: %s", name, transition.event, message, extra=transition.fields(name))
        return notes

    def _accept(self, uid: str, transition: Transition) -> None:
        """Makes a transition hold, once, whoever brings the news that it was written."""
        if self._sent.pop(uid, None) is None:
            return
        self._engine.accept(transition, self._clock())
        state = str(transition.after.state)
        self._metrics.transitions.labels(transition.row, state, transition.rule).inc()
