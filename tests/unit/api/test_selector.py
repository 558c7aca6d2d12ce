"""Label selectors select as in Kubernetes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nexus_api import LabelSelector

LABELS = {"team": "a", "tier": "gold"}


def expression(operator: str, key: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, True),
        ({"matchLabels": {"team": "a"}}, True),
        ({"matchLabels": {"team": "a", "tier": "silver"}}, False),
        ({"matchLabels": {"zone": ""}}, False),
        (expression("In", "tier", "gold", "silver"), True),
        (expression("In", "tier", "silver"), False),
        (expression("In", "zone", "x"), False),
        (expression("NotIn", "tier", "gold"), False),
        (expression("NotIn", "tier", "silver"), True),
        (expression("NotIn", "zone", "x"), True),
        (expression("Exists", "tier"), True),
        (expression("Exists", "zone"), False),
        (expression("DoesNotExist", "tier"), False),
        (expression("DoesNotExist", "zone"), True),
        ({"matchLabels": {"team": "a"}} | expression("Exists", "zone"), False),
    ],
)
def test_selection(selector: dict[str, Any], selected: bool) -> None:
    typed = msgspec.convert(selector, LabelSelector)
    assert typed.matches(LABELS) is selected
    assert typed.selects_all is (selector == {})
