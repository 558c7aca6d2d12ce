"""CPU of the proxy beside nginx, in one run: per request and per forwarded event.

Backend and load share one core, the candidate has the other to itself; rounds are interleaved,
medians and ranges printed. CPU is the kernel's own account (`schedstat`) of all threads and
children of the candidate, so that a busy machine disturbs less than wall time would.

Columns: the byte path alone (a router that takes turns, nothing counted); the whole proxy
(`nexus-proxy --manifests`, standalone, everything on); nginx with the same backends. Without nginx
that column is missing (Debian, Ubuntu: `apt install nginx-light`); `wrk` makes the load lighter
where it is installed (`apt install wrk`).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.bytepath_load import closed_loop
from bench.table import show

ROUNDS = 4
SECONDS = 3.0
STREAMS = 200
BACKENDS = 4
SIZES = {"2 KB": 2048, "220 KB": 220_000}

_CLUSTER_KEYS = ("KUBECONFIG", "KUBERNETES_SERVICE_HOST")


@dataclass
class Candidate:
    """A running candidate and what was measured of it."""

    name: str
    port: int
    pid: int
    cpu_us: dict[str, list[float]] = field(default_factory=dict)
    rate: dict[str, list[float]] = field(default_factory=dict)
    busy: dict[str, list[float]] = field(default_factory=dict)
    p99_ms: dict[str, list[float]] = field(default_factory=dict)

    def note(self, what: str, *, cpu_ns: int, count: float, seconds: float) -> None:
        """One round's result."""
        self.cpu_us.setdefault(what, []).append(cpu_ns / 1000 / max(1.0, count))
        self.rate.setdefault(what, []).append(count / seconds)
        self.busy.setdefault(what, []).append(cpu_ns / 1e9 / seconds)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def cores() -> tuple[int, int]:
    """The core of backend and load, and the candidate's."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        print("only one core: the candidate shares it with the load, figures are worth less")
    return available[0], available[-1]


@contextmanager
def process(
    command: Sequence[str], core: int | str, port: int, log: Path, *, seconds: float = 15.0
) -> Iterator[int]:
    """A process on one core, or a list of them, that listens on `port`; yields its pid. Raises
    RuntimeError.
    """
    environ = {key: value for key, value in os.environ.items() if key not in _CLUSTER_KEYS}
    pinned = ["taskset", "-c", str(core), *command]
    with log.open("wb") as output:
        child = subprocess.Popen(pinned, stdout=output, stderr=output, env=environ)
    try:
        end = time.monotonic() + seconds
        while not _listens(port):
            if child.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield child.pid
    finally:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def cpu_ns(pid: int) -> int:
    """CPU time of a process, its threads and its descendants, in nanoseconds."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
        children = (task / "children").read_text().split()
        total += sum(cpu_ns(int(child)) for child in children)
    return total


NGINX = """
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream backends {{ {servers} keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://backends;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 3600s;
    }}
  }}
}}
"""


def nginx_command(folder: Path, port: int, backends: Sequence[int]) -> list[str] | None:
    """How to start nginx as the reference, None where it is not installed."""
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if nginx is None:
        print("nginx is not installed: no reference (Debian, Ubuntu: apt install nginx-light)")
        return None
    servers = " ".join(f"server 127.0.0.1:{backend};" for backend in backends)
    user = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, servers=servers, user=user))
    return [nginx, "-c", str(config), "-p", str(folder), "-g", "daemon off;"]


def bare_command(folder: Path, port: int, backends: Sequence[int]) -> list[str]:
    """The byte path alone."""
    return [sys.executable, "-m", "bench.bytepath_bare", *map(str, (port, *backends))]


MANIFEST = """apiVersion: nexus.dev/v1alpha1
kind: LLMBackend
metadata:
  name: backend-{number}
  namespace: bench
spec:
  url: http://127.0.0.1:{port}
  type: vllm
  healthCheck: {{enabled: {probed}}}
  models:
    - name: bench-model
---
"""


def proxy_command(
    folder: Path, port: int, backends: Sequence[int], *, copies: int = 1
) -> list[str]:
    """The whole proxy, standalone; `copies` LLMBackends for each backend there is."""
    manifests = folder / "manifests"
    manifests.mkdir()
    text = "".join(
        # Hundreds of first probes at once are a load of their own.
        MANIFEST.format(number=number, port=backend, probed="true" if copies == 1 else "false")
        for number, backend in enumerate([*backends] * copies)
    )
    (manifests / "backends.yaml").write_text(text)
    (admin,) = free_ports(1)
    listen = [f"--listen=127.0.0.1:{port}", f"--admin-listen=127.0.0.1:{admin}"]
    mode = [f"--manifests={manifests}", "--namespace=bench", "--log-level=warning"]
    return [sys.executable, "-m", "nexus_proxy", *listen, *mode]


COMMANDS = {"byte path": bare_command, "nexus-proxy": proxy_command, "nginx": nginx_command}


def measure_requests(candidate: Candidate, what: str, size: int, core: int) -> None:
    """One round of whole answers."""
    before = cpu_ns(candidate.pid)
    began = time.monotonic()
    figures = closed_loop(candidate.port, SECONDS, size=size, core=core)
    seconds = time.monotonic() - began
    used = cpu_ns(candidate.pid) - before
    if figures["errors"]:
        raise RuntimeError(f"{candidate.name}: {figures['errors']:.0f} requests failed")
    candidate.note(what, cpu_ns=used, count=figures["requests"], seconds=seconds)
    candidate.p99_ms.setdefault(what, []).append(figures["p99_ms"])


def measure_streams(candidate: Candidate, what: str, core: int) -> None:
    """One round of event streams, counted once all of them run."""
    arguments = ["streams", str(candidate.port), str(STREAMS), str(SECONDS)]
    command = ["taskset", "-c", str(core), sys.executable, "-m", "bench.bytepath_load"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as load:
        assert load.stdout is not None
        if not load.stdout.readline():
            raise RuntimeError(f"{candidate.name}: the streams did not begin")
        before = cpu_ns(candidate.pid)
        figures = json.loads(load.stdout.readline())
        used = cpu_ns(candidate.pid) - before
    candidate.note(what, cpu_ns=used, count=figures["chunks"], seconds=SECONDS)


def table(candidates: Sequence[Candidate], what: str, unit: str) -> None:
    """Print what was measured under one name."""
    reference = next((c for c in candidates if c.name == "nginx"), None)
    print(f"\n{what}, {ROUNDS} interleaved rounds of {SECONDS:.0f} s")
    rows = []
    for each in candidates:
        cpu = each.cpu_us[what]
        row = [each.name, f"{statistics.median(cpu):.1f}", f"{min(cpu):.1f}–{max(cpu):.1f}"]
        if reference is not None:
            ratio = statistics.median(cpu) / statistics.median(reference.cpu_us[what])
            row.append(f"{ratio:.2f}")
        row += [
            f"{statistics.median(each.rate[what]):,.0f}",
            f"{statistics.median(each.busy[what]):.0%}",
        ]
        rows.append(row)
    nginx = ["x nginx"] if reference is not None else []
    show(["candidate", f"us CPU/{unit}", "range", *nginx, f"{unit}s/s", "core busy"], rows)


def main() -> None:
    """Run and print."""
    load_core, own_core = cores()
    backends = free_ports(BACKENDS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nexus-bench-")))
        backend = [sys.executable, "-m", "bench.bytepath_backend", *map(str, backends)]
        stack.enter_context(process(backend, load_core, backends[-1], folder / "backend.log"))
        candidates = []
        for number, (name, command_of) in enumerate(COMMANDS.items()):
            own = folder / str(number)
            own.mkdir()
            (port,) = free_ports(1)
            command = command_of(own, port, backends)
            if command is not None:
                pid = stack.enter_context(process(command, own_core, port, own / "log"))
                candidates.append(Candidate(name, port, pid))
        for what, size in SIZES.items():
            for _ in range(ROUNDS):
                for candidate in candidates:
                    measure_requests(candidate, f"requests of {what}", size, load_core)
            table(candidates, f"requests of {what}", "request")
        streams = f"events of {STREAMS} streams"
        for _ in range(ROUNDS):
            for candidate in candidates:
                measure_streams(candidate, streams, load_core)
        table(candidates, streams, "event")


if __name__ == "__main__":
    main()
