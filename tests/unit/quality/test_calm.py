"""The cheap look never misses what the full evidence would find."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_quality.calm import calm, clean, users
from nexus_quality.docket import BackendFacts, Docket
from nexus_quality.engine import Engine
from nexus_quality.evidence import Sums
from nexus_quality.hearing import Hearing
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.report import Cell, Pulse, Report
from nexus_quality.verdict import Verdict
from nexus_quality.verdicts import Verdicts
from nexus_quality.window import Family

NOW = 1_700_000_000.0
UID = "uid-a"
MODELS = ("tiny", "large")
REPORTERS = 4
BOOT = 100_000.0
POLICIES = (
    DEFAULT_POLICY,
    replace(DEFAULT_POLICY, min_requests=1, min_reporters=1, threshold_basis_points=1000),
    replace(DEFAULT_POLICY, short_window_seconds=0, threshold_basis_points=0),
    replace(DEFAULT_POLICY, short_window_seconds=600, threshold_basis_points=10_000),
)


def some_cells(chance: random.Random, now: float, grown: dict[object, Cell]) -> list[Cell]:
    """One model's outcomes of this moment, in all families, under a generation of late."""
    elapsed = now - NOW + BOOT
    model, generation = chance.choice(MODELS), chance.choice((0, 1, 1, 2))
    requests = chance.randint(1, 12)
    errors = chance.choice((0, 0, 0, 0, 1, requests // 3, requests))
    cells = []
    for family in Family:
        bucket = int(elapsed // family)
        cell = grown.setdefault(
            (family, bucket, model, generation),
            Cell(family=int(family), bucket=bucket, uid=UID, model=model, generation=generation),
        )
        cell.requests += requests
        cell.errors += errors
        cell.connect_errors += min(errors, chance.choice((0, errors)))
        cells.append(cell)
    return cells


@settings(max_examples=250, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(POLICIES), st.integers(0, 2))
def test_nothing_fires_and_nobody_is_suspect_where_it_is_calm(
    seed: int, policy: object, generation: int
) -> None:
    chance, now = random.Random(seed), NOW
    engine = Engine(epoch="e", started=NOW - 1000.0, random=chance.random)
    facts = BackendFacts(uid=UID, namespace="shop", name="a", fingerprint="")
    engine.upsert(facts, policy, NOW)  # type: ignore[arg-type]
    verdict = Verdict(generation=generation, calm_since=NOW)
    docket = Docket(facts, policy, Verdicts(generation=generation, backend=verdict))  # type: ignore[arg-type]
    grown: list[dict[object, Cell]] = [{} for _ in range(REPORTERS)]
    for _ in range(chance.randint(1, 25)):
        now += chance.choice((0.5, 3.0, 9.0, 30.0, 100.0, 1000.0))
        number = chance.randrange(REPORTERS)
        pulses = [Pulse(uid=UID, model="tiny", row=chance.randint(1, 4), generation=2)]
        report = Report(
            incarnation=f"{number:032x}",
            now_ms=int((now - NOW + BOOT) * 1000),
            cells=some_cells(chance, now, grown[number]),
            pulses=pulses if chance.random() < 0.05 else [],
        )
        engine.ledger.take(f"pod-{number}", report, now, (UID,))
        if calm(engine.ledger, UID, policy, generation=generation, now=now):  # type: ignore[arg-type]
            hearing = Hearing(
                docket,
                engine.ledger,
                now=now,
                started=0.0,
                listening=0.0,
                random=chance.random,
            )
            assert clean(docket)
            assert hearing.wanted() is None
            assert hearing.firing() is None
            whole = hearing.whole()
            assert users(engine.ledger, UID, now) == len(whole)
            parts = [whole, *(hearing.evidence.model(m) for m in hearing.evidence.models)]
            for sums in map(Sums.of, parts):
                assert sums.row == 0
                assert sums.short_errors < 3 or 4 * sums.short_errors < sums.short_requests


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_remembered_of_a_calm_backend_is_what_a_new_look_says(seed: int) -> None:
    chance, now = random.Random(seed), NOW
    engine = Engine(epoch="e", started=NOW - 1000.0, random=chance.random)
    facts = BackendFacts(uid=UID, namespace="shop", name="a", fingerprint="")
    policy = chance.choice(POLICIES)
    engine.upsert(facts, policy, NOW)
    grown: list[dict[object, Cell]] = [{} for _ in range(REPORTERS)]
    for _ in range(chance.randint(1, 20)):
        now += chance.choice((0.5, 3.0, 9.0, 30.0, 1000.0))
        if chance.random() < 0.6:
            number = chance.randrange(REPORTERS)
            cells = some_cells(chance, now, grown[number])
            clock = int((now - NOW + BOOT) * 1000)
            report = Report(incarnation=f"{number:032x}", now_ms=clock, cells=cells)
            engine.merge(f"pod-{number}", report, now)
        told = engine.assess(UID, now).within_policy
        engine._calms.clear()
        assert engine.assess(UID, now).within_policy == told


def test_a_backend_whose_errors_are_few_is_calm_and_one_that_fails_is_not() -> None:
    engine = Engine(epoch="e", started=NOW - 1000.0, random=random.random)
    facts = BackendFacts(uid=UID, namespace="shop", name="a", fingerprint="")
    engine.upsert(facts, DEFAULT_POLICY, NOW)
    for name, requests, errors, expected in (
        ("pod-1", 100, 1, True),
        ("pod-2", 100, 24, True),
        ("pod-3", 100, 25, False),
    ):
        cells = [
            Cell(family=f, bucket=int(BOOT // f), uid=UID, model="m", requests=requests)
            for f in (10, 60)
        ]
        for cell in cells:
            cell.errors = errors
        report = Report(incarnation="a" * 32, now_ms=int(BOOT * 1000), cells=cells)
        engine.ledger.take(name, report, NOW, (UID,))
        found = calm(engine.ledger, UID, DEFAULT_POLICY, generation=0, now=NOW)
        assert found is expected
