"""The seed's integer score of a candidate, 0 to 100: higher is better.

Pure integer arithmetic, floor division throughout, so that every proxy computes the same number
from the same facts. It ranks candidates that may serve; it never excludes one.
"""

from __future__ import annotations

from nexus_api import Weights

MAX_SCORE = 100


def raw_score(priority: int, pending: int, latency_ms: float, weights: Weights) -> int:
    """Priority (lower is better), requests in flight and latency in milliseconds, weighted."""
    tenths = int(latency_ms) // 10
    return (
        (0 if priority > 100 else 100 - priority) * weights.priority
        + (0 if pending > 100 else 100 - pending) * weights.load
        + (0 if tenths > 100 else 100 - tenths) * weights.latency
    ) // 100


def soft_limit(score: int) -> int:
    """The score of an Open backend once the budget's soft limit is reached."""
    return score // 2


def ttft_penalty(score: int, ttft_ms: int | None, threshold_ms: int) -> int:
    """The score after the penalty for a slow first token.

    In proportion to the excess over the threshold, complete at twice the threshold; it leaves at
    least 1 of a score above 0, so that slow backends still rank among each other. None means no
    data; threshold 0 is off.
    """
    if ttft_ms is None or threshold_ms == 0 or ttft_ms <= threshold_ms or score == 0:
        return score
    return max(1, score - score * min(ttft_ms - threshold_ms, threshold_ms) // threshold_ms)
