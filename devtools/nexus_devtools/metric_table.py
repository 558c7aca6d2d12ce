"""`python -m nexus_devtools.metric_table`: the operator's metrics as a table in docs/operations.md.

Promises what the operator really exports: names, types and labels are read from its registry. It
replaces what is between the two marks and nothing else.
"""

from __future__ import annotations

from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from nexus_operator import metric_names
from nexus_operator.metrics import Metrics

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
BEGIN, END = "<!-- metrics: begin -->\n", "<!-- metrics: end -->"


def table() -> str:
    """One row per metric, in the order of `metric_names`."""
    metrics = Metrics(lambda: ())
    wrappers = [one for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)]
    labels = {one._name: tuple(one._labelnames) for one in wrappers}
    types = {}
    for family in metrics.registry.collect():
        types[family.name] = family.type
        labels.setdefault(family.name, tuple(getattr(family, "_labelnames", ())))
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for name, text in metric_names.HELP.items():
        family_name = name.removesuffix("_total")
        named = ", ".join(f"`{label}`" for label in labels[family_name])
        lines.append(f"| `{name}` | {types[family_name]} | {named} | {text} |")
    return "\n".join(lines) + "\n"


def replaced(page: str) -> str:
    """The page with the table of today."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text()))
