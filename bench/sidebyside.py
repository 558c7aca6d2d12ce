"""This proxy and others side by side in one run: `python -m bench sidebyside`.

Backends and load share one core, each candidate has the other to itself while it is measured; the
rounds are interleaved, so that what the machine does besides strikes all alike; printed are medians
with the range behind them. CPU is the kernel's account of all threads and children. The proxy runs
with everything on (standalone: pipeline, verdicts, metrics), with 4, 100 and 1,000 backends, once
more by the system's Python where that is the same version built otherwise, and once with its hot
modules compiled.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import rivals
from bench.bytepath import (
    Candidate,
    cores,
    free_ports,
    measure_requests,
    measure_streams,
    nginx_command,
    process,
    proxy_command,
)
from bench.bytepath_load import closed_loop, run
from bench.compiled import proxy_compiled
from bench.table import show

ROUNDS = 5
BACKENDS = 4
RATE = 200
HELD_STREAMS = 1000
SLOW = ("LiteLLM",)  # minutes of start and of waiting: in the loads that tell anything
SECONDS_TO_START = 90.0
SLOW_SECONDS_TO_START = 300.0

Start = Callable[[Path, int, Sequence[int]], Sequence[str] | None]


def system_python() -> str | None:
    """The system's Python, if it can run what is installed here and is another build of it."""
    path = "/usr/bin/python3"
    ask = "import sys, sysconfig; print(sys.version_info[:2], sysconfig.get_config_var('BINDIR'))"
    try:
        told = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    same = f"{sys.version_info[:2]}"
    own = sysconfig.get_config_var("BINDIR")
    return path if told.startswith(same) and own not in told else None


def proxy_by_system_python(folder: Path, port: int, backends: Sequence[int]) -> Sequence[str]:
    """The whole proxy by the other build."""
    python = system_python()
    assert python is not None
    packages = sysconfig.get_path("purelib")
    start = (
        f"import runpy, site; site.addsitedir({packages!r});"
        "runpy.run_module('nexus_proxy', run_name='__main__', alter_sys=True)"
    )
    _, _, _, *arguments = proxy_command(folder, port, backends)
    return [python, "-c", start, *arguments]


def proxy_of(backends_each: int) -> Start:
    """The whole proxy with many backends: each of those there are, many times."""

    def start(folder: Path, port: int, backends: Sequence[int]) -> Sequence[str]:
        return proxy_command(folder, port, backends, copies=backends_each // len(backends))

    return start


def candidates() -> dict[str, Start]:
    """Everyone, in the order of the tables."""
    found: dict[str, Start] = {"nexus-proxy": proxy_command}
    if system_python() is not None:
        found["nexus-proxy, system's Python"] = proxy_by_system_python
    found["nexus-proxy, compiled"] = proxy_compiled
    found["nexus-proxy, 100 backends"] = proxy_of(100)
    found["nexus-proxy, 1,000 backends"] = proxy_of(1000)
    return found | {
        "nginx": nginx_command,
        "HAProxy": rivals.haproxy,
        "Envoy": rivals.envoy,
        "aiohttp proxy": rivals.aiohttp,
        "LiteLLM": rivals.litellm,
    }


@dataclass
class Rival(Candidate):
    """A candidate with its latencies and its memory."""

    added_ms: dict[str, list[float]] = field(default_factory=dict)
    rss_mb: dict[str, float] = field(default_factory=dict)


def start_all(
    stack: ExitStack, folder: Path, core: int, backends: Sequence[int]
) -> Iterator[Rival]:
    """Start whoever can be had."""
    for number, (name, start) in enumerate(candidates().items()):
        own = folder / str(number)
        own.mkdir()
        (port,) = free_ports(1)
        try:
            command = start(own, port, backends)
            if command is None:
                continue
            running = process(command, core, port, own / "log", seconds=patience(name))
            yield Rival(name, port, stack.enter_context(running))
        except (rivals.Missing, RuntimeError) as why:
            print(f"{name} is left out: {str(why).strip().splitlines()[-1]}", flush=True)


def rss_mb(pid: int) -> float:
    """Resident memory of a process and its descendants, in MB."""
    total = 0.0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            total += int(line.split()[1]) * 1024 / 1e6
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return total + sum(rss_mb(int(child)) for child in children)


Measure = Callable[[Rival, str, int], None]


def _requests(size: int) -> Measure:
    return lambda rival, what, core: measure_requests(rival, what, size, core)


LOADS: dict[str, tuple[str, Measure]] = {
    "2 KB chat": ("request", _requests(2048)),
    "SSE, 200 streams": ("event", measure_streams),
    "220 KB prompt": ("request", _requests(220_000)),
    "1 MB prompt": ("request", _requests(1_000_000)),
}


def measure_latency(rivals_: Sequence[Rival], backend: int, core: int) -> None:
    """One round at a steady rate: what each adds to the backend's own latency."""
    direct = run("paced", backend, RATE, 3.0, core=core)
    for rival in rivals_:
        figures = run("paced", rival.port, RATE, 3.0, core=core)
        for share in ("p50_ms", "p99_ms"):
            rival.added_ms.setdefault(share, []).append(figures[share] - direct[share])


def measure_memory(rival: Rival, core: int) -> None:
    """With many streams held."""
    arguments = ["streams", str(rival.port), str(HELD_STREAMS), "1"]
    command = ["taskset", "-c", str(core), sys.executable, "-m", "bench.bytepath_load"]
    quiet = subprocess.DEVNULL  # who does not begin them all in time shows in the table
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=quiet, text=True
    ) as load:
        assert load.stdout is not None
        if load.stdout.readline():
            rival.rss_mb["streams"] = rss_mb(rival.pid)
            load.stdout.readline()


def spread(values: Sequence[float], digits: int = 1) -> str:
    """A median and the range behind it."""
    if not values:
        return "–"
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({least:,.{digits}f}–{most:,.{digits}f})"


def ratio(rival: Rival, reference: Rival | None, what: str) -> str:
    """The median of the ratios of the same rounds."""
    if reference is None or what not in rival.cpu_us or what not in reference.cpu_us:
        return "–"
    pairs = zip(rival.cpu_us[what], reference.cpu_us[what], strict=False)
    return f"{statistics.median(own / other for own, other in pairs):.2f}"


def cpu_table(everyone: Sequence[Rival], what: str, unit: str) -> None:
    """What was measured under one name."""
    reference = next((each for each in everyone if each.name == "nginx"), None)
    print(f"\n{what}: µs of CPU per {unit}")
    rows = [
        [each.name, spread(each.cpu_us[what]), ratio(each, reference, what),
         f"{statistics.median(each.rate[what]):,.0f}"]
        for each in everyone
        if what in each.cpu_us
    ]  # fmt: skip
    show(["candidate", "µs CPU", "x nginx", f"{unit}s/s"], rows)


def latency_table(everyone: Sequence[Rival]) -> None:
    """Latency added, and memory."""
    print(f"\nadded at {RATE} requests/s, ms; memory at rest and with {HELD_STREAMS} streams, MB")
    rows = []
    for each in everyone:
        added = [spread(each.added_ms.get(share, ()), 2) for share in ("p50_ms", "p99_ms")]
        memory = [f"{each.rss_mb.get(when, 0):.1f}" for when in ("rest", "streams")]
        rows.append([each.name, *added, *memory])
    show(["candidate", "p50", "p99", "at rest", "streams"], rows)


def patience(name: str) -> float:
    """How long a candidate may take to start, and then to answer, in seconds."""
    return SLOW_SECONDS_TO_START if name in SLOW else SECONDS_TO_START


def warm(everyone: Sequence[Rival], core: int) -> list[Rival]:
    """Those that answer, each after a first second of load."""
    able = []
    for each in everyone:
        each.rss_mb["rest"] = rss_mb(each.pid)
        figures = {"requests": 0.0, "errors": 0.0}
        end = time.monotonic() + patience(each.name)
        while time.monotonic() < end and (figures["errors"] or not figures["requests"]):
            figures = closed_loop(each.port, 1.0, size=2048, core=core)
        if figures["requests"] and not figures["errors"]:
            able.append(each)
        else:
            print(f"{each.name} is left out: {figures['errors']:.0f} requests failed", flush=True)
    return able


def one_round(everyone: Sequence[Rival], what: str, measure: Measure, core: int) -> None:
    """Each candidate once."""
    for each in everyone:
        if each.name in SLOW and what != next(iter(LOADS)):
            continue
        try:
            measure(each, what, core)
        except RuntimeError as error:
            print(f"{what}: {error}", flush=True)


def main() -> None:
    """Run and print."""
    load_core, own_core = cores()
    backends = free_ports(BACKENDS)
    print(f"Python {platform.python_version()}, {ROUNDS} rounds: median (range)")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nexus-bench-")))
        backend = [sys.executable, "-m", "bench.bytepath_backend", *map(str, backends)]
        stack.enter_context(process(backend, load_core, backends[-1], folder / "backend.log"))
        everyone = warm(list(start_all(stack, folder, own_core, backends)), load_core)
        for what, (unit, measure) in LOADS.items():
            for _ in range(ROUNDS):
                one_round(everyone, what, measure, load_core)
            cpu_table(everyone, what, unit)
        quick = [each for each in everyone if each.name not in SLOW]
        for _ in range(ROUNDS):
            measure_latency(quick, backends[0], load_core)
        for each in quick:
            measure_memory(each, load_core)
        latency_table(everyone)


if __name__ == "__main__":
    main()
