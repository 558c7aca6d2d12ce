"""Metrics: the seed's names, a real histogram, and nothing for a backend without data."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

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


async def test_every_name_has_a_help_text_and_is_on_the_page() -> None:
    metrics = Metrics(lambda: READINGS)
    page = (await metrics.page()).decode()
    for name, text in names.HELP.items():
        assert f"# HELP {name} {text}" in page


async def test_the_page_is_what_the_parser_of_prometheus_reads() -> None:
    metrics = Metrics(lambda: READINGS)
    metrics.ttft.observe("shop/a", 80, 3)
    metrics.reports.labels("full").inc()
    metrics.transitions.labels("S1", "Excluded", "ErrorRate").inc()
    metrics.status_writes.labels("LLMBackend", "written").inc()
    metrics.loop_lag.observe(0.002)
    families = {f.name: f for f in text_string_to_metric_families((await metrics.page()).decode())}
    assert families["nexus_agent_ttft_seconds"].type == "histogram"
    for name in names.HELP:
        family = families[name.removesuffix("_total")]
        assert family.documentation == names.HELP[name]
        assert family.type in ("gauge", "counter", "histogram")
        assert (family.type == "counter") == name.endswith("_total")


async def test_what_changes_while_a_page_is_rendered_does_not_disturb_it() -> None:
    metrics = Metrics(lambda: READINGS)
    for number in range(300):
        metrics.ttft.observe(f"shop/{number}", 80, 1)
    page = asyncio.create_task(metrics.page())
    number = 300
    while not page.done():
        metrics.ttft.observe(f"shop/{number}", 80, 1)
        number += 1
        await asyncio.sleep(0)
    assert b'agent_id="shop/299"' in await page
    assert value(metrics, "nexus_agent_ttft_seconds_count", agent_id=f"shop/{number - 1}") == 1


async def test_figures_of_the_moment_are_read_before_each_page() -> None:
    metrics, alive = Metrics(lambda: ()), [3]
    metrics.before_page.append(lambda: metrics.reporters.set(alive[0]))
    assert b"nexus_operator_reporters 3.0" in await metrics.page()
    alive[0] = 2
    assert b"nexus_operator_reporters 2.0" in await metrics.page()


async def test_a_reader_that_fails_leaves_the_next_page_whole() -> None:
    broken = [True]

    def read() -> Iterator[Reading]:
        yield READINGS[0]
        if broken[0]:
            raise LookupError

    metrics = Metrics(read)
    with pytest.raises(LookupError):
        await metrics.page()
    broken[0] = False
    assert b'agent_id="shop/a"' in await metrics.page()


async def test_nothing_on_the_page_names_a_backend_that_is_gone() -> None:
    readings = list(READINGS)
    metrics = Metrics(lambda: readings)
    for reading in READINGS:
        metrics.ttft.observe(reading.agent_id, 80, 1)
    assert b'"shop/a"' in await metrics.page()
    del readings[0]
    metrics.ttft.forget("shop/a")
    page = await metrics.page()
    assert b"shop/a" not in page and b'"shop/b"' in page
