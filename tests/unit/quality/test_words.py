"""The sentences people read, word for word: the same in condition, Event, log line and 503."""

from __future__ import annotations

import pytest

from nexus_quality import words, words_of_health
from nexus_quality.words import Words, split

SEEN = "GET /health answers 503"

TEXTS = {
    words.key_rejected(secret="openai", key="api-key", refusals=4, threshold=3).message: (
        "The backend answers 401 or 403 to the key in Secret openai, key api-key: 4 refusals in a"
        " row, 3 suffice; put a valid key into Secret openai, or change spec.auth"
    ),
    words.key_rejected_for_some(Words("Refused", "mend it"), ["shop/a", "shop/b"]): (
        "Refused, but only as seen by shop/a, shop/b, which leave it out themselves"
    ),
    words.secret_missing(secret="openai", key="api-key").message: (
        "Secret openai not found; create Secret openai with key api-key"
    ),
    words.secret_key_missing(secret="openai", key="api-key").message: (
        "Secret openai has no key api-key; add key api-key to Secret openai"
    ),
    words_of_health.disagrees(seen=SEEN, seconds=90): (
        "Probes fail (GET /health answers 503), but requests succeeded within the last 90 s, so it"
        " stays in service; correct spec.healthCheck.path, or look at the network between operator"
        " and backend"
    ),
    words_of_health.unheard(seen=SEEN, seconds=60): (
        "Probes fail (GET /health answers 503); before that counts, the proxies have up to 60 s to"
        " say whether requests succeed"
    ),
    words_of_health.suspect(seen=SEEN, failing=3, probed=4, seconds=30): (
        "Probes fail (GET /health answers 503), but 3 of 4 backends, more than half, began to fail"
        " within the same 30 s, so none is taken out; look at the operator's own network"
    ),
    words_of_health.failing(seen=SEEN, failures=5, threshold=3, seconds=90).message: (
        "5 probes in a row failed, 3 suffice (GET /health answers 503), and no request succeeded"
        " within the last 90 s; look at the backend, or correct spec.url or spec.healthCheck"
    ),
    words.rate_reached(
        what="Error", window="hour", errors=8, requests=10, rate="80%", threshold="50%"
    ): "Error rate 80% of the hour (8 of 10) reaches the threshold 50%",
    words.row_reached(failures=36, what="failures", needed=5): (
        "36 failures in a row over the fleet, 5 suffice"
    ),
    words.breakers_open(what="failures", errors=9, requests=12, failed="failed"): (
        "The proxies that make most of its requests see failures in a row (9 of 12 failed)"
    ),
    words.excluded(reason="9 of 12 failed", until="2026-11-24T12:00:00Z"): (
        "9 of 12 failed; probed again from 2026-11-24T12:00:00Z; look at the backend's own logs"
    ),
    words.excluded(reason="", until=""): "Excluded; look at the backend's own logs",
    words.wait_or(words.LOOK): (
        "Look at the backend's own logs; it is probed again when the exclusion ends"
    ),
    words.on_probation(successes=1, needed=2): (
        "On probation: 1 of 2 probing requests succeeded"
    ),
    words.would_be_excluded("9 of 12 failed"): "Would be excluded: 9 of 12 failed",
    words.failing_for_some("9 of 12 failed", list("abcdefg"), protected=True): (
        "9 of 12 failed, but only as seen by a, b, c, d, e and 2 more; their own breakers protect"
        " them"
    ),
    words.models_out(["m"]): "No rule fires for the backend; left out: model m",
    words.SUSPENDED.message: (
        "Suspended: spec.suspend is true; set spec.suspend to false to route to it"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("said", "expected"), TEXTS.items())
def test_every_sentence_word_for_word(said: str, expected: str) -> None:
    assert said == expected
    assert "\n" not in said and len(said) < 1024


@pytest.mark.parametrize(
    "pair",
    [
        words.key_rejected(secret="s", key="k", refusals=3, threshold=3),
        words.secret_missing(secret="s", key="k"),
        words.secret_key_missing(secret="s", key="k"),
        words.SUSPENDED,
    ],
)
def test_a_line_can_be_taken_apart_again(pair: Words) -> None:
    assert split(pair.message) == pair


def test_a_line_from_elsewhere_is_all_reason() -> None:
    assert split("something else") == Words("something else", "")
