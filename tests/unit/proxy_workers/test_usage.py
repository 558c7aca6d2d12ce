"""The `process_…` metrics of several processes."""

from __future__ import annotations

import os
import subprocess
import sys

from prometheus_client import ProcessCollector

from nexus_proxy.admin.processes import Processes

BUSY = (
    "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\nsys.stdin.read()"
)


def sample(collector: Processes | ProcessCollector) -> dict[str, float]:
    return {metric.name: metric.samples[0].value for metric in collector.collect()}


def test_what_processes_use_is_added_up_and_not_lost_with_them() -> None:
    with subprocess.Popen(
        (sys.executable, "-c", BUSY), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin and child.stdout
        child.stdout.readline()
        alone, both = sample(Processes(list)), sample(Processes(lambda: [child.pid]))
        assert both["process_cpu_seconds"] >= alone["process_cpu_seconds"] + 0.25
        memory = "process_resident_memory_bytes"
        assert both[memory] > alone[memory] + 1_000_000
        assert both["process_open_fds"] > alone["process_open_fds"]
        own = ("process_max_fds", "process_start_time_seconds")
        assert [both[name] for name in own] == [alone[name] for name in own]
        child.stdin.close()
    after = sample(Processes(list))
    assert after["process_cpu_seconds"] >= both["process_cpu_seconds"]


def test_the_names_are_those_of_one_process() -> None:
    one = ProcessCollector(pid=lambda: os.getpid(), registry=None)
    assert set(sample(Processes(list))) == set(sample(one))


def test_a_process_that_is_gone_is_passed_over() -> None:
    assert sample(Processes(lambda: [2**22 + 1]))["process_open_fds"] > 0
