"""The queue: who waits, who goes next, and how every wait ends; time is the test's."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from nexus_api import Queue as QueueSpec
from nexus_proxy.routing.candidate import Backend, Candidate, Traits
from nexus_proxy.routing.choice import Choice
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.explain import explain
from nexus_proxy.routing.queue import BEAT_SECONDS, HIGH_IN_A_ROW, MAX_BYTES, Queue
from nexus_proxy.routing.reason import Rejection
from nexus_proxy.routing.request import Call
from nexus_proxy.routing.rules import BLOCK_CLOUD, Rules
from nexus_proxy.routing.wait import Wait
from nexus_quality.subject import Standing


@dataclass
class Handle:
    action: Callable[[], None] | None

    def cancel(self) -> None:
        self.action = None


@dataclass
class Clock:
    """Time, and what is going to happen."""

    now: float = 100.0
    events: list[tuple[float, int, Handle]] = field(default_factory=list)
    order: Any = field(default_factory=itertools.count)
    rings: int = 0

    def later(self, seconds: float, action: Callable[[], None]) -> Handle:
        handle = Handle(action)
        heapq.heappush(self.events, (self.now + seconds, next(self.order), handle))
        return handle

    def run(self, seconds: float = 0.0) -> None:
        end = self.now + seconds
        while self.events and self.events[0][0] <= end:
            when, _, handle = heapq.heappop(self.events)
            self.now = max(self.now, when)
            if handle.action is not None:
                self.rings += 1
                handle.action()
        self.now = end

    @property
    def pending(self) -> int:
        return sum(handle.action is not None for _, _, handle in self.events)


@dataclass(eq=False)
class Guest:
    """A request as the byte path drives it."""

    desk: Desk
    call: Call
    choice: Choice | None = None
    refused: Rejection | None = None
    waited: float = 0.0
    began: float = 0.0
    ended: bool = False

    def start(self) -> Guest:
        desk = self.desk
        self.began = desk.clock.now
        if desk.queue.depth:
            self.taken(desk.queue.arrive(self, desk.clock.now))
        else:
            self.taken(desk.router.choose(self.call, desk.clock.now))
        return self

    def taken(self, result: Choice | Wait | Rejection) -> None:
        now = self.desk.clock.now
        if isinstance(result, Wait):
            refusal = self.desk.queue.enter(self, result, now)
            if refusal is not None:
                self.turn_away(refusal)
        elif isinstance(result, Rejection):
            self.turn_away(result)
        else:
            self.proceed(result, now)

    def proceed(self, choice: Choice, now: float) -> None:
        assert self.choice is None and self.refused is None
        self.waited = now - self.began
        self.choice = choice
        choice.candidate.backend.in_flight += 1
        self.desk.served.append(self)

    def turn_away(self, rejection: Rejection) -> None:
        assert self.choice is None and self.refused is None
        self.waited = self.desk.clock.now - self.began
        self.refused = rejection

    def end(self) -> None:
        assert self.choice is not None
        backend, self.choice = self.choice.candidate.backend, None
        self.ended = True
        backend.in_flight -= 1
        if self.desk.queue.depth:
            self.desk.queue.freed(backend)

    def throttled(self, seconds: float, *, again: bool = True) -> None:
        """The attempt ended with a 429 and this Retry-After."""
        assert self.choice is not None
        choice = self.choice
        self.end()
        self.call.tried.append((choice, "HTTP 429"))
        self.ended = not again
        now = self.desk.clock.now
        choice.candidate.rest(now, seconds, random=lambda: 0.0)
        if again:
            self.taken(self.desk.router.again(self.call, now, first_retry_free=True))

    @property
    def waiting(self) -> bool:
        return not self.ended and self.choice is None and self.refused is None


@dataclass
class Desk:
    """A router and its queue on a clock of the test's own."""

    world: Any
    rules: Rules
    clock: Clock = field(default_factory=Clock)
    served: list[Guest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.router = self.world.install(self.rules)
        self.queue = Queue(
            self.router,
            clock=lambda: self.clock.now,
            later=self.clock.later,
            counters=self.router.counters.queue,
        )
        self.router.woken = self.queue.stir

    def ask(self, model: str = "m", *, high: bool = False, body: bytes = b"{}") -> Guest:
        call = Call(Endpoint.CHAT, model, body=body, high_priority=high)
        return Guest(self, call).start()

    @property
    def outcomes(self) -> dict[str, int]:
        return self.router.counters.queue.outcomes


@pytest.fixture
def desk(world: Any) -> Callable[..., Desk]:
    """Makes a desk of everything in the world, with these fields of `queue`."""

    def make(**queue: Any) -> Desk:
        return Desk(world, Rules(queue=QueueSpec(**queue)))

    return make


def test_at_max_concurrency_everywhere_a_request_waits_for_the_next_place(
    world: Any, desk: Any
) -> None:
    world.add("a", max_concurrency=1)
    made = desk()
    first, second = made.ask(), made.ask()
    assert first.choice is not None and second.waiting
    made.clock.run(3.0)
    first.end()
    made.clock.run()
    assert second.choice is not None and second.waited == 3.0
    assert made.outcomes == {"served": 1}
    assert made.queue.depth == 0 and made.clock.pending == 0


def test_nothing_is_asked_of_the_queue_while_there_are_places(world: Any, desk: Any) -> None:
    world.add("a", max_concurrency=8)
    made = desk()
    for guest in [made.ask() for _ in range(8)]:
        guest.end()
    made.clock.run(1.0)
    assert (made.outcomes, made.clock.rings) == ({}, 0)


def test_a_place_goes_to_whoever_waited_longest(world: Any, desk: Any) -> None:
    world.add("a", max_concurrency=1)
    made = desk()
    running = made.ask()
    waiting = [made.ask() for _ in range(20)]
    for expected in waiting:
        running.end()
        made.clock.run(0.5)
        running = made.served[-1]
        assert running is expected


def test_a_newcomer_never_takes_the_place_of_one_who_waits(world: Any, desk: Any) -> None:
    world.add("a", max_concurrency=1)
    made = desk()
    first, second = made.ask(), made.ask()
    first.end()
    third = made.ask()  # in the same moment, before anybody could be woken
    assert second.choice is not None and third.waiting


def test_a_newcomer_with_a_free_place_of_its_own_does_not_wait(world: Any, desk: Any) -> None:
    world.add("a", "m", max_concurrency=1)
    world.add("b", "n", max_concurrency=1)
    made = desk()
    made.ask("m")
    assert made.ask("m").waiting
    assert made.ask("n").choice is not None


def test_high_goes_before_normal(world: Any, desk: Any) -> None:
    world.add("a", max_concurrency=1)
    made = desk()
    running = made.ask()
    normal, high = made.ask(), made.ask(high=True)
    running.end()
    made.clock.run()
    assert high.choice is not None and normal.waiting


def test_of_thousands_at_most_so_many_high_ones_pass_a_normal_one_in_a_row(
    world: Any, desk: Any
) -> None:
    """High requests never stop coming; no normal one starves, each class keeps its order."""
    world.add("a", max_concurrency=2)
    made = desk(max_size=10_000, max_wait_seconds=3600)
    chance = random.Random(3)
    running = [made.ask(), made.ask()]
    asked: dict[bool, list[Guest]] = {True: [made.ask(high=True) for _ in range(50)], False: []}
    row = longest = 0
    for _ in range(6000):
        high = chance.random() < 0.9
        asked[high].append(made.ask(high=high))
        contested = any(guest.waiting for guest in asked[False][-200:])
        running.pop(chance.randrange(2)).end()
        made.clock.run(0.01)
        running.append(made.served[-1])
        row = row + 1 if contested and running[-1].call.high_priority else 0
        longest = max(longest, row)
    assert longest == HIGH_IN_A_ROW
    for high, guests in asked.items():
        order = [guest for guest in made.served[2:] if guest.call.high_priority is high]
        assert order == guests[: len(order)]
    assert sum(guest.waiting for guest in asked[False]) < 5
    assert 40 < sum(guest.waiting for guest in asked[True]) < 60


def test_a_normal_one_that_waits_sees_exactly_the_allowed_number_pass(
    world: Any, desk: Any
) -> None:
    world.add("a", max_concurrency=1)
    made = desk()
    running = made.ask()
    normal = made.ask()
    highs = [made.ask(high=True) for _ in range(10)]
    for _ in range(HIGH_IN_A_ROW + 1):
        assert normal.waiting
        running.end()
        made.clock.run()
        running = made.served[-1]
    assert running is normal
    assert [g.waiting for g in highs] == [False] * HIGH_IN_A_ROW + [True] * (10 - HIGH_IN_A_ROW)


def test_places_of_one_backend_do_not_count_against_those_of_another(world: Any, desk: Any) -> None:
    """Five backends in turn: a count kept for all of them would always favour the same one."""
    for number in range(5):
        world.add(f"b{number}", f"m{number}", max_concurrency=1)
    made = desk(max_size=1000)
    running = {n: made.ask(f"m{n}") for n in range(5)}
    normals = [made.ask(f"m{n}") for n in range(5)]
    for n in range(5):
        for _ in range(20):
            made.ask(f"m{n}", high=True)
    for _ in range(HIGH_IN_A_ROW + 1):
        for n in range(5):
            running[n].end()
            made.clock.run()
            running[n] = made.served[-1]
    assert not any(normal.waiting for normal in normals)


def test_a_full_queue_refuses_at_once_and_says_so(world: Any, desk: Any) -> None:
    world.add("a", max_concurrency=1)
    made = desk(max_size=2, max_wait_seconds=17)
    made.ask()
    waiting = [made.ask(), made.ask()]
    refused = made.ask().refused
    assert refused is not None and all(guest.waiting for guest in waiting)
    assert (refused.status, refused.code, refused.retry_after) == (503, "no_available_backend", 17)
    assert refused.message == "No place for model 'm': the queue is full: 2 requests wait"
    assert "At maxConcurrency with 1 requests in flight" in refused.reasons[0].reason
    assert made.outcomes == {"full": 1}


def test_a_wait_ends_at_its_deadline_with_a_503(world: Any, desk: Any) -> None:
    world.add("a", max_concurrency=1)
    made = desk(max_wait_seconds=5)
    made.ask()
    first = made.ask()
    made.clock.run(2.0)
    second = made.ask()
    made.clock.run(2.9)
    assert first.waiting
    made.clock.run(0.2)
    assert first.refused is not None and second.waiting
    assert first.waited == 5.0
    assert (first.refused.status, first.refused.retry_after) == (503, 5)
    assert "it waited 5 s for a place" in first.refused.message
    made.clock.run(2.0)
    assert second.refused is not None
    assert made.outcomes == {"late": 2}
    assert made.queue.depth == 0 and made.clock.pending == 0


def test_all_waits_share_one_timer(world: Any, desk: Any) -> None:
    world.add("a", max_concurrency=1)
    made = desk(max_size=1000)
    running = made.ask()
    for _ in range(500):
        made.ask()
        assert made.clock.pending == 1
    for _ in range(100):
        running.end()
        made.clock.run(0.001)
        running = made.served[-1]
        assert made.clock.pending <= 1


def test_a_client_that_leaves_frees_its_place_at_once(world: Any, desk: Any) -> None:
    world.add("a", max_concurrency=1)
    made = desk(max_size=2)
    running, first, second = made.ask(), made.ask(), made.ask()
    made.queue.leave(first.call)
    third = made.ask()
    assert third.waiting and made.queue.depth == 2
    running.end()
    made.clock.run()
    assert second.choice is not None and first.waiting
    assert made.outcomes == {"client_gone": 1, "served": 1}


def test_clients_that_come_and_go_leave_nothing_behind(world: Any, desk: Any) -> None:
    world.add("a", max_concurrency=1)
    made = desk(max_size=100)
    running = made.ask()
    keeper = made.ask()
    for _ in range(5000):
        made.queue.leave(made.ask(high=True).call)
    (line,) = made.queue._lines.values()
    assert len(line.high) + len(line.normal) < 100 and len(made.queue._deadlines) < 200
    running.end()
    made.clock.run()
    assert keeper.choice is not None and not made.queue._lines and not made.queue._deadlines


def test_bodies_that_wait_are_bounded(world: Any, desk: Any) -> None:
    world.add("a", max_concurrency=1)
    made = desk()
    made.ask()
    body = bytes(MAX_BYTES // 2)
    assert made.ask(body=body).waiting and made.ask(body=body).waiting
    refused = made.ask().refused
    assert refused is not None and f"hold {MAX_BYTES} bytes" in refused.message


def test_while_the_proxy_drains_nobody_new_waits_and_who_waits_may_finish(
    world: Any, desk: Any
) -> None:
    world.add("a", max_concurrency=1)
    made = desk()
    running, waiting = made.ask(), made.ask()
    made.queue.closed = True
    refused = made.ask().refused
    assert refused is not None and "shutting down" in refused.message
    running.end()
    made.clock.run()
    assert waiting.choice is not None
    assert made.outcomes == {"draining": 1, "served": 1}


def test_a_disabled_queue_makes_nobody_wait(world: Any, desk: Any) -> None:
    world.add("a", max_concurrency=1)
    made = desk(enabled=False)
    made.ask()
    refused = made.ask().refused
    assert refused is not None and refused.message == "No backend can serve model 'm' now"


def test_a_short_rest_is_waited_for_and_a_long_one_is_not(world: Any, desk: Any) -> None:
    resting = world.add("a")
    made = desk(max_wait_seconds=10)
    resting.rest(made.clock.now, 10.5, random=lambda: 0.0)
    refused = made.ask().refused
    assert refused is not None and refused.retry_after == 11
    made.clock.run(1.0)
    waiting = made.ask()
    made.clock.run(9.4)
    assert waiting.waiting
    made.clock.run(0.2)
    assert waiting.choice is not None and waiting.waited == 9.5


def test_after_a_rest_those_who_wait_come_one_by_one(world: Any, desk: Any) -> None:
    """A backend that asked for a rest is not met by a herd at its end."""
    resting = world.add("a")
    made = desk()
    resting.rest(made.clock.now, 4.0, random=lambda: 0.0)
    waiting = [made.ask() for _ in range(10)]
    made.clock.run(4.0)
    assert [g.waiting for g in waiting] == [False] + [True] * 9
    made.served[0].throttled(3.0)  # still too much: the others go on waiting
    made.clock.run(2.9)
    assert len(made.served) == 1 and waiting[0].waiting
    made.clock.run(0.1 + 9 * BEAT_SECONDS + 0.001)
    assert len(made.served) == 11
    assert made.served[1:] == waiting  # the one that was sent back has kept its place


def test_the_one_that_was_asked_to_rest_may_come_again_after_it(world: Any, desk: Any) -> None:
    world.add("only")
    made = desk()
    guest = made.ask()
    guest.throttled(2.0)
    assert guest.waiting
    made.clock.run(2.1)
    assert guest.choice is not None and guest.choice.reason == "failover"
    guest.throttled(2.0)
    made.clock.run(2.1)
    guest.throttled(2.0)  # the third attempt of maxRetries 2
    assert guest.refused is not None and "maxRetries" in guest.refused.message


def test_all_waits_of_a_request_together_are_bounded(world: Any, desk: Any) -> None:
    world.add("only")
    made = desk(max_wait_seconds=5)
    guest = made.ask()
    guest.throttled(4.0)
    made.clock.run(4.0)
    assert guest.choice is not None
    guest.throttled(3.0)  # 4 s of 5 are spent
    assert guest.refused is not None


def test_one_that_failed_otherwise_is_not_waited_for(world: Any, desk: Any) -> None:
    world.add("a", max_concurrency=1)
    made = desk()
    guest = made.ask()
    choice = guest.choice
    assert choice is not None
    guest.end()
    guest.call.tried.append((choice, "HTTP 500"))
    made.ask()  # takes the place
    guest.taken(made.router.again(guest.call, made.clock.now, first_retry_free=True))
    assert guest.refused is not None


def test_fallbacks_come_before_the_queue_and_the_queue_before_the_last_resort(
    world: Any, desk: Any, subject: Any
) -> None:
    world.add("a", "m", max_concurrency=1)
    world.add("out", "m", subject=subject(standing=Standing.OUT))
    world.add("b", "n", max_concurrency=1)
    world.rules = Rules(fallbacks={"m": ("n",)})
    made = Desk(world, world.rules)
    assert made.ask().choice.candidate.backend.name == "a"
    assert made.ask().choice.fallback_model == "n"
    waiting = made.ask()
    assert waiting.waiting
    (line,) = made.queue._lines.values()
    assert {backend.name for backend in line.backends} == {"a", "b"}


def test_a_wait_for_a_backend_that_is_well_comes_before_one_on_probation(
    world: Any, desk: Any, subject: Any
) -> None:
    world.add("well", max_concurrency=1)
    world.add("trying", subject=subject(standing=Standing.PROBING), max_concurrency=1)
    made = desk()
    first, second = made.ask(), made.ask()
    assert first.choice.candidate.backend.name == "well" and second.waiting
    first.end()
    made.clock.run()
    assert second.choice.candidate.backend.name == "well"


def test_where_all_are_on_probation_the_queue_waits_for_those(
    world: Any, desk: Any, subject: Any
) -> None:
    world.add("trying", subject=subject(standing=Standing.PROBING), max_concurrency=1)
    made = desk()
    first, second = made.ask(), made.ask()
    assert first.choice.last_resort and second.waiting
    first.end()
    made.clock.run()
    assert second.choice.last_resort


def test_a_verdict_that_takes_away_the_backend_waited_for_ends_the_wait(
    world: Any, desk: Any, subject: Any
) -> None:
    mine = subject()
    world.add("a", max_concurrency=1, subject=mine)
    made = desk()
    made.ask()
    waiting = made.ask()
    mine.standing = Standing.OUT
    made.router.invalidate()
    made.clock.run()
    assert waiting.refused is not None and made.outcomes == {"rejected": 1}


def test_a_backend_that_comes_back_serves_those_who_wait_in_order(
    world: Any, desk: Any, subject: Any
) -> None:
    away = subject(standing=Standing.OUT)
    world.add("full", max_concurrency=1)
    world.add("away", subject=away)
    made = desk()
    made.ask()
    waiting = [made.ask() for _ in range(5)]
    assert all(guest.waiting for guest in waiting)
    away.standing = Standing.ADMITTED
    made.router.invalidate()
    made.clock.run(5 * BEAT_SECONDS)
    assert made.served[1:] == waiting


def test_a_raised_limit_wakes_and_a_model_that_goes_is_a_404(world: Any, desk: Any) -> None:
    backend = world.add("a", max_concurrency=1).backend
    world.add("b", "n", max_concurrency=1)
    made = desk()
    made.ask()
    made.ask("n")
    waiting, lost = [made.ask() for _ in range(3)], made.ask("n")
    backend.max_concurrency = 3
    backend.touch()
    made.router.woken()
    made.clock.run(1.0)
    assert [guest.waiting for guest in waiting] == [False, False, True]
    del world.members["b", "n"]
    world.install()
    made.clock.run(0.1)
    assert lost.refused is not None and lost.refused.code == "model_not_found"


def test_a_new_table_that_switches_the_queue_off_ends_all_waits(world: Any, desk: Any) -> None:
    world.add("a", max_concurrency=1)
    made = desk()
    made.ask()
    waiting = [made.ask() for _ in range(3)]
    world.install(Rules(queue=QueueSpec(enabled=False)))
    made.clock.run(0.1)
    assert all(guest.refused is not None for guest in waiting)
    assert made.queue.depth == 0


def test_a_budget_that_is_spent_meanwhile_ends_the_waits_it_blocks(world: Any, desk: Any) -> None:
    world.add("cloud", "m", max_concurrency=1, traits=Traits(zone="Open"))
    world.add("local", "n", max_concurrency=1)
    made = desk()
    running = {model: made.ask(model) for model in "mn"}
    blocked, waiting = made.ask("m"), made.ask("n")
    world.install(Rules(block=BLOCK_CLOUD))
    made.clock.run(0.1)
    assert [reason.reconciler for reason in blocked.refused.reasons] == ["BudgetReconciler"]
    assert waiting.waiting
    running["n"].end()
    made.clock.run()
    assert waiting.choice is not None


def test_requests_that_need_different_things_do_not_block_each_other(world: Any, desk: Any) -> None:
    world.add("small", "m", max_concurrency=1, traits=Traits(context_length=10))
    world.add("large", "m", max_concurrency=1, traits=Traits(context_length=1000))
    made = desk()
    body = b'{"model":"m","max_tokens":500}'
    big = made.ask(body=body)
    little = made.ask()
    assert big.choice.candidate.backend.name == "large"
    waiting_big, waiting_little = made.ask(body=body), made.ask()
    little.end()
    made.clock.run()
    assert waiting_little.choice is not None and waiting_big.waiting


def test_a_place_freed_while_others_are_let_go_is_not_forgotten(world: Any, desk: Any) -> None:
    """An attempt that fails at once, and a client's next request, in the middle of a release."""
    world.add("a", max_concurrency=1)
    made = desk()

    class Hasty(Guest):
        def proceed(self, choice: Choice, now: float) -> None:
            super().proceed(choice, now)
            self.end()
            self.desk.ask()

    running = made.ask()
    hasty = Hasty(made, Call(Endpoint.CHAT, "m", body=b"{}")).start()
    last = made.ask()
    running.end()
    made.clock.run(0.001)
    assert not hasty.waiting and last.choice is not None
    assert made.queue.depth == 1


def test_explain_shows_the_queue(world: Any, desk: Any) -> None:
    world.add("a", max_concurrency=1)
    made = desk()
    made.ask()
    made.ask()
    call = Call(Endpoint.CHAT, "m", body=b"{}")
    told = explain(made.router, call, made.clock.now)
    assert told["decision"] == "Queue"
    assert told["queue"] == {
        "enabled": True,
        "waiting": 1,
        "max_size": 100,
        "max_wait_seconds": 30,
        "waits_for": ["default/a"],
    }


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_every_request_ends_once_and_no_place_stays_empty(
    world_of: Any, subject: Any, seed: int
) -> None:
    """Random arrivals, ends, 429s, departures and changes of standing; then everything drains."""
    chance = random.Random(seed)
    world = world_of(chance.random)
    subjects = [subject() for _ in range(3)]
    limits = (1, 2, None)
    for n, (mine, limit) in enumerate(zip(subjects, limits, strict=True)):
        world.add(f"b{n}", "m", *(["n"] if n else []), max_concurrency=limit, subject=mine)
    made = Desk(world, Rules(queue=QueueSpec(max_size=30, max_wait_seconds=20)))
    guests: list[Guest] = []
    gone: set[Guest] = set()
    for _ in range(1500):
        match chance.randrange(12):
            case 0 | 1 | 2 | 3:
                guests.append(made.ask(chance.choice("mn"), high=chance.random() < 0.4))
            case 4 | 5 | 6 | 7:
                busy = [g for g in guests if g.choice is not None]
                if busy:
                    guest = chance.choice(busy)
                    guest.end()
            case 8:
                busy = [g for g in guests if g.choice is not None]
                if busy:
                    chance.choice(busy).throttled(chance.choice((0.5, 3.0, 40.0)))
            case 9:
                idle = [g for g in guests if g.waiting and g not in gone]
                if idle:
                    guest = chance.choice(idle)
                    gone.add(guest)
                    made.queue.leave(guest.call)
            case 10:
                chance.choice(subjects).standing = chance.choice((Standing.ADMITTED, Standing.OUT))
                made.router.invalidate()
            case _:
                made.clock.run(chance.random())
        backends: set[Backend] = {c.backend for c in world.members.values()}
        assert all(b.in_flight <= (b.max_concurrency or 1000) for b in backends)
        counters = made.router.counters.queue
        waiting = sum(g.waiting and g not in gone for g in guests)
        assert made.queue.depth == counters.depth == waiting <= 30
    made.clock.run(3.0)
    _nobody_waits_beside_a_free_place(made, guests, gone)
    made.clock.run(60.0)
    assert made.queue.depth == 0 and made.clock.pending == 0
    assert not any(g.waiting for g in guests if g not in gone)
    assert max((g.waited for g in guests if g.call.waiter), default=0.0) < 1500


def _nobody_waits_beside_a_free_place(made: Desk, guests: list[Guest], gone: set[Guest]) -> None:
    now = made.clock.now
    for guest in guests:
        if not guest.waiting or guest in gone:
            continue
        candidates: tuple[Candidate, ...] = made.router.table.candidates[guest.call.model]
        tried = {choice.candidate for choice, _ in guest.call.tried}
        for candidate in candidates:
            backend = candidate.backend
            full = backend.in_flight >= (backend.max_concurrency or 1000)
            able = candidate.subject.standing is Standing.ADMITTED and candidate not in tried
            assert full or candidate.resting_until > now - 1.0 or not able  # let go one by one
