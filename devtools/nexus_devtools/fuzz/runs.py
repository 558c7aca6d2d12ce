"""The properties as hypothesis runs; how many examples is the caller's choice."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nexus_devtools.fuzz import properties, wire
from nexus_devtools.fuzz.client import client_side_survives


@given(wire.requests(), wire.splits)
def requests_agree(data: bytes, sizes: list[int]) -> None:
    properties.requests_agree(data, wire.pieces(data, sizes))


@given(st.lists(wire.requests(), min_size=1, max_size=3).map(b"".join), wire.splits)
def requests_split(data: bytes, sizes: list[int]) -> None:
    properties.splitting_requests_is_no_matter(data, wire.pieces(data, sizes))


@given(wire.answers(), wire.splits, st.booleans())
def answers_agree(data: bytes, sizes: list[int], eof: bool) -> None:
    properties.answers_agree(data, wire.pieces(data, sizes), eof=eof)


@given(wire.answers(), wire.splits, st.booleans())
def answers_split(data: bytes, sizes: list[int], eof: bool) -> None:
    properties.splitting_answers_is_no_matter(data, wire.pieces(data, sizes), eof=eof)


@given(
    st.one_of(st.lists(wire.requests(), max_size=3).map(b"".join), st.binary(max_size=200)),
    wire.splits,
)
def clients_survive(data: bytes, sizes: list[int]) -> None:
    client_side_survives(wire.pieces(data, sizes))


RUNS: dict[str, Callable[[], None]] = {
    run.__name__: run
    for run in (requests_agree, requests_split, answers_agree, answers_split, clients_survive)
}


def run(name: str, examples: int) -> None:
    """Run one property on new random examples. Raises AssertionError with the smallest failing."""
    wanted = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    wanted(RUNS[name])()
