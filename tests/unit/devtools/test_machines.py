"""docs/state-machines.md says what the tables say, and says it today."""

from __future__ import annotations

import re

from nexus_devtools.machine_texts import EXPLAINED
from nexus_devtools.machines import (
    PAGE,
    breaker_edges,
    breaker_rows,
    explained,
    functions,
    page,
    verdict_edges,
    verdict_rows,
)
from nexus_quality import breaker_table, verdict_table


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text() == page(), "docs/state-machines.md is old: run `make docs`"


def test_every_row_of_both_tables_is_on_the_page_once() -> None:
    rows = re.findall(r"^\| ([SL]\d+) \|", PAGE.read_text(), flags=re.MULTILINE)
    tables = (*verdict_table.TRANSITIONS, *breaker_table.TRANSITIONS)
    assert rows == [row.row for row in tables]


def test_every_change_of_state_is_an_arrow() -> None:
    assert {row.row for row in verdict_table.TRANSITIONS if row.moves} == {
        row for _, _, row in verdict_edges()
    }
    assert ("Active", "Excluded", "S1") in verdict_edges()
    assert ("Excluded", "Probation", "S7") in verdict_edges()
    assert ("Closed", "Open", "L1") in breaker_edges()
    assert ("HalfOpen", "Open", "L8") in breaker_edges()


def test_a_row_that_stays_is_no_arrow_but_a_line() -> None:
    assert "S14" not in {row for _, _, row in verdict_edges()}
    assert [line for line in verdict_rows() if line[0] == "S14"]
    assert [line for line in breaker_rows() if line[0] == "L2"]


def test_no_explanation_is_left_over() -> None:
    assert set(EXPLAINED) <= functions()


def test_what_nobody_explained_appears_by_its_name() -> None:
    def _of_some_kind() -> None: ...

    assert explained(_of_some_kind) == "of some kind"
