"""How one of several suitable candidates is chosen: a table of strategies.

A strategy is a way to rank a candidate, how far from the best it looks, and a way to pick from a
board. Slow-start admission, probes and the last resort apply to all of them alike and are not its
business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from nexus_api import Strategy, Weights
from nexus_proxy.routing.board import OFF, Board
from nexus_proxy.routing.candidate import Candidate
from nexus_proxy.routing.rules import Rules
from nexus_proxy.routing.score import raw_score, soft_limit, ttft_penalty
from nexus_proxy.routing.steps import OPEN_ZONE

NEAR_POINTS = 5
MOST_PENDING = 100  # more requests in flight than these cost no further points

Rank = Callable[[Candidate, Rules, int | None], int]
Pick = Callable[["Draw", int], int]
Ranks = Sequence[int]
RanksOf = Callable[[Candidate, Rules, int | None], Ranks]


@dataclass(slots=True)
class Draw:
    """What a strategy may look at when it picks: the board, whom the numbers stand for, chance, and
    whose turn it is.

    `turns` holds the next number per model, so that it survives a rebuilt leg.
    """

    board: Board
    members: Sequence[Candidate]
    random: Callable[[], float]
    turns: dict[str, int]
    model: str


@dataclass(frozen=True, slots=True)
class StrategyRule:
    """A strategy. `width` is how many points below the best still count as near; `ranks` are the
    ranks of a candidate by the number of requests in flight there, up to `MOST_PENDING`, if nothing
    else changes.
    """

    rank: Rank
    ranks: RanksOf
    width: int
    pick: Pick


def smart_score(candidate: Candidate, rules: Rules, ttft_ms: int | None) -> int:
    """The seed's score: weighted priority, load and latency, halved at the soft limit, then the
    TTFT penalty.
    """
    backend, traits = candidate.backend, candidate.traits
    score = raw_score(traits.priority, backend.pending, backend.latency_ms, rules.weights)
    if rules.soft_limit and traits.zone == OPEN_ZONE:
        score = soft_limit(score)
    return score if ttft_ms is None else ttft_penalty(score, ttft_ms, traits.ttft_threshold_ms)


def smart_scores(candidate: Candidate, rules: Rules, ttft_ms: int | None) -> Ranks:
    """The seed's score for every load."""
    traits = candidate.traits
    threshold_ms = traits.ttft_threshold_ms
    if ttft_ms is not None and (threshold_ms == 0 or ttft_ms <= threshold_ms):
        ttft_ms = None  # no penalty, however fast: one row for all of them
    return _scores_by_load(
        traits.priority,
        int(candidate.backend.latency_ms) // 10 * 10,
        rules.weights,
        rules.soft_limit and traits.zone == OPEN_ZONE,
        ttft_ms,
        threshold_ms,
    )


@lru_cache(maxsize=4096)
def _scores_by_load(
    priority: int,
    latency_ms: int,
    weights: Weights,
    halved: bool,
    ttft_ms: int | None,
    threshold_ms: int,
) -> Ranks:
    loads = range(MOST_PENDING + 1)
    scores = [raw_score(priority, pending, latency_ms, weights) for pending in loads]
    if halved:
        scores = [soft_limit(score) for score in scores]
    return bytes(ttft_penalty(score, ttft_ms, threshold_ms) for score in scores)


def priority_rank(candidate: Candidate, rules: Rules, ttft_ms: int | None) -> int:
    """Lower priority numbers first, nothing else."""
    return 100 - min(candidate.traits.priority, 100)


def no_rank(candidate: Candidate, rules: Rules, ttft_ms: int | None) -> int:
    """All alike."""
    return 0


def priority_ranks(candidate: Candidate, rules: Rules, ttft_ms: int | None) -> Ranks:
    """The same for every load."""
    return bytes((priority_rank(candidate, rules, ttft_ms),)) * (MOST_PENDING + 1)


def no_ranks(candidate: Candidate, rules: Rules, ttft_ms: int | None) -> Ranks:
    """All alike for every load."""
    return bytes(MOST_PENDING + 1)


def less_loaded_of_two(draw: Draw, width: int) -> int:
    """Of two near the best, drawn at random, the one with fewer requests in flight: a clear winner
    always wins, equals share.
    """
    first, second = draw.board.two(width, draw.random)
    if first == second:
        return first
    members = draw.members
    if members[second].backend.pending < members[first].backend.pending:
        return second
    return first


def pick_any(draw: Draw, width: int) -> int:
    """Any one, each as likely as the other."""
    return draw.board.two(width, draw.random)[0]


def pick_next(draw: Draw, width: int) -> int:
    """Each in its turn; one that cannot serve now is passed over."""
    size = len(draw.members)
    turn = draw.turns.get(draw.model, 0)
    for step in range(size):
        number = (turn + step) % size
        if draw.board.score[number] != OFF:
            draw.turns[draw.model] = number + 1
            return number
    return OFF


STRATEGIES: Mapping[Strategy, StrategyRule] = MappingProxyType(
    {
        Strategy.SMART: StrategyRule(smart_score, smart_scores, NEAR_POINTS, less_loaded_of_two),
        Strategy.PRIORITY_ONLY: StrategyRule(priority_rank, priority_ranks, 0, less_loaded_of_two),
        Strategy.RANDOM: StrategyRule(no_rank, no_ranks, 0, pick_any),
        Strategy.ROUND_ROBIN: StrategyRule(no_rank, no_ranks, 0, pick_next),
    }
)
