"""How one of several suitable candidates is chosen: a table of strategies.

A strategy is a way to rank a candidate, how far from the best it looks, and a way to pick from a
board. Slow-start admission, probes and the last resort apply to all of them alike and are not its
business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nexus_api import Strategy
from nexus_proxy.routing.board import OFF, Board
from nexus_proxy.routing.candidate import Candidate
from nexus_proxy.routing.rules import Rules
from nexus_proxy.routing.score import raw_score, soft_limit, ttft_penalty
from nexus_proxy.routing.steps import OPEN_ZONE

NEAR_POINTS = 5

Rank = Callable[[Candidate, Rules, int | None], int]
Pick = Callable[["Draw"], int]


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
    """A strategy. `width` is how many points below the best still count as near."""

    rank: Rank
    width: int
    pick: Pick


def smart_score(candidate: Candidate, rules: Rules, ttft_ms: int | None) -> int:
    """The seed's score: weighted priority, load and latency, halved at the soft limit, then the
    TTFT penalty.
    """
    backend, traits = candidate.backend, candidate.traits
    score = raw_score(traits.priority, backend.in_flight, backend.latency_ms, rules.weights)
    if rules.soft_limit and traits.zone == OPEN_ZONE:
        score = soft_limit(score)
    return score if ttft_ms is None else ttft_penalty(score, ttft_ms, traits.ttft_threshold_ms)


def priority_rank(candidate: Candidate, rules: Rules, ttft_ms: int | None) -> int:
    """Lower priority numbers first, nothing else."""
    return 100 - min(candidate.traits.priority, 100)


def no_rank(candidate: Candidate, rules: Rules, ttft_ms: int | None) -> int:
    """All alike."""
    return 0


def less_loaded_of_two(draw: Draw, width: int) -> int:
    """Of two near the best, drawn at random, the one with fewer requests in flight."""
    first, second = draw.board.two(width, draw.random)
    if first == second:
        return first
    members = draw.members
    if members[second].backend.in_flight < members[first].backend.in_flight:
        return second
    return first


def pick_near(draw: Draw) -> int:
    """The choice of Smart: a clear winner always wins, equals share."""
    return less_loaded_of_two(draw, NEAR_POINTS)


def pick_best(draw: Draw) -> int:
    """The best rank; equals share by load."""
    return less_loaded_of_two(draw, 0)


def pick_any(draw: Draw) -> int:
    """Any one, each as likely as the other."""
    return draw.board.two(0, draw.random)[0]


def pick_next(draw: Draw) -> int:
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
        Strategy.SMART: StrategyRule(smart_score, NEAR_POINTS, pick_near),
        Strategy.PRIORITY_ONLY: StrategyRule(priority_rank, 0, pick_best),
        Strategy.RANDOM: StrategyRule(no_rank, 0, pick_any),
        Strategy.ROUND_ROBIN: StrategyRule(no_rank, 0, pick_next),
    }
)
