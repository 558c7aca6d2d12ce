"""The properties as hypothesis runs; how many examples is the caller's choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nexus_devtools.fuzz import properties, wire
from nexus_devtools.fuzz.client import client_side_survives


def _requests_agree(data: bytes, sizes: list[int]) -> None:
    properties.requests_agree(data, wire.pieces(data, sizes))


def _requests_split(data: bytes, sizes: list[int]) -> None:
    properties.splitting_requests_is_no_matter(data, wire.pieces(data, sizes))


def _answers_agree(data: bytes, sizes: list[int], eof: bool) -> None:
    properties.answers_agree(data, wire.pieces(data, sizes), eof=eof)


def _answers_split(data: bytes, sizes: list[int], eof: bool) -> None:
    properties.splitting_answers_is_no_matter(data, wire.pieces(data, sizes), eof=eof)


def _clients_survive(data: bytes, sizes: list[int]) -> None:
    client_side_survives(wire.pieces(data, sizes))


SEVERAL = st.lists(wire.requests(), min_size=1, max_size=3).map(b"".join)
Strategies = tuple[st.SearchStrategy[Any], ...]
RUNS: dict[str, tuple[Callable[..., None], Strategies]] = {
    "requests_agree": (_requests_agree, (wire.requests(), wire.splits)),
    "requests_split": (_requests_split, (SEVERAL, wire.splits)),
    "answers_agree": (_answers_agree, (wire.answers(), wire.splits, st.booleans())),
    "answers_split": (_answers_split, (wire.answers(), wire.splits, st.booleans())),
    "clients_survive": (
        _clients_survive,
        (st.one_of(SEVERAL, st.binary(max_size=200)), wire.splits),
    ),
}


def run(name: str, examples: int) -> None:
    """Run one property on new random examples. Raises AssertionError with the smallest failing."""
    holds, strategies = RUNS[name]
    wanted = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    wanted(given(*strategies)(holds))()
