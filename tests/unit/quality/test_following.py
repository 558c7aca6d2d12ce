"""Whatever a status says next, a proxy that enforces stands as it says."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nexus_api.backend import SubjectState
from nexus_quality.attempt import Attempt
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.shared import SharedVerdict
from nexus_quality.subject import Standing

S = SubjectState
MODELS = ("good", "bad")
NO_BREAKERS = replace(DEFAULT_POLICY, consecutive_failures=0, slow_start_seconds=0)
ALLOWED = {S.ACTIVE: Standing.ADMITTED, S.EXCLUDED: Standing.OUT, S.PROBATION: Standing.PROBING}
WORST = (S.EXCLUDED, S.PROBATION, S.ACTIVE)


class Following(RuleBasedStateMachine):
    """A proxy without breakers of its own, and a status that is read now and then.

    Verdicts move as the operator's do: a newer generation each time, models only while their
    backend is Active, or on probation to let one in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now, self.generation, self.exclusions = 1_000.0, 0, 0
        self.policy = NO_BREAKERS
        self.backend = SharedVerdict()
        self.models: dict[str, SharedVerdict] = {}
        self.probes: list[Attempt] = []
        self.monitor = Monitor(
            incarnation="a" * 32,
            started=self.now,
            random=lambda: 0.0,
            on_change=lambda: None,
            on_urgent=lambda _: None,
        )
        self.subjects = [self.monitor.subject("uid-a", model) for model in MODELS]
        self.read()

    def turn(self, before: SharedVerdict) -> SharedVerdict:
        """The next state of the table, under the next generation."""
        self.generation += 1
        after = {S.ACTIVE: S.EXCLUDED, S.EXCLUDED: S.PROBATION, S.PROBATION: S.ACTIVE}[before.state]
        if after is S.EXCLUDED:
            self.exclusions += 1
        started = f"t{self.exclusions}" if after is S.EXCLUDED else before.started
        return SharedVerdict(state=after, started=started)

    @rule()
    def the_backend_turns(self) -> None:
        self.backend = self.turn(self.backend)
        if self.backend.active:
            self.models = {}

    @rule()
    def a_failed_probe_excludes_it_again(self) -> None:
        if self.backend.state is S.PROBATION:
            self.generation += 1
            self.exclusions += 1
            self.backend = SharedVerdict(state=S.EXCLUDED, started=f"t{self.exclusions}")

    @rule()
    def the_model_turns(self) -> None:
        if self.backend.active:
            self.models = {"bad": self.turn(self.models.get("bad", SharedVerdict()))}

    @rule()
    def a_stranded_model_is_let_in(self) -> None:
        if self.backend.state is S.PROBATION and "bad" in self.models:
            self.generation += 1
            self.models = {}

    @rule(enforce=st.booleans())
    def the_policy_is_edited(self, enforce: bool) -> None:
        self.policy = replace(NO_BREAKERS, enforce=enforce)
        self.read()

    @rule()
    def read(self) -> None:
        """The proxy reads the status, whatever it missed in between."""
        self.now += 1.0
        shared = replace(self.backend, generation=self.generation, models=self.models)
        self.monitor.configure(
            "uid-a", policy=self.policy, shared=shared, fingerprint="spec", now=self.now
        )
        self.seen = shared

    @rule(outcome=st.sampled_from([Outcome.SUCCESS, Outcome.SERVER_ERROR, Outcome.THROTTLED]))
    def a_probe_ends(self, outcome: Outcome) -> None:
        if self.probes:
            self.now += 0.1
            self.probes.pop(0).end(outcome, self.now)

    @rule(number=st.sampled_from(range(len(MODELS))))
    def a_request_may_probe(self, number: int) -> None:
        subject = self.subjects[number]
        if subject.standing is Standing.PROBING and subject.wants_probe(self.now):
            self.probes.append(subject.begin(self.now, probe=True))

    @invariant()
    def it_stands_as_the_status_that_it_read_says(self) -> None:
        for model, subject in zip(MODELS, self.subjects, strict=True):
            states = (self.seen.state, self.seen.of(model).state)
            worst = next(state for state in WORST if state in states)
            if self.policy.enforce:
                assert subject.standing is ALLOWED[worst], (model, states)

    @invariant()
    def one_probe_is_in_flight_for_one_probation(self) -> None:
        flying = [p for p in self.probes if p.began >= self.probing_since]
        assert len(flying) <= 1

    @property
    def probing_since(self) -> float:
        """When the breakers of the backend and of its model last turned."""
        breakers = self.subjects[0].backend.breakers()
        return max(breaker.changed_at for breaker in breakers)


TestFollowing = Following.TestCase
TestFollowing.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
