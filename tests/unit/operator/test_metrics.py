"""Metrics: the seed's names, a real histogram, and nothing for a backend without data."""

from __future__ import annotations

import pytest

from nexus_operator import metric_names as names
from nexus_operator.metrics import Metrics, Reading

READINGS = (
    Reading(agent_id="shop/a", state="Active", error_rate=0.05, success_rate_24h=0.95),
    Reading(agent_id="shop/b", state="Excluded", error_rate=None, success_rate_24h=None),
)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_rates_carry_the_seeds_names_and_are_absent_without_data() -> None:
    metrics = Metrics(lambda: READINGS)
    assert value(metrics, "nexus_agent_error_rate", agent_id="shop/a") == 0.05
    assert value(metrics, "nexus_agent_success_rate_24h", agent_id="shop/a") == 0.95
    assert value(metrics, "nexus_agent_error_rate", agent_id="shop/b") is None
    assert value(metrics, "nexus_operator_backends") == 2
    state = {"agent_id": "shop/b", "state": "Excluded"}
    assert value(metrics, "nexus_operator_backend_state", **state) == 1


def test_ttft_is_a_histogram_of_observations() -> None:
    metrics = Metrics(lambda: ())
    for milliseconds, count in ((80, 3), (700, 2), (90_000, 1)):
        metrics.ttft.observe("shop/a", milliseconds, count)
    bucket = "nexus_agent_ttft_seconds_bucket"
    assert value(metrics, bucket, agent_id="shop/a", le="0.05") == 0
    assert value(metrics, bucket, agent_id="shop/a", le="0.1") == 3
    assert value(metrics, bucket, agent_id="shop/a", le="1.0") == 5
    assert value(metrics, bucket, agent_id="shop/a", le="+Inf") == 6
    assert value(metrics, "nexus_agent_ttft_seconds_count", agent_id="shop/a") == 6
    total = value(metrics, "nexus_agent_ttft_seconds_sum", agent_id="shop/a")
    assert total == pytest.approx(0.24 + 1.4 + 90)
    metrics.ttft.forget("shop/a")
    assert value(metrics, "nexus_agent_ttft_seconds_count", agent_id="shop/a") is None


def test_every_name_has_a_help_text_and_is_on_the_page() -> None:
    metrics = Metrics(lambda: READINGS)
    page = metrics.page().decode()
    for name, text in names.HELP.items():
        assert f"# HELP {name} {text}" in page
