"""Builders of the objects that routing works on, with chance and time in the test's hands."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pytest

from nexus_proxy.routing.candidate import Backend, Candidate, Origin, Traits
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.request import Call
from nexus_proxy.routing.router import Router
from nexus_proxy.routing.rules import Rules
from nexus_proxy.routing.table import Table
from nexus_quality.subject import Standing

ORIGIN = Origin("http", "localhost", 80, b"localhost", b"", {})


@dataclass
class FakeSubject:
    """A subject whose standing and figures the test sets."""

    standing: Standing = Standing.ADMITTED
    ttft_ms: int | None = None
    share: float = 1.0
    probe: bool = False
    odds: float = 1.0
    eligible: int = 0
    end: float | None = None
    refused: tuple[str, str] | None = None
    said: tuple[str, str] = ("error rate 60% of 20 requests", "Look at the backend")

    def ttft_average_ms(self, now: float) -> int | None:
        return self.ttft_ms

    def admission(self, now: float) -> float:
        return self.share

    def wants_probe(self, now: float) -> bool:
        return self.probe

    def kept_out(self, now: float) -> None:
        self.eligible += 1

    def weight(self, now: float) -> float:
        return self.odds

    def returns_at(self) -> float | None:
        return self.end

    def why(self) -> tuple[str, str]:
        return self.said

    def rejected(self) -> tuple[str, str] | None:
        return self.refused


@dataclass
class World:
    """A router over candidates by name, all of them made by `add`."""

    router: Router
    rules: Rules = field(default_factory=Rules)
    members: dict[tuple[str, str], Candidate] = field(default_factory=dict)

    def add(
        self,
        name: str,
        *models: str,
        traits: Traits | None = None,
        subject: FakeSubject | None = None,
        max_concurrency: int | None = None,
        upstream: Mapping[str, str] | None = None,
    ) -> Candidate:
        """A backend of this name with these models (`m` if none); returns its first candidate."""
        backend = self.backend(name, max_concurrency=max_concurrency)
        added = [
            Candidate(
                backend,
                model,
                subject=subject or FakeSubject(),  # type: ignore[arg-type]
                upstream_model=(upstream or {}).get(model),
                traits=traits,
            )
            for model in models or ("m",)
        ]
        self.members |= {(name, candidate.model): candidate for candidate in added}
        return added[0]

    def backend(self, name: str, *, max_concurrency: int | None = None) -> Backend:
        """A backend by itself, in no table."""
        return Backend(
            f"uid-{name}",
            "default",
            name,
            origin=ORIGIN,
            max_concurrency=max_concurrency,
            changed=self.router.journal.changed,
        )

    def install(self, rules: Rules | None = None) -> Router:
        """Install a table of everything added so far."""
        self.rules = rules or self.rules
        by_model: dict[str, list[Candidate]] = {}
        for (_, model), candidate in self.members.items():
            by_model.setdefault(model, []).append(candidate)
        backends = {c.backend.uid: c.backend for c in self.members.values()}
        table = Table({m: tuple(cs) for m, cs in by_model.items()}, backends, self.rules)
        self.router.install(table)
        return self.router


def make_call(model: str = "m", *, endpoint: Endpoint = Endpoint.CHAT, **more: object) -> Call:
    """A call as `analyze` would make it."""
    return Call(endpoint, model, body=b'{"model":"m"}', **more)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    """A world with a seeded chance."""
    return World(Router(random=random.Random(7).random))


@pytest.fixture
def world_of() -> Callable[[Callable[[], float]], World]:
    """Makes a world with a chance of the test's own."""
    return lambda chance: World(Router(random=chance))


@pytest.fixture
def call() -> Callable[..., Call]:
    """Makes calls."""
    return make_call


@pytest.fixture
def subject() -> type[FakeSubject]:
    """Makes subjects whose standing and figures the test sets."""
    return FakeSubject


@pytest.fixture
def chosen() -> Callable[[Router, Iterable[Call]], dict[str, int]]:
    """Counts which backends a router chooses, without load."""

    def count(router: Router, calls: Iterable[Call]) -> dict[str, int]:
        found: dict[str, int] = {}
        for each in calls:
            choice = router.choose(each, 1.0)
            name = choice.candidate.backend.name  # type: ignore[union-attr]
            found[name] = found.get(name, 0) + 1
        return found

    return count
