"""Merging is a join: whatever happens to reports, the counters are those of an oracle."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexus_quality.counts import Counts
from nexus_quality.ledger import Ledger, Taken, Whole
from nexus_quality.limits import MAX_IN_FLIGHT, MAX_ROW, Known
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome, OutcomeClass
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.report import (
    Answer,
    Cell,
    Pulse,
    Report,
    decode_report,
    encode,
    taken_by,
)
from nexus_quality.shared import SharedVerdict
from nexus_quality.window import Family

NOW = 1_700_000_000.0
UIDS = ("uid-a", "uid-b")
MODELS = ("tiny", "large")
LIFE = "a" * 32


def cell(bucket: int = 0, *, family: int = 10, uid: str = "uid-a", **given: Any) -> Cell:
    return Cell(family=family, bucket=bucket, uid=uid, model="tiny", **given)


def report(*cells: Cell, now_ms: int = 600_000, life: str = LIFE, **given: Any) -> Report:
    return Report(incarnation=life, now_ms=now_ms, cells=list(cells), **given)


def take(ledger: Ledger, one: Report, *, now: float = NOW, name: str = "pod-1") -> Taken:
    return ledger.take(name, one, now, UIDS)


def hour_of(ledger: Ledger, uid: str = "uid-a", family: Family = Family.TEN_SECONDS) -> Counts:
    result = Counts()
    for reporter in ledger.reporters.values():
        for series in reporter.of(uid).values():
            result.add(series.windows[family].totals())
    return result


# The property: reports of real monitors, mistreated.


@dataclass
class Process:
    """One life of a proxy: a monitor on its own clock, and reports that are under way."""

    name: str
    monitor: Monitor
    skew: float
    sent: list[bytes] = field(default_factory=list)


class Mistreatment:
    """Two proxies, a network that loses, repeats, delays and reorders, an operator that dies."""

    def __init__(self, seed: int, offsets: list[float]) -> None:
        self.chance = random.Random(seed)
        self.now, self.offsets = NOW, offsets
        self.ledger = Ledger(NOW)
        self.epoch = 1
        self.oracle: dict[tuple[str, str, int], Counter[str]] = {}
        self.generation = 0
        self.known = set(UIDS)
        self.retired: list[Process] = []
        self.processes = [self.begin(n) for n in range(len(offsets))]

    def begin(self, number: int) -> Process:
        skew = self.offsets[number] - self.now + self.chance.random() * 1e5
        monitor = Monitor(
            incarnation=f"{self.chance.getrandbits(128):032x}",
            started=self.now + skew,
            random=self.chance.random,
            on_change=lambda: None,
            on_urgent=lambda _: None,
        )
        return Process(f"pod-{number}", monitor, skew)

    def outcome(self, process: Process) -> None:
        uid, model = self.chance.choice(UIDS), self.chance.choice(MODELS)
        outcome = self.chance.choice(list(Outcome))
        local = self.now + process.skew
        attempt = process.monitor.subject(uid, model).begin(local)
        attempt.sent(local)
        streamed = self.chance.random() < 0.5
        if streamed:
            attempt.content(local + self.chance.random())
        attempt.end(outcome, local, cost_nano_usd=7)
        counted = self.oracle.setdefault((uid, model, attempt.generation), Counter())
        if outcome.effect.outcome_class in (OutcomeClass.SUCCESS, OutcomeClass.FAILURE):
            good = outcome.effect.outcome_class is OutcomeClass.SUCCESS
            counted.update(
                requests=1,
                errors=int(not good),
                connect_errors=int(outcome.effect.connect),
                ttft_count=int(good and streamed),
            )
        counted["throttled"] += outcome.effect.throttled
        counted["cost_nano_usd"] += 7

    def turn(self, process: Process) -> None:
        """A verdict turned; one proxy has seen it."""
        self.generation += 1
        for uid in UIDS:
            process.monitor.configure(
                uid,
                policy=DEFAULT_POLICY,
                shared=SharedVerdict(generation=self.generation),
                fingerprint="",
                now=self.now + process.skew,
            )

    def send(self, process: Process, *, full: bool) -> None:
        """Make a report; it is kept by the network, and lost, answered or both."""
        local = self.now + process.skew
        made = process.monitor.report(local, full=full)
        if made is None:
            return
        body = encode(made)
        process.sent.append(body)
        fate = self.chance.choice(["arrives", "lost", "answer lost"])
        answer = self.arrive(process, body) if fate != "lost" else None
        if answer is not None and fate == "arrives":
            if process.monitor.acknowledged(made, answer, local):
                self.send(process, full=True)
        else:
            process.monitor.unanswered(local)

    def arrive(self, process: Process, body: bytes) -> Answer:
        epoch = f"epoch-{self.epoch}"
        report = taken_by(decode_report(body), epoch)
        taken = self.ledger.take(process.name, report, self.now, self.known)
        assert {refusal.uid for refusal in taken.refused} <= set(UIDS) - self.known
        return Answer(epoch=epoch, refused=taken.refused)

    def again(self, process: Process) -> None:
        """An old report arrives once more, or late."""
        if process.sent:
            self.arrive(process, self.chance.choice(process.sent))

    def restart_operator(self) -> None:
        self.epoch += 1
        self.ledger = Ledger(self.now)

    def restart_proxy(self, number: int) -> None:
        """The old process says goodbye with all it has; its reports may still wander about."""
        old = self.processes[number]
        self.known = set(UIDS)
        farewell = old.monitor.report(self.now + old.skew, full=False, final=True)
        assert farewell is not None
        old.sent.append(encode(farewell))
        answer = self.arrive(old, old.sent[-1])
        old.monitor.acknowledged(farewell, answer, self.now + old.skew)
        self.tell(old)
        self.retired.append(old)
        self.processes[number] = self.begin(number)

    def tell(self, process: Process) -> Report:
        """The network delivers again: what a process knows to be untold arrives, by and by."""
        local = self.now + process.skew
        for _ in range(3):
            made = process.monitor.report(local, full=True)
            assert made is not None
            process.sent.append(encode(made))
            answer = self.arrive(process, process.sent[-1])
            if not process.monitor.acknowledged(made, answer, local):
                return made
        raise AssertionError("it repeats itself without an end")

    def repair(self, *, full: bool) -> None:
        """In the end the network delivers, with another report that completes it, or without."""
        for process in [*self.retired, *self.processes]:
            if full:
                self.tell(process)
                continue
            made = process.monitor.report(self.now + process.skew, full=False)
            if made is not None:
                self.arrive(process, encode(made))

    def step(self, action: str, number: int) -> None:
        process = self.processes[number]
        if action == "outcome":
            self.outcome(process)
        elif action in ("send", "full"):
            self.send(process, full=action == "full")
        elif action == "turn":
            self.turn(process)
        elif action == "again":
            self.again(self.chance.choice([*self.processes, *self.retired]))
        elif action == "operator":
            self.restart_operator()
        elif action == "unknown":
            self.known ^= {self.chance.choice(UIDS)}
        else:
            self.restart_proxy(number)

    def assert_exact(self) -> None:
        for family in (Family.TEN_SECONDS, Family.MINUTE):
            for (uid, model, generation), counted in self.oracle.items():
                sums = self.merged(uid, model, family, generation)
                sums.add(self.merged(uid, model, family, generation + 1), -1)
                assert {name: getattr(sums, name) for name in counted} == dict(counted), family
                if family is Family.MINUTE:
                    assert sum(sums.ttft_bins.values()) == counted["ttft_count"]
        self.assert_exact_days()

    def assert_exact_days(self) -> None:
        """Hours are counted whatever the generation."""
        days: dict[tuple[str, str], Counter[str]] = {}
        for (uid, model, _), counted in self.oracle.items():
            days.setdefault((uid, model), Counter()).update(counted)
        for (uid, model), counted in days.items():
            day = self.ledger.whole(uid, self.now).get(model, Whole()).day
            assert {name: getattr(day, name) for name in counted} == dict(counted)

    def merged(self, uid: str, model: str, family: Family, generation: int) -> Counts:
        sums = Counts()
        for reporter in self.ledger.reporters.values():
            series = reporter.of(uid).get(model)
            if series is not None:
                sums.add(series.windows[family].totals(generation))
        return sums


MISHAPS = ["outcome"] * 6 + ["send", "send", "full", "again", "again", "turn", "proxy"]
PAUSES = st.sampled_from([0.0, 0.3, 4.0, 25.0])
OFFSETS = st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=2)
THOROUGH = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def steps(*actions: str) -> st.SearchStrategy[list[tuple[str, int, float]]]:
    return st.lists(
        st.tuples(st.sampled_from(actions), st.integers(0, 1), PAUSES), min_size=30, max_size=80
    )


def mistreat(world: Mistreatment, taken: list[tuple[str, int, float]]) -> None:
    """All within less than ten minutes, so that nothing leaves the finest windows."""
    for action, number, seconds in taken:
        world.now += min(seconds, 500.0 / len(taken))
        world.step(action, number)


@THOROUGH
@given(seed=st.integers(0, 2**16), offsets=OFFSETS, taken=steps(*MISHAPS, "operator", "unknown"))
def test_merged_counters_are_those_of_an_oracle_that_saw_every_outcome_once(
    seed: int, offsets: list[float], taken: list[tuple[str, int, float]]
) -> None:
    world = Mistreatment(seed, offsets)
    mistreat(world, taken)
    world.known = set(UIDS)
    world.repair(full=True)
    world.assert_exact()
    for process in world.processes:
        told = world.tell(process)
        assert told.told == f"epoch-{world.epoch}" and (told.full or not told.cells)


@THOROUGH
@given(seed=st.integers(0, 2**16), offsets=OFFSETS, taken=steps(*MISHAPS))
def test_what_was_not_answered_is_enough_to_repair_what_was_lost(
    seed: int, offsets: list[float], taken: list[tuple[str, int, float]]
) -> None:
    world = Mistreatment(seed, offsets)
    mistreat(world, taken)
    world.repair(full=False)
    world.assert_exact()


# Single points.


def test_a_report_sent_twice_changes_nothing() -> None:
    ledger = Ledger()
    once = report(cell(55, requests=3, errors=1))
    assert take(ledger, once).touched == {"uid-a"}
    assert take(ledger, once) == Taken((), (), frozenset())
    assert hour_of(ledger).requests == 3


def test_an_overtaken_report_changes_nothing() -> None:
    ledger = Ledger()
    take(ledger, report(cell(55, requests=5, errors=2), now_ms=601_000))
    assert take(ledger, report(cell(55, requests=3, errors=1))).growth == ()
    assert hour_of(ledger).errors == 2


@pytest.mark.parametrize("offset", [0.0, 86_400.0, -1e8, 1e12])
def test_the_reporters_clock_may_say_anything(offset: float) -> None:
    ledger = Ledger()
    take(ledger, report(cell(int(offset + 590) // 10, requests=1), now_ms=int(offset + 600) * 1000)
         if offset >= 0 else report(cell(59, requests=1)))  # fmt: skip
    (reporter,) = ledger.reporters.values()
    assert reporter.of("uid-a")["tiny"].windows[Family.TEN_SECONDS].last(30.0, NOW).requests == 1


def test_a_slow_report_does_not_move_buckets_that_were_placed() -> None:
    ledger = Ledger()
    take(ledger, report(cell(59, requests=1), now_ms=600_000), now=NOW)
    take(ledger, report(cell(59, requests=2), now_ms=601_000), now=NOW + 30.0)
    (life,) = ledger.reporters["pod-1"].incarnations.values()
    assert life.offset == NOW - 600.0
    assert hour_of(ledger).requests == 2


def test_two_incarnations_of_a_pod_add_up() -> None:
    ledger = Ledger()
    take(ledger, report(cell(59, requests=2)))
    take(ledger, report(cell(0, requests=3), now_ms=5_000, life="b" * 32))
    assert list(ledger.reporters) == ["pod-1"]
    assert hour_of(ledger).requests == 5


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (cell(59, uid="uid-z", requests=1), "unknown backend"),
        (cell(59, family=11, requests=1), "unknown bucket family 11"),
        (cell(61, requests=1), "a bucket in the future"),
        (cell(59, requests=-1), "numbers that cannot be"),
        (cell(59, requests=1, errors=2), "numbers that cannot be"),
        (cell(59, requests=1, errors=1, connect_errors=2), "numbers that cannot be"),
        (cell(59, requests=10**13), "numbers that cannot be"),
        (cell(59, requests=1, ttft_bins={5_000: 1}), "numbers that cannot be"),
        (cell(59, requests=1, ttft_bins={5: -1}), "numbers that cannot be"),
        (cell(58, requests=9, errors=1), "a number that runs backwards"),
    ],
)
def test_what_cannot_be_is_refused_and_disturbs_nothing_else(bad: Cell, reason: str) -> None:
    ledger = Ledger()
    take(ledger, report(cell(58, requests=5, errors=3)))
    taken = take(ledger, report(bad, cell(57, requests=4), now_ms=601_000))
    assert [refusal.reason for refusal in taken.refused] == [reason]
    assert hour_of(ledger).requests == 9


def test_a_bucket_that_left_the_windows_is_not_taken_again() -> None:
    ledger = Ledger()
    old = cell(0, requests=5)
    take(ledger, report(old, now_ms=9_000), now=NOW)
    ledger.expire(NOW + 900.0)
    assert take(ledger, report(old, now_ms=909_000), now=NOW + 900.0).growth == ()
    assert hour_of(ledger).requests == 0


def test_memory_of_cells_ends_with_the_windows() -> None:
    ledger = Ledger()
    take(ledger, report(cell(0, requests=5), now_ms=9_000), now=NOW)
    ledger.expire(NOW + 700.0)
    (life,) = ledger.reporters["pod-1"].incarnations.values()
    assert life.cells == {}
    ledger.expire(NOW + 25 * 3600.0 + 1)
    assert ledger.reporters == {}


def test_lives_of_a_reporter_are_forgotten_with_their_windows() -> None:
    ledger = Ledger()
    take(ledger, report(life="b" * 32))
    take(ledger, report(), now=NOW + 25 * 3600.0)
    ledger.expire(NOW + 25 * 3600.0 + 1)
    assert list(ledger.reporters["pod-1"].incarnations) == [LIFE]


def test_a_backend_that_is_gone_takes_its_history_along_and_could_come_back() -> None:
    ledger = Ledger()
    one = report(cell(59, requests=5))
    take(ledger, one)
    ledger.forget("uid-a")
    assert hour_of(ledger).requests == 0
    take(ledger, one)
    assert hour_of(ledger).requests == 5


class TestReplay:
    """What another process may have counted fills windows, never histograms."""

    def test_a_replay_says_so(self) -> None:
        taken = take(Ledger(NOW - 3600.0), report(cell(59, requests=1), replay=True))
        assert [grown.replayed for grown in taken.growth] == [True]

    def test_what_began_before_us_is_a_replay_though_the_reporter_does_not_know(self) -> None:
        ledger = Ledger(NOW - 5.0)
        first = take(ledger, report(cell(58, requests=1), cell(59, requests=1)))
        assert [grown.replayed for grown in first.growth] == [True, True]
        later = take(ledger, report(cell(59, requests=2), cell(60, requests=1), now_ms=601_000))
        assert [grown.replayed for grown in later.growth] == [False, False]


class TestPulses:
    """How a backend stands with a reporter right now."""

    def standing(self, ledger: Ledger, life: str = LIFE) -> dict[str, dict[str, Pulse]]:
        return ledger.reporters["pod-1"].incarnations[life].pulses

    def test_each_report_replaces_those_of_its_incarnation(self) -> None:
        ledger = Ledger()
        take(ledger, report(pulses=[Pulse(uid="uid-a", row=3), Pulse(uid="uid-b", row=1)]))
        taken = take(ledger, report(now_ms=601_000, pulses=[Pulse(uid="uid-b", row=2)]))
        assert self.standing(ledger) == {"uid-b": {"": Pulse(uid="uid-b", row=2)}}
        assert taken.touched == {"uid-a", "uid-b"}

    def test_a_report_that_was_overtaken_does_not(self) -> None:
        ledger = Ledger()
        take(ledger, report(now_ms=601_000))
        take(ledger, report(now_ms=600_500, pulses=[Pulse(uid="uid-a", open=True)]))
        assert self.standing(ledger) == {}

    def test_a_goodbye_ends_them(self) -> None:
        ledger = Ledger()
        take(ledger, report(pulses=[Pulse(uid="uid-a", open=True)]))
        take(ledger, report(now_ms=601_000, final=True, pulses=[Pulse(uid="uid-a", open=True)]))
        assert self.standing(ledger) == {}

    @pytest.mark.parametrize("order", [1, -1])
    def test_of_models_that_are_not_listed_are_one(self, order: int) -> None:
        pulses = [
            Pulse(uid="uid-a", model="x", generation=4, row=3, row_began_ms=500, in_flight=2),
            Pulse(uid="uid-a", model="y", generation=5, row=2, row_began_ms=300, open=True),
            Pulse(uid="uid-a", model="z", generation=6, in_flight=5, success_began_ms=200),
            Pulse(uid="uid-a", model="tiny", row=9, row_began_ms=1),
        ][::order]
        ledger = Ledger()
        listed = Known(models=("tiny",))
        ledger.take("pod-1", report(pulses=pulses), NOW, UIDS, lambda uid: listed)
        found = self.standing(ledger)["uid-a"]
        assert found.keys() == {"tiny", "other"} and found["tiny"].row == 9
        other = found["other"]
        assert (other.row, other.row_began_ms, other.in_flight) == (5, 300, 7)
        assert (other.open, other.generation, other.success_began_ms) == (True, 4, 200)

    def test_no_crowd_of_models_that_are_not_listed_counts_for_more_than_can_be(self) -> None:
        pulses = [
            Pulse(uid="uid-a", model=f"m{number}", row=MAX_ROW, in_flight=MAX_IN_FLIGHT)
            for number in range(20)
        ]
        ledger = Ledger()
        ledger.take("pod-1", report(pulses=pulses), NOW, UIDS, lambda uid: Known(models=()))
        other = self.standing(ledger)["uid-a"]["other"]
        assert (other.row, other.in_flight) == (MAX_ROW, MAX_IN_FLIGHT)

    def test_of_unknown_backends_are_left_out(self) -> None:
        ledger = Ledger()
        assert take(ledger, report(pulses=[Pulse(uid="uid-z", row=9)])).touched == frozenset()
        assert self.standing(ledger) == {}
