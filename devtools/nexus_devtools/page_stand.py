"""The operator's page over a desk: real engine, board and HTTP server, no API server.

Promises fleets of any size with an hour of figures, verdicts on demand, and a server that can be
stopped and started again on its port, as a restarted operator would be. It is for tests and for the
pictures in the docs, and is NOT the operator: nothing here watches or writes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from aiohttp import web

from nexus_api import decode_backend, decode_quality_policy, decode_routing_policy
from nexus_api.meta import BACKEND_PLURAL
from nexus_devtools.desk import Desk
from nexus_operator.page.board import Board, Head
from nexus_operator.page.feed import Feed
from nexus_operator.page.handlers import Page
from nexus_operator.plan import Key
from nexus_quality.report import Cell, Report
from nexus_quality.sketch import bin_of
from nexus_quality.window import Family

UP_SECONDS = 100_000
MINUTES = 60
MODELS = ("llama-3.1-8b", "qwen-2.5-7b")
NAMESPACES = ("chat", "search", "batch")
TYPES = ("vllm", "ollama", "openai", "llamacpp", "anthropic")


class Stand:
    """A desk, and the page of it; `head` says how the operator is."""

    def __init__(self) -> None:
        self.desk = Desk(started=time.time())
        self.head = Head(places=NAMESPACES, version="0.1.0", started=int(time.time()) - 7200)
        self.leading()
        self._runner: web.AppRunner | None = None
        self.port = 0
        self._open()

    def leading(
        self, problem: str | None = None, *, leads: bool = True, reporters: int = 12
    ) -> None:
        """Says how the operator is."""
        self.head = Head(
            places=self.head.places,
            version=self.head.version,
            started=self.head.started,
            leading=leads,
            problem=problem,
            reporters=reporters,
        )

    def _open(self) -> None:
        self.board = Board(
            registry=self.desk.registry,
            engine=self.desk.engine,
            clock=self._clock,
            head=lambda: self.head,
            feed=Feed(),
        )

    def _clock(self) -> float:
        self.desk.now = time.time()
        return self.desk.now

    async def start(self, prefix: str = "") -> None:
        """Listens on loopback, on the port of before if there was one; below `prefix`, if any."""
        app = web.Application()
        Page(self.board).mount(app)
        outer = app
        if prefix:
            outer = web.Application()
            outer.add_subapp(prefix, app)
        self._runner = web.AppRunner(outer, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """As an operator that ends: everybody who listens is let go."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def restart(self) -> None:
        """Another process in its place, which knows what status and reports tell it."""
        await self.stop()
        self._open()
        for backend in self.desk.registry.backends:
            self.board.timelines.see(backend, self._clock())
        await self.start()

    def fleet(self, size: int) -> None:
        """Backends that are all well, with an hour of figures."""
        self._clock()
        for number in range(size):
            self.add(number)
        for start in range(0, size, 50):
            self.hear(f"proxy-{start}", range(start, min(size, start + 50)))
        for number in range(size):
            self._write(number)

    def _write(self, number: int) -> None:
        """What is due, as the API server would keep it: `Desk.write` without the schema's eye."""
        while (plan := self.desk.planner.plan(Key(BACKEND_PLURAL, uid(number)))) is not None:
            backend = self.desk.registry.backends.get(uid(number))
            stored = msgspec.json.decode(msgspec.json.encode(backend))
            plan.accepted(
                stored | {"status": msgspec.json.decode(msgspec.json.encode(plan.status))}
            )

    def add(self, number: int, **spec: Any) -> None:
        """One backend more."""
        namespace = NAMESPACES[number % len(NAMESPACES)]
        self.desk.see(
            decode_backend(
                {
                    "metadata": {
                        "name": name(number),
                        "namespace": namespace,
                        "uid": uid(number),
                        "generation": 1,
                        "resourceVersion": "1",
                        "labels": {"tier": "gold" if number % 5 == 0 else "silver"},
                    },
                    "spec": {
                        "url": f"http://{name(number)}.{namespace}.svc:8000",
                        "type": TYPES[number % len(TYPES)],
                        "healthCheck": {"enabled": False},
                        "models": [{"name": model} for model in MODELS],
                        "pricing": {
                            "inputUSDPerMillionTokens": "0.5",
                            "outputUSDPerMillionTokens": "1.5",
                        },
                    }
                    | spec,
                }
            )
        )

    def hear(self, reporter: str, numbers: range) -> None:
        """An hour of a proxy's requests to these backends, the same in every run."""
        now_ms = UP_SECONDS * 1000
        cells = [cell for number in numbers for cell in _hour(number)]
        incarnation = hashlib.md5(reporter.encode(), usedforsecurity=False).hexdigest()
        report = Report(incarnation=incarnation, now_ms=now_ms, full=True, cells=cells)
        self.desk.engine.merge(reporter, report, self._clock())

    def fail(self, number: int, *, errors: int = 40, reporters: int = 3) -> None:
        """Has a backend fail for several proxies, and the verdict that follows written."""
        for each in range(reporters):
            self._clock()
            for model in MODELS:
                told = {"model": model, "requests": errors, "errors": errors}
                self.desk.count(f"late-{each}", uid=uid(number), **told)
        self._write(number)

    def suspend(self, number: int) -> None:
        """Has a backend suspended."""
        self.add(number, suspend=True)
        self._write(number)

    def remove(self, number: int) -> None:
        """A backend is deleted."""
        self.desk.registry.backends.remove(uid(number))
        self.desk.engine.remove(uid(number))

    def policies(self) -> None:
        """Two QualityPolicies and a RoutingPolicy with a budget."""
        put = self.desk.registry
        put.quality.put(decode_quality_policy(QUALITY))
        put.quality.put(decode_quality_policy(AUDIT))
        put.routing.put(decode_routing_policy(ROUTING))


def name(number: int) -> str:
    """The name of a backend of the fleet."""
    return f"{TYPES[number % len(TYPES)]}-{number:03d}"


def uid(number: int) -> str:
    """Its UID."""
    return f"uid-{number:04d}"


def _hour(number: int) -> Iterator[Cell]:
    """Requests by minute: more for some than for others, with a wave and a few errors."""
    last = UP_SECONDS // Family.MINUTE - 1
    size = 1 + (number * 7919) % 23
    for back in range(MINUTES):
        requests = max(0, size + ((back * 13 + number * 5) % 17) - 6)
        if not requests:
            continue
        errors = 1 if (back + number) % 19 == 0 else 0
        yield _cell(number, Family.MINUTE, last - back, requests=requests, errors=errors)
    yield _cell(
        number, Family.HOUR, UP_SECONDS // Family.HOUR, requests=60 * size, errors=size // 5
    )


def _cell(number: int, family: Family, bucket: int, *, requests: int, errors: int) -> Cell:
    served = requests - errors
    milliseconds = 90 + (number * 37) % 1400
    slow = served // 10
    bins = {bin_of(milliseconds): served - slow, bin_of(3 * milliseconds): slow}
    return Cell(
        family=int(family),
        bucket=bucket,
        uid=uid(number),
        model=MODELS[0],
        requests=requests,
        errors=errors,
        ttft_count=served,
        ttft_ms_sum=(served + 2 * slow) * milliseconds,
        ttft_bins={place: many for place, many in bins.items() if many},
    )


def _meta(name: str) -> dict[str, Any]:
    created = "2026-11-01T08:00:00Z"
    return {
        "name": name,
        "namespace": NAMESPACES[0],
        "uid": f"uid-{name}",
        "generation": 1,
        "creationTimestamp": created,
    }


def _condition(kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-11-01T08:00:00Z",
    }


QUALITY = {
    "metadata": _meta("gold"),
    "spec": {
        "targetSelector": {"matchLabels": {"tier": "gold"}},
        "errorRateThreshold": "20%",
        "minRequests": 20,
    },
    "status": {
        "conditions": [
            _condition("Effective", "True", "InForce", "In force for 34 of 34 backends it matches")
        ],
        "matchedBackends": 34,
        "effectiveBackends": 34,
        "excludedBackends": 1,
    },
}
AUDIT = {
    "metadata": _meta("stricter-trial"),
    "spec": {"errorRateThreshold": "5%", "enforcement": "Audit"},
    "status": {
        "conditions": [
            _condition("Effective", "False", "AuditOnly", "Watches 167 backends and excludes none")
        ],
        "matchedBackends": 167,
        "effectiveBackends": 0,
        "wouldExclude": ["vllm-000", "vllm-015"],
    },
}
ROUTING = {
    "metadata": _meta("default"),
    "spec": {
        "aliases": [{"name": "gpt-4", "model": "llama-3.1-8b"}],
        "budget": {"monthlyLimitUSD": "500", "hardLimitAction": "BlockCloud"},
    },
    "status": {
        "conditions": [_condition("Accepted", "True", "Valid", "The policy is valid")],
        "budget": {
            "month": "2026-11",
            "spentUSD": "391.27",
            "state": "SoftLimit",
            "asOf": "2026-11-24T09:00:00Z",
        },
    },
}
