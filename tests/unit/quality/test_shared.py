"""A status as one proxy reads it: on its own clock, whatever the wall clocks say."""

from __future__ import annotations

from typing import Any

import pytest

from nexus_api.backend import BackendState, Exclusion, LLMBackendStatus, SubjectState
from nexus_quality.shared import SharedVerdict, shared_from_status

SERVER = 1_767_225_600.0  # 2026-01-01T00:00:00Z
OWN = 777.0


def read(state: BackendState | None, **exclusion: Any) -> SharedVerdict:
    status = LLMBackendStatus(
        state=state,
        verdict_generation=7,
        exclusion=Exclusion(**exclusion) if exclusion else None,
    )
    return shared_from_status(status, server_time=SERVER, now=OWN, max_exclusion_seconds=300)


@pytest.mark.parametrize("status", [None, LLMBackendStatus()])
def test_without_a_state_a_backend_is_active(status: LLMBackendStatus | None) -> None:
    shared = shared_from_status(status, server_time=0.0, now=0.0, max_exclusion_seconds=1)
    assert shared == SharedVerdict(state=SubjectState.ACTIVE, generation=0)


@pytest.mark.parametrize(
    ("until", "own"),
    [
        ("2026-01-01T00:00:30Z", OWN + 30),
        ("2026-01-01T00:00:00Z", OWN),
        ("2025-12-31T23:59:00Z", OWN - 60),
        ("2026-01-02T00:00:00Z", OWN + 330),  # at most 1.1 times the maximum
    ],
)
def test_the_time_left_is_measured_by_the_servers_clock_and_clamped(until: str, own: float) -> None:
    shared = read(BackendState.EXCLUDED, start_time="2025-12-31T23:00:00Z", until_time=until)
    assert shared.until == pytest.approx(own)
    assert (shared.state, shared.generation) == (SubjectState.EXCLUDED, 7)


@pytest.mark.parametrize(
    ("recovered", "own"),
    [("2025-12-31T23:59:50Z", OWN - 10), ("2026-01-01T00:00:05Z", OWN)],
)
def test_a_recovery_lies_in_the_past(recovered: str, own: float) -> None:
    shared = read(BackendState.ACTIVE, recovered_time=recovered)
    assert shared.recovered == pytest.approx(own)


@pytest.mark.parametrize("overlay", [BackendState.SUSPENDED, BackendState.UNHEALTHY])
@pytest.mark.parametrize(
    ("exclusion", "underneath"),
    [
        ({}, SubjectState.ACTIVE),
        ({"count": 1}, SubjectState.ACTIVE),
        ({"start_time": "2026-01-01T00:00:00Z"}, SubjectState.EXCLUDED),
        (
            {"start_time": "2026-01-01T00:00:00Z", "probation_share": "5%"},
            SubjectState.PROBATION,
        ),
        (
            {
                "start_time": "2026-01-01T00:00:00Z",
                "recovered_time": "2026-01-01T00:00:00Z",
            },
            SubjectState.ACTIVE,
        ),
    ],
)
def test_the_machine_goes_on_under_an_overlay(
    overlay: BackendState, exclusion: dict[str, str], underneath: SubjectState
) -> None:
    shared = read(overlay, **exclusion)
    assert (shared.state, shared.overlay) == (underneath, overlay)


@pytest.mark.parametrize(("text", "share"), [("100%", 10_000), ("0.5%", 50), (None, None)])
def test_the_share_is_in_basis_points(text: str | None, share: int | None) -> None:
    shared = read(BackendState.PROBATION, probation_share=text, reason="r", suggested_action="s")
    assert shared.share_basis_points == share
    assert (shared.reason, shared.suggested_action) == ("r", "s")
    assert shared.overlay is None
