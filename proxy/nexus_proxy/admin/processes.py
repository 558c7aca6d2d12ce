"""The standard `process_…` metrics of a proxy of several processes: what they use together.

Promises sums, the CPU time of processes that are gone included, under the names that one process
has; the start is the parent's, and the limit of open files that of each.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

CPU = "process_cpu_seconds"
SUMMED = (CPU, "process_virtual_memory_bytes", "process_resident_memory_bytes", "process_open_fds")


class Processes(Collector):
    """This process and those that `children` names."""

    def __init__(self, children: Callable[[], Iterable[int]]) -> None:
        self._children = children

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not look at registration."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The metrics of this process, with the others' added."""
        others: dict[str, float] = {}
        for pid in self._children():
            for metric in _of(pid):
                others[metric.name] = others.get(metric.name, 0.0) + metric.samples[0].value
        gone = resource.getrusage(resource.RUSAGE_CHILDREN)
        others[CPU] = others.get(CPU, 0.0) + gone.ru_utime + gone.ru_stime
        for metric in _of("self"):
            value = metric.samples[0].value
            if metric.name in SUMMED:
                value += others.get(metric.name, 0.0)
            made = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
            yield made(metric.name, metric.documentation, value=value)


def _of(pid: int | str) -> Iterable[Metric]:
    return ProcessCollector(pid=lambda: pid, registry=None).collect()
