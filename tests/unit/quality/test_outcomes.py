"""Every way an attempt can end has one class, and the class alone says what it counts for."""

from __future__ import annotations

import pytest

from nexus_quality.monitor import Monitor
from nexus_quality.outcome import OUTCOMES, Outcome, OutcomeClass, of_status
from nexus_quality.window import Family

C, O = OutcomeClass, Outcome  # noqa: E741
FAILURES = (
    O.SERVER_ERROR,
    O.TIMEOUT,
    O.CONNECT_ERROR,
    O.CUT,
    O.MALFORMED,
    O.STREAM_ERROR,
    O.ERROR_BODY,
)
NEUTRALS = (O.THROTTLED, O.CLIENT_ERROR, O.MODEL_MISSING, O.CLIENT_GONE)


def test_the_table_is_the_contracts() -> None:
    expected = {
        O.SUCCESS: C.SUCCESS,
        **dict.fromkeys(FAILURES, C.FAILURE),
        **dict.fromkeys(NEUTRALS, C.NEUTRAL),
        O.CREDENTIALS_REFUSED: C.CREDENTIALS,
    }
    assert {outcome: effect.outcome_class for outcome, effect in OUTCOMES.items()} == expected
    assert set(OUTCOMES) == set(O)
    assert [o for o in O if OUTCOMES[o].connect] == [O.CONNECT_ERROR]
    assert [o for o in O if OUTCOMES[o].throttled] == [O.THROTTLED]


def test_each_outcome_knows_its_row() -> None:
    assert all(outcome.effect is OUTCOMES[outcome] for outcome in O)


@pytest.mark.parametrize(
    ("status", "retry_after", "own_key", "outcome"),
    [
        (200, False, False, O.SUCCESS),
        (204, False, True, O.SUCCESS),
        (400, False, False, O.CLIENT_ERROR),
        (401, False, False, O.CLIENT_ERROR),
        (401, False, True, O.CREDENTIALS_REFUSED),
        (403, True, True, O.CREDENTIALS_REFUSED),
        (403, False, False, O.CLIENT_ERROR),
        (404, False, False, O.MODEL_MISSING),
        (413, False, True, O.CLIENT_ERROR),
        (422, False, False, O.CLIENT_ERROR),
        (429, False, False, O.THROTTLED),
        (429, True, True, O.THROTTLED),
        (500, False, False, O.SERVER_ERROR),
        (500, True, False, O.SERVER_ERROR),
        (502, False, False, O.SERVER_ERROR),
        (503, False, False, O.SERVER_ERROR),
        (503, True, False, O.THROTTLED),
        (529, True, False, O.SERVER_ERROR),
    ],
)
def test_what_a_status_alone_decides(
    status: int, retry_after: bool, own_key: bool, outcome: Outcome
) -> None:
    assert of_status(status, retry_after=retry_after, own_key=own_key) is outcome


@pytest.mark.parametrize("outcome", list(O))
def test_an_attempt_counts_as_its_class_says_in_every_family(outcome: Outcome) -> None:
    monitor = Monitor(
        incarnation="a" * 32,
        started=0.0,
        random=lambda: 0.0,
        on_change=lambda: None,
        on_urgent=lambda _: None,
    )
    attempt = monitor.subject("uid-a", "tiny").begin(5.0)
    attempt.content(5.25)
    attempt.end(outcome, 6.0, cost_nano_usd=40)
    kind = OUTCOMES[outcome].outcome_class
    judged = kind in (C.SUCCESS, C.FAILURE)
    for family in Family:
        counts = monitor.recorder.of("uid-a", "tiny").last(3600.0, 6.0, family)
        assert counts.requests == judged
        assert counts.errors == (kind is C.FAILURE)
        assert counts.connect_errors == (outcome is O.CONNECT_ERROR)
        assert counts.throttled == (outcome is O.THROTTLED)
        assert counts.cost_nano_usd == 40
        assert (counts.ttft_count, counts.ttft_ms_sum) == (
            (1, 250) if outcome is O.SUCCESS else (0, 0)
        )
