"""The cheap look never misses what the full evidence would find."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_quality.attendance import uses_until
from nexus_quality.calm import WORRYING, clean, look
from nexus_quality.docket import BackendFacts, Docket
from nexus_quality.engine import Engine
from nexus_quality.evidence import Sums
from nexus_quality.hearing import Hearing
from nexus_quality.ledger import Ledger
from nexus_quality.policy import DEFAULT_POLICY, Policy
from nexus_quality.report import Cell, Pulse, Report
from nexus_quality.verdict import Verdict
from nexus_quality.verdicts import Verdicts
from nexus_quality.window import Family

NOW = 1_700_000_000.0
UID = "uid-a"
MODELS = ("tiny", "large")
REPORTERS = 4
Grown = dict[object, Cell]
BOOT = 100_000.0
POLICIES = (
    DEFAULT_POLICY,
    replace(DEFAULT_POLICY, min_requests=1, min_reporters=1, threshold_basis_points=1000),
    replace(DEFAULT_POLICY, short_window_seconds=0, threshold_basis_points=0),
    replace(DEFAULT_POLICY, short_window_seconds=600, threshold_basis_points=10_000),
)


def calm(ledger: Ledger, policy: Policy, generation: int, now: float) -> bool:
    """All of a backend's reporters looked at anew."""
    users = ledger.users(UID).values()
    return all(look(one, UID, policy, generation, now) != WORRYING for one in users)


def some_cells(chance: random.Random, now: float, grown: Grown) -> list[Cell]:
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
    seed: int, policy: Policy, generation: int
) -> None:
    chance, now = random.Random(seed), NOW
    engine = Engine(epoch="e", started=NOW - 1000.0, random=chance.random)
    facts = BackendFacts(uid=UID, namespace="shop", name="a", fingerprint="")
    engine.upsert(facts, policy, NOW)
    verdict = Verdict(generation=generation, calm_since=NOW)
    docket = Docket(facts, policy, Verdicts(generation=generation, backend=verdict))
    grown: list[Grown] = [{} for _ in range(REPORTERS)]
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
        if calm(engine.ledger, policy, generation, now):
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
            users = engine.ledger.users(UID).values()
            assert sum(uses_until(one, UID, now) > 0.0 for one in users) == len(whole)
            parts = [whole, *(hearing.evidence.model(m) for m in hearing.evidence.models)]
            for sums in map(Sums.of, parts):
                assert sums.row == 0
                assert sums.short_errors < 3 or 4 * sums.short_errors < sums.short_requests


def some_report(chance: random.Random, now: float, number: int, grown: Grown) -> Report:
    """What one reporter says now, of the backend or of none."""
    pulses = [
        Pulse(
            uid=UID,
            model=model,
            row=row,
            row_began_ms=int((now - NOW + BOOT - 1.0) * 1000),
            in_flight=chance.randint(0, 3),
            open=row > 2,
            generation=chance.randint(0, 2),
        )
        for model in ("", *MODELS)
        if (row := chance.choice((0, 0, 0, 1, 4)))
    ]
    quiet = chance.random() < 0.3
    return Report(
        incarnation=f"{number:032x}",
        now_ms=int((now - NOW + BOOT) * 1000),
        cells=[] if quiet else some_cells(chance, now, grown),
        pulses=[] if quiet or chance.random() < 0.6 else pulses,
        full=chance.random() < 0.3,
    )


def said(engine: Engine, now: float) -> tuple[object, ...]:
    """All that is asked of an engine about a backend."""
    wanted = engine.wanted(UID, now)
    moved = None if wanted is None else (wanted.row, wanted.model, wanted.after, wanted.message)
    told = engine.assess(UID, now)
    return moved, told, engine.quality(UID, now), engine.verdicts(UID)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_remembered_of_a_backend_is_what_a_whole_computation_says(seed: int) -> None:
    chance, now = random.Random(seed), NOW
    policy = chance.choice(POLICIES)
    engines = [Engine(epoch="e", started=NOW - 1000.0, random=lambda: 0.5) for _ in range(2)]
    facts = BackendFacts(uid=UID, namespace="shop", name="a", fingerprint="")
    grown: list[Grown] = [{} for _ in range(REPORTERS)]
    for engine in engines:
        engine.upsert(facts, policy, NOW)
    lasting, whole = engines
    for _ in range(chance.randint(1, 40)):
        now += chance.choice((0.0, 0.5, 3.0, 4.9, 5.1, 9.0, 30.0, 91.0, 1000.0, 3700.0))
        if chance.random() < 0.7:
            number = chance.randrange(REPORTERS)
            report = some_report(chance, now, number, grown[number])
            answers = [one.merge(f"pod-{number}", report, now).answer for one in engines]
            assert answers[0] == answers[1]
        if chance.random() < 0.1:
            lasting.expire(now)
            whole.expire(now)
        forget_all(whole)
        assert said(lasting, now) == said(whole, now)
        forget_all(whole)
        moved = [one.wanted(UID, now) for one in engines]
        accepted = chance.random() < 0.8
        for engine, transition in zip(engines, moved, strict=True):
            if transition is not None and accepted:
                engine.accept(transition, now)


def forget_all(engine: Engine) -> None:
    """What was worked out is worked out again."""
    engine._remembered.clear()
    engine._heard = None


def test_the_figures_of_a_backend_are_those_of_the_sum_of_its_models() -> None:
    chance, now = random.Random(7), NOW
    engine = Engine(epoch="e", started=NOW - 1000.0, random=chance.random)
    engine.upsert(
        BackendFacts(uid=UID, namespace="shop", name="a", fingerprint=""), POLICIES[0], NOW
    )
    assert engine.quality(UID, now) is None
    grown: list[Grown] = [{} for _ in range(REPORTERS)]
    for _ in range(200):
        now += chance.choice((1.0, 30.0, 200.0))
        number = chance.randrange(REPORTERS)
        engine.merge(f"pod-{number}", some_report(chance, now, number, grown[number]), now)
        assert engine.quality(UID, now) == engine.figures(UID, now).quality()


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
        assert calm(engine.ledger, DEFAULT_POLICY, 0, NOW) is expected
