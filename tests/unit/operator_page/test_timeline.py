"""Timelines: what was seen, what a status still tells of before, and no more than there is room."""

from __future__ import annotations

from typing import Any

from nexus_api import LLMBackend, decode_backend
from nexus_api.quantities import format_time, parse_time
from nexus_operator.page.timeline import MESSAGE_CHARACTERS, MOST, Timelines

START = parse_time("2026-11-24T12:00:00Z")


def at(seconds: float) -> str:
    return format_time(START + seconds)


def backend(
    state: str | None = "Active", *, since: float = 0, message: str = "why", **status: Any
) -> LLMBackend:
    said = {
        "type": "Ready",
        "status": "False" if state == "Excluded" else "True",
        "reason": state or "Active",
        "message": message,
        "lastTransitionTime": at(since),
    }
    document = {
        "metadata": {"name": "a", "namespace": "shop", "uid": "u"},
        "spec": {"url": "http://llm.example"},
        "status": {"conditions": [said]} | ({"state": state} if state else {}) | status,
    }
    return decode_backend(document)


def told(timelines: Timelines) -> list[tuple[int, str, str]]:
    return [(int(each.at - START), each.state, each.model) for each in timelines.of("u")]


def test_changes_are_noted_when_they_are_seen_the_latest_first() -> None:
    timelines = Timelines()
    timelines.see(backend(None), START)
    assert timelines.of("u") == [] and timelines.since("u") is None
    timelines.see(backend(since=-5), START)
    timelines.see(backend("Excluded", since=9, exclusion={"rule": "ErrorRate"}), START + 10)
    timelines.see(backend("Excluded", since=9, exclusion={"rule": "ErrorRate"}), START + 20)
    timelines.see(backend("Probation", since=40), START + 40)
    assert told(timelines) == [(40, "Probation", ""), (10, "Excluded", ""), (-5, "Active", "")]
    assert timelines.since("u") == START + 40
    assert timelines.of("u")[1].reason == "ErrorRate"


def test_a_restart_knows_what_the_status_tells() -> None:
    exclusion = {
        "startTime": at(-300),
        "rule": "ErrorRate",
        "reason": "half failed",
        "recoveredTime": at(-100),
    }
    timelines = Timelines()
    timelines.see(backend(since=-200, exclusion=exclusion), START)
    assert told(timelines) == [(-100, "Active", ""), (-300, "Excluded", "")]
    assert timelines.of("u")[1].message == "half failed"
    assert timelines.since("u") == START - 100


def test_a_restart_while_excluded_knows_since_when() -> None:
    timelines = Timelines()
    exclusion = {"startTime": at(-30), "rule": "FleetRow"}
    timelines.see(backend("Excluded", since=-30, exclusion=exclusion), START)
    assert told(timelines) == [(-30, "Excluded", "")]


def test_a_restart_while_suspended_tells_of_out_and_back_and_suspended() -> None:
    timelines = Timelines()
    exclusion = {"startTime": at(-300), "rule": "ErrorRate", "recoveredTime": at(-200)}
    timelines.see(backend("Suspended", since=-50, exclusion=exclusion), START)
    assert told(timelines) == [(-50, "Suspended", ""), (-200, "Active", ""), (-300, "Excluded", "")]


def test_models_have_moments_of_their_own() -> None:
    out = {"name": "m", "state": "Excluded", "exclusion": {"rule": "ErrorRate", "reason": "bad"}}
    timelines = Timelines()
    timelines.see(backend(), START)
    timelines.see(backend(modelQuality=[out]), START + 5)
    timelines.see(backend(modelQuality=[{"name": "m", "state": "Active"}]), START + 9)
    assert told(timelines) == [(9, "Active", "m"), (5, "Excluded", "m"), (0, "Active", "")]
    assert timelines.of("u")[1].message == "bad"
    assert timelines.since("u") == START


def test_a_timeline_is_bounded_and_goes_with_its_backend() -> None:
    timelines = Timelines()
    for number in range(3 * MOST):
        state = "Suspended" if number % 2 else "Active"
        timelines.see(backend(state, message="x" * 5000), START + number)
    assert len(timelines.of("u")) == MOST
    assert max(len(each.message) for each in timelines.of("u")) == MESSAGE_CHARACTERS
    timelines.forget("u")
    assert timelines.of("u") == [] and timelines.since("u") is None
