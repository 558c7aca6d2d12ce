"""Small worlds for the tests of the simulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bench.simulate.arrivals import Request, Traffic
from bench.simulate.backends import Fault, Job, SimBackend
from bench.simulate.measure import Result
from bench.simulate.simulation import Shape, Simulation
from bench.simulate.world import World

from nexus_quality.outcome import Outcome

Ended = list[tuple[float, Outcome]]


@pytest.fixture
def world() -> World:
    return World("test")


@pytest.fixture
def submit(world: World) -> Callable[..., tuple[Job, list[float], Ended]]:
    """Submits a request of one second to the first token and two more; what comes of it."""

    def send(backend: SimBackend, *, unlucky: bool = False) -> tuple[Job, list[float], Ended]:
        request = Request(1, world.now, "m", 1.0, 2.0, unlucky, None)
        content: list[float] = []
        ended: Ended = []
        job = Job(
            request,
            0,
            world.now,
            lambda: content.append(world.now),
            lambda outcome, _: ended.append((world.now, outcome)),
        )
        backend.submit(job, unlucky=unlucky)
        return job, content, ended

    return send


@pytest.fixture
def simulate() -> Callable[..., Result]:
    """Runs a small fleet: a minute of peace, then the measured part."""

    def run(
        policy: str,
        *faults: Fault,
        seed: int = 1,
        retries: int = 0,
        seconds: float = 120.0,
        **shape: Any,
    ) -> Result:
        wanted = Shape(**({"traffic": Traffic(rps=4.0), "warm": 60.0} | shape))
        simulation = Simulation(wanted, policy=policy, retries=retries, seed=seed).warm_up()
        return simulation.measure(seconds=seconds, faults=faults)

    return run
