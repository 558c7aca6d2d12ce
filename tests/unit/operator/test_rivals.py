"""Another operator is known by what it writes, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from nexus_api import (
    BackendState,
    Condition,
    ConditionStatus,
    DiscoveredModel,
    LLMBackend,
    LLMBackendStatus,
)
from nexus_operator.rivals import MOST_SENT, SETTLED_SECONDS, Rivals

Backends = Callable[..., LLMBackend]
OPERATOR = {"metadata": {"managedFields": [{"manager": "nexus-operator", "subresource": "status"}]}}
ACTIVE = LLMBackendStatus(state=BackendState.ACTIVE, verdict_generation=3)
OTHER = LLMBackendStatus(state=BackendState.ACTIVE, verdict_generation=3, quality_policy="p")


class Clock:
    now = SETTLED_SECONDS

    def __call__(self) -> float:
        return self.now


def judged(
    backend: Backends, rivals: Rivals, status: LLMBackendStatus, stored: Any = OPERATOR
) -> bool:
    return rivals.wrote(replace(backend("a"), status=status), stored)


def rivals(clock: Clock | None = None) -> Rivals:
    return Rivals(clock=clock or Clock(), started=lambda: 0.0)


def test_what_was_found_is_no_rivals_doing_but_what_changes_it_is_once(backend: Backends) -> None:
    watch = rivals()
    assert [judged(backend, watch, ACTIVE) for _ in range(2)] == [False, False]
    assert [judged(backend, watch, OTHER) for _ in range(2)] == [True, False]
    assert judged(backend, watch, ACTIVE)


def test_what_was_sent_is_ours_whether_the_answer_came_or_not(backend: Backends) -> None:
    watch = rivals()
    judged(backend, watch, ACTIVE)
    watch.sending("uid-a", OTHER)
    assert not judged(backend, watch, OTHER)
    watch.stored("uid-a", OTHER)
    assert not judged(backend, watch, OTHER)
    assert judged(backend, watch, ACTIVE)


def test_writes_without_an_answer_are_remembered_within_a_bound(backend: Backends) -> None:
    watch = rivals()
    judged(backend, watch, ACTIVE)
    sent = [replace(ACTIVE, quality_policy=f"p{n}") for n in range(MOST_SENT + 1)]
    for status in sent:
        watch.sending("uid-a", status)
    assert not judged(backend, watch, sent[-1])
    assert judged(backend, watch, sent[0])


def test_a_person_or_another_tool_is_no_rival(backend: Backends) -> None:
    watch = rivals()
    judged(backend, watch, ACTIVE)
    person = {"manager": "kubectl-patch", "subresource": "status"}
    entries = [*OPERATOR["metadata"]["managedFields"], person]
    assert not judged(backend, watch, OTHER, {"metadata": {"managedFields": entries}})
    assert not judged(backend, watch, ACTIVE, {"metadata": {}})
    theirs = Condition(
        type="Audited",
        status=ConditionStatus.TRUE,
        reason="Yes",
        message="",
        last_transition_time="2026-01-01T00:00:00Z",
    )
    assert not judged(backend, watch, replace(ACTIVE, conditions=(theirs,)))


def test_the_order_of_a_map_is_no_news(backend: Backends) -> None:
    watch = rivals()
    models = tuple(DiscoveredModel(name=name) for name in "ab")
    judged(backend, watch, replace(ACTIVE, models=models))
    assert not judged(backend, watch, replace(ACTIVE, models=models[::-1]))


def test_the_last_write_of_the_process_before_is_waited_for(backend: Backends) -> None:
    clock = Clock()
    watch = rivals(clock)
    clock.now = SETTLED_SECONDS - 0.1
    assert not judged(backend, watch, ACTIVE)
    assert not judged(backend, watch, OTHER)
    clock.now = SETTLED_SECONDS
    assert judged(backend, watch, ACTIVE)


def test_a_deleted_backend_is_forgotten(backend: Backends) -> None:
    watch = rivals()
    judged(backend, watch, ACTIVE)
    watch.forget("uid-a")
    assert not judged(backend, watch, OTHER)
