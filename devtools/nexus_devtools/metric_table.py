"""`python -m nexus_devtools.metric_table`: all metrics as tables in docs/monitoring.md.

Promises what operator and proxy really export: names, types, labels and texts are read from their
registries, bounds are those of `metric_bounds`. It replaces what is between the marks and nothing
else.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from nexus_devtools import metric_bounds as bounds
from nexus_devtools.metric_bounds import Bound
from nexus_operator import metric_names
from nexus_operator.metrics import Metrics
from nexus_proxy.admin.agents import AgentMetrics
from nexus_proxy.admin.metrics import ProxyCollector
from nexus_proxy.counters import Counters
from nexus_proxy.routing.router import Router
from nexus_proxy.secrets import MountedSecrets
from nexus_proxy.workers.crew import Crew
from nexus_quality.engine import Engine

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"
HEAD = "| metric | type | labels | series at most | meaning |\n|---|---|---|---|---|\n"


def operator_families() -> list[Metric]:
    """What the operator exports, in the order of `metric_names`; labels as `_labelnames`."""
    metrics = Metrics(lambda: ())
    families = {family.name: family for family in metrics.registry.collect()}
    for wrapper in vars(metrics).values():
        if isinstance(wrapper, MetricWrapperBase):
            families[wrapper._name].__dict__["_labelnames"] = wrapper._labelnames
    return [families[name.removesuffix("_total")] for name in metric_names.HELP]


def proxy_families() -> list[Metric]:
    """What every proxy exports."""
    return list(ProxyCollector(Counters(), Router(random=random.Random(0).random)).collect())


def mode_families() -> list[Metric]:
    """What a proxy adds that has workers, and what a standalone one adds."""
    counters, chance = Counters(), random.Random(0).random
    crew = Crew(workers=1, arguments=(), secrets=MountedSecrets(Path()), counters=counters)
    engine = Engine(epoch="", started=0.0, random=chance)
    alone = AgentMetrics(engine, lambda: 0.0)
    return [*crew.collect(), *alone.collect({})]


def table(families: Iterable[Metric], bound_of: Mapping[str, Bound]) -> str:
    """One row per metric, under the name that a query uses, and one for their sum."""
    rows, whole = [], Bound()
    for family in families:
        exported = family.name + ("_total" if family.type == "counter" else "")
        bound = bound_of.get(exported) or bound_of[family.name]
        whole += bound
        labels = ", ".join(f"`{label}`" for label in getattr(family, "_labelnames", ()))
        text = f"{family.documentation.removesuffix('.')}."
        rows.append(f"| `{exported}` | {family.type} | {labels} | {bound} | {text} |\n")
    return f"{HEAD}{''.join(rows)}| all of them | | | {whole} | |\n"


def tables() -> dict[str, str]:
    """The tables, by the names of their marks."""
    return {
        "operator": table(operator_families(), bounds.OPERATOR),
        "proxy": table(proxy_families(), bounds.PROXY),
        "modes": table(mode_families(), bounds.PROXY),
    }


def replaced(page: str) -> str:
    """The page with the tables of today."""
    for name, text in tables().items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = before + begin + text + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text()))
