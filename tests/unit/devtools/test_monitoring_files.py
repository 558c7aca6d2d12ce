"""The files of the monitoring: rules, examples and dashboard agree, and the documents show them."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

from nexus_devtools.metric_bounds import OPERATOR, PROXY
from nexus_devtools.metric_table import PAGE
from nexus_devtools.prometheus import CONFIGURATION, DASHBOARD, RULE_FILE, RULES, rule_file


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def test_the_rule_file_is_the_rules_that_ship() -> None:
    assert RULE_FILE.read_text() == rule_file(), "run python -m nexus_devtools.prometheus"


def test_the_page_shows_the_configuration_as_it_is() -> None:
    assert f"```yaml\n{CONFIGURATION.read_text()}```\n" in PAGE.read_text()


def test_panels_have_each_a_place_and_a_number_of_their_own() -> None:
    numbers = [panel["id"] for panel in panels()]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        columns, rows = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        cells = {(x, y) for x in columns for y in rows}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_rows_are_in_order_and_every_panel_but_a_row_asks_something() -> None:
    tops = [panel["gridPos"]["y"] for panel in panels() if panel["type"] == "row"]
    assert len(tops) >= 6
    assert all(one < two for one, two in pairwise(tops))
    asking = [panel for panel in panels() if panel["type"] != "row"]
    assert all(panel["targets"] and panel["title"] for panel in asking)
    sources = {target["datasource"]["uid"] for panel in asking for target in panel["targets"]}
    assert sources == {"${datasource}"}


def test_dashboard_and_rules_name_metrics_that_exist() -> None:
    records = set(re.findall(r"record: (\S+)", RULES.read_text()))
    exported = {*OPERATOR, *PROXY, *(f"{name}_total" for name in PROXY)}
    for text in (DASHBOARD.read_text(), RULES.read_text()):
        used = set(re.findall(r"\bnexus_[a-z0-9_]+|\bnexus:[a-z0-9_:]+", text))
        plain = {re.sub("_(bucket|sum|count)$", "", name) for name in used}
        assert plain - exported - records == set()
