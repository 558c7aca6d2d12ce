"""What the product is compared with: the seed, Linkerd's unified breaker, Envoy's five in a row.

Each is per proxy, as theirs are. The seed is the shipped sample policy judged by the real rules,
with an adapter that restores what no policy says: every outcome counts (a 4xx and a 429 too, and
the TTFT of failures), the verdict is renewed each 30 s, and the best score wins, of equals the
last. Linkerd and Envoy are simplified to their documented rules; they judge by the answer's head,
so a stream that breaks later is a success to them. Both choose the less loaded of two. All of them
retry elsewhere within the product's own retry budget, so that only detection and choice differ.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import yaml
from bench.simulate.measure import Log
from bench.simulate.objects import uid_of
from bench.simulate.world import World

from nexus_api import Weights, decode_quality_policy
from nexus_proxy.routing.retry import RetryBudget
from nexus_proxy.routing.score import raw_score
from nexus_quality.counts import Counts
from nexus_quality.evidence import Share
from nexus_quality.outcome import Outcome
from nexus_quality.policy import Policy, policy_from_spec
from nexus_quality.rules import fire
from nexus_quality.window import Family, Window

SAMPLE = Path(__file__).parents[2] / "manifests" / "samples" / "qualitypolicy-seed.yaml"
_IN_A_200 = (Outcome.MALFORMED, Outcome.STREAM_ERROR, Outcome.ERROR_BODY)
_SERVER_SIDE = (Outcome.SERVER_ERROR, Outcome.TIMEOUT, Outcome.CONNECT_ERROR)


class Detector(Protocol):
    """One backend as one proxy judges it."""

    def admits(self, now: float) -> bool: ...

    def begun(self, now: float) -> None: ...

    def headed(self, now: float, ttft: float) -> None: ...

    def ended(self, outcome: Outcome, now: float, elapsed: float) -> None: ...


class Plain:
    """A backend of a baseline: its detector and its load."""

    def __init__(self, number: int, detector: Detector) -> None:
        self.number, self.detector, self.in_flight = number, detector, 0


Pick = Callable[[Sequence[Plain], random.Random], Plain]


def less_loaded_of_two(backends: Sequence[Plain], chance: random.Random) -> Plain:
    """The usual balancer."""
    if len(backends) == 1:
        return backends[0]
    first, second = chance.sample(backends, 2)
    return second if second.in_flight < first.in_flight else first


class PlainGate:
    """A proxy of a baseline."""

    def __init__(
        self,
        world: World,
        log: Log,
        number: int,
        retries: int,
        detectors: Sequence[Detector],
        pick: Pick,
        *,
        panic: float = 0.0,
    ) -> None:
        self._world, self._log, self._number = world, log, number
        self.retries, self._pick, self._panic = retries, pick, panic
        self._chance = world.chance(f"plain/{number}")
        self.budget = RetryBudget()
        self.backends = [Plain(n, detector) for n, detector in enumerate(detectors)]
        self._inside = [True] * len(self.backends)

    def ask(self, model: str) -> PlainAsk:
        """One request."""
        return PlainAsk(self)

    def look(self) -> None:
        """Note who is inside."""
        for backend in self.backends:
            inside = backend.detector.admits(self._world.now)
            if inside is not self._inside[backend.number]:
                self._inside[backend.number] = inside
                self._log.moved(self._number, uid_of(backend.number), "m", inside=inside)

    def choose(self, tried: Sequence[Plain]) -> Plain | None:
        """A backend that was not tried, None if none may be used."""
        now = self._world.now
        able = [b for b in self.backends if b.detector.admits(now)]
        if len(able) < self._panic * len(self.backends):
            able = self.backends
        able = [b for b in able if b not in tried]
        return self._pick(able, self._chance) if able else None


class PlainAsk:
    """One request at a baseline."""

    def __init__(self, gate: PlainGate) -> None:
        self._gate = gate
        self._tried: list[Plain] = []

    def first(self, now: float) -> PlainAttempt | None:
        """The first attempt."""
        self._gate.budget.attempt(now)
        return self._take(now)

    def again(self, now: float, *, quick: bool) -> PlainAttempt | None:
        """A further one."""
        if len(self._tried) > self._gate.retries:
            return None
        if not quick and not self._gate.budget.allows(now):
            return None
        found = self._take(now)
        if found is not None:
            self._gate.budget.attempt(now)
        return found

    def _take(self, now: float) -> PlainAttempt | None:
        chosen = self._gate.choose(self._tried)
        if chosen is None:
            return None
        self._tried.append(chosen)
        return PlainAttempt(self._gate, chosen, now)


class PlainAttempt:
    """One attempt at a baseline."""

    def __init__(self, gate: PlainGate, chosen: Plain, now: float) -> None:
        self._gate, self._chosen, self._began = gate, chosen, now
        self._headed = False
        self.backend = chosen.number
        chosen.in_flight += 1
        chosen.detector.begun(now)
        gate.look()

    def content(self, now: float) -> None:
        """The first token."""
        self._headed = True
        self._chosen.detector.headed(now, now - self._began)
        self._gate.look()

    def end(self, outcome: Outcome, now: float, retry_after: float | None) -> None:
        """The outcome."""
        self._chosen.in_flight -= 1
        if outcome in _IN_A_200 and not self._headed:
            self._chosen.detector.headed(now, now - self._began)
        self._chosen.detector.ended(outcome, now, now - self._began)
        self._gate.look()


# The seed


def seed_policy() -> Policy:
    """The shipped sample."""
    return policy_from_spec(decode_quality_policy(yaml.safe_load(SAMPLE.read_text("utf-8"))).spec)


class SeedDetector:
    """The hour's error rate, renewed each interval."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._window = Window(Family.MINUTE)
        self._ttft = 0.0
        self.out = False
        self.ttft_ms = 0

    def admits(self, now: float) -> bool:
        """As the last interval said."""
        return not self.out

    def begun(self, now: float) -> None:
        """Nothing yet."""

    def headed(self, now: float, ttft: float) -> None:
        """The first token's time is kept until the end."""
        self._ttft = ttft

    def ended(self, outcome: Outcome, now: float, elapsed: float) -> None:
        """Whatever is no success is a failure, and has a TTFT."""
        if outcome is Outcome.CLIENT_GONE:
            return
        good = outcome is Outcome.SUCCESS
        counts = Counts(requests=1, errors=not good, ttft_count=1)
        counts.ttft_ms_sum = round(1000 * (self._ttft if good else elapsed))
        self._window.add(int(now // Family.MINUTE), 0, counts)

    def renew(self, now: float) -> None:
        """The interval's end."""
        self._window.expire(now)
        hour = self._window.totals()
        share = Share(reporter="seed", requests=hour.requests, errors=hour.errors)
        self.out = fire((share,), self._policy, now) is not None
        self.ttft_ms = hour.ttft_ms_sum // hour.ttft_count if hour.ttft_count else 0

    def penalised(self, score: int) -> int:
        """The seed's TTFT penalty, down to nothing."""
        threshold = self._policy.ttft_penalty_threshold_ms
        if not threshold or self.ttft_ms <= threshold:
            return score
        return score - int(score * min((self.ttft_ms - threshold) / threshold, 1.0))


def best_and_last(backends: Sequence[Plain], chance: random.Random) -> Plain:
    """The highest score; of equals the last. The seed's latency is its probe's: equal here."""

    def score(backend: Plain) -> int:
        detector = backend.detector
        assert isinstance(detector, SeedDetector)
        return detector.penalised(raw_score(50, backend.in_flight, 0.0, Weights()))

    return max(reversed(backends), key=score)


def seed_gate(world: World, log: Log, number: int, retries: int, backends: int) -> PlainGate:
    """A proxy of the seed."""
    policy = seed_policy()
    detectors = [SeedDetector(policy) for _ in range(backends)]
    gate = PlainGate(world, log, number, retries, detectors, best_and_last)

    def renew() -> None:
        for detector in detectors:
            detector.renew(world.now)
        gate.look()

    interval = policy.metrics_interval_seconds
    world.every(interval, renew, first=interval * world.chance(f"seed/{number}").random())
    return gate


# Linkerd


class LinkerdDetector:
    """Success rate below 0.8 over 10 s of at least 5 answers, or 7 failures in a row; then one
    request after a penalty that doubles from 1 s to 60 s, jittered by half.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._answers: deque[tuple[float, bool]] = deque()
        self._row = 0
        self._penalty = 1.0
        self._until: float | None = None
        self._probing = False
        self._headed = False

    def admits(self, now: float) -> bool:
        """Closed, or due for the one request."""
        return self._until is None or (now >= self._until and not self._probing)

    def begun(self, now: float) -> None:
        """The one request is under way."""
        if self._until is not None:
            self._probing = True

    def headed(self, now: float, ttft: float) -> None:
        """A 200 is a success."""
        self._answered(now, good=True, hard=False)

    def ended(self, outcome: Outcome, now: float, elapsed: float) -> None:
        """A failing head: 5xx always, 429 in the rate alone."""
        if outcome is Outcome.THROTTLED:
            self._answered(now, good=False, hard=False)
        elif outcome in _SERVER_SIDE:
            self._answered(now, good=False, hard=True)
        elif outcome is Outcome.CLIENT_ERROR:
            self._answered(now, good=True, hard=False)
        elif outcome is Outcome.CLIENT_GONE:
            self._probing = False

    def _answered(self, now: float, *, good: bool, hard: bool) -> None:
        if self._until is not None:
            if self._probing:
                self._probed(now, good=good)
            return
        self._row = self._row + 1 if hard else 0 if good else self._row
        answers = self._answers
        answers.append((now, good))
        while answers[0][0] < now - 10.0:
            answers.popleft()
        successes = sum(ok for _, ok in answers)
        if self._row >= 7 or (len(answers) >= 5 and successes < 0.8 * len(answers)):
            self._penalty = 1.0
            self._close_for(now)

    def _probed(self, now: float, *, good: bool) -> None:
        if good:
            self._until = None
            self._probing = False
        else:
            self._penalty = min(60.0, 2 * self._penalty)
            self._close_for(now)

    def _close_for(self, now: float) -> None:
        self._until = now + self._penalty * (1 + 0.5 * self._chance.random())
        self._probing = False
        self._row = 0
        self._answers.clear()


def linkerd_gate(world: World, log: Log, number: int, retries: int, backends: int) -> PlainGate:
    """A proxy with Linkerd's breaker."""
    chance = world.chance(f"linkerd/{number}")
    detectors = [LinkerdDetector(chance) for _ in range(backends)]
    return PlainGate(world, log, number, retries, detectors, less_loaded_of_two)


# Envoy


class EnvoyPool:
    """`max_ejection_percent` 50: how many may be out at once."""

    def __init__(self, size: int) -> None:
        self._size, self.out = size, 0

    def may_eject(self) -> bool:
        """Whether one more may go."""
        return (self.out + 1) * 100 <= 50 * self._size


class EnvoyDetector:
    """Five 5xx in a row; out for 30 s times the ejections in a row, at most 300 s; then at once
    back in full.
    """

    def __init__(self, pool: EnvoyPool) -> None:
        self._pool = pool
        self._row = 0
        self._times = 0
        self._until: float | None = None

    def admits(self, now: float) -> bool:
        """Not ejected."""
        return self._until is None

    def begun(self, now: float) -> None:
        """Nothing."""

    def headed(self, now: float, ttft: float) -> None:
        """A 200 ends the row."""
        self._row = 0

    def ended(self, outcome: Outcome, now: float, elapsed: float) -> None:
        """A failing head."""
        if outcome in _SERVER_SIDE:
            self._row += 1
            if self._row >= 5 and self._until is None and self._pool.may_eject():
                self._times += 1
                self._pool.out += 1
                self._until = now + min(30.0 * self._times, 300.0)
        elif outcome in (Outcome.THROTTLED, Outcome.CLIENT_ERROR):
            self._row = 0

    def sweep(self, now: float) -> None:
        """Each 10 s: the time is over, or a healthy interval forgives one ejection."""
        if self._until is None:
            self._times = max(0, self._times - 1)
        elif now >= self._until:
            self._until = None
            self._row = 0
            self._pool.out -= 1


def envoy_gate(world: World, log: Log, number: int, retries: int, backends: int) -> PlainGate:
    """A proxy with Envoy's outlier detection; panic below half."""
    pool = EnvoyPool(backends)
    detectors = [EnvoyDetector(pool) for _ in range(backends)]
    gate = PlainGate(world, log, number, retries, detectors, less_loaded_of_two, panic=0.5)

    def sweep() -> None:
        for detector in detectors:
            detector.sweep(world.now)
        gate.look()

    world.every(10.0, sweep, first=10.0 * world.chance(f"envoy/{number}").random())
    return gate


BASELINES = {"seed": seed_gate, "linkerd": linkerd_gate, "envoy": envoy_gate}
