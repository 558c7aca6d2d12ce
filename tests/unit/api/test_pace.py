"""Tests live through long waits faster; without a word from one, nothing changes."""

from __future__ import annotations

import pytest

from nexus_api import pace
from nexus_quality import engine, evidence, monitor


def test_without_the_variable_every_wait_is_as_long_as_it_says() -> None:
    assert pace.paced(90.0) == 90.0
    assert (evidence.ALIVE_SECONDS, engine.STARTING_SECONDS) == (90.0, 60.0)
    assert (monitor.ORPHAN_AFTER_SECONDS, monitor.UNANSWERED_SECONDS) == (60.0, 90.0)


@pytest.mark.parametrize(("text", "expected"), [("", 1.0), ("1", 1.0), ("20", 20.0)])
def test_the_variable_is_a_divisor(text: str, expected: float) -> None:
    assert pace.read(text) == expected


@pytest.mark.parametrize("text", ["fast", "0", "0.5", "101", "nan", "-3"])
def test_what_is_no_pace_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(SystemExit, match=r"NEXUS_TEST_PACE='.*': write a number from 1 to 100"):
        pace.read(text)
