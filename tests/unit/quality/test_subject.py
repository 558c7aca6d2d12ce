"""What a subject says about itself beyond its standing."""

from __future__ import annotations

from nexus_api.backend import SubjectState
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.shared import SharedVerdict
from nexus_quality.subject import Standing


def _monitor() -> Monitor:
    return Monitor(
        incarnation="0" * 32,
        started=0.0,
        random=lambda: 0.0,
        on_change=lambda: None,
        on_urgent=lambda seconds: None,
    )


def test_the_end_of_an_exclusion_is_the_later_of_both_breakers() -> None:
    monitor = _monitor()
    monitor.configure(
        "uid", policy=DEFAULT_POLICY, shared=SharedVerdict(), fingerprint="a", now=100.0
    )
    subject = monitor.subject("uid", "m")
    assert subject.returns_at() is None
    for _ in range(DEFAULT_POLICY.consecutive_failures):
        subject.begin(100.0).end(Outcome.SERVER_ERROR, 100.1)
    assert subject.standing is Standing.OUT
    assert subject.returns_at() == 100.1 + DEFAULT_POLICY.base_exclusion_seconds
    monitor.configure(
        "uid",
        policy=DEFAULT_POLICY,
        shared=SharedVerdict(state=SubjectState.EXCLUDED, generation=1, until=160.0),
        fingerprint="a",
        now=101.0,
    )
    assert subject.returns_at() == 160.0


def test_an_exclusion_without_an_end_has_none() -> None:
    monitor = _monitor()
    shared = SharedVerdict(state=SubjectState.EXCLUDED, generation=1, until=None)
    monitor.configure("uid", policy=DEFAULT_POLICY, shared=shared, fingerprint="a", now=1.0)
    assert monitor.subject("uid", "m").returns_at() is None
