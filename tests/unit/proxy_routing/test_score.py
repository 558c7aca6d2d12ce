"""The seed's integer score, by golden vectors, and the penalty for slow first tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_api import Weights
from nexus_proxy.routing.score import raw_score, soft_limit, ttft_penalty

# (priority, pending, latency in ms) and the score of the seed's own implementation.
GOLDEN = [
    ((0, 0, 0), 100),
    ((1, 0, 50), 98),
    ((0, 1, 0), 99),
    ((0, 2, 0), 99),
    ((0, 3, 0), 99),
    ((0, 4, 0), 98),
    ((5, 0, 50), 96),
    ((5, 0, 500), 87),
    ((10, 50, 500), 70),
    ((50, 0, 0), 75),
    ((0, 0, 9), 100),
    ((0, 0, 10), 99),
    ((0, 0, 1000), 80),
    ((1000, 1000, 10000), 0),
]


@pytest.mark.parametrize(("facts", "score"), GOLDEN)
def test_the_raw_score_equals_the_seeds(facts: tuple[int, int, int], score: int) -> None:
    priority, pending, latency = facts
    assert raw_score(priority, pending, latency, Weights()) == score


# (score, average TTFT, threshold) and the score after the penalty. The contract keeps 1 where the
# seed fell to 0, and rounds the loss down as the seed's truncation did.
PENALTIES = [
    ((98, 3000, 3000), 98),
    ((98, 3001, 3000), 98),
    ((98, 3500, 3000), 82),
    ((98, 4500, 3000), 49),
    ((98, 5999, 3000), 1),
    ((98, 6000, 3000), 1),
    ((98, 60000, 3000), 1),
    ((98, 10000, 0), 98),
    ((1000, 3500, 3000), 834),
    ((1000, 4500, 3000), 500),
    ((0, 60000, 3000), 0),
    ((49, 4500, 3000), 25),
]


@pytest.mark.parametrize(("facts", "score"), PENALTIES)
def test_the_ttft_penalty_equals_the_seeds_but_leaves_one_point(
    facts: tuple[int, int, int], score: int
) -> None:
    before, ttft, threshold = facts
    assert ttft_penalty(before, ttft, threshold) == score


def test_the_soft_limit_halves_before_the_penalty() -> None:
    assert ttft_penalty(soft_limit(98), 4500, 3000) == 25


def test_no_ttft_data_means_no_penalty() -> None:
    assert ttft_penalty(80, None, 3000) == 80


@given(
    priority=st.integers(0, 200),
    pending=st.integers(0, 200),
    latency=st.integers(0, 20_000),
    worse=st.sampled_from(["priority", "pending", "latency"]),
    by=st.integers(1, 500),
)
def test_a_worse_candidate_never_scores_more(
    priority: int, pending: int, latency: int, worse: str, by: int
) -> None:
    facts = {"priority": priority, "pending": pending, "latency": latency}
    before = raw_score(*facts.values(), Weights())
    facts[worse] += by
    after = raw_score(*facts.values(), Weights())
    assert 0 <= after <= before <= 100


@given(score=st.integers(0, 100), ttft=st.integers(0, 100_000), threshold=st.integers(0, 60_000))
def test_the_penalty_only_ever_takes_and_never_all(score: int, ttft: int, threshold: int) -> None:
    after = ttft_penalty(score, ttft, threshold)
    assert min(score, 1) <= after <= score
