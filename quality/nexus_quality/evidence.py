"""The evidence about one backend: per reporter and model, what counts for a decision.

Promises shares for three subjects, each an exact sum: the whole backend, the backend without some
models, one model. Only outcomes tagged at or after the last transition are in them, the backend's
or that of their model, whichever is later. It holds numbers; `rules` draws the conclusion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from nexus_api.pace import paced
from nexus_quality.counts import Counts
from nexus_quality.ledger import Incarnation, Ledger, Reporter, Series
from nexus_quality.report import Pulse
from nexus_quality.shares import Rows, Share, Sums
from nexus_quality.window import Family

__all__ = [
    "ALIVE_SECONDS",
    "BACKEND",
    "Evidence",
    "Rows",
    "Share",
    "Span",
    "Sums",
    "View",
    "used",
]

ALIVE_SECONDS = paced(90.0)
PULSE_SECONDS = 5.0
RATE_SECONDS = 600.0
ELIGIBLE_SECONDS = 20.0
BACKEND = ""
_TEN = int(Family.TEN_SECONDS)
_NEVER = float("inf")
_NOBODY: frozenset[str] = frozenset()

_Subject = TypeVar("_Subject", str, frozenset[str])


class Span(NamedTuple):
    """What of a subject counts: outcomes tagged at or after `generation`; those from `recent_since`
    on (operator's clock) are recent, None: none.
    """

    generation: int = 0
    recent_since: float | None = None


_ALL = Span()


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What to look at, at `now`: `span` for the backend, `models` for those with one of their own.

    `short_window_seconds` 0: no short window. `silent`: reporters not heard from any more as well.
    """

    now: float
    short_window_seconds: int
    span: Span = _ALL
    models: Mapping[str, Span] = field(default_factory=dict)
    silent: bool = False

    def of(self, model: str) -> Span:
        """The span of a model, or of the backend itself."""
        return self.models.get(model, self.span)


class Shown:
    """The evidence about a backend as it was worked out, and for how long it is: until one of its
    reporters speaks, ten seconds are over, or one has been silent for too long.
    """

    __slots__ = ("at", "key", "parts", "reporters", "until", "used")

    def __init__(self, key: tuple[object, ...], at: float, reporters: list[Reporter]) -> None:
        self.key, self.at, self.reporters = key, at, reporters
        self.until = min((_stays(at, reporter.heard) for reporter in reporters), default=_NEVER)
        self.used: frozenset[str] | None = None
        self.parts: dict[str | frozenset[str], tuple[Share, ...]] = {}

    def holds(self, key: tuple[object, ...], now: float) -> bool:
        """Whether it is what would be worked out again."""
        return self.at <= now < self.until and self.key == key


def _stays(now: float, heard: float) -> float:
    """When something changes about a reporter that says nothing more."""
    if now - heard <= PULSE_SECONDS:
        return heard + PULSE_SECONDS
    return heard + ALIVE_SECONDS if now - heard <= ALIVE_SECONDS else _NEVER


class Evidence:
    """What the reporters in R say of one backend: those heard from in the last 90 s that used the
    subject in the last hour. `shown`: an earlier one of this backend, since which none of its
    reporters spoke.
    """

    __slots__ = ("_caches", "_key", "_uid", "_view", "shown")

    def __init__(self, ledger: Ledger, uid: str, view: View, shown: Shown | None = None) -> None:
        self._uid, self._view = uid, view
        spans = (view.span, *sorted(view.models.items()))
        # What is worked out of a reporter is kept until it speaks or a bucket's time has passed.
        self._key = (int(view.now // _TEN), view.short_window_seconds, spans)
        self._caches: dict[str, dict[str | frozenset[str], Share | None]] = {}
        if shown is None or not shown.holds(self._key, view.now):
            reporters = [
                reporter
                for reporter in ledger.users(uid).values()
                if view.silent or self._age(reporter) <= ALIVE_SECONDS
            ]
            shown = Shown(self._key, view.now, reporters)
        self.shown = shown

    @property
    def models(self) -> frozenset[str]:
        """The models used in the last hour."""
        shown = self.shown
        if shown.used is None:
            shown.used = _NOBODY.union(*map(self._models, shown.reporters))
        return shown.used

    def whole(self, without: frozenset[str] = _NOBODY) -> tuple[Share, ...]:
        """The backend's shares, some models left out."""
        return self._shares(without, self._shared)

    def model(self, model: str) -> tuple[Share, ...]:
        """One model's shares."""
        return self._shares(model, self._part)

    def unreached(self, without: frozenset[str] = _NOBODY) -> tuple[Share, ...]:
        """The backend's shares with connect-class failures as the only ones; () without any."""
        whole = self.whole(without)
        if not any(s.connect_errors or s.unreached_rows or s.unreached_open for s in whole):
            return ()
        return tuple(share.unreached() for share in whole)

    def _age(self, reporter: Reporter) -> float:
        return self._view.now - reporter.heard

    def _derived(self, reporter: Reporter) -> dict[str | frozenset[str], Share | None]:
        """What was worked out of a reporter under the same view, to be added to."""
        cache = self._caches.get(reporter.name)
        if cache is None:
            known = reporter.derived.setdefault(self._uid, {})
            if known and next(iter(known))[0] != self._key[0]:
                known.clear()
            # A pulse counts as long as it is fresh.
            key = (*self._key, self._age(reporter) <= PULSE_SECONDS)
            cache = self._caches[reporter.name] = known.setdefault(key, {})
        return cache

    def _models(self, reporter: Reporter) -> frozenset[str]:
        self._derived(reporter)
        known, key = reporter.derived[self._uid], (self._key[0], "models")
        found = known.get(key)
        if found is None:
            series = reporter.of(self._uid)
            found = known[key] = frozenset(m for m, one in series.items() if used(one))
        assert isinstance(found, frozenset)
        return found

    def _shares(
        self, subject: _Subject, share_of: Callable[[Reporter, _Subject], Share | None]
    ) -> tuple[Share, ...]:
        """The shares in a subject: a model, or the backend without some."""
        known = self.shown.parts.get(subject)
        if known is None:
            found = []
            for reporter in self.shown.reporters:
                derived = self._derived(reporter)
                if subject not in derived:
                    derived[subject] = share_of(reporter, subject)
                share = derived[subject]
                if share is not None:
                    found.append(share)
            known = self.shown.parts[subject] = tuple(found)
        return known

    def _shared(self, reporter: Reporter, without: frozenset[str]) -> Share | None:
        derived = self._derived(reporter)
        parts = {}
        for model in self._models(reporter) - without:
            part = derived.get(model)
            if part is None:
                part = derived[model] = self._part(reporter, model)
            if part is not None:
                parts[model] = part
        if not parts:
            return None
        own = _stand(reporter, self._uid, BACKEND, self._view)
        return _together(parts, own, whole=not without)

    def _part(self, reporter: Reporter, model: str) -> Share | None:
        if model not in self._models(reporter):
            return None
        series = reporter.of(self._uid)[model]
        stand = _stand(reporter, self._uid, model, self._view)
        return _part(reporter, model, series, stand, self._view)


def used(series: Series) -> bool:
    """Whether a model was used, or would have been, within the hour."""
    return series.minutes.used()


def _part(reporter: Reporter, model: str, series: Series, stand: _Stand, view: View) -> Share:
    """What one reporter says of one model."""
    now, (generation, recent_since) = view.now, view.of(model)
    ten, short = series.tens, view.short_window_seconds
    share = Share(
        reporter=reporter.name,
        complete=reporter.complete,
        in_flight=stand.in_flight,
        usual=_requests(ten.parts()) / ten.covered(now),
        rows=stand.rows(),
        open=stand.open,
        eligible=_eligible(ten.last_parts(ELIGIBLE_SECONDS, now)) / ELIGIBLE_SECONDS,
        probing=stand.probing,
    )
    for hour in series.minutes.parts(generation):
        share.requests += hour.requests
        share.errors += hour.errors
        share.connect_errors += hour.connect_errors
        share.probe_successes += hour.probe_successes
        share.probe_failures += hour.probe_failures
        share.probe_neutrals += hour.probe_neutrals
    for lately in ten.last_parts(short, now, generation) if short else ():
        share.short_requests += lately.requests
        share.short_errors += lately.errors
        share.short_connect_errors += lately.connect_errors
    if recent_since is not None:
        for recent in ten.last_parts(now - recent_since, now, generation):
            share.recent_requests += recent.requests
            share.recent_errors += recent.errors
    return share


def _requests(parts: Iterable[Counts]) -> int:
    found = 0
    for part in parts:
        found += part.requests
    return found


def _eligible(parts: Iterable[Counts]) -> int:
    found = 0
    for part in parts:
        found += part.eligible
    return found


def _together(parts: Mapping[str, Share], own: _Stand, *, whole: bool) -> Share:
    """A reporter's parts as one; `own`: how it stands with the backend as a whole."""
    first = next(iter(parts.values()))
    share = Share(
        reporter=first.reporter,
        complete=first.complete,
        unreached_rows=own.rows(),
        unreached_open=own.open,
        probing=own.probing,
    )
    shut = True
    for part in parts.values():
        share.requests += part.requests
        share.errors += part.errors
        share.connect_errors += part.connect_errors
        share.short_requests += part.short_requests
        share.short_errors += part.short_errors
        share.short_connect_errors += part.short_connect_errors
        share.in_flight += part.in_flight
        share.usual += part.usual
        share.rows += part.rows
        share.eligible += part.eligible
        share.probe_successes += part.probe_successes
        share.probe_failures += part.probe_failures
        share.probe_neutrals += part.probe_neutrals
        share.recent_requests += part.recent_requests
        share.recent_errors += part.recent_errors
        shut = shut and part.open
    if whole:
        share.in_flight = max(share.in_flight, own.in_flight)
    # Kept from the backend as a whole, or from every model of it that is in use.
    share.open = own.open or shut
    return share


@dataclass(slots=True)
class _Stand:
    """How a subject stands with a reporter at this moment, over its living incarnations."""

    in_flight: int = 0
    row: int = 0
    row_began: float = float("inf")
    open: bool = False
    probing: int = 0

    def rows(self) -> Rows:
        return ((self.row_began, self.row),) if self.row else ()


def _stand(reporter: Reporter, uid: str, model: str, view: View) -> _Stand:
    stand = _Stand()
    for life, pulse in _pulses(reporter, uid, model, view):
        if pulse.row:
            began = min(view.now, life.offset + pulse.row_began_ms / 1000)
            stand.row += pulse.row
            stand.row_began = min(stand.row_began, began)
        if view.now - life.heard <= PULSE_SECONDS:
            stand.in_flight += pulse.in_flight
        # One in flight per proxy: a pod that claims many incarnations has no more.
        stand.probing = max(stand.probing, int(pulse.probing))
        stand.open |= pulse.open
    return stand


def _pulses(
    reporter: Reporter, uid: str, model: str, view: View
) -> Iterator[tuple[Incarnation, Pulse]]:
    for life in reporter.incarnations.values():
        pulse = life.pulses.get(uid, {}).get(model)
        alive = view.now - life.heard <= ALIVE_SECONDS
        if alive and pulse is not None and pulse.generation >= view.of(model).generation:
            yield life, pulse
