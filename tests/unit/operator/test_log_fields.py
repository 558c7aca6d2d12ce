"""A change of a verdict is one line with the same fields in both processes' logs."""

from __future__ import annotations

import json
import logging

import pytest

from nexus_api.backend import ExclusionRule, SubjectState
from nexus_operator.logs import JsonFormatter as OperatorFormatter
from nexus_proxy.logs import JsonFormatter as ProxyFormatter
from nexus_quality.docket import Transition
from nexus_quality.firing import Firing
from nexus_quality.verdict import Verdict
from nexus_quality.verdicts import Verdicts

FIRING = Firing(
    rule=ExclusionRule.ERROR_RATE, errors=5, requests=10, reason="r", suggested_action="a"
)
OUT = Verdict(state=SubjectState.EXCLUDED, generation=3, firing=FIRING)


def transition(before: Verdict, after: Verdict) -> Transition:
    return Transition(
        uid="u", row="S1", before=before, after=after, event="Excluded", message="m", model="tiny",
        fingerprint="spec",
        verdicts=Verdicts(),
    )  # fmt: skip


@pytest.mark.parametrize("formatter", [OperatorFormatter(), ProxyFormatter()])
def test_both_write_the_fields_of_a_transition(formatter: logging.Formatter) -> None:
    record = logging.makeLogRecord({"msg": "said", "levelname": "INFO", "name": "n"})
    vars(record).update(transition(Verdict(), OUT).fields("shop/a"))
    line = json.loads(formatter.format(record))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "n",
        "message": "said",
        "backend": "shop/a",
        "model": "tiny",
        "row": "S1",
        "before": "Active",
        "after": "Excluded",
        "generation": 3,
        "rule": "ErrorRate",
    }


def test_a_rule_is_named_only_where_it_keeps_something_out() -> None:
    assert transition(Verdict(), OUT).rule == "ErrorRate"
    assert transition(OUT, Verdict(generation=4, firing=FIRING)).rule == ""
