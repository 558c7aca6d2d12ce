"""Several processes of one proxy whose breakers turn as one, because they tell each other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec
import pytest

from nexus_api.backend import SubjectState
from nexus_quality.attempt import Attempt
from nexus_quality.breaker import BreakerState
from nexus_quality.keys import KeyFacts
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome
from nexus_quality.peers import Saw, Sight
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.shared import SharedVerdict
from nexus_quality.subject import Subject

START = 1_000.0
POLICY = replace(DEFAULT_POLICY, consecutive_failures=5)
FAILURE, UNREACHED, SUCCESS = Outcome.SERVER_ERROR, Outcome.CONNECT_ERROR, Outcome.SUCCESS


@dataclass
class Proxy:
    """Processes with a monitor each; what they tell travels when the test says so."""

    size: int
    now: float = START
    wires: list[tuple[int, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.monitors = [self._monitor(number) for number in range(self.size)]
        self.subjects = [monitor.subject("uid", "m") for monitor in self.monitors]

    def _monitor(self, number: int) -> Monitor:
        monitor = Monitor(
            incarnation="0" * 32,
            started=START,
            random=lambda: 0.0,
            on_change=lambda: None,
            on_urgent=lambda _seconds: None,
        )
        monitor.tell = lambda seen: self.wires.append((number, msgspec.msgpack.encode(seen)))
        shared = SharedVerdict()
        monitor.configure("uid", policy=POLICY, shared=shared, fingerprint="a", now=START)
        return monitor

    def travel(self, *, once: bool = False) -> int:
        """Everything told reaches everybody else, answers included; how much that was. `once`: what
        is said to it is left for later.
        """
        count = 0
        while self.wires and not (once and count):
            told, self.wires = self.wires, []
            count += len(told)
            for number, wire in told:
                for other, monitor in enumerate(self.monitors):
                    if other != number:
                        seen = msgspec.msgpack.decode(wire, type=Sight)
                        monitor.hear(msgspec.structs.replace(seen, by=number + 1), self.now)
        return count

    def attempt(self, number: int, outcome: Outcome) -> Attempt:
        attempt = self.subjects[number].begin(self.now)
        self.now += 0.1
        attempt.end(outcome, self.now)
        return attempt

    @property
    def states(self) -> list[BreakerState]:
        return [subject.breaker.state for subject in self.subjects]


@pytest.fixture
def proxy() -> Proxy:
    return Proxy(3)


def all_are(state: BreakerState, subjects: list[Subject]) -> bool:
    return all(subject.breaker.state is state for subject in subjects)


def test_failures_that_reach_different_processes_make_one_row(proxy: Proxy) -> None:
    for number in (0, 1, 2, 0):
        proxy.attempt(number, FAILURE)
        proxy.travel()
    assert all_are(BreakerState.CLOSED, proxy.subjects)
    proxy.attempt(1, FAILURE)
    proxy.travel()
    assert all_are(BreakerState.OPEN, proxy.subjects)
    assert {subject.breaker.k for subject in proxy.subjects} == {1}
    assert len({subject.breaker.until for subject in proxy.subjects}) == 1


def test_a_failure_is_counted_only_where_it_happened(proxy: Proxy) -> None:
    proxy.attempt(0, FAILURE)
    proxy.travel()
    counted = [
        sum(cell.errors for slot in monitor.hand_over() for cell in slot)
        for monitor in proxy.monitors
    ]
    assert counted == [3, 0, 0]  # one in each family


def test_a_success_anywhere_ends_the_row_everywhere(proxy: Proxy) -> None:
    for number in (0, 1, 2, 0):
        proxy.attempt(number, FAILURE)
        proxy.travel()
    proxy.attempt(2, SUCCESS)
    proxy.travel()
    assert {subject.breaker.row.length for subject in proxy.subjects} == {0}
    proxy.attempt(1, FAILURE)
    proxy.travel()
    assert all_are(BreakerState.CLOSED, proxy.subjects)


def test_a_failure_that_is_older_than_a_success_elsewhere_begins_no_row(proxy: Proxy) -> None:
    slow = proxy.subjects[0].begin(proxy.now)
    proxy.now += 0.1
    proxy.attempt(1, SUCCESS)
    slow.end(FAILURE, proxy.now)
    assert proxy.subjects[0].breaker.row.length == 1
    proxy.travel()
    assert {subject.breaker.row.length for subject in proxy.subjects} == {0}


def test_successes_of_a_quiet_backend_are_told_to_nobody(proxy: Proxy) -> None:
    for _ in range(100):
        proxy.attempt(0, SUCCESS)
    assert proxy.travel() == 0


def test_a_row_waits_for_what_the_other_processes_have_open(proxy: Proxy) -> None:
    first = proxy.subjects[0].begin(proxy.now)
    open_elsewhere = [proxy.subjects[n].begin(proxy.now) for n in (1, 1, 1, 2, 2, 2)]
    first.end(FAILURE, proxy.now)
    proxy.travel()
    for _ in range(4):
        proxy.attempt(0, FAILURE)
        proxy.travel()
    assert all_are(BreakerState.CLOSED, proxy.subjects)
    assert len(open_elsewhere) == 6
    proxy.attempt(0, FAILURE)  # now the row is as long as what is open
    proxy.travel()
    assert all_are(BreakerState.OPEN, proxy.subjects)


def test_connect_failures_open_the_backend_in_all_of_them(proxy: Proxy) -> None:
    for number in (0, 1, 2, 1, 0):
        proxy.attempt(number, UNREACHED)
        proxy.travel()
    backends = [subject.backend.breaker.state for subject in proxy.subjects]
    assert backends == [BreakerState.OPEN] * 3


def test_a_probe_closes_or_opens_it_for_all(proxy: Proxy) -> None:
    for _ in range(5):
        proxy.attempt(0, FAILURE)
    proxy.travel()
    for outcome, then in ((FAILURE, BreakerState.OPEN), (SUCCESS, BreakerState.CLOSED)):
        proxy.now += 1_000.0
        for monitor in proxy.monitors:
            monitor.tick(proxy.now)
        assert all_are(BreakerState.HALF_OPEN, proxy.subjects)
        for _ in range(1 if outcome is FAILURE else POLICY.probation_successes):
            probe = proxy.subjects[2].begin(proxy.now, probe=True)
            probe.end(outcome, proxy.now)
        proxy.travel()
        assert all_are(then, proxy.subjects)


def outage(size: int, *, every: float, takes: float, travels: float) -> int:
    """The attempts that processes lose to a backend which has just begun to fail; one begins
    `every` so many seconds anywhere, and what is told `travels` so long.
    """
    proxy = Proxy(size)
    lost, began = 0, START
    pending: list[tuple[float, Attempt]] = []
    told: list[tuple[float, int, bytes]] = []
    while began < START + 20.0:
        due = min((pending[0][0] if pending else began, told[0][0] if told else began, began))
        proxy.now = due
        if told and told[0][0] <= due:
            _, number, wire = told.pop(0)
            proxy.wires = [(number, wire)]
            proxy.travel(once=True)
        elif pending and pending[0][0] <= due:
            pending.pop(0)[1].end(FAILURE, due)
        else:
            subject = proxy.subjects[round((began - START) / every) % size]
            if subject.breaker.state is BreakerState.CLOSED:
                pending.append((due + takes, subject.begin(due)))
                lost += 1
            began += every
        told += [(due + travels, number, wire) for number, wire in proxy.wires]
        proxy.wires = []
    assert all_are(BreakerState.OPEN, proxy.subjects)
    return lost


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("every", [0.5, 0.02, 0.004])
def test_an_outage_costs_several_processes_what_it_costs_one(size: int, every: float) -> None:
    one = outage(1, every=every, takes=0.05, travels=0.003)
    assert outage(size, every=every, takes=0.05, travels=0.003) <= one + 1


def test_processes_that_hear_nothing_of_each_other_lose_five_each() -> None:
    assert outage(4, every=0.5, takes=0.05, travels=1_000.0) == 20


def half_open(proxy: Proxy) -> None:
    for _ in range(5):
        proxy.attempt(0, FAILURE)
    proxy.travel()
    proxy.now += 1_000.0
    for monitor in proxy.monitors:
        monitor.tick(proxy.now)


def wanting(proxy: Proxy) -> list[bool]:
    return [subject.wants_probe(proxy.now) for subject in proxy.subjects]


@pytest.mark.parametrize("end", [SUCCESS, Outcome.CLIENT_GONE])
def test_one_of_them_probes_at_a_time(proxy: Proxy, end: Outcome) -> None:
    half_open(proxy)
    assert wanting(proxy) == [True] * 3
    probe = proxy.subjects[2].begin(proxy.now, probe=True)
    proxy.travel()
    assert wanting(proxy) == [False] * 3
    proxy.now += 0.1
    probe.end(end, proxy.now)
    proxy.travel()
    assert wanting(proxy) == [True] * 3


def test_successes_of_different_processes_close_it(proxy: Proxy) -> None:
    half_open(proxy)
    for number in range(POLICY.probation_successes):
        probe = proxy.subjects[number].begin(proxy.now, probe=True)
        proxy.travel()
        proxy.now += 0.1
        probe.end(SUCCESS, proxy.now)
        proxy.travel()
    assert all_are(BreakerState.CLOSED, proxy.subjects)


def test_a_failed_probe_ends_probing_under_its_generation_for_all(proxy: Proxy) -> None:
    shared = SharedVerdict(state=SubjectState.PROBATION, generation=1, share_basis_points=10_000)
    for monitor in proxy.monitors:
        monitor.configure("uid", policy=POLICY, shared=shared, fingerprint="a", now=proxy.now)
    assert wanting(proxy) == [True] * 3
    probe = proxy.subjects[1].begin(proxy.now, probe=True)
    probe.end(FAILURE, proxy.now)
    proxy.travel()
    assert wanting(proxy) == [False] * 3


def test_a_backend_or_a_model_that_is_not_known_here_is_passed_over(proxy: Proxy) -> None:
    seen = Sight(saw=Saw.FAILURE, uid="another", model="m", began=proxy.now)
    proxy.monitors[0].hear(seen, proxy.now)
    proxy.monitors[0].hear(msgspec.structs.replace(seen, uid="uid", model="x"), proxy.now)
    assert proxy.states == [BreakerState.CLOSED] * 3


def test_a_key_that_is_taken_again_is_so_for_all(proxy: Proxy) -> None:
    for monitor in proxy.monitors:
        monitor.key("uid", KeyFacts(secret="s", key="k"))
    for number in range(3):
        for _ in range(3):
            proxy.attempt(number, Outcome.CREDENTIALS_REFUSED)
    assert all(monitor.refused_keys() for monitor in proxy.monitors)
    serial = proxy.monitors[0].refused_keys()["uid"]
    proxy.monitors[0].key_accepted("uid", serial)
    proxy.travel()
    assert not any(monitor.refused_keys() for monitor in proxy.monitors)
