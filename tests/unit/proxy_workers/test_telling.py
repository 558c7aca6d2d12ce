"""A worker's two ends in one process: what it tells, and what it makes of what it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from nexus_api import BudgetState
from nexus_api.backend import SubjectState
from nexus_api.decode import decode_object
from nexus_proxy.control import Objects
from nexus_proxy.core import Core, make_queue
from nexus_proxy.counters import Counters
from nexus_proxy.routing.request import Endpoint, analyze
from nexus_proxy.routing.router import Choice
from nexus_proxy.secrets import FileSecrets
from nexus_proxy.workers.inbox import Inbox
from nexus_proxy.workers.outbox import Outbox
from nexus_proxy.workers.outlook import Outlook, divide
from nexus_proxy.workers.wire import Batch, Peers, Up, Use, World
from nexus_quality.outcome import Outcome
from nexus_quality.shared import SharedVerdict

NOW = 5_000.0


def made(kind: str, name: str, spec: dict[str, Any]) -> Any:
    meta = {"name": name, "namespace": "n", "uid": f"uid-{name}"}
    head = {"apiVersion": "nexus.dev/v1alpha1", "kind": kind, "metadata": meta}
    return decode_object({**head, "spec": spec})


def backend(name: str, **spec: Any) -> Any:
    return made("LLMBackend", name, {"url": f"http://{name}:1", "models": [{"name": "m"}], **spec})


class Worker:
    """A worker without a socket: `sent` is what it told."""

    def __init__(self) -> None:
        self.sent: list[Batch] = []
        self.now = NOW
        self.behind = False
        counters = Counters()
        self.inbox = Inbox(FileSecrets({}, {}))
        self.core = Core(
            secrets=self.inbox.secrets,
            shared=self.inbox.shared,
            utc=lambda now: now,
            counters=counters,
            incarnation="0" * 32,
            started=NOW,
            on_urgent=lambda seconds: self.outbox.urgent(seconds),
            limits_of=self.inbox.limits_of,
        )
        self.queue = make_queue(self.core, counters)
        self.outbox = Outbox(
            self.core,
            counters,
            self.queue,
            beside=self.inbox.beside,
            send=self._send,
            behind=lambda: self.behind,
            clock=lambda: self.now,
        )

    def _send(self, message: Up) -> None:
        assert isinstance(message, Batch)
        self.sent.append(msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Batch))

    def told(self, world: World) -> None:
        wire = msgspec.msgpack.encode(world)
        self.inbox.world(msgspec.msgpack.decode(wire, type=World), self.core, self.now)
        self.outbox.moved(world.gone)

    def peers(self, **parts: Any) -> None:
        self.inbox.peers(Peers(**parts), self.core, self.queue)

    def tell(self) -> Batch | None:
        before = len(self.sent)
        self.outbox.tell()
        return self.sent[-1] if len(self.sent) > before else None

    def choose(self) -> Any:
        call = analyze(Endpoint.CHAT, b'{"model":"m","messages":[]}')
        return self.core.router.choose(call, self.now)

    def begin(self, choice: Choice) -> Any:
        choice.candidate.backend.enter()
        return choice.candidate.subject.begin(self.now)

    @property
    def names(self) -> set[str]:
        return {each.name for each in self.core.control.table.backends.values()}


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    made = Worker()
    made.told(World(backends=[backend("a", priority=0)]))
    made.tell()
    yield made


def test_news_are_what_changed_and_the_whole_is_all_there_is() -> None:
    outlook, a, b = Outlook(2), backend("a"), backend("b")
    policy = made("RoutingPolicy", "rp", {"queue": {"maxSize": 5}})
    outlook.verdicts = {"uid-a": SharedVerdict(generation=1)}
    first = outlook.news(Objects((a, b), (), (policy,)), None, BudgetState.NORMAL)
    assert first is not None
    assert [each.metadata.name for each in first.backends] == ["a", "b"]
    assert first.quality_policies is None
    assert first.routing_policies == (divide(policy, 2),)
    assert outlook.news(Objects((a, b), (), (policy,)), None, BudgetState.NORMAL) is None
    outlook.verdicts["uid-a"] = SharedVerdict(generation=2, state=SubjectState.EXCLUDED)
    then = outlook.news(Objects((a,), (), (policy,)), {"s": {"k": "v"}}, BudgetState.HARD_LIMIT)
    assert then is not None
    assert (then.backends, then.gone, then.routing_policies) == ([], ["uid-b"], None)
    assert then.verdicts["uid-a"].generation == 2
    assert (then.secrets, then.budget) == ({"s": {"k": "v"}}, BudgetState.HARD_LIMIT)
    whole = outlook.whole()
    assert [each.metadata.name for each in whole.backends] == ["a"]
    assert (whole.verdicts, whole.secrets) == (then.verdicts, then.secrets)
    assert (whole.routing_policies, whole.budget) == ((divide(policy, 2),), BudgetState.HARD_LIMIT)


@pytest.mark.parametrize(("size", "workers", "part"), [(100, 4, 25), (5, 2, 3), (1, 8, 1)])
def test_a_queue_is_divided_and_never_away(size: int, workers: int, part: int) -> None:
    policy = made("RoutingPolicy", "rp", {"queue": {"maxSize": size}})
    assert divide(policy, workers).spec.queue.max_size == part


async def test_objects_come_change_and_go(worker: Worker) -> None:
    assert worker.names == {"a"}
    worker.told(World(backends=[backend("b")]))
    assert worker.names == {"a", "b"}
    worker.told(World(gone=["uid-a"]))
    assert worker.names == {"b"}


async def test_a_verdict_alone_moves_the_routing(worker: Worker) -> None:
    worker.told(World(backends=[backend("b", priority=90)]))
    assert worker.choose().candidate.backend.name == "a"
    out = SharedVerdict(state=SubjectState.EXCLUDED, generation=1, until=NOW + 60)
    worker.told(World(verdicts={"uid-a": out}))
    assert worker.choose().candidate.backend.name == "b"


async def test_an_outcome_is_told_once_and_as_a_total(worker: Worker) -> None:
    for _ in range(3):
        worker.begin(worker.choose()).end(Outcome.SUCCESS, worker.now)
    first = worker.tell()
    assert first is not None
    assert [(each.family, each.requests) for each in first.cells] == [(60, 3)]
    assert worker.tell() is None
    worker.begin(worker.choose()).end(Outcome.SUCCESS, worker.now)
    then = worker.tell()
    assert then is not None
    assert [each.requests for each in then.cells] == [4]


async def test_nothing_to_tell_is_a_sign_of_life_once_a_second(worker: Worker) -> None:
    assert worker.tell() is None
    worker.now += 1.0
    batch = worker.tell()
    assert batch is not None
    assert not batch.cells and not batch.loads


async def test_a_parent_that_lags_behind_gets_it_all_later(worker: Worker) -> None:
    worker.behind = True
    worker.begin(worker.choose()).end(Outcome.SUCCESS, worker.now)
    assert worker.tell() is None
    worker.behind = False
    batch = worker.tell()
    assert batch is not None
    assert [each.requests for each in batch.cells] == [1]


async def test_requests_of_others_count_at_a_backend_but_are_not_told_as_ones_own(
    worker: Worker,
) -> None:
    worker.told(World(backends=[backend("a", priority=0, maxConcurrency=2)]))
    worker.peers(loads={"uid-a": 1})
    held = worker.choose().candidate.backend
    assert held.in_flight == 1
    worker.begin(worker.choose())
    batch = worker.tell()
    assert batch is not None
    assert [(load.in_flight, load.requests) for load in batch.loads] == [(1, 1)]
    assert not isinstance(worker.choose(), Choice)  # two are there
    worker.peers(loads={"uid-a": 0})
    assert isinstance(worker.choose(), Choice)


async def test_a_rest_elsewhere_is_a_rest_here(worker: Worker) -> None:
    worker.peers(uses=[Use("uid-a", "m", 0, float("-inf"), NOW + 9, {})])
    assert not isinstance(worker.choose(), Choice)
    worker.now += 10
    assert isinstance(worker.choose(), Choice)


async def test_a_use_of_a_backend_that_is_not_here_is_passed_over(worker: Worker) -> None:
    use = Use("uid-x", "m", 0, float("-inf"), NOW + 9, {"CHAT": NOW + 9})
    worker.peers(uses=[use], loads={"uid-x": 4})
    assert isinstance(worker.choose(), Choice)


async def test_the_budget_is_the_parents_word(worker: Worker) -> None:
    policy = made("RoutingPolicy", "rp", {"budget": {"monthlyLimitUSD": "1"}})
    worker.told(World(routing_policies=(policy,), budget=BudgetState.HARD_LIMIT))
    assert worker.core.control.budget is BudgetState.HARD_LIMIT
    worker.told(World(budget=BudgetState.NORMAL))
    assert worker.core.control.budget is BudgetState.NORMAL


async def test_a_breaker_that_opens_is_told_at_once_and_a_failure_in_time(worker: Worker) -> None:
    attempts = [worker.begin(worker.choose()) for _ in range(5)]
    attempts[0].end(Outcome.SERVER_ERROR, worker.now)
    batch = worker.tell()
    assert batch is not None
    assert batch.urgent == pytest.approx(0.15)  # 200 ms after the failure, less a tick
    for attempt in attempts[1:]:
        attempt.end(Outcome.SERVER_ERROR, worker.now)
    batch = worker.tell()
    assert batch is not None
    assert batch.urgent == 0.0


async def test_secrets_of_manifests_come_with_the_world(worker: Worker) -> None:
    locked = backend("c", auth={"secretRef": {"name": "s", "key": "k"}})
    worker.told(World(backends=[locked], gone=["uid-a"]))
    assert not isinstance(worker.choose(), Choice)
    worker.told(World(secrets={"s": {"k": "sesame"}}))
    choice = worker.choose()
    assert isinstance(choice, Choice)
    assert b"sesame" in choice.candidate.backend.credentials.header_line
