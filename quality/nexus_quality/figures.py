"""The published figures of a backend: exact counts, rates as text, TTFT from the sketch.

Promises that nothing is ever a misleading zero: without a request in the hour the one-hour fields
are absent. It decides nothing; verdicts are computed from counts elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from nexus_api.backend import ModelQuality, Quality, SubjectState
from nexus_api.quantities import format_time, rate_percent
from nexus_quality.counts import Counts, numbers, total
from nexus_quality.ledger import Ledger
from nexus_quality.sketch import quantiles
from nexus_quality.window import Family

MAX_MODELS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The counters of the last hour and day of one subject. `last_failure`: epoch seconds;
    `reporters`: who used it in the last hour.
    """

    hour: Counts = field(default_factory=Counts)
    day: Counts = field(default_factory=Counts)
    last_failure: float | None = None
    reporters: int = 0

    @property
    def known(self) -> bool:
        """True if there is anything to publish."""
        return bool(self.hour.requests or self.day.requests or self.hour.throttled)

    def fields(self, now: float) -> dict[str, object]:
        """The fields of `Quality` that have data."""
        found: dict[str, object] = {"observed_time": format_time(now)}
        hour, day = self.hour, self.day
        if self.last_failure is not None:
            found["last_failure_time"] = format_time(self.last_failure)
        if day.requests:
            found["requests_24h"], found["errors_24h"] = day.requests, day.errors
            found["success_rate_24h"] = rate_percent(
                part=day.requests - day.errors, whole=day.requests
            )
        if hour.requests or hour.throttled:
            found["throttled_1h"], found["reporters"] = hour.throttled, self.reporters
        if hour.requests:
            found["requests_1h"], found["errors_1h"] = hour.requests, hour.errors
            found["error_rate_1h"] = rate_percent(part=hour.errors, whole=hour.requests)
        if hour.ttft_count:
            found["ttft_samples_1h"] = hour.ttft_count
            found["avg_ttft_milliseconds"] = hour.ttft_ms_sum // hour.ttft_count
            p50, p95 = quantiles(hour.ttft_bins, (0.5, 0.95))
            found["p50_ttft_milliseconds"] = _rounded(p50)
            found["p95_ttft_milliseconds"] = _rounded(p95)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of one backend at `now`."""

    now: float
    whole: Tally
    models: Mapping[str, Tally]

    @property
    def reporters(self) -> int:
        """Who used the backend in the last hour."""
        return self.whole.reporters

    def quality(self) -> Quality | None:
        """For `status.quality`; None if nothing was ever reported."""
        if not self.whole.known:
            return None
        return Quality(**self.whole.fields(self.now))  # type: ignore[arg-type]

    def model_quality(self, first: Collection[str] = ()) -> tuple[ModelQuality, ...]:
        """For `status.modelQuality`: those in `first`, then the models of most requests; at most
        32. Their verdicts are `published`'s to add.
        """
        ranked = sorted(
            self._known(), key=lambda m: (m not in first, -self.models[m].hour.requests, m)
        )
        return tuple(
            ModelQuality(
                name=model,
                state=SubjectState.ACTIVE,
                **self.models[model].fields(self.now),  # type: ignore[arg-type]
            )
            for model in ranked[:MAX_MODELS]
        )

    @property
    def models_omitted(self) -> int:
        """How many models with data are not in `model_quality`."""
        return max(0, len(self._known()) - MAX_MODELS)

    def _known(self) -> list[str]:
        return [model for model, tally in self.models.items() if tally.known]


def figures(ledger: Ledger, uid: str, now: float) -> Figures:
    """What the fleet reported of a backend, of any generation."""
    wholes = ledger.whole(uid, now)
    reporters, of_model = _users(ledger, uid, now)
    models = {
        model: Tally(
            hour=one.hour,
            day=one.day,
            last_failure=one.last_failure,
            reporters=of_model.get(model, 0),
        )
        for model, one in wholes.items()
        if model
    }
    whole = Tally(
        hour=_together([tally.hour for tally in models.values()]),
        day=_together([tally.day for tally in models.values()]),
        last_failure=_latest_failure(ledger, uid),
        reporters=reporters,
    )
    return Figures(now=now, whole=whole, models=models)


def quality(ledger: Ledger, uid: str, now: float) -> Quality | None:
    """`figures(…).quality()` without the figures of each model."""
    wholes = {model: one for model, one in ledger.whole(uid, now).items() if model}
    tally = Tally(
        hour=total(part for one in wholes.values() for part in one.minutes.parts()),
        day=numbers(part for one in wholes.values() for part in one.days.parts()),
        last_failure=_latest_failure(ledger, uid),
        reporters=_users(ledger, uid, now)[0],
    )
    return Quality(**tally.fields(now)) if tally.known else None  # type: ignore[arg-type]


def _latest_failure(ledger: Ledger, uid: str) -> float | None:
    wholes = ledger.wholes(uid).values()
    failures = [one.last_failure for one in wholes if one.last_failure is not None]
    return max(failures, default=None)


def _users(ledger: Ledger, uid: str, now: float) -> tuple[int, dict[str, int]]:
    """How many made a request of a backend within the hour, of any model and of each."""
    oldest, reporters = Family.MINUTE.oldest(now), 0
    of_model: dict[str, int] = {}
    for reporter in ledger.users(uid).values():
        using = False
        for model, series in reporter.of(uid).items():
            if series.minutes.requested >= oldest:
                of_model[model] = of_model.get(model, 0) + 1
                using = True
        reporters += using
    return reporters, of_model


def _together(parts: Sequence[Counts]) -> Counts:
    """The sum, which may be one of the parts."""
    return parts[0] if len(parts) == 1 else total(parts)


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)
