"""Another operator is known by what it writes, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nexus_api import (
    BackendState,
    Condition,
    ConditionStatus,
    DiscoveredModel,
    LLMBackend,
    LLMBackendSpec,
    LLMBackendStatus,
    ObjectMeta,
    Quality,
)
from nexus_operator.rivals import (
    ESTABLISHED_SECONDS,
    FORGOTTEN_SECONDS,
    MOST_SENT,
    PATIENCE_SECONDS,
    SETTLED_SECONDS,
    Rivals,
)

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


def outlasts(*, age: float, ours: int, theirs: int) -> bool:
    clock = Clock()
    watch = rivals(clock)
    clock.now = age
    return watch.outlast(ours=ours, theirs=theirs)


OLD, YOUNG = ESTABLISHED_SECONDS, ESTABLISHED_SECONDS - 1


def test_who_hears_more_stays_however_young() -> None:
    for age in (YOUNG, OLD):
        assert outlasts(age=age, ours=3, theirs=2)
        assert not outlasts(age=age, ours=2, theirs=3)


def test_of_two_that_hear_as_many_the_later_goes() -> None:
    for reporters in (0, 2):
        assert outlasts(age=OLD, ours=reporters, theirs=reporters)
        assert not outlasts(age=YOUNG, ours=reporters, theirs=reporters)


def test_who_was_here_first_waits_for_the_other_but_not_for_ever() -> None:
    clock = Clock()
    watch = rivals(clock)
    clock.now = OLD
    seen = []
    for _ in range(7):
        seen.append(watch.outlast(ours=1, theirs=1))
        clock.now += PATIENCE_SECONDS / 5
    assert seen == [True] * 5 + [False] * 2
    clock.now += FORGOTTEN_SECONDS
    assert watch.outlast(ours=1, theirs=1)


class Fighter:
    """An operator as its rival meets it: it wants a status of its own, and overwrites others'."""

    def __init__(self, clock: Clock, name: str, reporters: int, build: Backends) -> None:
        self.clock, self.name, self.reporters, self.build = clock, name, reporters, build
        self.rivals: Rivals | None = None
        self.here, self.seen = True, ACTIVE

    def start(self) -> None:
        started = self.clock.now
        self.rivals = Rivals(clock=self.clock, started=lambda: started)

    def see(self, stored: LLMBackendStatus) -> None:
        """The watch brings the latest version, or one that it brought before."""
        if self.rivals is None or not self.here:
            return
        self.seen = stored
        if judged(self.build, self.rivals, stored):
            theirs = stored.quality.reporters or 0 if stored.quality else 0
            self.here = self.rivals.outlast(ours=self.reporters, theirs=theirs)

    def write(self, stored: LLMBackendStatus, number: int) -> LLMBackendStatus:
        """What is stored after it has tried to write: a conflict if it has not seen that."""
        if self.rivals is None or not self.here or stored != self.seen:
            return stored
        mine = replace(
            stored,
            quality_policy=f"{self.name}{number}",
            quality=Quality(reporters=self.reporters, requests_24h=number, errors_24h=0),
        )
        self.rivals.sending("uid-a", mine)
        self.rivals.stored("uid-a", mine)
        self.seen = mine
        return mine


STEPS = st.lists(
    st.tuples(st.sampled_from(["see", "write"]), st.booleans(), st.floats(0.0, 8.0)), max_size=200
)


@given(
    steps=STEPS,
    lead=st.sampled_from([0.0, 10.0, 200.0]),
    peace=st.sampled_from([0.0, 0.0, 200.0]),
    hears=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_of_two_that_fight_over_a_status_exactly_one_is_left(
    steps: list[tuple[str, bool, float]], lead: float, peace: float, hears: tuple[int, int]
) -> None:
    clock = Clock()
    first, second = (
        Fighter(clock, name, number, _build) for name, number in zip("ab", hears, strict=True)
    )
    first.start()
    stored, number = ACTIVE, 0

    def step(fighter: Fighter, what: str) -> None:
        nonlocal stored, number
        number += 1
        if what == "see":
            fighter.see(stored)
        else:
            stored = fighter.write(stored, number)

    for what in ("see", "write"):
        step(first, what)
    clock.now += lead
    second.start()
    step(second, "see")
    clock.now += peace
    began = clock.now
    for what, which, pause in steps:
        clock.now += pause
        step(first if which else second, what)
        assert first.here or second.here
    both_old = clock.now - began + peace >= ESTABLISHED_SECONDS
    for _ in range(60):
        for fighter in (second, first):
            step(fighter, "see")
            step(fighter, "write")
        clock.now += 5.0
    assert [first.here, second.here].count(True) == 1
    if hears[0] != hears[1]:
        assert first.here is (hears[0] > hears[1])
    elif lead >= ESTABLISHED_SECONDS and not both_old:
        assert first.here


def _build(name: str) -> LLMBackend:
    return LLMBackend(
        metadata=ObjectMeta(name=name, namespace="shop", uid=f"uid-{name}"),
        spec=LLMBackendSpec(url="http://llm.example:8000"),
    )
