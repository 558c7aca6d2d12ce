"""One reporter outweighs nobody: neither against a backend nor for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_api.backend import ExclusionRule
from nexus_quality.evidence import Share
from nexus_quality.levelling import levelled
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.rules import fire

NOW = 5_000.0
RATES_ONLY = replace(DEFAULT_POLICY, consecutive_failures=0)
LOUD = 1_000_000


def share(number: int, **given: Any) -> Share:
    return Share(reporter=f"pod-{number}", **given)


def dead(number: int, **more: Any) -> Share:
    """A reporter to which the backend answered nothing but errors."""
    given = {"requests": 6, "errors": 6, "short_requests": 6, "short_errors": 6, "usual": 0.2}
    return share(number, **given | more)


@pytest.mark.parametrize(
    "claims",
    [
        {"requests": LOUD, "short_requests": LOUD},
        {"in_flight": LOUD},
        {"requests": LOUD, "short_requests": LOUD, "in_flight": LOUD, "usual": 1e6},
    ],
)
def test_a_dead_backend_goes_however_well_one_reporter_says_it_is(claims: dict[str, Any]) -> None:
    shares = (*map(dead, range(9)), share(99, **claims))
    firing = fire(shares, RATES_ONLY, NOW)
    assert firing is not None
    assert firing.quorum
    assert 2 * firing.errors >= firing.requests
    assert f"({firing.errors} of {firing.requests})" in firing.reason
    assert firing.reason.endswith("%, the largest claims cut to the next largest")


def test_breakers_that_are_open_count_however_busy_one_reporter_says_it_is() -> None:
    shares = (*(dead(n, open=True) for n in range(9)), share(99, requests=LOUD, usual=1e6))
    firing = fire(shares, replace(DEFAULT_POLICY, threshold_basis_points=10_000), NOW)
    assert firing is not None
    assert (firing.rule, firing.quorum) == (ExclusionRule.OPEN_BREAKERS, True)


def test_a_row_of_quiet_proxies_counts_however_busy_one_reporter_says_it_is() -> None:
    quiet = tuple(share(n, requests=1, errors=1, rows=((NOW - 2.0, 1),)) for n in range(9))
    denier = share(99, requests=LOUD, usual=1e6, in_flight=LOUD)
    firing = fire((*quiet, denier), replace(DEFAULT_POLICY, min_requests=1_000), NOW)
    assert firing is not None
    assert (firing.rule, firing.quorum) == (ExclusionRule.FLEET_ROW, True)


def test_a_reason_says_nothing_of_claims_that_were_not_cut() -> None:
    firing = fire(tuple(map(dead, range(9))), RATES_ONLY, NOW)
    assert firing is not None and firing.quorum
    assert "claims" not in firing.reason


def test_two_of_two_reporters_decide_as_before() -> None:
    assert fire((dead(0), share(1, requests=100)), RATES_ONLY, NOW) is None


def test_one_broken_proxy_beside_a_busy_one_and_a_quiet_one_excludes_nothing() -> None:
    busy, quiet = (share(n, requests=r, short_requests=r) for n, r in ((1, 5_000), (2, 40)))
    firing = fire((dead(0, requests=40, errors=40), busy, quiet), RATES_ONLY, NOW)
    assert firing is None or not firing.quorum


def test_an_operator_that_believes_a_single_reporter_cuts_nothing() -> None:
    believing = replace(RATES_ONLY, min_reporters=1)
    liar = share(99, requests=LOUD, short_requests=LOUD)
    assert fire((*map(dead, range(9)), liar), believing, NOW) is None


def test_shares_of_one_size_are_left_as_they_are() -> None:
    shares = tuple(map(dead, range(5)))
    assert levelled(shares, 1) is shares
    assert levelled(shares, 0) is shares


counts = st.integers(0, 10_000)
one_share = st.builds(
    lambda requests, failed, short, in_flight, usual: share(
        0,
        requests=requests,
        errors=failed % (requests + 1),
        short_requests=short,
        short_errors=failed % (short + 1),
        in_flight=in_flight,
        usual=usual,
    ),
    counts,
    counts,
    counts,
    counts,
    st.floats(0, 1e6),
)


@given(st.lists(one_share, max_size=8), st.integers(0, 3))
def test_no_claim_grows_and_no_rate_rises(shares: list[Share], loud: int) -> None:
    before = tuple(shares)
    for old, new in zip(before, levelled(before, loud), strict=True):
        assert new.requests <= old.requests
        assert new.short_requests <= old.short_requests
        assert new.in_flight <= old.in_flight
        assert new.usual <= old.usual
        assert new.errors * old.requests <= old.errors * new.requests
        assert new.short_errors * old.short_requests <= old.short_errors * new.short_requests
