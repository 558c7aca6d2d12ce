"""A reporter that lies, about every backend alike: everything fails, or everything is well.

Promises reports that the intake takes, with claims as large as a process could make. It is one
authenticated pod among others and knows the generations that are published; it routes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.simulate.objects import uid_of
from bench.simulate.simulation import Simulation

from nexus_quality.limits import MAX_IN_FLIGHT
from nexus_quality.report import Cell, Pulse, Report, encode
from nexus_quality.window import Family

LIAR = 99
CLAIM = 100_000
PERIOD = 1.0

Cells = Callable[[Family, int, str, int], Cell]
Pulses = Callable[[str, str, int], Pulse]


def poison(simulation: Simulation) -> None:
    """From now on a tenth reporter says once a second that everything fails."""
    _lie(simulation, _failed, _out)


def praise(simulation: Simulation) -> None:
    """From now on a tenth reporter says once a second that everything is well, and a lot of it."""
    _lie(simulation, _served, _busy)


def _failed(family: Family, bucket: int, uid: str, generation: int) -> Cell:
    return Cell(
        family=int(family),
        bucket=bucket,
        uid=uid,
        model="m",
        generation=generation,
        requests=CLAIM,
        errors=CLAIM,
        connect_errors=CLAIM,
        eligible=CLAIM,
        probes=CLAIM,
        probe_failures=CLAIM,
    )


def _out(uid: str, model: str, generation: int) -> Pulse:
    return Pulse(uid=uid, model=model, row=CLAIM, open=True, generation=generation)


def _served(family: Family, bucket: int, uid: str, generation: int) -> Cell:
    return Cell(
        family=int(family),
        bucket=bucket,
        uid=uid,
        model="m",
        generation=generation,
        requests=CLAIM,
        eligible=CLAIM,
        probes=CLAIM,
        probe_successes=CLAIM,
    )


def _busy(uid: str, model: str, generation: int) -> Pulse:
    return Pulse(uid=uid, model=model, in_flight=MAX_IN_FLIGHT, probing=True, generation=generation)


def _lie(simulation: Simulation, cells: Cells, pulses: Pulses) -> None:
    world, operator = simulation.world, simulation.operator
    assert operator is not None
    began = world.now
    uids = [uid_of(backend.number) for backend in simulation.backends]

    def lie() -> None:
        elapsed = world.now - began
        told = {
            uid: operator.published[uid].generation for uid in uids if uid in operator.published
        }
        report = Report(
            incarnation="f" * 32,
            now_ms=int(elapsed * 1000),
            full=True,
            cells=[
                cells(family, int(elapsed // family), uid, told.get(uid, 0))
                for uid in uids
                for family in Family
            ],
            pulses=[pulses(uid, model, told.get(uid, 0)) for uid in uids for model in ("", "m")],
        )
        operator.post(LIAR, encode(report), lambda _: None)

    world.every(PERIOD, lie, first=0.0)
