"""The evidence about one backend: per reporter, what counts for its decision.

Promises that only outcomes tagged at or after the subject's last transition are in it, and that
sums over any part of the fleet are exact. It holds numbers; `rules` draws the conclusion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nexus_quality.counts import total
from nexus_quality.ledger import Ledger, Reporter, Series
from nexus_quality.window import Family

ALIVE_SECONDS = 90.0
PULSE_SECONDS = 5.0
RATE_SECONDS = 600.0
ELIGIBLE_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One reporter's part. `usual` is its attempts a second, of any generation.

    `row` failures in a row, the first of which began at `row_began` (operator's clock).
    """

    reporter: str
    requests: int = 0
    errors: int = 0
    connect_errors: int = 0
    short_requests: int = 0
    short_errors: int = 0
    in_flight: int = 0
    usual: float = 0.0
    row: int = 0
    row_began: float = 0.0
    open: bool = False
    eligible: float = 0.0
    probes: int = 0
    probe_successes: int = 0
    probe_failures: int = 0
    probe_neutrals: int = 0
    recent_requests: int = 0
    recent_errors: int = 0


def shares(
    ledger: Ledger,
    uid: str,
    *,
    now: float,
    generation: int,
    short_window_seconds: int,
    recent_seconds: float,
) -> tuple[Share, ...]:
    """R: the reporters heard from in the last 90 s that used the backend in the last hour."""
    found = []
    for reporter in ledger.reporters.values():
        if now - reporter.heard > ALIVE_SECONDS:
            continue
        series = dict(reporter.of(uid))
        if any(_used(one) for one in series.values()):
            found.append(
                _share(reporter, series, now, generation, short_window_seconds, recent_seconds)
            )
    return tuple(found)


def _used(series: Series) -> bool:
    hour = series.windows[Family.MINUTE].totals()
    return hour.requests > 0 or hour.eligible > 0 or hour.throttled > 0


def _share(
    reporter: Reporter,
    series: dict[str, Series],
    now: float,
    generation: int,
    short_window_seconds: int,
    recent_seconds: float,
) -> Share:
    tens = [one.windows[Family.TEN_SECONDS] for one in series.values()]
    hour = total(one.windows[Family.MINUTE].totals(generation) for one in series.values())
    short = total(window.last(short_window_seconds, now, generation) for window in tens)
    usual = total(window.last(RATE_SECONDS, now) for window in tens)
    eligible = total(window.last(ELIGIBLE_SECONDS, now) for window in tens)
    recent = total(window.last(recent_seconds, now, generation) for window in tens)
    pulses = [s for s in series.values() if s.pulse is not None]
    rows = [s for s in pulses if s.pulse and s.pulse.row]
    longest = max(rows, key=lambda s: s.pulse.row if s.pulse else 0, default=None)
    return Share(
        reporter=reporter.name,
        requests=hour.requests,
        errors=hour.errors,
        connect_errors=hour.connect_errors,
        short_requests=short.requests if short_window_seconds else 0,
        short_errors=short.errors if short_window_seconds else 0,
        in_flight=_in_flight(pulses, now),
        usual=usual.requests / max(window.covered(now) for window in tens),
        row=longest.pulse.row if longest and longest.pulse else 0,
        row_began=_row_began(longest, reporter),
        open=_open(series),
        eligible=eligible.eligible / ELIGIBLE_SECONDS,
        probes=hour.probes,
        probe_successes=hour.probe_successes,
        probe_failures=hour.probe_failures,
        probe_neutrals=hour.probe_neutrals,
        recent_requests=recent.requests,
        recent_errors=recent.errors,
    )


def _in_flight(pulses: Iterable[Series], now: float) -> int:
    return max(
        (s.pulse.in_flight for s in pulses if s.pulse and now - s.pulse_at <= PULSE_SECONDS),
        default=0,
    )


def _row_began(series: Series | None, reporter: Reporter) -> float:
    if series is None or series.pulse is None:
        return 0.0
    latest = max(reporter.incarnations.values(), key=lambda life: life.heard)
    return latest.offset + series.pulse.row_began_ms / 1000


def _open(series: dict[str, Series]) -> bool:
    """True if the reporter keeps ordinary traffic from the backend, or from all it uses of it."""
    whole = series.get("")
    if whole is not None and whole.pulse is not None and whole.pulse.open:
        return True
    used = [s for model, s in series.items() if model and _used(s)]
    return bool(used) and all(s.pulse is not None and s.pulse.open for s in used)


@dataclass(frozen=True, slots=True)
class Sums:
    """The shares of some reporters added up."""

    requests: int
    errors: int
    short_requests: int
    short_errors: int
    in_flight: int
    usual: float
    open_usual: float
    row: int
    row_began: float

    @classmethod
    def of(cls, parts: Sequence[Share]) -> Sums:
        """Add up `parts`."""
        rows = [part for part in parts if part.row]
        return cls(
            requests=sum(p.requests for p in parts),
            errors=sum(p.errors for p in parts),
            short_requests=sum(p.short_requests for p in parts),
            short_errors=sum(p.short_errors for p in parts),
            in_flight=sum(p.in_flight for p in parts),
            usual=sum(p.usual for p in parts),
            open_usual=sum(p.usual for p in parts if p.open),
            row=sum(p.row for p in rows),
            row_began=min((p.row_began for p in rows), default=0.0),
        )
