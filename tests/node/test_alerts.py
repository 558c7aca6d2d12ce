"""The alerts, by Prometheus' own tool: each fires, says what it should, and resolves."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from nexus_operator import metric_names as operator_names
from nexus_proxy import metric_names as proxy_names

HERE = Path(__file__).parent
RULES = HERE.parents[1] / "manifests" / "components" / "monitoring" / "rules.yaml"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A folder with the rules and their cases, as promtool takes them."""
    spec = yaml.safe_load(RULES.read_text())["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    shutil.copy(HERE / "alerts.yaml", tmp_path)
    return tmp_path


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_the_rules_are_rules(rules: Path) -> None:
    checked = promtool("check", "rules", rules / "rules.yaml")
    assert checked.returncode == 0, checked.stderr


def test_each_alert_fires_and_resolves_as_its_case_says(rules: Path) -> None:
    tested = promtool("test", "rules", rules / "alerts.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def rule_names(rules: Path, kind: str) -> set[str]:
    groups = yaml.safe_load((rules / "rules.yaml").read_text())["groups"]
    return {rule[kind] for group in groups for rule in group["rules"] if kind in rule}


def cases(rules: Path, kind: str) -> list[dict[str, Any]]:
    found = yaml.safe_load((rules / "alerts.yaml").read_text())["tests"]
    return [each for case in found for each in case.get(kind, ())]


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(
    rules: Path,
) -> None:
    alerts, told = rule_names(rules, "alert"), cases(rules, "alert_rule_test")
    assert {each["alertname"] for each in told if each["exp_alerts"]} == alerts
    assert {each["alertname"] for each in told if not each["exp_alerts"]} == alerts
    burns = [one["exp_labels"].get("burn") for each in told for one in each["exp_alerts"]]
    assert {"fast", "slow"} <= set(burns)


def test_every_recording_rule_has_a_case(rules: Path) -> None:
    tested = {each["expr"] for each in cases(rules, "promql_expr_test")}
    assert tested == rule_names(rules, "record")


def test_a_case_that_is_wrong_is_noticed(rules: Path) -> None:
    good = (rules / "alerts.yaml").read_text()
    for right, wrong in (("shop/a is excluded", "shop/b is excluded"), ("value: 2}", "value: 3}")):
        assert good.count(right)
        (rules / "alerts.yaml").write_text(good.replace(right, wrong))
        assert promtool("test", "rules", rules / "alerts.yaml").returncode != 0, wrong


def test_rules_use_metrics_that_exist() -> None:
    exported = {
        value
        for module in (operator_names, proxy_names)
        for value in vars(module).values()
        if isinstance(value, str) and value.startswith("nexus_")
    }
    used = set(re.findall(r"\bnexus_[a-z_]+", RULES.read_text()))
    unknown = {name for name in used if not {name, name.removesuffix("_total")} & exported}
    assert unknown == set()
