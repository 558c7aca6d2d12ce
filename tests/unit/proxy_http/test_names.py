"""Names of backends: looked up beside the requests, every address tried, a dead resolver borne."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from nexus_devtools.rawhttp.messages import answer, post
from nexus_devtools.rawhttp.peers import Upstream, says, until
from nexus_devtools.rawhttp.stage import Stage
from nexus_proxy.http import resolver as resolving
from nexus_proxy.http.pool import Pool
from nexus_proxy.http.resolver import Name, Resolver, Unresolved, look_up
from nexus_proxy.routing.candidate import Timeouts
from nexus_quality.outcome import Outcome

HOST = "llm.example.com"


class Zone:
    """A resolver of the test's own: answers by name, or holds its answers back."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[str, ...] | Exception] = {}
        self.asked: list[str] = []
        self.held: list[tuple[str, asyncio.Future[tuple[str, ...]]]] = []
        self.silent = False

    def __call__(self, host: str) -> asyncio.Future[tuple[str, ...]]:
        self.asked.append(host)
        future: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        self.held.append((host, future))
        if not self.silent:
            self.release()
        return future

    def release(self) -> None:
        """Answer what is held back."""
        for host, future in self.held:
            found = self.answers.get(host, socket.gaierror(-2, "Name or service not known"))
            if not future.done():
                if isinstance(found, Exception):
                    future.set_exception(found)
                else:
                    future.set_result(found)
        self.held.clear()


@pytest.fixture
def zone(stage: Stage) -> Zone:
    """The zone that the stage's gateway asks."""
    zone = Zone()
    stage.gateway.resolver = Resolver(
        clock=stage.clock,
        lookup=zone,
        random=lambda: 0.5,
        told=stage.counters.looked_up,
    )
    return zone


AddNamed = Callable[..., Awaitable[Upstream]]


@pytest.fixture
async def named(stage: Stage) -> AsyncIterator[AddNamed]:
    """Adds a backend by name, listening on 127.0.0.1 and on more addresses of the same port."""
    others: list[Upstream] = []

    async def add(data: bytes, *more: str, host: str = HOST, seconds: float = 5.0) -> Upstream:
        upstream = await stage.backend(says(data), timeouts=Timeouts(connect=seconds))
        backend = stage.backend_of(len(stage.upstreams) - 1)
        backend.origin = replace(backend.origin, host=host)
        for address in more:
            other = Upstream(says(answer(address.encode())))
            await other.start(host=address, port=upstream.port)
            others.append(other)
        return upstream

    yield add
    for other in others:
        await other.stop()


@contextmanager
def deaf(address: str, port: int) -> Iterator[None]:
    """An address that takes no connection and refuses none: its backlog is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((address, port))
        yield


def new_connections(stage: Stage) -> None:
    """What idles now is closed: the next request needs a new connection."""
    for pool in tuple(stage.gateway.pools):
        pool.expire(stage.clock() + 60)


async def test_a_name_is_asked_for_once_and_then_known(
    stage: Stage, zone: Zone, named: AddNamed
) -> None:
    zone.answers[HOST] = ("127.0.0.1",)
    await named(answer(b"{}"))
    for _ in range(3):
        assert (await stage.ask()).body == b"{}"
        new_connections(stage)
    assert zone.asked == [HOST]
    assert stage.counters.upstream_connects == 3
    assert stage.counters.lookups == {"ok": 1}


async def test_an_address_is_never_asked_for(stage: Stage, zone: Zone) -> None:
    await stage.backend(says(answer(b"{}")))
    assert (await stage.ask()).status == 200
    stage.tick(10_000)
    assert zone.asked == []


async def test_a_dead_resolver_does_not_stop_a_known_backend(
    stage: Stage, zone: Zone, named: AddNamed, caplog: pytest.LogCaptureFixture
) -> None:
    zone.answers[HOST] = ("127.0.0.1",)
    await named(answer(b"{}"))
    assert (await stage.ask()).status == 200
    zone.answers.clear()
    for minute in range(1, 4):
        stage.gateway.resolver.tick(stage.clock() + 60 * minute)
        await asyncio.sleep(0)
        new_connections(stage)
        assert (await stage.ask()).status == 200
    assert zone.asked == [HOST] * 4
    assert stage.counters.lookups == {"ok": 1, "failed": 3}
    told = [record.message for record in caplog.records]
    assert told == [f"{HOST}: Name or service not known; its last known addresses stay in use"]


async def test_a_resolver_that_says_nothing_holds_up_no_known_backend(
    stage: Stage, zone: Zone, named: AddNamed
) -> None:
    zone.answers[HOST] = ("127.0.0.1",)
    await named(answer(b"{}"))
    assert (await stage.ask()).status == 200
    zone.silent = True
    stage.gateway.resolver.tick(stage.clock() + 60)
    new_connections(stage)
    assert (await stage.ask()).status == 200
    stage.gateway.resolver.tick(stage.clock() + 120)
    assert len(zone.asked) == 2, "one lookup of a name at a time"


async def test_a_name_that_was_never_resolved_says_so(
    stage: Stage, zone: Zone, named: AddNamed
) -> None:
    await named(answer(b"{}"))
    refused = await stage.ask()
    assert refused.status == 503
    assert b"no address of llm.example.com: Name or service not known" in refused.body
    assert stage.outcomes() == [Outcome.CONNECT_ERROR]
    zone.answers[HOST] = ("127.0.0.1",)
    assert b"Name or service" in (await stage.ask()).body, "believed for a second"
    assert zone.asked == [HOST]
    stage.gateway.resolver.name(HOST).due = 0.0
    assert (await stage.ask()).status == 200


async def test_a_silent_resolver_is_named_when_the_connect_timeout_ends(
    stage: Stage, zone: Zone, named: AddNamed
) -> None:
    zone.silent = True
    await named(answer(b"{}"))
    client = await stage.client()
    await client.send(post())
    await until(lambda: zone.held)
    stage.tick(6)
    refused = await client.receive()
    assert refused.status == 503
    assert b"no address of llm.example.com in time" in refused.body


async def test_requests_for_a_new_name_share_one_lookup(
    stage: Stage, zone: Zone, named: AddNamed
) -> None:
    zone.answers[HOST] = ("127.0.0.1",)
    zone.silent = True
    await named(answer(b"{}"))
    clients = [await stage.client() for _ in range(5)]
    for client in clients:
        await client.send(post())
    await until(lambda: stage.counters.upstream_connects == 5)
    zone.release()
    assert [(await client.receive()).status for client in clients] == [200] * 5
    assert zone.asked == [HOST]


async def test_a_client_that_leaves_while_a_name_is_looked_up_takes_nothing_along(
    stage: Stage, zone: Zone, named: AddNamed
) -> None:
    zone.answers[HOST] = ("127.0.0.1",)
    zone.silent = True
    await named(answer(b"{}"))
    gone, stays = await stage.client(), await stage.client()
    for client in (gone, stays):
        await client.send(post())
    await until(lambda: stage.counters.upstream_connects == 2)
    gone.abort()
    await until(lambda: stage.counters.client_gone)
    zone.release()
    assert (await stays.receive()).status == 200


async def test_the_next_address_is_tried_when_one_refuses(
    stage: Stage, zone: Zone, named: AddNamed
) -> None:
    zone.answers[HOST] = ("127.0.0.9", "127.0.0.1")
    await named(answer(b"{}"))
    assert (await stage.ask()).body == b"{}"
    assert stage.outcomes() == [Outcome.SUCCESS]
    name = stage.gateway.resolver.name(HOST)
    assert name.order(stage.clock()) == name.order(stage.clock()) == ("127.0.0.1", "127.0.0.9")


async def test_when_all_addresses_refuse_the_reason_counts_them(
    stage: Stage, zone: Zone, named: AddNamed
) -> None:
    zone.answers[HOST] = ("127.0.0.8", "127.0.0.9")
    await named(answer(b"{}"))
    refused = await stage.ask()
    assert b"the last of 2 addresses of llm.example.com" in refused.body
    assert stage.outcomes() == [Outcome.CONNECT_ERROR]


async def test_an_address_that_is_silent_gets_a_head_start_and_no_more(
    stage: Stage, zone: Zone, named: AddNamed
) -> None:
    upstream = await named(answer(b"{}"))
    with deaf("127.0.0.9", upstream.port):
        zone.answers[HOST] = ("127.0.0.9", "127.0.0.1")
        began = stage.clock()
        assert (await stage.ask()).body == b"{}"
        assert 0.2 < stage.clock() - began < 4.5, "less than the time to connect"


async def test_a_connect_timeout_ends_the_tries_of_all_addresses(
    stage: Stage, zone: Zone, named: AddNamed
) -> None:
    addresses = ("127.0.0.8", "127.0.0.9")
    upstream = await named(answer(b"{}"), seconds=1.0)
    with ExitStack() as stack:
        for address in addresses:
            stack.enter_context(deaf(address, upstream.port))
        zone.answers[HOST] = addresses
        client = await stage.client()
        before = asyncio.all_tasks()
        await client.send(post())
        await until(lambda: len(asyncio.all_tasks() - before) == 3)
        stage.tick(2)
        assert (await client.receive()).status == 503
        await until(lambda: asyncio.all_tasks() <= before)
    assert stage.outcomes() == [Outcome.CONNECT_ERROR]


async def test_addresses_of_one_name_take_turns(stage: Stage, zone: Zone, named: AddNamed) -> None:
    zone.answers[HOST] = ("127.0.0.1", "127.0.0.2")
    await named(answer(b"127.0.0.1"), "127.0.0.2")
    seen = []
    for _ in range(4):
        seen.append((await stage.ask()).body)
        new_connections(stage)
    assert seen == [b"127.0.0.1", b"127.0.0.2"] * 2


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_both_families_are_tried(stage: Stage, zone: Zone, named: AddNamed) -> None:
    zone.answers[HOST] = ("::1", "127.0.0.1")
    upstream = await named(answer(b"v4"))
    assert (await stage.ask()).body == b"v4"
    new_connections(stage)
    other = Upstream(says(answer(b"v6")))
    await other.start(host="::1", port=upstream.port)
    name = stage.gateway.resolver.name(HOST)
    name.take(("::1",))
    assert (await stage.ask()).body == b"v6"
    await other.stop()


async def test_a_name_that_moves_takes_its_idle_connections_along(
    stage: Stage, zone: Zone, named: AddNamed
) -> None:
    zone.answers[HOST] = ("127.0.0.1",)
    upstream = await named(answer(b"old"), "127.0.0.2")
    assert (await stage.ask()).body == b"old"
    zone.answers[HOST] = ("127.0.0.2",)
    for ahead, connections in ((31, 1), (62, 0)):  # one lookup without it is no proof yet
        stage.gateway.resolver.tick(stage.clock() + ahead)
        await asyncio.sleep(0)
        stage.tick()
        stage.gateway.resolver.name(HOST).due = 0.0
        (pool,) = stage.gateway.pools
        assert pool.idle == connections
    assert (await stage.ask()).body == b"127.0.0.2"
    assert upstream.connections == 1


async def test_what_nobody_uses_is_not_asked_for_again(zone: Zone) -> None:
    zone.answers[HOST] = ("127.0.0.1",)
    now = 1000.0
    resolver = Resolver(clock=lambda: now, lookup=zone, random=lambda: 0.5)
    name = resolver.name(HOST)
    assert await resolver.addresses(name) == ("127.0.0.1",)
    for seconds, asked in ((29, 1), (31, 2), (200, 3), (400, 3), (10_000, 3)):
        now = 1000.0 + seconds
        resolver.tick(now)
        await asyncio.sleep(0)
        assert zone.asked == [HOST] * asked
    zone.silent = True
    assert await resolver.addresses(name) == ("127.0.0.1",), "known: not waited for"
    assert zone.asked == [HOST] * 4


async def test_lookups_are_bounded_and_new_names_go_first(zone: Zone) -> None:
    now = 1000.0
    resolver = Resolver(clock=lambda: now, lookup=zone, random=lambda: 0.5)
    old = [resolver.name(f"old{n}") for n in range(5)]
    for name in old:
        zone.answers[name.host] = ("127.0.0.1",)
        await resolver.addresses(name)
    zone.asked.clear()
    zone.silent = True
    now += 60
    resolver.tick(now)
    assert len(zone.asked) == resolving.LOOKUPS
    new = resolver.name("new")
    zone.answers["new"] = ("127.0.0.3",)
    waiting = asyncio.ensure_future(resolver.addresses(new))
    await asyncio.sleep(0)
    zone.silent = False
    zone.release()
    assert await waiting == ("127.0.0.3",)
    assert zone.asked[resolving.LOOKUPS] == "new"
    assert len(zone.asked) == 6


async def test_who_waits_for_a_lookup_hears_of_the_end(zone: Zone) -> None:
    zone.silent = True
    resolver = Resolver(clock=lambda: 1000.0, lookup=zone)
    names = [resolver.name(f"n{n}") for n in range(resolving.LOOKUPS + 2)]
    waiting = [asyncio.ensure_future(resolver.addresses(name)) for name in names]
    await asyncio.sleep(0)
    resolver.close()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(end, Unresolved) for end in ends)


async def test_a_name_is_forgotten_with_the_last_pool_that_holds_it(
    stage: Stage, zone: Zone
) -> None:
    await stage.backend(says(answer(b"{}")))
    origin = replace(stage.backend_of().origin, host=HOST)
    pool: Pool | None = Pool(stage.gateway, origin)
    again = Pool(stage.gateway, origin)
    assert list(stage.gateway.resolver._names) == [HOST]
    del pool, again
    assert list(stage.gateway.resolver._names) == []


async def test_the_systems_resolver_is_asked_in_a_thread() -> None:
    assert "127.0.0.1" in await look_up("localhost")
    with pytest.raises(UnicodeError):
        await look_up("a" * 64 + ".example.com")


async def test_what_the_systems_resolver_says_of_a_name_reaches_the_client(
    stage: Stage, named: AddNamed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    await named(answer(b"{}"))
    said = (await stage.ask()).body
    assert b"no address of llm.example.com: Temporary failure in name resolution" in said


def test_an_address_in_brackets_of_a_url_is_no_name() -> None:
    assert Name("::1").fixed and Name("127.0.0.1").fixed and Name("fe80::1%eth0").fixed
    assert not Name("localhost").fixed
