"""The candidates of one model for one kind of request, sorted by what the pipeline says about them.

A leg is built once per change of the table or of a standing and then kept current by the journal,
so that a decision costs the same with three candidates and with a thousand. It picks among
candidates that may serve; the order of tiers is in `tiers`, the order of models in `plan`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from nexus_proxy.routing.board import OFF, Board
from nexus_proxy.routing.candidate import Backend, Candidate
from nexus_proxy.routing.choice import CAPABILITY_MATCH, CAPACITY_OVERFLOW, Choice
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.journal import LONGEST, Journal
from nexus_proxy.routing.reason import Reason
from nexus_proxy.routing.rules import Rules
from nexus_proxy.routing.steps import LAST_RESORT_STEPS, PIPELINE, Profile, capabilities
from nexus_proxy.routing.strategy import MOST_PENDING, STRATEGIES, Draw, Ranks
from nexus_quality.subject import Standing

REFRESH_SECONDS = 1.0
_SLICE = 64  # how many candidates are looked at anew at once
_FEW = 4  # so few changes are not worth looking for doubles among them


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all legs share: the rules, the journal, chance, and the turn of RoundRobin per model."""

    rules: Rules
    journal: Journal
    random: Callable[[], float]
    turns: dict[str, int]


class Sorted:
    """The pipeline's answer for each candidate of a model."""

    __slots__ = (
        "admitted",
        "configured",
        "excluded",
        "incapable",
        "probing",
        "reasons",
        "slow",
        "unhealthy",
    )

    def __init__(self, profile: Profile, candidates: Iterable[Candidate]) -> None:
        self.admitted: list[Candidate] = []
        self.slow: list[Candidate] = []
        self.probing: list[Candidate] = []
        self.excluded: list[Candidate] = []
        self.unhealthy: list[Candidate] = []
        self.reasons: list[Reason] = []
        self.configured = 0
        self.incapable = 0
        for candidate in candidates:
            self.configured += 1
            self._sort(profile, candidate)

    def _sort(self, profile: Profile, candidate: Candidate) -> None:
        said = [(step, reason) for step in PIPELINE if (reason := step(profile, candidate))]
        if said:
            self.reasons.append(said[0][1])
            self.incapable += said[0][0] is capabilities
            if all(step in LAST_RESORT_STEPS for step, _ in said):
                sick = candidate.traits.unhealthy is not None
                (self.unhealthy if sick else self.excluded).append(candidate)
            return
        {
            Standing.ADMITTED: self.admitted,
            Standing.SLOW_START: self.slow,
            Standing.PROBING: self.probing,
        }[candidate.subject.standing].append(candidate)


class Leg:
    """One model's candidates, ready to be picked from."""

    __slots__ = (
        "_away",
        "_draw",
        "_epoch",
        "_fresh_next",
        "_fresh_until",
        "_number",
        "_placed",
        "_ranks",
        "_read",
        "_revisions",
        "_rule",
        "_surroundings",
        "_ttft_ms",
        "_wakes",
        "_waking",
        "board",
        "choices",
        "endpoint",
        "fallback",
        "members",
        "model",
        "plain",
        "reason",
        "sorted",
    )

    def __init__(
        self,
        model: str,
        answer: Sorted,
        surroundings: Surroundings,
        *,
        endpoint: Endpoint,
        requested: str,
        fallback: bool = False,
        reason: str = CAPABILITY_MATCH,
    ) -> None:
        self.model = model
        self.sorted = answer
        self.endpoint = endpoint
        self.fallback = fallback
        self.reason = reason
        self.plain = not (answer.slow or answer.probing or answer.excluded or answer.unhealthy)
        self.members = [*answer.admitted, *answer.slow]
        self.choices = [self.choice(member, requested) for member in self.members]
        self.board = Board(len(self.members))
        self._surroundings = surroundings
        self._rule = STRATEGIES[surroundings.rules.strategy]
        self._draw = Draw(self.board, self.members, surroundings.random, surroundings.turns, model)
        self._number: dict[Backend, int] = {c.backend: n for n, c in enumerate(self.members)}
        self._placed = len(answer.admitted)
        # What a change of load alone does to a rank: None where one must look at everything.
        self._ranks: list[Ranks | None] = [None] * len(self.members)
        self._revisions = [-1] * len(self.members)
        self._ttft_ms: list[int | None] = [None] * len(self.members)
        self._away: set[int] = set()
        self._waking: list[tuple[float, int]] = []
        self._wakes: dict[int, float] = {}
        self._epoch = self._read = -1
        self._fresh_until = float("inf")
        self._fresh_next = 0

    def choice(self, candidate: Candidate, requested: str) -> Choice:
        """The ordinary attempt on a candidate, for requests that name `requested`."""
        sent = candidate.upstream_model or candidate.model
        return Choice(
            candidate,
            reason=self.reason,
            fallback_model=self.model if self.fallback else None,
            rewrite=None if sent == requested else sent,
        )

    def score(self, candidate: Candidate, now: float) -> int:
        """The candidate's score now, by the strategy in force."""
        ttft_ms = candidate.subject.ttft_average_ms(now)
        return self._rule.rank(candidate, self._surroundings.rules, ttft_ms)

    def unavailable_until(self, candidate: Candidate, now: float) -> float | None:
        """When a rest or a missing model ends, infinity at maxConcurrency, None when it can serve
        now.
        """
        backend = candidate.backend
        if backend.max_concurrency is not None and backend.in_flight >= backend.max_concurrency:
            return float("inf")
        until = candidate.resting_until
        if candidate.missing_until:
            until = max(until, candidate.missing_until.get(self.endpoint, 0.0))
        return until if until > now else None

    def settle(self, now: float) -> None:
        """Bring the board up to date: what changed since the last look, and within a second what
        changes with time alone.
        """
        journal = self._surroundings.journal
        entries = journal.entries
        unread = len(entries) - self._read
        if self._epoch != journal.epoch:
            self._place_all(now)
        elif unread:
            changed = entries[self._read :]
            self._follow(changed if unread <= _FEW else dict.fromkeys(changed), now)
        if len(entries) > LONGEST:
            journal.trim()
        self._epoch, self._read = journal.epoch, len(entries)
        while self._waking and self._waking[0][0] <= now:
            number = heapq.heappop(self._waking)[1]
            self._wakes.pop(number, None)
            self._place(number, now)
        if now >= self._fresh_until:
            self._refresh(now)

    def _follow(self, changed: Iterable[Backend], now: float) -> None:
        """Take in changes one by one; nearly all are a request more or less somewhere."""
        numbers, placed = self._number, self._placed
        all_ranks, revisions = self._ranks, self._revisions
        board = self.board
        scores = board.score
        for backend in changed:
            number = numbers.get(backend, placed)
            if number >= placed:
                continue
            ranks = all_ranks[number]
            if ranks is None or revisions[number] != backend.revision:
                self._place(number, now)
                self._learn_ranks(number, backend)
                continue
            pending = backend.pending
            rank = ranks[pending if pending < MOST_PENDING else MOST_PENDING]
            if rank != scores[number]:
                board.put(number, rank)

    def _learn_ranks(self, number: int, backend: Backend) -> None:
        if number in self._away or backend.max_concurrency is not None:
            self._ranks[number] = None
            return
        rules = self._surroundings.rules
        self._ranks[number] = self._rule.ranks(self.members[number], rules, self._ttft_ms[number])
        self._revisions[number] = backend.revision

    def _refresh(self, now: float) -> None:
        """Ask for average TTFTs, of some candidates after the other lest a request wait for a
        thousand; of all where none was asked for lately.
        """
        size = len(self.members)
        begin, end = self._fresh_next, min(self._fresh_next + _SLICE, size)
        if now >= self._fresh_until + REFRESH_SECONDS:
            begin, end = 0, size
        for number in range(begin, end):
            ttft_ms = self.members[number].subject.ttft_average_ms(now)
            if ttft_ms != self._ttft_ms[number]:
                self._ttft_ms[number] = ttft_ms
                self._ranks[number] = None
                if number < self._placed:
                    self._place(number, now)
        self._fresh_next = end % size if size else 0
        self._fresh_until = now + REFRESH_SECONDS * min(1.0, _SLICE / max(1, size))

    def _place_all(self, now: float) -> None:
        self._ttft_ms = [member.subject.ttft_average_ms(now) for member in self.members]
        self._fresh_next, self._fresh_until = 0, now + REFRESH_SECONDS
        self._waking.clear()
        self._wakes.clear()
        self._ranks = [None] * len(self.members)
        for number in range(self._placed):
            self._place(number, now)

    def _place(self, number: int, now: float) -> None:
        member = self.members[number]
        until = self.unavailable_until(member, now)
        if until is None:
            self._away.discard(number)
            rank = self._rule.rank(member, self._surroundings.rules, self._ttft_ms[number])
            self.board.put(number, rank)
            return
        self._away.add(number)
        self.board.put(number, OFF)
        if until != float("inf") and self._wakes.get(number) != until:
            self._wakes[number] = until
            heapq.heappush(self._waking, (until, number))

    def pick(self, now: float, tried: Collection[Candidate] = ()) -> Choice | None:
        """One of the candidates that take ordinary traffic, after `settle`; None if there is none.

        Candidates in slow start take part if chance admits them to this request.
        """
        lent = self._take_off(tried) if tried else []
        if self.sorted.slow:
            lent += self._admit_slow(now, tried)
        rule = self._rule
        number = rule.pick(self._draw, rule.width)
        for lent_number, score in lent:
            self.board.put(lent_number, score)
        if number < 0:
            return None
        choice = self.choices[number]
        return choice.marked(CAPACITY_OVERFLOW) if self._away else choice

    def _take_off(self, tried: Collection[Candidate]) -> list[tuple[int, int]]:
        taken: list[tuple[int, int]] = []
        for candidate in tried:
            number = self._number.get(candidate.backend)
            if number is not None and self.members[number] is candidate:
                taken.append((number, self.board.score[number]))
                self.board.put(number, OFF)
        return taken

    def _admit_slow(self, now: float, tried: Collection[Candidate]) -> list[tuple[int, int]]:
        admitted: list[tuple[int, int]] = []
        random = self._surroundings.random
        for number in range(self._placed, len(self.members)):
            member = self.members[number]
            if member in tried or random() >= member.subject.admission(now):
                continue
            if self.unavailable_until(member, now) is None:
                ttft_ms = self._ttft_ms[number]
                self.board.put(number, self._rule.rank(member, self._surroundings.rules, ttft_ms))
                admitted.append((number, OFF))
        return admitted
