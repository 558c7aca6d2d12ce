"""Time, queues and places in the simulated world."""

from __future__ import annotations

import pytest
from bench.simulate.arrivals import Arrivals, Request, Traffic
from bench.simulate.backends import Fault, SimBackend
from bench.simulate.world import Clock, World

from nexus_quality.outcome import Outcome


def test_events_happen_in_order_and_equals_as_they_were_asked_for(world: World) -> None:
    seen: list[tuple[str, float]] = []
    for name, when in (("late", 2.0), ("first", 1.0), ("second", 1.0)):
        world.at(when, lambda name=name: seen.append((name, world.now)))
    world.run(1.5)
    assert seen == [("first", 1.0), ("second", 1.0)]
    assert world.now == 1.5
    world.run(3.0)
    assert seen[-1] == ("late", 2.0)


def test_nothing_happens_in_the_past(world: World) -> None:
    world.run(5.0)
    seen: list[float] = []
    world.at(1.0, lambda: seen.append(world.now))
    world.run(6.0)
    assert seen == [5.0]


def test_arrivals_are_the_same_for_a_seed_and_differ_between_proxies_and_seeds() -> None:
    def drawn(seed: str, name: str) -> list[Request]:
        world, found = World(seed), []
        Arrivals(world, Traffic(rps=5.0, leaving=0.5), name, found.append)
        world.run(100.0)
        return found

    assert drawn("1", "0") == drawn("1", "0")
    assert drawn("1", "0") != drawn("1", "1")
    assert drawn("1", "0") != drawn("2", "0")
    assert 400 < len(drawn("1", "0")) < 600


def test_a_backend_serves_as_many_as_it_has_places_and_queues_the_rest(world, submit) -> None:
    backend = SimBackend(world, 0, slots=2, queue=10)
    sent = [submit(backend) for _ in range(5)]
    assert (backend.running, len(backend.waiting)) == (2, 3)
    world.run(100.0)
    # Three seconds each, two at a time, first come first served.
    assert [ended for _, _, ended in sent] == [
        [(3.0, Outcome.SUCCESS)],
        [(3.0, Outcome.SUCCESS)],
        [(6.0, Outcome.SUCCESS)],
        [(6.0, Outcome.SUCCESS)],
        [(9.0, Outcome.SUCCESS)],
    ]
    assert [content for _, content, _ in sent] == [[1.0], [1.0], [4.0], [4.0], [7.0]]
    assert (backend.running, len(backend.waiting)) == (0, 0)


def test_a_full_queue_answers_429(world, submit) -> None:
    backend = SimBackend(world, 0, slots=1, queue=1)
    sent = [submit(backend) for _ in range(3)]
    world.run(1.0)
    assert [ended[0][1] for _, _, ended in sent if ended] == [Outcome.THROTTLED]


def test_who_waits_too_long_for_the_first_token_times_out(world, submit) -> None:
    backend = SimBackend(world, 0, slots=1, queue=100)
    sent = [submit(backend) for _ in range(45)]
    world.run(1000.0)
    outcomes = [ended[0][1] for _, _, ended in sent]
    assert outcomes == [Outcome.SUCCESS] * 40 + [Outcome.TIMEOUT] * 5
    assert all(len(ended) == 1 for _, _, ended in sent)
    assert sent[-1][2][0][0] == 120.0


def test_a_client_that_leaves_frees_its_place_and_its_turn(world, submit) -> None:
    backend = SimBackend(world, 0, slots=1, queue=10)
    running, waiting, last = (submit(backend) for _ in range(3))
    world.run(0.5)
    backend.leave(waiting[0])
    backend.leave(running[0])
    world.run(100.0)
    assert running[2] == waiting[2] == [(0.5, Outcome.CLIENT_GONE)]
    assert last[2] == [(3.5, Outcome.SUCCESS)]
    assert backend.running == 0


def test_a_fault_holds_for_its_time_its_share_and_its_limit(world, submit) -> None:
    backend = SimBackend(world, 1, slots=100, queue=0)
    backend.break_by(
        (
            Fault(outcome=Outcome.SERVER_ERROR, end=10.0, period=4.0),
            Fault(outcome=Outcome.CONNECT_ERROR, begin=20.0, limit=1),
        )
    )
    seen = []
    for second in range(24):
        world.run(float(second))
        seen.append(submit(backend))
    world.run(100.0)
    failed = {n: e[0][1] for n, (_, _, e) in enumerate(seen) if e[0][1] is not Outcome.SUCCESS}
    broken = dict.fromkeys((0, 1, 4, 5, 8, 9), Outcome.SERVER_ERROR)
    assert failed == broken | {20: Outcome.CONNECT_ERROR}
    assert backend.running == 0


def test_a_stream_that_breaks_late_had_its_first_token(world, submit) -> None:
    backend = SimBackend(world, 1, slots=1, queue=0)
    backend.break_by((Fault(outcome=Outcome.CUT, late=True, after=0.0),))
    _, content, ended = submit(backend)
    world.run(10.0)
    assert content == [1.0]
    assert ended == [(2.0, Outcome.CUT)]


@pytest.mark.parametrize("skew", [-10.0, -5.0, 0.0, 5.0, 10.0])
def test_a_clock_that_is_off_shows_what_was_waited_for(world: World, skew: float) -> None:
    clock = Clock(world, skew)
    for number in range(2000):
        when = clock.now + 0.1 + number / 7
        world.run(clock.ahead(when))
        assert when <= clock.now < when + 1e-4
        assert clock.of(world.now + 30.0) == pytest.approx(clock.now + 30.0)
