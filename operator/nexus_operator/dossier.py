"""All that is known of a backend at one moment, for its status: verdict, probes, keys, silence.

Promises what a status is built from, with the claims of an earlier process held as long as nobody
could repeat them. Figures are those that were published; whoever wants new ones asks for them.
Whether any of it is worth a write is `material`'s, when it is written the planner's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nexus_api import BackendState, ConditionStatus, LLMBackend, reasons
from nexus_operator.engine import FleetEngine
from nexus_operator.findings import Findings
from nexus_operator.history import History
from nexus_operator.knowledge import Knowledge
from nexus_operator.mending import Mending, mending, published
from nexus_operator.prober import Prober
from nexus_operator.registry import Registry
from nexus_quality.assessment import Assessment, WithinPolicy, within_policy
from nexus_quality.engine import STARTING_SECONDS, Transition
from nexus_quality.health import judged
from nexus_quality.stall import Opinion
from nexus_quality.verdicts import Verdicts


@dataclass(frozen=True, slots=True)
class Dossier:
    """What is known, the transition that is wanted with it, and whether this process began so
    lately that what was published says more (`starting`).
    """

    knowledge: Knowledge
    transition: Transition | None
    starting: bool

    @property
    def sign(self) -> tuple[object, ...] | None:
        """All that decides whether a status must be written at once; None: a transition does."""
        if self.transition is not None:
            return None
        known, within = self.knowledge, self.knowledge.within
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
            self.starting,
        )


class Dossiers:
    """Makes them; `open` is asked as often as one likes."""

    def __init__(
        self, *, registry: Registry, engine: FleetEngine, prober: Prober, history: History
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._prober = prober
        self._history = history
        self._inherited: dict[str, bool] = {}

    def open(self, backend: LLMBackend, now: float) -> Dossier:
        """What is known of a backend now."""
        uid = backend.metadata.uid
        transition = self._engine.wanted(uid, now)
        assessment = self._engine.assess(uid, now)
        knowledge = self._knowledge(backend, transition, assessment, now)
        return Dossier(knowledge, transition, self._unheard(backend, assessment, now))

    def forget(self, uid: str) -> None:
        """A backend is gone."""
        self._inherited.pop(uid, None)
        self._history.forget(uid)

    def _knowledge(
        self,
        backend: LLMBackend,
        transition: Transition | None,
        assessment: Assessment,
        now: float,
    ) -> Knowledge:
        uid, before = backend.metadata.uid, backend.status
        policy = self._registry.policy_in_force(backend)
        verdicts, within = self._judgement(uid, transition, assessment)
        opinion, remark = self._engine.opinion(uid, now), self._history.remark(backend, now)
        return Knowledge(
            backend=backend,
            verdicts=verdicts,
            within=replace(within, message=within.message + remark) if remark else within,
            traffic=assessment.traffic,
            findings=self._findings(backend, assessment, now),
            mending=self._mending(backend, opinion, now),
            partly=opinion.partly,
            policy=policy.metadata.name if policy else None,
            quality=before.quality,
            model_quality=before.model_quality,
            models_omitted=before.models_omitted or 0,
        )

    def _judgement(
        self, uid: str, transition: Transition | None, assessment: Assessment
    ) -> tuple[Verdicts, WithinPolicy]:
        """The verdicts to publish: with a transition, those it leads to."""
        if transition is None:
            return assessment.verdicts, assessment.within_policy
        # A transition begins new windows: no rule can fire on them yet.
        after = transition.verdicts
        policy = self._engine.policy(uid)
        return after, within_policy(after, None, policy, traffic=reasons.ACTIVE, starting=False)

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
        young = now - self._engine.listening < STARTING_SECONDS
        hold = not self._engine.renewed(uid) and (not opinion.voices or (inherited and young))
        return mending(backend, opinion, hold=hold)

    def _starting(self, backend: LLMBackend, assessment: Assessment, now: float) -> bool:
        """Whether the proxies known from the status have not all been heard yet."""
        published = backend.status.quality
        if published is None or now - self._engine.listening >= STARTING_SECONDS:
            return False
        fewer = assessment.reporters < max(1, published.reporters or 0)
        return fewer or self._engine.collecting(backend.metadata.uid, assessment.reporters, now)

    def _unheard(self, backend: LLMBackend, assessment: Assessment, now: float) -> bool:
        """Whether what was published says more than this process can know so soon."""
        young = now - self._engine.listening < STARTING_SECONDS
        none = young and backend.status.state is not None and not assessment.reporters
        return none or self._starting(backend, assessment, now)
