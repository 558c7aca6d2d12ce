"""The evidence about one backend: per reporter, what counts for its decision.

Promises that only outcomes tagged at or after the subject's last transition are in it, and that
sums over any part of the fleet are exact. It holds numbers; `rules` draws the conclusion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nexus_api.pace import paced
from nexus_quality.ledger import Incarnation, Ledger, Reporter, Series
from nexus_quality.report import Pulse
from nexus_quality.window import Family

ALIVE_SECONDS = paced(90.0)
PULSE_SECONDS = 5.0
RATE_SECONDS = 600.0
ELIGIBLE_SECONDS = 20.0
_TEN = int(Family.TEN_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One reporter's part. `usual` is its attempts a second, of any generation.

    `row` failures in a row, the first of which began at `row_began` (operator's clock). `probing`:
    its probes under way. `recent_…`: counted since a moment that the caller chose. `complete`: it
    has sent all it has at least once.
    """

    reporter: str
    complete: bool = True
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
    probing: int = 0
    probe_successes: int = 0
    probe_failures: int = 0
    recent_requests: int = 0
    recent_errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What to look at: outcomes tagged at or after `generation`, seen at `now`.

    `short_window_seconds` 0: no short window. `recent_seconds` 0: nothing is recent.
    """

    now: float
    generation: int
    short_window_seconds: int
    recent_seconds: float


def shares(
    ledger: Ledger,
    uid: str,
    *,
    now: float,
    generation: int,
    short_window_seconds: int,
    recent_seconds: float,
    silent: bool = False,
) -> tuple[Share, ...]:
    """R: the reporters heard from in the last 90 s that used the backend in the last hour.

    `silent`: those not heard from any more as well.
    """
    view = View(
        now=now,
        generation=generation,
        short_window_seconds=short_window_seconds,
        recent_seconds=recent_seconds,
    )
    moment, since = int(now // _TEN), int((now - recent_seconds) // _TEN)
    fresh = (moment, True, generation, short_window_seconds, since)
    stale = (moment, False, generation, short_window_seconds, since)
    found = []
    for reporter in ledger.reporters.values():
        age = now - reporter.heard
        if silent or age <= ALIVE_SECONDS:
            key = fresh if age <= PULSE_SECONDS else stale
            share = _share_of(reporter, uid, view, key)
            if share is not None:
                found.append(share)
    return tuple(found)


def _share_of(
    reporter: Reporter, uid: str, view: View, key: tuple[int, bool, int, int, int]
) -> Share | None:
    """The reporter's share, None if it did not use the backend; worked out anew when the reporter
    has said something or a bucket's time has passed.
    """
    derived = reporter.derived.get(uid)
    if derived is None:
        derived = reporter.derived[uid] = {}
    elif key in derived:
        known: Share | None = derived[key]
        return known
    if any(old[0] != key[0] for old in derived):
        derived.clear()
    used = {model: one for model, one in reporter.of(uid).items() if _used(one)}
    share = derived[key] = _share(reporter, uid, used, view) if used else None
    return share


def _used(series: Series) -> bool:
    return any(
        hour.requests or hour.eligible or hour.throttled
        for hour in series.windows[Family.MINUTE].parts()
    )


def _share(reporter: Reporter, uid: str, used: Mapping[str, Series], view: View) -> Share:
    now, generation = view.now, view.generation
    tens = [one.windows[Family.TEN_SECONDS] for one in used.values()]
    hour = [part for one in used.values() for part in one.windows[Family.MINUTE].parts(generation)]
    short = [p for w in tens for p in w.last_parts(view.short_window_seconds, now, generation)]
    recent = [p for w in tens for p in w.last_parts(view.recent_seconds, now, generation)]
    eligible = sum(p.eligible for w in tens for p in w.last_parts(ELIGIBLE_SECONDS, now))
    usual = sum(part.requests for window in tens for part in window.parts())
    stand = _stand(reporter, uid, used, view)
    return Share(
        reporter=reporter.name,
        complete=reporter.complete,
        requests=sum(c.requests for c in hour),
        errors=sum(c.errors for c in hour),
        connect_errors=sum(c.connect_errors for c in hour),
        short_requests=sum(c.requests for c in short) if view.short_window_seconds else 0,
        short_errors=sum(c.errors for c in short) if view.short_window_seconds else 0,
        in_flight=stand.in_flight,
        usual=usual / max(window.covered(now) for window in tens),
        row=stand.row,
        row_began=stand.row_began,
        open=stand.open,
        eligible=eligible / ELIGIBLE_SECONDS,
        probing=stand.probing,
        probe_successes=sum(c.probe_successes for c in hour),
        probe_failures=sum(c.probe_failures for c in hour),
        recent_requests=sum(c.requests for c in recent) if view.recent_seconds else 0,
        recent_errors=sum(c.errors for c in recent) if view.recent_seconds else 0,
    )


@dataclass(slots=True)
class _Stand:
    """How a backend stands with a reporter at this moment, over its living incarnations."""

    in_flight: int = 0
    row: int = 0
    row_began: float = float("inf")
    open: bool = False
    probing: int = 0


def _stand(reporter: Reporter, uid: str, used: Mapping[str, Series], view: View) -> _Stand:
    stand = _Stand()
    for life in reporter.incarnations.values():
        if uid in life.pulses and view.now - life.heard <= ALIVE_SECONDS:
            pulses = {
                model: pulse
                for model, pulse in life.pulses[uid].items()
                if pulse.generation >= view.generation
            }
            if pulses:
                _take(stand, life, pulses, used, view.now)
    return stand


def _take(
    stand: _Stand,
    life: Incarnation,
    pulses: Mapping[str, Pulse],
    used: Mapping[str, Series],
    now: float,
) -> None:
    longest = max(pulses.values(), key=lambda pulse: pulse.row)
    if longest.row:
        stand.row += longest.row
        began = min(now, life.offset + longest.row_began_ms / 1000)
        stand.row_began = min(stand.row_began, began)
    if now - life.heard <= PULSE_SECONDS:
        stand.in_flight += max(pulse.in_flight for pulse in pulses.values())
    stand.probing += any(pulse.probing for pulse in pulses.values())
    # Kept from the backend as a whole, or from every model of it that is in use.
    tripped = {model for model, pulse in pulses.items() if pulse.open}
    stand.open |= "" in tripped or (bool(tripped) and tripped >= used.keys())


@dataclass(frozen=True, slots=True)
class Sums:
    """The shares of some reporters added up. `rows`: (begin, length), the latest first."""

    requests: int
    errors: int
    short_requests: int
    short_errors: int
    in_flight: int
    usual: float
    open_usual: float
    rows: tuple[tuple[float, int], ...]

    @classmethod
    def of(cls, parts: Sequence[Share]) -> Sums:
        """Add up `parts`."""
        return cls(
            requests=sum(p.requests for p in parts),
            errors=sum(p.errors for p in parts),
            short_requests=sum(p.short_requests for p in parts),
            short_errors=sum(p.short_errors for p in parts),
            in_flight=sum(p.in_flight for p in parts),
            usual=sum(p.usual for p in parts),
            open_usual=sum(p.usual for p in parts if p.open),
            rows=tuple(sorted(((p.row_began, p.row) for p in parts if p.row), reverse=True)),
        )

    @property
    def row(self) -> int:
        """The failures in a row over all of them."""
        return sum(length for _, length in self.rows)
