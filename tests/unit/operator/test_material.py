"""Which changes of a status are worth a write, and when."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from nexus_api import (
    BackendState,
    Condition,
    ConditionStatus,
    DiscoveredModel,
    Exclusion,
    LLMBackendStatus,
    ModelQuality,
    Quality,
    SubjectState,
)
from nexus_operator.material import Worth, worth

INTERVAL = 30.0
READY = Condition(
    type="Ready",
    status=ConditionStatus.TRUE,
    reason="Active",
    message="",
    last_transition_time="2026-11-24T00:00:00Z",
)
QUALITY = Quality(
    error_rate_1h="5%",
    success_rate_24h="95%",
    requests_1h=1000,
    errors_1h=50,
    requests_24h=9000,
    errors_24h=450,
    avg_ttft_milliseconds=200,
    reporters=3,
    last_failure_time="2026-11-24T00:00:00Z",
    observed_time="2026-11-24T00:00:00Z",
)
MODEL = ModelQuality(name="m", state=SubjectState.ACTIVE, requests_1h=1000)
KNOWN = LLMBackendStatus(
    observed_generation=1,
    conditions=(READY,),
    state=BackendState.ACTIVE,
    verdict_generation=4,
    quality=QUALITY,
    model_quality=(MODEL,),
    exclusion=Exclusion(count=2),
    quality_policy="default",
)


def after(status: LLMBackendStatus, seconds: float) -> Worth:
    return worth(KNOWN, status, since_write=seconds, interval=INTERVAL)


@pytest.mark.parametrize(
    "change",
    [
        {"state": BackendState.EXCLUDED},
        {"verdict_generation": 5},
        {"observed_generation": 2},
        {"quality_policy": "other"},
        {"conditions": (replace(READY, status=ConditionStatus.FALSE),)},
        {"conditions": (replace(READY, reason="NoTraffic"),)},
        {"exclusion": Exclusion(count=2, probation_share="50%")},
        {"exclusion": Exclusion(count=2, until_time="2026-11-24T00:01:00Z")},
        {"models": (DiscoveredModel(name="new"),)},
        {"model_quality": (replace(MODEL, state=SubjectState.EXCLUDED),)},
    ],
)
def test_a_change_of_state_or_condition_is_written_at_once(change: dict[str, Any]) -> None:
    assert after(replace(KNOWN, **change), 0.0) is Worth.AT_ONCE


@pytest.mark.parametrize(
    "change",
    [
        {"error_rate_1h": "5.5%"},
        {"success_rate_24h": "94.5%"},
        {"avg_ttft_milliseconds": 220},
        {"requests_1h": 1100},
        {"errors_1h": 45},
        {"requests_1h": None},
        {"p95_ttft_milliseconds": 900},
        {"reporters": 4},
    ],
)
def test_a_figure_that_moved_is_written_once_the_interval_is_over(change: dict[str, Any]) -> None:
    status = replace(KNOWN, quality=replace(QUALITY, **change))
    assert after(status, INTERVAL - 1) is Worth.NOTHING
    assert after(status, INTERVAL) is Worth.ROUTINE


@pytest.mark.parametrize(
    "change",
    [
        {"error_rate_1h": "5.49%"},
        {"avg_ttft_milliseconds": 219},
        {"requests_1h": 1099},
        {"last_failure_time": "2026-11-24T00:00:09Z"},
    ],
)
def test_a_small_movement_waits_for_ten_intervals(change: dict[str, Any]) -> None:
    status = replace(KNOWN, quality=replace(QUALITY, **change))
    assert after(status, 10 * INTERVAL - 1) is Worth.NOTHING
    assert after(status, 10 * INTERVAL) is Worth.ROUTINE


def test_figures_of_models_alone_wait_for_ten_intervals() -> None:
    status = replace(KNOWN, model_quality=(replace(MODEL, requests_1h=5000),))
    assert after(status, 10 * INTERVAL - 1) is Worth.NOTHING
    assert after(status, 10 * INTERVAL) is Worth.ROUTINE


def test_the_first_figures_and_their_end_are_worth_a_routine_write() -> None:
    assert after(replace(KNOWN, quality=None), INTERVAL) is Worth.ROUTINE
    bare = replace(KNOWN, quality=None)
    assert worth(bare, KNOWN, since_write=INTERVAL, interval=INTERVAL) is Worth.ROUTINE


def test_a_clock_alone_is_never_written() -> None:
    status = replace(
        KNOWN,
        quality=replace(QUALITY, observed_time="2026-11-25T00:00:00Z"),
        model_quality=(replace(MODEL, observed_time="2026-11-25T00:00:00Z"),),
    )
    assert after(status, 1e6) is Worth.NOTHING


def test_a_fading_count_causes_no_write_of_its_own_but_is_not_lost_for_ever() -> None:
    status = replace(KNOWN, exclusion=Exclusion(count=1))
    assert after(status, 10 * INTERVAL - 1) is Worth.NOTHING
    assert after(status, 10 * INTERVAL) is Worth.ROUTINE
    assert after(replace(KNOWN, exclusion=None), 0.0) is Worth.NOTHING


def test_a_condition_that_is_not_there_yet_is_written_at_once() -> None:
    bare = replace(KNOWN, conditions=())
    assert worth(bare, KNOWN, since_write=0.0, interval=INTERVAL) is Worth.AT_ONCE


def test_conditions_of_other_writers_are_theirs() -> None:
    foreign = replace(READY, type="Backup", reason="Done")
    with_theirs = replace(KNOWN, conditions=(READY, foreign))
    assert worth(with_theirs, KNOWN, since_write=0.0, interval=INTERVAL) is Worth.NOTHING


def test_a_zero_that_becomes_one_is_a_movement() -> None:
    before = replace(KNOWN, quality=replace(QUALITY, errors_1h=0))
    now = replace(KNOWN, quality=replace(QUALITY, errors_1h=1))
    assert worth(before, now, since_write=INTERVAL, interval=INTERVAL) is Worth.ROUTINE
