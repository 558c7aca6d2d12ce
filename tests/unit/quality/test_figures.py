"""The published figures: exact counts, never a misleading zero."""

from __future__ import annotations

import pytest

from nexus_api.backend import Quality
from nexus_quality.figures import figures
from nexus_quality.ledger import Ledger
from nexus_quality.report import Cell, Report
from nexus_quality.sketch import bin_of

NOW = 1_700_003_600.0


def ledger_of(*cells: Cell, reporter: str = "pod-1", ledger: Ledger | None = None) -> Ledger:
    """A ledger that heard of these; buckets are numbered so that now is 100 h after their zero."""
    found = ledger or Ledger()
    report = Report(incarnation="a" * 32, now_ms=360_000_000, cells=list(cells))
    found.take(reporter, report, NOW, {"uid-a"})
    return found


def cells(ago: float, *, model: str = "tiny", generation: int = 0, **counts: object) -> list[Cell]:
    """The three cells of something that happened `ago` seconds before now."""
    return [
        Cell(
            family=family,
            bucket=int((360_000 - ago) // family),
            uid="uid-a",
            model=model,
            generation=generation,
            **counts,  # type: ignore[arg-type]
        )
        for family in (10, 60, 3600)
    ]


def quality(ledger: Ledger, now: float = NOW) -> Quality | None:
    return figures(ledger, "uid-a", now).quality()


def test_a_backend_nobody_used_has_no_figures() -> None:
    assert quality(Ledger()) is None


def test_counts_and_rates_are_exact() -> None:
    found = quality(ledger_of(*cells(30.0, requests=3, errors=1, throttled=2)))
    assert found == Quality(
        error_rate_1h="33.33%",
        success_rate_24h="66.67%",
        requests_1h=3,
        errors_1h=1,
        requests_24h=3,
        errors_24h=1,
        throttled_1h=2,
        reporters=1,
        last_failure_time="2023-11-14T23:13:00Z",
        observed_time="2023-11-14T23:13:20Z",
    )


def test_without_a_request_in_the_hour_only_the_day_is_told() -> None:
    found = quality(ledger_of(*cells(7_200.0, requests=10, errors=1)))
    assert found is not None
    assert (found.requests_24h, found.success_rate_24h) == (10, "90%")
    assert (found.requests_1h, found.error_rate_1h, found.reporters) == (None, None, None)
    assert found.last_failure_time is not None


def test_throttling_alone_is_told_without_rates() -> None:
    found = quality(ledger_of(*cells(30.0, throttled=4)))
    assert found is not None
    assert (found.throttled_1h, found.requests_1h, found.error_rate_1h) == (4, None, None)


def test_ttft_comes_from_the_sum_and_the_sketch() -> None:
    samples = [100] * 18 + [900, 5_000]
    bins: dict[int, int] = {}
    for sample in samples:
        bins[bin_of(sample)] = bins.get(bin_of(sample), 0) + 1
    (minute,) = [c for c in cells(30.0, requests=20) if c.family == 60]
    minute.ttft_count, minute.ttft_ms_sum, minute.ttft_bins = 20, sum(samples), bins
    found = quality(ledger_of(minute))
    assert found is not None
    assert (found.ttft_samples_1h, found.avg_ttft_milliseconds) == (20, 385)
    assert found.p50_ttft_milliseconds == pytest.approx(100, rel=0.05)
    assert found.p95_ttft_milliseconds == pytest.approx(900, rel=0.05)


def test_reporters_and_generations_add_up() -> None:
    ledger = ledger_of(*cells(30.0, requests=2), *cells(30.0, requests=3, generation=4))
    ledger_of(*cells(40.0, requests=5, errors=5), reporter="pod-2", ledger=ledger)
    found = quality(ledger)
    assert found is not None
    assert (found.requests_1h, found.errors_1h, found.reporters) == (10, 5, 2)


def test_models_are_told_by_requests_and_the_rest_is_counted() -> None:
    used = [c for n in range(40) for c in cells(30.0, model=f"m{n:02}", requests=n + 1)]
    found = figures(ledger_of(*used), "uid-a", NOW)
    assert [m.name for m in found.model_quality()][:2] == ["m39", "m38"]
    assert (len(found.model_quality()), found.models_omitted) == (32, 8)
    whole = found.quality()
    assert whole is not None and whole.requests_1h == sum(range(1, 41))


def test_each_model_counts_its_own_reporters() -> None:
    ledger = ledger_of(*cells(30.0, requests=2), *cells(30.0, model="big", requests=1))
    ledger_of(*cells(40.0, requests=5), reporter="pod-2", ledger=ledger)
    found = figures(ledger, "uid-a", NOW)
    assert {m.name: m.reporters for m in found.model_quality()} == {"tiny": 2, "big": 1}
    assert found.whole.reporters == 2


def test_those_that_are_out_come_first_however_few_their_requests() -> None:
    used = [c for n in range(40) for c in cells(30.0, model=f"m{n:02}", requests=n + 1)]
    found = figures(ledger_of(*used), "uid-a", NOW)
    assert [m.name for m in found.model_quality({"m00", "m07"})][:3] == ["m07", "m00", "m39"]


def test_figures_leave_with_their_windows() -> None:
    ledger = ledger_of(*cells(30.0, requests=10, errors=5))
    later = quality(ledger, NOW + 3_700.0)
    assert later is not None
    assert (later.requests_1h, later.requests_24h) == (None, 10)
    assert quality(ledger, NOW + 26 * 3_600.0) is None
