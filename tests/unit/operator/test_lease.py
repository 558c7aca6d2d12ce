"""The decisions about the Lease, on tables; and a candidate's course, on a clock that is set."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from nexus_api import LLMBackend
from nexus_operator import leader as module
from nexus_operator.candidate import slot
from nexus_operator.credentials import Credentials
from nexus_operator.kube import Kube
from nexus_operator.leader import Leader
from nexus_operator.lease import (
    LEASE_SECONDS,
    RENEW_DEADLINE_SECONDS,
    RENEW_SECONDS,
    RETRY_SECONDS,
    Move,
    Record,
    Sighting,
    decide,
    held,
    next_look,
    read,
    released,
    sight,
)
from nexus_operator.metrics import Metrics
from nexus_operator.notes import Note
from nexus_operator.plan import Key, Plan
from nexus_operator.writer import Writer

Stored = dict[str, Any]
ME, OTHER = "me", "other"
STAMP, LATER = "2026-11-24T00:00:00.000000Z", "2026-11-24T00:00:05.000000Z"


def record(holder: str, *, renewed: str = STAMP, transitions: int = 3) -> Record:
    return Record(holder, renewed, transitions, 15.0)


@pytest.mark.parametrize(
    ("holder", "tenure", "own_slot", "age", "move"),
    [
        pytest.param("", None, True, 0.0, Move.TAKE, id="nobody's is taken at once"),
        pytest.param(ME, None, True, 0.0, Move.TAKE, id="a restarted process takes its own"),
        pytest.param(ME, None, False, 0.0, Move.WAIT, id="a namesake's is not"),
        pytest.param(ME, None, False, 15.0, Move.TAKE, id="until it has run out"),
        pytest.param(OTHER, None, True, 0.0, Move.WAIT, id="another's is respected"),
        pytest.param(OTHER, None, True, 14.9, Move.WAIT, id="to its last moment"),
        pytest.param(OTHER, None, True, 15.0, Move.TAKE, id="and taken when it has run out"),
        pytest.param(ME, 3, True, 0.0, Move.RENEW, id="a leader renews"),
        pytest.param(ME, 3, True, 99.0, Move.RENEW, id="however late, if it is still its own"),
        pytest.param(ME, 2, True, 0.0, Move.LOST, id="a namesake took it meanwhile"),
        pytest.param(OTHER, 3, True, 0.0, Move.LOST, id="another holds it"),
        pytest.param(OTHER, 3, True, 99.0, Move.LOST, id="even if it ran out since"),
        pytest.param("", 3, True, 0.0, Move.LOST, id="somebody deleted it"),
    ],
)
def test_a_candidate_moves_by_this_table(
    holder: str, tenure: int | None, own_slot: bool, age: float, move: Move
) -> None:
    seen = Sighting(record(holder), since=100.0)
    assert decide(seen, me=ME, tenure=tenure, own_slot=own_slot, now=100.0 + age) is move


@pytest.mark.parametrize(
    ("after", "since"),
    [
        (record(OTHER), 1.0),
        (record(OTHER, renewed=LATER), 9.0),
        (record(OTHER, transitions=4), 9.0),
        (record(ME), 9.0),
        (record(""), 9.0),
    ],
)
def test_a_lease_ages_only_while_it_does_not_change(after: Record, since: float) -> None:
    before = sight(None, record(OTHER), 1.0)
    assert sight(before, after, 9.0) == Sighting(after, since)


def test_times_in_the_lease_are_not_compared_with_any_clock() -> None:
    for renewed in ("1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "nonsense"):
        seen = sight(None, record(OTHER, renewed=renewed), 5.0)
        assert decide(seen, me=ME, tenure=None, own_slot=True, now=19.9) is Move.WAIT
        assert decide(seen, me=ME, tenure=None, own_slot=True, now=20.0) is Move.TAKE


@pytest.mark.parametrize(
    ("leading", "healthy", "now", "pause"),
    [
        (True, True, 0.0, RENEW_SECONDS),
        (True, False, 0.0, RETRY_SECONDS),
        (False, True, 100.0, RETRY_SECONDS),
        (False, True, 114.5, 0.5),
        (False, True, 114.99, 0.05),
        (False, False, 120.0, RETRY_SECONDS),
    ],
)
def test_the_next_look_is_no_later_than_the_end_of_the_lease(
    leading: bool, healthy: bool, now: float, pause: float
) -> None:
    seen = Sighting(record(OTHER), since=100.0)
    assert next_look(seen, leading=leading, healthy=healthy, now=now) == pytest.approx(pause)


def test_what_is_written_is_what_is_read() -> None:
    taken = held({}, me=ME, transitions=1, stamp=STAMP)
    assert read({"spec": taken}) == Record(ME, STAMP, 1, float(LEASE_SECONDS))
    renewed = held(taken, me=ME, transitions=1, stamp=LATER)
    assert (renewed["acquireTime"], renewed["renewTime"]) == (STAMP, LATER)
    assert held(renewed, me=OTHER, transitions=2, stamp=LATER)["acquireTime"] == LATER
    free = read({"spec": released(renewed, stamp=LATER)})
    assert (free.holder, free.transitions) == ("", 1)
    assert read({}).holder == ""


def test_a_leader_is_silent_before_anybody_can_take_over() -> None:
    assert RENEW_DEADLINE_SECONDS + module.ATTEMPT_SECONDS < LEASE_SECONDS


def test_a_candidate_is_its_pod_or_the_address_only_it_can_listen_on() -> None:
    pod = slot(in_cluster=True, host="0.0.0.0", port=8080)
    assert slot(in_cluster=False, host="127.0.0.1", port=81) == f"{pod}_127.0.0.1:81"


class World:
    """A Lease behind HTTP, and a clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now, self.version = 1000.0, 0
        self.lease: Stored | None = None
        self.away = False
        self.log: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("refused", request=request)
        assert request.url.path.endswith("/namespaces/nexus-system/leases/nexus-operator")
        self.log.append(request.method)
        if request.method == "GET" and self.lease is None:
            return httpx.Response(404, json={"message": "none"})
        if request.method != "GET":
            body = httpx.Response(200, content=request.content).json()
            asked = body["metadata"].get("resourceVersion")
            if self.lease and asked not in (None, self.lease["metadata"]["resourceVersion"]):
                return httpx.Response(409, json={"message": "changed"})
            self.put(body.get("spec") or {})
        return httpx.Response(200, json=copy.deepcopy(self.lease))

    def put(self, spec: Stored) -> None:
        self.version += 1
        metadata = {"name": "nexus-operator", "resourceVersion": str(self.version)}
        self.lease = {"metadata": metadata, "spec": spec}

    def candidate(self, name: str, *, own_slot: bool = True) -> Candidate:
        return Candidate(self, name, own_slot)


class Candidate:
    """A `Leader` whose looks are made one by one."""

    def __init__(self, world: World, name: str, own_slot: bool) -> None:
        self.deposed = 0
        self.away: list[float] = []
        credentials = Credentials(server="http://api", origin="test", namespace="shop")
        self.leader = Leader(
            kube=Kube(credentials, transport=httpx.MockTransport(world.answer)),
            identity=lambda: name,
            deposed=self._count,
            resumed=self.away.append,
            own_slot=own_slot,
            monotonic=lambda: world.now,
        )
        self.leader._me = name

    def _count(self) -> None:
        self.deposed += 1

    async def look(self) -> bool:
        await self.leader._attempt()
        self.leader._fence()
        return self.leader.leading


@pytest.fixture
def world() -> World:
    return World()


async def test_the_first_of_two_leads_and_the_other_says_who(world: World) -> None:
    a, b = world.candidate("a"), world.candidate("b")
    assert (await a.look(), await b.look()) == (True, False)
    assert a.leader.problem is None and b.leader.problem == "standing by: a leads"
    assert world.lease is not None and world.lease["spec"]["leaseTransitions"] == 1


async def test_a_killed_leader_is_followed_when_its_lease_ran_out(world: World) -> None:
    a, b = world.candidate("a"), world.candidate("b")
    await a.look()
    await b.look()
    world.now += LEASE_SECONDS - 0.1
    assert not await b.look()
    world.now += 0.1
    assert await b.look()
    assert not await a.look()
    assert a.deposed == 1


async def test_a_released_lease_is_taken_at_once(world: World) -> None:
    a, b = world.candidate("a"), world.candidate("b")
    await a.look()
    await b.look()
    await a.leader.release()
    assert not a.leader.leading
    assert await b.look()


async def test_a_release_leaves_anothers_lease_alone(world: World) -> None:
    a, b = world.candidate("a"), world.candidate("b")
    await a.look()
    await b.look()
    world.now += LEASE_SECONDS
    await b.look()
    before = copy.deepcopy(world.lease)
    await a.leader.release()
    assert world.lease == before


async def test_a_restart_in_the_same_slot_takes_over_and_unseats_a_namesake(world: World) -> None:
    old, new = world.candidate("a"), world.candidate("a")
    assert await old.look() and await new.look()
    assert not await old.look()
    assert old.deposed == 1
    assert not await world.candidate("a", own_slot=False).look()


async def test_without_the_api_server_it_stops_writing_in_time_and_goes_on_afterwards(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    a = world.candidate("a")
    await a.look()
    world.away = True
    world.now += RENEW_DEADLINE_SECONDS - 0.5
    assert await a.look() and a.leader.time_left == pytest.approx(0.5)
    world.now += 0.5
    assert not await a.look() and not await a.look()
    assert "nothing is written" in (a.leader.problem or "")
    world.away = False
    world.now += 600
    assert await a.look() and a.deposed == 0
    assert world.lease is not None and world.lease["spec"]["leaseTransitions"] == 1
    assert [r.levelname for r in caplog.records].count("WARNING") == 1


async def test_it_tells_for_how_long_it_could_not_write_and_only_then(world: World) -> None:
    a = world.candidate("a")
    await a.look()
    world.now += RENEW_DEADLINE_SECONDS - 0.5
    await a.look()
    assert a.away == []
    world.away = True
    world.now += RENEW_DEADLINE_SECONDS + 600.0
    assert not await a.look()
    world.away = False
    assert await a.look()
    assert a.away == [pytest.approx(600.0)]
    await a.look()
    assert len(a.away) == 1


async def test_a_renewal_counts_from_before_it_was_sent(world: World) -> None:
    answer = world.answer

    def slow(request: httpx.Request) -> httpx.Response:
        world.now += 1.5 if request.method == "PUT" else 0.0
        return answer(request)

    world.answer = slow  # type: ignore[method-assign]
    a = world.candidate("a")
    await a.look()
    assert a.leader.time_left == pytest.approx(RENEW_DEADLINE_SECONDS - 1.5)


async def test_of_two_that_take_at_the_same_moment_one_leads(world: World) -> None:
    a, b = world.candidate("a"), world.candidate("b")
    await asyncio.gather(a.look(), b.look())
    assert [a.leader.leading, b.leader.leading].count(True) == 1


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (403, "not allowed to get, create and update leases.coordination.k8s.io"),
        (404, "kubectl apply -k manifests/rbac/operator"),
        (401, "renew the token"),
        (500, "does not answer"),
    ],
)
async def test_what_keeps_it_from_the_lease_is_said_with_what_to_do(
    world: World, status: int, line: str
) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json={"message": "no"})

    world.answer = refuse  # type: ignore[method-assign]
    a = world.candidate("a")
    assert not await a.look()
    assert line in (a.leader.problem or "")


async def test_the_loop_ends_once_another_leads(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "next_look", lambda *_, **__: 0.01)
    a = world.candidate("a")
    loop = asyncio.create_task(a.leader.run())
    await asyncio.wait_for(a.leader.elected(), 5)
    world.put(held({}, me="b", transitions=9, stamp=LATER))
    await asyncio.wait_for(loop, 10)
    assert a.deposed == 1 and a.leader.time_left == 0


async def eventually(holds: Callable[[], object]) -> None:
    for _ in range(5000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen within 5 s")


class OneStatus:
    """A planner that wants one status written, once."""

    def __init__(self, backend: LLMBackend) -> None:
        self.wanted: Plan | None = Plan(
            metadata=backend.metadata, status=backend.status, accepted=self._accepted
        )

    def _accepted(self, stored: Any) -> list[Note]:
        self.wanted = None
        return []

    def plan(self, key: Key) -> Plan | None:
        return self.wanted

    def reread(self, key: Key, stored: Any) -> None:
        raise AssertionError("there was no conflict")


async def test_nothing_is_sent_without_time_left_and_no_answer_awaited_beyond_it(
    backend: Callable[..., LLMBackend],
) -> None:
    left, sent, hangs = 0.0, 0, True

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal sent
        sent += 1
        if hangs:
            await asyncio.Event().wait()
        return httpx.Response(200, json={})

    credentials = Credentials(server="http://api", origin="test", namespace="shop")
    planner, metrics = OneStatus(backend()), Metrics(lambda: ())
    writer = Writer(
        kube=Kube(credentials, transport=httpx.MockTransport(answer)),
        planner=planner,
        metrics=metrics,
        clock=lambda: 1e9,
        random=lambda: 0.0,
        time_left=lambda: left,
    )
    run = asyncio.create_task(writer.run())
    writer.mark(Key("llmbackends", "uid-a"))
    await eventually(lambda: writer._later)
    assert sent == 0 and planner.wanted is not None
    left = 0.05
    await eventually(lambda: sent and writer._later)
    assert planner.wanted is not None
    left, hangs = 10.0, False
    await eventually(lambda: planner.wanted is None)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
