"""The behaviours of the original system's 18 quality tests, by name and in its terms.

An "agent" is a backend here. The policy is the shipped sample that is equivalent to the original's
rule; recording, judging and routing are the real Monitor, Engine and Router wired together without
a network. Where the contract overrules the original, the test keeps its name and says what is
expected now and why.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from nexus_api import SubjectState, decode_quality_policy, reasons
from nexus_api.backend import Quality
from nexus_proxy.routing.candidate import Backend, Candidate, Origin, Traits
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.reason import Reason, Rejection
from nexus_proxy.routing.request import Call
from nexus_proxy.routing.router import Router
from nexus_proxy.routing.rules import Rules
from nexus_proxy.routing.score import ttft_penalty
from nexus_proxy.routing.steps import Profile, quality
from nexus_proxy.routing.table import Table
from nexus_quality.engine import BackendFacts, Engine
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome
from nexus_quality.policy import policy_from_spec
from nexus_quality.shared import SharedVerdict

SAMPLE = Path(__file__).parents[2] / "manifests" / "samples" / "qualitypolicy-seed.yaml"
POLICY = policy_from_spec(decode_quality_policy(yaml.safe_load(SAMPLE.read_text())).spec)
ORIGIN = Origin("http", "localhost", 80, b"localhost", b"", {})
MODEL = "tiny"
NOW = 1_000_000.0


class Original:
    """One process that records, recomputes and routes, as the original did."""

    def __init__(self, *agents: str, ttft_threshold_ms: int = 3000) -> None:
        chance = random.Random(3).random
        self.now = NOW
        self.engine = Engine(epoch="one", started=NOW - 3600, random=chance)
        self.monitor = Monitor(
            incarnation="0" * 32,
            started=NOW - 1,
            random=chance,
            on_change=lambda: None,
            on_urgent=lambda seconds: None,
        )
        self.router = Router(random=chance)
        self.candidates: dict[str, Candidate] = {}
        for agent in agents:
            self._add(agent, ttft_threshold_ms)

    def _add(self, agent: str, ttft_threshold_ms: int) -> None:
        facts = BackendFacts(uid=agent, namespace="default", name=agent, fingerprint="a")
        self.engine.upsert(facts, POLICY, self.now)
        self._configure(agent, SharedVerdict())
        backend = Backend(
            agent, "default", agent, origin=ORIGIN, changed=self.router.journal.changed
        )
        self.candidates[agent] = Candidate(
            backend,
            MODEL,
            subject=self.monitor.subject(agent, MODEL),
            traits=Traits(least_bad=POLICY.least_bad, ttft_threshold_ms=ttft_threshold_ms),
        )

    def _configure(self, agent: str, shared: SharedVerdict) -> None:
        self.monitor.configure(agent, policy=POLICY, shared=shared, fingerprint="a", now=self.now)

    def record_outcome(self, agent: str, *, success: bool, ttft_ms: float = 0.0) -> None:
        """One streamed request, its first token after `ttft_ms`."""
        attempt = self.candidates[agent].subject.begin(self.now)
        attempt.sent(self.now)
        self.now += ttft_ms / 1000
        if success:
            attempt.content(self.now)
        attempt.end(Outcome.SUCCESS if success else Outcome.SERVER_ERROR, self.now)

    def recompute_all(self) -> None:
        """What the original did every 30 s: windows to metrics, metrics to routing."""
        report = self.monitor.report(self.now, full=True)
        assert report is not None
        self.engine.merge("this", report, self.now)
        for agent in self.candidates:
            transition = self.engine.wanted(agent, self.now)
            if transition is not None:
                self.engine.accept(transition, self.now)
            verdict = self.engine.verdict(agent)
            firing = verdict.firing
            self._configure(
                agent,
                SharedVerdict(
                    state=verdict.state,
                    generation=verdict.generation,
                    reason=firing.reason if firing else "",
                    suggested_action=firing.suggested_action if firing else "",
                ),
            )

    def metrics(self, agent: str) -> Quality | None:
        return self.engine.figures(agent, self.now).quality()

    def reconcile(self) -> tuple[list[str], list[Reason]]:
        """The QualityReconciler over all candidates: who stays, and why the others do not."""
        said = {agent: quality(Profile(), c) for agent, c in self.candidates.items()}
        stay = [agent for agent, reason in said.items() if reason is None]
        return stay, [reason for reason in said.values() if reason is not None]

    def install(self) -> None:
        """Hand the candidates to the router."""
        members = tuple(self.candidates.values())
        backends = {c.backend.uid: c.backend for c in members}
        self.router.install(Table({MODEL: members} if members else {}, backends, Rules()))

    def route(self) -> str | Rejection:
        """The agent that the next request goes to, or the rejection."""
        self.install()
        chosen = self.router.choose(Call(Endpoint.CHAT, MODEL, body=b'{"model":"tiny"}'), self.now)
        return chosen if isinstance(chosen, Rejection) else chosen.candidate.backend.name


def _fail(original: Original, agent: str, *, failures: int, successes: int) -> None:
    for _ in range(failures):
        original.record_outcome(agent, success=False)
    for _ in range(successes):
        original.record_outcome(agent, success=True, ttft_ms=10)


# QualityMetricsStore


def test_store_returns_default_for_unknown_agent() -> None:
    """Healthy by default; now without figures, because 0 % and 100 % of nothing mislead."""
    original = Original("new")
    assert original.metrics("new") is None
    assert original.engine.verdict("new").state is SubjectState.ACTIVE


def test_record_outcome_stores_data() -> None:
    """One success, one failure: 50 %. The average TTFT is the success's alone: a failure has no
    first token, and counting its time made failing agents look fast.
    """
    original = Original("a")
    original.record_outcome("a", success=True, ttft_ms=100)
    original.record_outcome("a", success=False, ttft_ms=200)
    original.recompute_all()
    figures = original.metrics("a")
    assert figures is not None
    assert (figures.error_rate_1h, figures.requests_1h, figures.errors_1h) == ("50%", 2, 1)
    assert figures.avg_ttft_milliseconds == pytest.approx(100, abs=1)


def test_recompute_handles_empty_store() -> None:
    original = Original()
    original.recompute_all()
    assert original.engine.backends() == []


def test_success_rate_24h_computed() -> None:
    original = Original("a")
    _fail(original, "a", failures=1, successes=2)
    original.recompute_all()
    figures = original.metrics("a")
    assert figures is not None and figures.success_rate_24h == "66.67%"


def test_all_successes_give_zero_error_rate() -> None:
    original = Original("a")
    _fail(original, "a", failures=0, successes=10)
    original.recompute_all()
    figures = original.metrics("a")
    assert figures is not None
    assert (figures.error_rate_1h, figures.success_rate_24h) == ("0%", "100%")


def test_last_failure_ts_tracked() -> None:
    original = Original("a", "b")
    _fail(original, "a", failures=1, successes=0)
    _fail(original, "b", failures=0, successes=1)
    original.recompute_all()
    failed, well = original.metrics("a"), original.metrics("b")
    assert failed is not None and failed.last_failure_time is not None
    assert well is not None and well.last_failure_time is None


def test_get_all_metrics_returns_all() -> None:
    original = Original("a", "b", "c")
    for agent in "abc":
        _fail(original, agent, failures=0, successes=1)
    original.recompute_all()
    assert all(original.metrics(agent) is not None for agent in original.engine.backends())
    assert sorted(original.engine.backends()) == ["a", "b", "c"]


# QualityReconciler


def test_excludes_high_error_agents_above_threshold() -> None:
    original = Original("bad", "good")
    _fail(original, "bad", failures=3, successes=1)
    _fail(original, "good", failures=0, successes=4)
    original.recompute_all()
    stay, out = original.reconcile()
    assert stay == ["good"]
    assert "75%" in out[0].reason and "50%" in out[0].reason and out[0].suggested_action


def test_preserves_healthy_agents_below_threshold() -> None:
    original = Original("a", "b")
    for agent in "ab":
        _fail(original, agent, failures=1, successes=4)
    original.recompute_all()
    assert original.reconcile() == (["a", "b"], [])


def test_all_excluded_produces_rejection_reasons() -> None:
    """As in the original, under `whenAllExcluded: Reject`, which its sample policy sets. The
    default is LeastBad: the last resort still serves.
    """
    original = Original("a", "b")
    for agent in "ab":
        _fail(original, agent, failures=4, successes=0)
    original.recompute_all()
    assert original.reconcile()[0] == []
    rejection = original.route()
    assert isinstance(rejection, Rejection)
    assert (rejection.status, rejection.code) == (503, "no_available_backend")
    assert sorted(reason.backend for reason in rejection.reasons) == ["a", "b"]


def test_fresh_start_no_history_all_pass() -> None:
    original = Original("a", "b")
    original.recompute_all()
    assert original.reconcile() == (["a", "b"], [])


def test_pass_through_preserves_all_candidates() -> None:
    original = Original("a", "b", "c")
    assert original.reconcile() == (["a", "b", "c"], [])


def test_pass_through_with_empty_candidates() -> None:
    """No candidate is no crash; a model that nobody has is now a 404 instead of an empty list."""
    original = Original()
    assert original.reconcile() == ([], [])
    rejection = original.route()
    assert isinstance(rejection, Rejection) and rejection.code == "model_not_found"


def test_name_returns_quality_reconciler() -> None:
    original = Original("bad")
    _fail(original, "bad", failures=1, successes=0)
    original.recompute_all()
    assert reasons.QUALITY_RECONCILER == "QualityReconciler"
    assert original.reconcile()[1][0].reconciler == "QualityReconciler"


def test_default_creates_pass_through() -> None:
    original = Original("only")
    assert original.reconcile() == (["only"], [])
    assert original.route() == "only"


# SchedulerReconciler


def _settled(original: Original, **ttft_ms: int) -> None:
    for agent, milliseconds in ttft_ms.items():
        original.record_outcome(agent, success=True, ttft_ms=milliseconds)
    original.recompute_all()
    original.now += 2.0


def test_high_ttft_reduces_score() -> None:
    original = Original("slow", "fast")
    _settled(original, slow=5000, fast=200)
    assert {original.route() for _ in range(200)} == {"fast"}


def test_ttft_penalty_proportional_to_threshold_excess() -> None:
    """3500 ms costs less than 10000 ms. A full penalty leaves 1 instead of 0, so that agents which
    are all slow still rank among each other instead of the last in the list winning.
    """
    assert ttft_penalty(1000, 3500, 3000) == 834
    assert ttft_penalty(1000, 4500, 3000) == 500
    assert ttft_penalty(1000, 10000, 3000) == 1
    original = Original("worse", "bad")
    _settled(original, worse=10000, bad=3500)
    assert {original.route() for _ in range(200)} == {"bad"}


def test_no_penalty_below_threshold() -> None:
    """No penalty for either: they share the traffic, where the original took the last in the
    list.
    """
    original = Original("a", "b")
    _settled(original, a=1000, b=2900)
    assert {original.route() for _ in range(200)} == {"a", "b"}
