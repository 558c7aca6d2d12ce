"""A reporter that lies: everything fails, always, and everything is kept out."""

from __future__ import annotations

from bench.simulate.objects import uid_of
from bench.simulate.simulation import Simulation

from nexus_quality.report import Cell, Pulse, Report, encode
from nexus_quality.window import Family

LIAR = 99
CLAIM = 100_000
PERIOD = 1.0


def poison(simulation: Simulation) -> None:
    """From now on a tenth reporter sends one such report a second, about every backend."""
    world, operator = simulation.world, simulation.operator
    assert operator is not None
    began = world.now

    def lie() -> None:
        operator.post(LIAR, encode(_lies(world.now - began, simulation)), lambda _: None)

    world.every(PERIOD, lie, first=0.0)


def _lies(elapsed: float, simulation: Simulation) -> Report:
    generations = {
        uid: verdict.generation
        for uid, verdict in (simulation.operator.published if simulation.operator else {}).items()
    }
    uids = [uid_of(backend.number) for backend in simulation.backends]
    cells = [
        Cell(
            family=int(family),
            bucket=int(elapsed // family),
            uid=uid,
            model="m",
            generation=generations.get(uid, 0),
            requests=CLAIM,
            errors=CLAIM,
            connect_errors=CLAIM,
            eligible=CLAIM,
            probes=CLAIM,
            probe_failures=CLAIM,
        )
        for uid in uids
        for family in Family
    ]
    pulses = [
        Pulse(uid=uid, model=model, row=CLAIM, open=True, generation=generations.get(uid, 0))
        for uid in uids
        for model in ("", "m")
    ]
    return Report(
        incarnation="f" * 32, now_ms=int(elapsed * 1000), full=True, cells=cells, pulses=pulses
    )
