"""The operator under measurement: the shipped one, in a process of its own, told what to measure.

`python -m bench.scale.subject BACKENDS FOLDER` runs it on `api.FakeApi`, its store in FOLDER ("-":
none); with 0 for a number on the API server of `$KUBECONFIG`, with kopf. Commands come line by line
on standard input (`reset`, `read`, `recompute`, `stop`), JSON lines go out: answers, each status
that is sent because of a report, and from the first kind of API server each stored status as a
watch would bring it.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from bench.scale.api import FakeApi
from bench.scale.gauge import Heartbeat, resident_megabytes
from bench.scale.plan import NAMESPACE, manifest
from bench.table import percentile

from nexus_operator import assembly
from nexus_operator.app import COLLECTOR, operate
from nexus_operator.context import Context
from nexus_operator.credentials import Credentials
from nexus_operator.kube import Kube
from nexus_operator.planner import Planner
from nexus_operator.settings import Settings

ROUND_REPEATS = 5


class Judged:
    """A planner whose `urgent` is another; compiled, it cannot be given one."""

    def __init__(self, planner: Planner, urgent: Callable[[str], bool]) -> None:
        self._planner = planner
        self.urgent = urgent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._planner, name)


class Measured:
    """One operator and what is written down about it."""

    def __init__(self) -> None:
        self.beat = Heartbeat()
        self.context: Context | None = None
        self._touched: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self.reset()

    def reset(self) -> dict[str, Any]:
        """Begins a new measurement."""
        self.writes = 0
        self.delays: list[float] = []
        self._due.clear()
        self.beat.reset()
        self._cpu, self._wall = time.process_time(), time.monotonic()
        return {}

    def read(self) -> dict[str, Any]:
        """The figures since the last reset; seconds, megabytes."""
        delays = self.delays or [0.0]
        return {
            "cpu": time.process_time() - self._cpu,
            "wall": time.monotonic() - self._wall,
            "stall_wall": self.beat.longest_wall,
            "stall_cpu": self.beat.longest_cpu,
            "resident": resident_megabytes(),
            "writes": self.writes,
            "urgent": len(self.delays),
            "delay_p50": statistics.median(delays),
            "delay_p99": percentile(delays, 0.99),
        }

    def wrote(self, uid: str) -> None:
        """A status write is sent."""
        self.writes += 1
        since = self._due.pop(uid, None)
        if since is not None:
            now = time.monotonic()
            self.delays.append(now - since)
            say(sent=[uid, since, now])

    def watch(self, context: Context) -> None:
        """Notes when a backend was touched first and when that turned out to matter."""
        self.context = context
        touch, urgent = context.evaluator.touch, context.planner.urgent

        def touched(uid: str) -> None:
            self._touched.setdefault(uid, time.monotonic())
            touch(uid)

        def judged(uid: str) -> bool:
            since = self._touched.pop(uid, None)
            matters = urgent(uid)
            if not matters:
                self._due.pop(uid, None)  # what was wanted is not wanted any more
            elif since is not None:
                self._due.setdefault(uid, since)
            return matters

        context.evaluator.touch = touched  # type: ignore[method-assign]
        context.evaluator._planner = Judged(context.planner, judged)  # type: ignore[assignment]

    def recompute(self) -> dict[str, Any]:
        """CPU seconds to look at every backend once, the first time in a bucket and again."""
        assert self.context is not None
        context, spent = self.context, []
        uids = [b.metadata.uid for b in context.registry.backends]
        for _ in range(ROUND_REPEATS):
            began = time.thread_time()
            for uid in uids:
                context.planner.due(uid)
            spent.append(time.thread_time() - began)
        return {"first": spent[0], "again": min(spent)}


async def on_fake(measured: Measured, settings: Settings, backends: int) -> None:
    """Runs on the API server within."""
    api = FakeApi(
        [manifest(number) for number in range(backends)],
        wrote=measured.wrote,
        changed=lambda plural, stored: _changed(measured, plural, stored),
    )
    credentials = Credentials(server="http://api", origin="bench", namespace=NAMESPACE)
    with mock.patch.object(assembly, "Kube", functools.partial(Kube, transport=api)):
        context = Context(settings, load=lambda: credentials)
    measured.watch(context)
    context.elect()
    await context.start()
    measured.beat.start()
    say(port=context.server.port)
    await obey(measured)
    await context.stop()
    await context.close()


async def on_real(measured: Measured, settings: Settings) -> None:
    """Runs as the shipped process does."""
    started: list[Context] = []
    running = asyncio.create_task(operate(settings, started=started.append))
    while not started or started[0].problem is not None:
        if running.done():
            raise SystemExit(f"the operator ended with {running.result()}")
        await asyncio.sleep(0.05)
    context = started[0]
    measured.watch(context)
    send = context.kube.apply_status

    async def apply_status(**asked: Any) -> dict[str, Any]:
        measured.wrote(asked["metadata"]["uid"])
        return await send(**asked)

    context.kube.apply_status = apply_status  # type: ignore[method-assign]
    measured.beat.start()
    say(port=context.server.port)
    await obey(measured)
    context.ask_to_stop()
    await running


async def obey(measured: Measured) -> None:
    """Does what standard input says until `stop`."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    commands: dict[str, Callable[[], dict[str, Any]]] = {
        "reset": measured.reset,
        "read": measured.read,
        "recompute": measured.recompute,
    }
    while line := (await reader.readline()).decode().strip():
        if line == "stop":
            return
        say(**commands[line]())


def say(**words: Any) -> None:
    """One line to whoever measures."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def _changed(measured: Measured, plural: str, stored: dict[str, Any]) -> None:
    text = json.dumps({"watch": stored})
    if measured.context is not None:
        measured.context.take(plural, {"type": "MODIFIED", "object": json.loads(text)["watch"]})
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _settings(folder: str) -> Settings:
    return Settings(
        namespaces=(NAMESPACE,),
        host="127.0.0.1",
        port=0,
        log_level="warning",
        data_dir=None if folder == "-" else Path(folder),
    )


def main() -> None:
    """Runs until told to stop."""
    logging.basicConfig(level="WARNING", stream=sys.stderr)
    measured = Measured()
    gc.set_threshold(*COLLECTOR)
    backends, settings = int(sys.argv[1]), _settings(sys.argv[2])
    work = on_fake(measured, settings, backends) if backends else on_real(measured, settings)
    asyncio.run(work)


if __name__ == "__main__":
    main()
