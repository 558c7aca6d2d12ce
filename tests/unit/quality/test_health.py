"""When probes turn a backend, and what a models answer lists."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from nexus_api.backend import Capability, DiscoveredModel
from nexus_api.meta import ConditionStatus
from nexus_quality import words_of_health
from nexus_quality.health import (
    Health,
    Patient,
    Suspicion,
    after_probe,
    judged,
    parse_models,
    suspicion,
)

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


def after(health: Health, results: str) -> Health:
    """The health after probes: `+` a good one, `-` a bad one; thresholds three and two."""
    for result in results:
        health = after_probe(
            health,
            ok=result == "+",
            reason="Good" if result == "+" else "Bad",
            message=result,
            failure_threshold=3,
            success_threshold=2,
            latency_ms=12,
        )
    return health


@pytest.mark.parametrize(
    ("results", "status"),
    [
        ("", UNKNOWN),
        ("+", TRUE),
        ("-", UNKNOWN),
        ("--", UNKNOWN),
        ("---", FALSE),
        ("-+", TRUE),
        ("+--", TRUE),
        ("+--+--", TRUE),
        ("+---", FALSE),
        ("---+", FALSE),
        ("---+-+", FALSE),
        ("---++", TRUE),
    ],
)
def test_thresholds_decide_when_it_turns(results: str, status: ConditionStatus) -> None:
    assert after(Health(), results).status is status


def test_reason_and_message_are_those_of_the_probe_that_turned_it() -> None:
    assert after(Health(), "+").reason == "Good"
    assert after(Health(), "+--").reason == "Good"
    assert after(Health(), "+---").reason == "Bad"


def test_a_bad_probe_leaves_the_latency_of_the_last_good_one() -> None:
    health = after(Health(), "+")
    worse = after_probe(
        health, ok=False, reason="", message="", failure_threshold=1, success_threshold=1,
        latency_ms=900,
    )  # fmt: skip
    assert (health.latency_ms, worse.latency_ms) == (12, 12)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"data": [{"id": "b"}, {"id": "a"}]}, ["a", "b"]),
        ({"models": [{"name": "tiny:latest"}]}, ["tiny:latest"]),
        ({"data": []}, []),
        ({"data": [{"id": "a"}, {"id": "a"}, {"id": ""}, {}]}, ["a"]),
        ({"data": [{"id": "models/gem"}]}, ["gem"]),
        ({"data": [{"id": "x" * 254}, {"id": "y" * 253}]}, ["y" * 253]),
        ({"object": "list", "data": [{"id": "a", "owned_by": {"x": 1}}], "models": []}, ["a"]),
    ],
)
def test_the_models_of_an_answer(body: dict[str, Any], names: list[str]) -> None:
    assert [model.name for model in parse_models(json.dumps(body).encode())] == names


def test_context_length_and_capabilities_are_taken_where_they_make_sense() -> None:
    body = {
        "data": [
            {"id": "a", "max_model_len": 4096, "capabilities": ["tools", "vision", "magic"]},
            {"id": "b", "context_length": 8192, "capabilities": {"x": 1}},
            {"id": "c", "context_length": "8192", "max_model_len": True},
            {"id": "d", "context_length": 0, "capabilities": []},
        ]
    }
    assert parse_models(json.dumps(body).encode()) == (
        DiscoveredModel(
            name="a", context_length=4096, capabilities=(Capability.TOOLS, Capability.VISION)
        ),
        DiscoveredModel(name="b", context_length=8192),
        DiscoveredModel(name="c"),
        DiscoveredModel(name="d", capabilities=()),
    )


def test_there_are_at_most_512_models() -> None:
    body = json.dumps({"data": [{"id": f"m{number:04}"} for number in range(600)]})
    models = parse_models(body.encode())
    assert (len(models), models[-1].name) == (512, "m0511")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"error":{"message":"no"}}',
        b'{"data":{"id":"a"}}',
        b'{"data":[{"id":5}]}',
        b'{"data":[{"id":"\xff"}]}',
        b'{"data":' + b"[" * 100_000,
    ],
)
def test_what_lists_no_models_is_an_error_in_one_line(body: bytes) -> None:
    with pytest.raises(ValueError, match="no list of models") as caught:
        parse_models(body)
    assert "\n" not in str(caught.value)


def patient(
    since: float | None = None, *, period: float = 30.0, out: bool = False, timeout: float = 5.0
) -> Patient:
    return Patient(failing_since=since, period_seconds=period, timeout_seconds=timeout, out=out)


@pytest.mark.parametrize(
    ("others", "found"),
    [
        ([], None),
        ([patient(1.0)], None),  # two are not three
        ([patient(1.0), patient(20.0)], (3, 3)),
        ([patient(1.0), patient(20.0), patient()], (3, 4)),
        ([patient(1.0), patient(20.0), patient(), patient(), patient()], None),  # half, no more
        ([patient(1.0), patient(), patient()], None),
        ([patient(1.0), patient(60.0), patient(80.0)], None),  # not together
        ([patient(1.0), patient(60.0, period=120.0), patient(None)], (3, 4)),
        ([patient(1.0, out=True), patient(2.0, out=True), patient(3.0, out=True)], None),
        ([patient(1.0), patient(2.0), *[patient(-9.0, out=True)] * 9], (3, 3)),
    ],
)
def test_many_that_begin_to_fail_together_are_suspect(
    others: list[Patient], found: tuple[int, int] | None
) -> None:
    mine = patient(0.0)
    suspect = suspicion(mine, [mine, *others])
    assert (suspect and (suspect.failing, suspect.probed)) == found


def test_one_that_does_not_fail_is_not_suspect() -> None:
    assert suspicion(patient(), [patient(0.0)] * 9) is None


def test_the_begin_of_a_run_of_failures_is_kept_and_forgotten_with_it() -> None:
    health = Health()
    began = []
    for now, ok in enumerate([False, False, True, False]):
        health = after_probe(
            health, ok=ok, reason="", message="", failure_threshold=3, success_threshold=1,
            now=float(now),
        )  # fmt: skip
        began.append(health.failing_since)
    assert began == [0.0, 0.0, None, 3.0]


BAD = Health(status=FALSE, reason="ProbeFailed", message="GET / answers 500", failures=3)
SUSPECT = Suspicion(failing=3, probed=4, seconds=30)


@pytest.mark.parametrize(
    ("suspect", "served", "heard", "expected"),
    [
        (None, False, True, (FALSE, "ProbeFailed", "3 probes in a row failed, 3 suffice (GET /")),
        (None, True, True, (UNKNOWN, "ProbeDisagrees", "Probes fail (GET / answers 500), but req")),
        (None, False, False, (UNKNOWN, "ProbeFailed", "Probes fail (GET / answers 500); before")),
        (SUSPECT, False, True, (UNKNOWN, "ProberSuspect", "Probes fail (GET / answers 500), but")),
        (SUSPECT, True, False, (UNKNOWN, "ProberSuspect", "Probes fail (GET / answers 500), but")),
    ],
)
def test_what_outweighs_failing_probes(
    suspect: Suspicion | None,
    served: bool,
    heard: bool,
    expected: tuple[ConditionStatus, str, str],
) -> None:
    found = judged(
        BAD, suspect=suspect, served=served, heard=heard, failure_threshold=3, period_seconds=30
    )
    assert (found.status, found.reason) == expected[:2]
    assert found.message.startswith(expected[2])


@pytest.mark.parametrize("health", [Health(), Health(status=TRUE)])
def test_what_does_not_fail_stays_as_it_is(health: Health) -> None:
    found = judged(
        health, suspect=None, served=False, heard=True, failure_threshold=3, period_seconds=30
    )
    assert found == health


@pytest.mark.parametrize(
    ("listed", "known"),
    [
        (["vision", "tools"], ["tools", "vision"]),
        (["completion", "tool_use", "multimodal"], ["json", "tools", "vision"]),
        (["embedding"], ["embeddings"]),
        (["telepathy", 7, None], []),
        ("vision", None),
    ],
)
def test_capabilities_by_any_name(listed: object, known: list[str] | None) -> None:
    body = json.dumps({"data": [{"id": "m", "capabilities": listed}]}).encode()
    (model,) = parse_models(body)
    found = model.capabilities
    assert (None if found is None else sorted(str(c) for c in found)) == known


def test_a_sentence_that_was_published_is_not_made_into_another() -> None:
    def said(health: Health) -> str:
        return judged(
            health, suspect=None, served=False, heard=True, failure_threshold=3, period_seconds=30
        ).message

    first = said(BAD)
    remembered = replace(BAD, message=words_of_health.seen_in(first), failures=0)
    assert said(remembered) == said(after(remembered, "--+")) == first
    assert words_of_health.seen_in("GET / answers (500)") == "GET / answers (500)"
