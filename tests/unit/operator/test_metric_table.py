"""The documented metrics are those there are."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

from nexus_devtools import metric_bounds
from nexus_devtools.metric_table import PAGE, replaced, tables
from nexus_operator import metric_names
from nexus_operator.metrics import Metrics, Reading
from nexus_proxy import metric_names as proxy_names


def test_the_tables_in_the_documents_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    assert replaced(page) == page, "run python -m nexus_devtools.metric_table"


def test_each_metric_has_a_row_with_its_type_labels_and_bound() -> None:
    operator, proxy, modes = (text.splitlines()[2:-1] for text in tables().values())
    names = {value for name, value in vars(proxy_names).items() if name.isupper()}
    assert len(operator) == len(metric_names.HELP)
    assert len(proxy) + len(modes) == len(names)
    assert set(metric_bounds.OPERATOR) == set(metric_names.HELP)
    assert set(metric_bounds.PROXY) == names
    for start in (
        "| `nexus_agent_ttft_seconds` | histogram | `agent_id` | 13 per backend | ",
        "| `nexus_operator_status_writes_total` | counter | `kind`, `result` | 15 | ",
    ):
        assert any(row.startswith(start) for row in operator)
    assert any("`nexus_proxy_requests_total` | counter | `endpoint`, `status`" in r for r in proxy)


async def test_a_counter_has_no_second_series_with_the_time_it_began() -> None:
    metrics = Metrics(lambda: ())
    metrics.reports.labels("full").inc()
    assert b"_created" not in await metrics.page()


async def test_promtool_has_no_complaint_where_there_is_one() -> None:
    metrics = Metrics(lambda: [Reading(agent_id="a/b", state="Active", error_rate=0.5,
                                       success_rate_24h=0.5)])  # fmt: skip
    metrics.ttft.observe("a/b", 120, 1)
    page = await metrics.page()
    promtool = shutil.which("promtool")
    if promtool is not None:
        check = [promtool, "check", "metrics"]
        await asyncio.to_thread(subprocess.run, check, input=page, check=True, timeout=30)
    names = [line.split()[2] for line in page.decode().splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    assert not any(name.endswith("_seconds_total") for name in names)
