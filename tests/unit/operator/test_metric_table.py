"""The documented metrics are those there are."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

from nexus_devtools.metric_table import PAGE, replaced, table
from nexus_operator import metric_names
from nexus_operator.metrics import Metrics, Reading


def test_the_table_in_the_documents_is_that_of_the_code() -> None:
    page = PAGE.read_text()
    assert replaced(page) == page, "run python -m nexus_devtools.metric_table"


def test_each_metric_has_a_row_with_its_type_and_labels() -> None:
    rows = table().splitlines()
    assert len(rows) == len(metric_names.HELP) + 2
    assert any("`nexus_agent_ttft_seconds` | histogram | `agent_id`" in row for row in rows)
    assert any(
        "`nexus_operator_status_writes_total` | counter | `kind`, `result`" in r for r in rows
    )


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
