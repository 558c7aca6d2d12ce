"""A sample of what `make fuzz` runs for ten minutes."""

from __future__ import annotations

import pytest

from nexus_devtools.fuzz.runs import RUNS, run

EXAMPLES = 300


@pytest.mark.parametrize("name", RUNS)
def test_a_sample_of_random_messages(name: str) -> None:
    run(name, EXAMPLES)
