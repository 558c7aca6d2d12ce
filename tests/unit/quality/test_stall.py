"""What the fleet makes of refused keys and missing Secrets: claims, quorum, liars."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_quality.ledger import Ledger
from nexus_quality.report import Pulse, Report
from nexus_quality.stall import Opinion, Voice, judge, voices

MISSING = "SecretNotFound"


def opinion(*heard: Voice, quorum: int = 2) -> Opinion:
    return judge(heard, min_reporters=quorum)


def refusing(name: str, times: int = 3, usual: float = 0.0) -> Voice:
    return Voice(reporter=name, refused=times, usual=usual)


def happy(name: str, usual: float = 0.0) -> Voice:
    return Voice(reporter=name, usual=usual)


def lacking(name: str, reason: str = MISSING, usual: float = 0.0) -> Voice:
    return Voice(reporter=name, missing=reason, usual=usual)


@pytest.mark.parametrize(
    ("heard", "stalled"),
    [
        ([], None),
        ([happy("a")], None),
        ([refusing("a")], "CredentialsRejected"),  # the only one there is
        ([refusing("a", 2)], None),
        ([refusing("a"), happy("b")], None),
        ([refusing("a"), refusing("b", 1)], "CredentialsRejected"),
        ([refusing("a", 1), refusing("b", 1)], None),
        ([refusing("a", 1), refusing("b", 1), refusing("c", 1)], "CredentialsRejected"),
        ([refusing("a"), refusing("b"), happy("c")], "CredentialsRejected"),
        ([refusing("a"), refusing("b"), *[happy(n) for n in "cdef"]], None),
        # The traffic decides, where there is any.
        ([refusing("a", usual=5), refusing("b", usual=5), *[happy(n, 1) for n in "cdef"]],
         "CredentialsRejected"),
        ([refusing("a"), refusing("b"), happy("c", 1)], None),
        # However much of it one claims to have: alone it neither stalls a key nor keeps it in use.
        ([refusing("a", usual=1e6), refusing("b", 1, 1), *[happy(n, 1) for n in "cdef"]], None),
        ([happy("a", 1e6), *[refusing(n, 3, 1) for n in "bcd"]], "CredentialsRejected"),
        ([lacking("a")], MISSING),
        ([lacking("a"), lacking("b")], MISSING),
        ([lacking("a"), happy("b")], None),
        ([lacking("a", "SecretKeyNotFound"), lacking("b", "SecretKeyNotFound")],
         "SecretKeyNotFound"),
        ([lacking("a"), lacking("b"), refusing("c")], MISSING),
    ],
)  # fmt: skip
def test_a_claim_needs_most_of_the_traffic_and_its_quorum(
    heard: list[Voice], stalled: str | None
) -> None:
    found = opinion(*heard)
    assert (found.stall.reason if found.stall else None) == stalled
    assert found.voices == len(heard)


def test_a_claim_without_its_quorum_names_those_that_make_it() -> None:
    found = opinion(refusing("z"), refusing("y", 1), *[happy(n) for n in "abcdef"])
    assert found.stall is None and found.partly is not None
    assert (found.partly.reporters, found.partly.refusals) == (("y", "z"), 4)


def test_a_quorum_of_one_believes_the_only_claim() -> None:
    assert opinion(refusing("a"), happy("b"), quorum=1).stall is not None


voice = st.builds(
    Voice,
    reporter=st.uuids().map(str),
    refused=st.sampled_from([0, 0, 0, 1, 3]),
    missing=st.sampled_from(["", "", MISSING]),
    usual=st.sampled_from([0.0, 1.0, 7.0]),
)
honest = st.builds(happy, st.uuids().map(str), st.sampled_from([0.0, 0.5, 3.0]))
liar = st.builds(
    Voice,
    reporter=st.just("liar"),
    refused=st.integers(0, 10**9),
    missing=st.sampled_from(["", MISSING, "SecretKeyNotFound"]),
    usual=st.floats(0, 1e12),
)


@given(st.lists(honest, min_size=1, max_size=9), liar, st.integers(2, 5))
def test_one_liar_stalls_nothing_for_the_others(
    others: list[Voice], lie: Voice, quorum: int
) -> None:
    assert opinion(*others, lie, quorum=quorum).stall is None


@given(st.lists(voice, max_size=8, unique_by=lambda v: v.reporter), st.randoms())
def test_the_order_of_voices_does_not_matter(heard: list[Voice], chance: object) -> None:
    shuffled = list(heard)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert opinion(*heard) == opinion(*shuffled)


def told(ledger: Ledger, name: str, *pulses: Pulse, now: float, final: bool = False) -> None:
    incarnation = f"{sum(name.encode()):032x}"
    report = Report(
        incarnation=incarnation, now_ms=int(now * 1000), pulses=list(pulses), final=final
    )
    ledger.take(name, report, now, ["uid"])


def names(ledger: Ledger, *, now: float, since: float = 0.0) -> list[tuple[str, int, str]]:
    heard = voices(ledger.reporters.values(), "uid", {"user": 2.0}, now=now, since=since)
    return sorted((v.reporter, v.refused, v.missing) for v in heard)


def test_voices_are_those_that_speak_or_used_it_and_are_alive() -> None:
    ledger = Ledger()
    told(ledger, "refused", Pulse(uid="uid", refused=3, key="CredentialsRejected"), now=100.0)
    told(ledger, "lacking", Pulse(uid="uid", key=MISSING), now=100.0)
    told(ledger, "untried", Pulse(uid="uid", key="Untried"), now=100.0)
    told(ledger, "user", now=100.0)
    told(ledger, "bystander", Pulse(uid="uid", row=2), now=100.0)
    told(ledger, "leaver", Pulse(uid="uid", refused=3), now=99.0)
    told(ledger, "leaver", now=100.0, final=True)
    assert names(ledger, now=101.0) == [
        ("lacking", 0, MISSING), ("refused", 3, ""), ("untried", 0, ""), ("user", 0, ""),
    ]  # fmt: skip
    assert names(ledger, now=191.0) == []


def test_what_was_said_of_another_spec_counts_no_more() -> None:
    ledger = Ledger()
    told(ledger, "a", Pulse(uid="uid", refused=3), now=100.0)
    assert names(ledger, now=102.0, since=101.0) == []
    told(ledger, "a", Pulse(uid="uid", refused=1), now=103.0)
    assert names(ledger, now=104.0, since=101.0) == [("a", 1, "")]


def test_a_claim_that_is_missing_from_the_next_report_is_over() -> None:
    ledger = Ledger()
    told(ledger, "a", Pulse(uid="uid", refused=3), now=100.0)
    told(ledger, "a", now=101.0)
    assert names(ledger, now=102.0) == []
