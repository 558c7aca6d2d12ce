"""What the parent makes of what its workers tell."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nexus_api.decode import decode_object
from nexus_proxy.control import Objects
from nexus_proxy.core import Core
from nexus_proxy.counters import Counters
from nexus_proxy.routing.request import Endpoint
from nexus_proxy.secrets import NoSecrets
from nexus_proxy.workers.fleet import Fleet, Hand
from nexus_proxy.workers.tally import tally_of
from nexus_proxy.workers.wire import Batch, Key, Load, Tally, Use
from nexus_quality.keys import KeyFacts
from nexus_quality.peers import Saw, Sight
from nexus_quality.report import Cell, Report
from nexus_quality.shared import SharedVerdict
from nexus_quality.spend import Spend

NOW = 10_000.0
QUIET = float("-inf")


def counted(answers: int = 0, **gauges: int) -> Tally:
    counters = Counters()
    for _ in range(answers):
        counters.request("/v1/chat/completions", 200)
    for name, value in gauges.items():
        setattr(counters, name, value)
    return tally_of(counters)


def cell(requests: int, *, bucket: int = 3, uid: str = "uid-a", **more: Any) -> Cell:
    return Cell(family=60, bucket=bucket, uid=uid, model="m", requests=requests, **more)


class Parent:
    """A parent with two workers over one backend, told by hand."""

    def __init__(self, **spec: Any) -> None:
        self.urgent: list[float] = []
        self.counters = Counters()
        self.core = Core(
            secrets=NoSecrets(),
            shared=lambda backend, policy, now: SharedVerdict(),
            utc=lambda now: now,
            counters=self.counters,
            incarnation="0" * 32,
            started=NOW - 100.0,
            on_urgent=self.urgent.append,
        )
        backend = decode_object(
            {
                "apiVersion": "nexus.dev/v1alpha1",
                "kind": "LLMBackend",
                "metadata": {"name": "a", "namespace": "n", "uid": "uid-a"},
                "spec": {"url": "http://a:1", "models": [{"name": "m"}], **spec},
            }
        )
        self.core.control.apply(Objects(backends=(backend,)), NOW)  # type: ignore[arg-type]
        self.fleet = Fleet(self.core, self.counters)
        self.one, self.other = self.fleet.join(), self.fleet.join()

    def told(
        self, hand: Hand, *, now: float = NOW, tally: Tally | None = None, **parts: Any
    ) -> None:
        self.fleet.take(hand, Batch(tally=tally or hand.tally, **parts), now)

    def report(self, now: float = NOW) -> Report:
        report = self.core.monitor.report(now, full=False)
        assert report is not None
        return report

    def families(self, report: Report) -> dict[int, Cell]:
        return {each.family: each for each in report.cells}

    @property
    def backend(self) -> Any:
        return self.core.control.table.backends["uid-a"]

    @property
    def subject(self) -> Any:
        return self.core.monitor.subject("uid-a", "m")


@pytest.fixture
def parent() -> Parent:
    return Parent()


def test_outcomes_of_all_workers_are_one_report(parent: Parent) -> None:
    parent.told(
        parent.one, cells=[cell(7, errors=2, ttft_count=1, ttft_ms_sum=9, ttft_bins={4: 1})]
    )
    parent.told(parent.other, cells=[cell(3, ttft_count=2, ttft_ms_sum=8, ttft_bins={4: 1, 5: 1})])
    families = parent.families(parent.report())
    assert {each.requests for each in families.values()} == {10}
    assert {each.errors for each in families.values()} == {2}
    assert families[60].ttft_bins == {4: 2, 5: 1}
    assert families[10].ttft_bins == families[3600].ttft_bins == {}
    assert families[10].ttft_ms_sum == 17


def test_hearing_twice_counts_once_and_what_was_missed_comes_with_the_next(
    parent: Parent,
) -> None:
    for requests in (4, 4, 9):
        parent.told(parent.one, cells=[cell(requests)])
    parent.told(parent.one, cells=[cell(2, bucket=4), cell(1, bucket=5)])
    assert parent.families(parent.report())[3600].requests == 12


def test_outcomes_keep_the_generation_they_began_under(parent: Parent) -> None:
    parent.told(parent.one, cells=[cell(4, generation=1), cell(5, generation=2)])
    found = {(each.family, each.generation): each.requests for each in parent.report().cells}
    assert found[60, 1] == 4
    assert found[60, 2] == 5


def test_what_a_worker_remembers_of_old_buckets_is_let_go(parent: Parent) -> None:
    for bucket in range(100):
        parent.told(parent.one, cells=[cell(1, bucket=bucket)])
        parent.told(parent.one, spend=[Spend(namespace="n", slot=bucket, nano_usd=5)])
    assert parent.families(parent.report())[3600].requests == 100
    assert len(parent.one.cells) < 5
    assert len(parent.one.spend) < 7
    assert parent.core.monitor.spending.total == 500


def test_a_backend_that_is_gone_counts_for_nobody(parent: Parent) -> None:
    parent.told(parent.one, cells=[cell(3, uid="uid-gone")], loads=[Load("uid-gone", 1, 1, 0.0)])
    assert parent.core.monitor.report(NOW, full=False) is None


def test_requests_in_flight_are_added_up_and_each_hears_of_the_others(parent: Parent) -> None:
    parent.told(parent.one, loads=[Load("uid-a", 3, 5, 100.0)])
    parent.told(parent.other, loads=[Load("uid-a", 1, 15, 200.0)])
    assert (parent.backend.in_flight, parent.backend.requests) == (4, 20)
    assert parent.backend.latency_ms == 175.0
    said = {id(hand): peers.loads for hand, peers in parent.fleet.peers(NOW)}
    assert said == {id(parent.one): {"uid-a": 1}, id(parent.other): {"uid-a": 3}}
    assert list(parent.fleet.peers(NOW)) == []


def test_one_that_joins_is_told_what_the_others_have(parent: Parent) -> None:
    parent.told(parent.one, loads=[Load("uid-a", 3, 5, 0.0)])
    list(parent.fleet.peers(NOW))
    late = parent.fleet.join()
    assert [(hand, peers.loads) for hand, peers in parent.fleet.peers(NOW)] == [
        (late, {"uid-a": 3})
    ]


def test_a_worker_that_is_gone_leaves_its_counts_and_nothing_under_way(parent: Parent) -> None:
    parent.told(
        parent.one,
        tally=counted(6, active_streams=2),
        cells=[cell(6)],
        loads=[Load("uid-a", 2, 6, 0.0)],
        uses=[Use("uid-a", "m", 2, NOW, 0.0, {})],
    )
    parent.told(parent.other, loads=[Load("uid-a", 1, 1, 0.0)])
    assert parent.subject.in_flight == 2
    list(parent.fleet.peers(NOW))
    parent.fleet.leave(parent.one)
    assert parent.subject.in_flight == 0
    assert (parent.backend.in_flight, parent.backend.requests) == (1, 7)
    assert parent.counters.active_streams == 0
    assert sum(parent.counters.requests.values()) == 6
    assert parent.families(parent.report())[60].requests == 6
    assert [(hand, peers.loads) for hand, peers in parent.fleet.peers(NOW)] == [
        (parent.other, {"uid-a": 0})
    ]


def test_rests_and_missing_models_reach_the_others_once(parent: Parent) -> None:
    use = Use("uid-a", "m", 0, QUIET, NOW + 5, {"CHAT": NOW + 30})
    parent.told(parent.one, uses=[use])
    assert [(h, p.uses) for h, p in parent.fleet.peers(NOW)] == [(parent.other, [use])]
    candidate = parent.core.live.candidate("uid-a", "m")
    assert candidate is not None
    assert candidate.resting_until == NOW + 5
    assert candidate.missing_until == {Endpoint.CHAT: NOW + 30}
    parent.told(parent.other, uses=[use])  # it rests there, too, and says so
    parent.told(parent.one, uses=[msgspec.structs.replace(use, in_flight=1)])
    assert all(not peers.uses for _, peers in parent.fleet.peers(NOW))


def test_a_report_is_due_as_soon_as_a_worker_says(parent: Parent) -> None:
    parent.told(parent.one, urgent=0.15)
    assert parent.urgent == [pytest.approx(0.15)]


def test_a_key_is_refused_as_often_as_any_worker_was(parent: Parent) -> None:
    parent.core.monitor.key("uid-a", KeyFacts(secret="s", key="k"))
    parent.told(parent.one, keys=[Key("uid-a", 3, False)])
    parent.told(parent.other, keys=[Key("uid-a", 1, False)])
    assert "uid-a" in parent.core.monitor.refused_keys()
    pulses = [pulse for pulse in parent.report().pulses if pulse.uid == "uid-a"]
    assert [(pulse.refused, pulse.key) for pulse in pulses] == [(3, "CredentialsRejected")]
    parent.told(parent.one, keys=[Key("uid-a", 0, False)])
    parent.told(parent.other, keys=[Key("uid-a", 0, False)])
    assert not parent.core.monitor.refused_keys()


def test_the_places_of_a_backend_go_around_while_requests_wait() -> None:
    parent = Parent(maxConcurrency=1)
    parent.told(parent.one, loads=[Load("uid-a", 0, 0, 0.0, waiting=3)])
    parent.told(parent.other, loads=[Load("uid-a", 0, 0, 0.0, waiting=3)])
    seen = []
    for second in range(4):
        parent.fleet.tick()
        list(parent.fleet.peers(NOW + second))
        seen.append(tuple(hand.beside.get("uid-a", 0) for hand in (parent.one, parent.other)))
    assert set(seen) == {(0, 1), (1, 0)}


def test_what_was_spent_counts_once_at_the_parent(parent: Parent) -> None:
    for nano_usd in (40, 40, 90):
        parent.told(parent.one, spend=[Spend(namespace="n", slot=7, nano_usd=nano_usd)])
    parent.told(parent.other, spend=[Spend(namespace="n", slot=7, nano_usd=10)])
    assert parent.core.monitor.spending.total == 100
    assert sum(spend.nano_usd for spend in parent.report().spend) == 100


def test_a_probe_that_died_with_its_worker_came_to_nothing(parent: Parent) -> None:
    for model in ("m", "n"):
        parent.one.saw(Sight(saw=Saw.PROBE_SENT, uid="uid-a", model=model))
    parent.one.saw(Sight(saw=Saw.PROBE_FAILURE, uid="uid-a", model="n"))
    assert list(parent.one.left(NOW)) == [
        Sight(saw=Saw.PROBE_NEUTRAL, uid="uid-a", model="m", began=NOW)
    ]


def test_what_a_dead_worker_left_without_an_answer_holds_no_row_up(parent: Parent) -> None:
    seen = Sight(saw=Saw.FAILURE, uid="uid-a", model="m", by=1, began=NOW - 1, unanswered=6)
    parent.one.saw(seen)
    (left,) = parent.one.left(NOW)
    assert (left.saw, left.by, left.unanswered) == (Saw.UNANSWERED, 1, 0)
    parent.fleet.forget(["uid-a"])
    assert list(parent.one.left(NOW)) == []
