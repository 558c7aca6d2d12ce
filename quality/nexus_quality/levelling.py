"""One reporter outweighs nobody: what the largest claim is cut to.

Promises that the claims which speak for a backend (requests, attempts in flight, usual pace) of
the few largest reporters count no more than those of the next, each column by itself, and that a
reporter's error rates stay what they are. It decides nothing: `rules` asks both what was claimed
and what is left of it here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nexus_quality.evidence import Share

Shares = tuple[Share, ...]


def levelled(shares: Shares, loud: int) -> Shares:
    """The shares with the `loud` largest claims of each column cut to the next largest; the very
    same tuple where nothing is cut.
    """
    if loud <= 0 or len(shares) <= loud + 1:
        return shares
    most = [_next(shares, loud, claim) for claim in _CLAIMS]
    cut = tuple(_cut(share, *most) for share in shares)
    return shares if cut == shares else cut


_CLAIMS: tuple[Callable[[Share], float], ...] = (
    lambda share: share.requests,
    lambda share: share.short_requests,
    lambda share: share.in_flight,
    lambda share: share.usual,
)


def _next(shares: Shares, loud: int, claim: Callable[[Share], float]) -> float:
    return sorted(map(claim, shares), reverse=True)[loud]


def _cut(share: Share, hour: float, short: float, in_flight: float, usual: float) -> Share:
    if (
        share.requests <= hour
        and share.short_requests <= short
        and share.in_flight <= in_flight
        and share.usual <= usual
    ):
        return share
    return replace(
        share,
        requests=min(share.requests, int(hour)),
        errors=_scaled(share.errors, share.requests, int(hour)),
        short_requests=min(share.short_requests, int(short)),
        short_errors=_scaled(share.short_errors, share.short_requests, int(short)),
        in_flight=min(share.in_flight, int(in_flight)),
        usual=min(share.usual, usual),
    )


def _scaled(errors: int, requests: int, most: int) -> int:
    return errors * most // requests if requests > most else errors
