"""What should be written now, for each object: draws status, materiality and verdict together.

Promises that a transition is accepted by the engine exactly when its write was, also when the
answer was lost and the watch brings the news, and that it is told then; and that another operator's
writes end this process' claim to the verdict. It sends nothing and keeps no object but through the
registry.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from msgspec.structs import replace as replace_struct

from nexus_api import LLMBackend, LLMBackendStatus, ObjectMeta, decode_backend
from nexus_api.meta import BACKEND_PLURAL, QUALITY_POLICY_PLURAL, ROUTING_POLICY_PLURAL
from nexus_operator.dossier import Dossier, Dossiers
from nexus_operator.engine import FleetEngine
from nexus_operator.history import History
from nexus_operator.material import LONG, Worth, moved, worth
from nexus_operator.metrics import Metrics
from nexus_operator.notes import Note, overlay_notes, transition_notes
from nexus_operator.plan import Key, Plan
from nexus_operator.policy_plans import PolicyPlans
from nexus_operator.prober import Prober
from nexus_operator.problems import Fatal, outranked, rivalled, staying
from nexus_operator.registry import Registry, full_name
from nexus_operator.rivals import Rivals
from nexus_operator.specs import Specs
from nexus_operator.status import build_status, keep_what_was_published
from nexus_quality.engine import Transition

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Draft:
    """A status as it would be written now, and the transition that comes with it."""

    status: LLMBackendStatus
    transition: Transition | None
    worth: Worth


@dataclass(frozen=True, slots=True)
class _Sent:
    """A write whose answer is awaited: the backend before it, and the transition it makes."""

    before: LLMBackend
    transition: Transition | None
    status: LLMBackendStatus


class Late(Protocol):
    """Takes notes that no answer of the writer's brings."""

    def __call__(self, metadata: ObjectMeta, notes: list[Note]) -> None: ...


class Planner:
    """Implements `writer.Planner`. `see` and `gone` are told of objects as a conflict shows them;
    `fail` ends the process, `late` is told what the writer could not be.
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
        late: Late,
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._metrics = metrics
        self._clock = clock
        self._policies = policies
        self._specs = specs
        self._see, self._gone = see, gone
        self._fail, self._late = fail, late
        self._dossiers = Dossiers(registry=registry, engine=engine, prober=prober, history=history)
        self._unaccepted: dict[str, Transition] = {}
        self._sent: dict[str, _Sent] = {}
        self._written: dict[str, float] = {}
        self._settled: dict[str, tuple[object, ...] | None] = {}
        self._rivals = Rivals(clock=clock, started=lambda: engine.started)
        self._stepped_down = self._warned = False
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
        another operator that moved the verdict, or has more right to be here.
        """
        uid, theirs = backend.metadata.uid, backend.status.verdict_generation or 0
        wanted = self._unaccepted.get(uid)
        if wanted is not None and theirs == wanted.after.generation:
            self._accept(uid, wanted)
        ours = self._engine.verdicts(uid).generation
        rival = self._rivals.wrote(backend, stored)
        if theirs > ours:
            self._step_down(outranked(name=full_name(backend.metadata), theirs=theirs, ours=ours))
        elif rival:
            self._meet(backend)

    def forget(self, uid: str) -> None:
        """A backend is gone."""
        self._unaccepted.pop(uid, None)
        self._sent.pop(uid, None)
        self._written.pop(uid, None)
        self._settled.pop(uid, None)
        self._dossiers.forget(uid)
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
        self._tell_unanswered(uid)
        draft = self._draft(uid, now, figures=True)
        if draft is None or draft.worth is Worth.NOTHING:
            return None
        backend = self._registry.backends.get(uid)
        assert backend is not None
        if draft.transition is not None:
            self._unaccepted[uid] = draft.transition
        sent = self._sent[uid] = _Sent(backend, draft.transition, draft.status)
        self._rivals.sending(uid, draft.status)
        return Plan(
            metadata=backend.metadata,
            status=draft.status,
            accepted=lambda stored: self._backend_written(uid, sent, stored),
        )

    def _draft(self, uid: str, now: float, *, figures: bool) -> Draft | None:
        backend = self._registry.backends.get(uid)
        if backend is None:
            return None
        dossier = self._dossiers.open(backend, now)
        sign = dossier.sign
        settled = sign is not None and self._settled.get(uid) == sign
        if settled and (not figures or self._dull(dossier, now)):
            return None
        if figures:
            found = self._engine.figures(uid, now)
            known = replace(
                dossier.knowledge,
                quality=found.quality(),
                model_quality=found.model_quality(dossier.knowledge.verdicts.models),
                models_omitted=found.models_omitted,
            )
            dossier = replace(dossier, knowledge=known)
        draft = self._drawn(dossier, now)
        self._settled[uid] = None if draft.worth is Worth.AT_ONCE else sign
        return draft

    def _drawn(self, dossier: Dossier, now: float) -> Draft:
        known = dossier.knowledge
        before, uid = known.backend.status, known.backend.metadata.uid
        status = build_status(known, now=now)
        if dossier.starting:
            status = keep_what_was_published(status, before, verdicts=known.verdicts)
        value = worth(
            before,
            status,
            since_write=now - self.last_written(uid),
            interval=self._engine.policy(uid).metrics_interval_seconds,
        )
        return Draft(status=status, transition=dossier.transition, worth=value)

    def _dull(self, dossier: Dossier, now: float) -> bool:
        """Whether the figures of a backend that is settled are not worth a write either."""
        backend = dossier.knowledge.backend
        uid = backend.metadata.uid
        since, interval = (
            now - self.last_written(uid),
            self._engine.policy(uid).metrics_interval_seconds,
        )
        if dossier.starting or since >= LONG * interval:
            return False
        return since < interval or not moved(backend.status.quality, self._engine.quality(uid, now))

    def _backend_written(self, uid: str, sent: _Sent, stored: Mapping[str, Any]) -> list[Note]:
        self._written[uid] = self._clock()
        self._sent.pop(uid, None)
        # What was sent, not what is stored: a field that another writer shares with us would
        # otherwise look like a difference for ever, and be written for ever.
        if uid in self._registry.backends.uids():
            written = decode_backend(stored)
            self._rivals.stored(uid, written.status)
            written = replace_struct(written, status=sent.status)
            self._registry.backends.put(written)
            self._specs.published(written)
        if sent.transition is not None:
            self._accept(uid, sent.transition)
        return self._told(sent.before, sent.transition, sent.status)

    def _tell_unanswered(self, uid: str) -> None:
        """What an earlier write has done whose answer was lost, as the watch has shown since."""
        sent, backend = self._sent.pop(uid, None), self._registry.backends.get(uid)
        if sent is None or backend is None:
            return
        accepted = sent.transition if uid not in self._unaccepted else None
        notes = self._told(sent.before, accepted, backend.status)
        if notes:
            self._late(backend.metadata, notes)

    def _told(
        self, before: LLMBackend, transition: Transition | None, status: LLMBackendStatus
    ) -> list[Note]:
        """The Events of a status that was written, and one line each in the log."""
        name = full_name(before.metadata)
        notes = overlay_notes(before.status, status)
        for note in notes:
            log.info("%s: %s: %s", name, note.reason, note.message)
        if transition is not None:
            of_verdict = transition_notes(transition, status)
            message = of_verdict[0].message if of_verdict else transition.message
            log.info("%s: %s: %s", name, transition.event, message, extra=transition.fields(name))
            notes = of_verdict + notes
        if before.status.state is not status.state:
            self._policies.mark(before.metadata.namespace)
        return notes

    def _meet(self, backend: LLMBackend) -> None:
        """Another operator wrote this status: one of the two is to leave."""
        published, name = backend.status.quality, full_name(backend.metadata)
        theirs = (published.reporters or 0) if published else 0
        ours = self._engine.assess(backend.metadata.uid, self._clock()).reporters
        if not self._rivals.outlast(ours=ours, theirs=theirs):
            self._step_down(rivalled(name=name))
        elif not self._warned:
            self._warned = True
            log.warning("%s", staying(name=name))

    def _step_down(self, problem: Fatal) -> None:
        self._stepped_down = True
        self._fail(problem)

    def _accept(self, uid: str, transition: Transition) -> None:
        """Makes a transition hold, once, whoever brings the news that it was written."""
        if self._unaccepted.pop(uid, None) is None:
            return
        self._engine.accept(transition, self._clock())
        state = str(transition.after.state)
        self._metrics.transitions.labels(transition.row, state, transition.rule).inc()
