"""When probes turn a backend, and what a models answer lists."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nexus_api.backend import Capability, DiscoveredModel
from nexus_api.meta import ConditionStatus
from nexus_quality.health import Health, after_probe, parse_models

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
