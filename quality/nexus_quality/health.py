"""A backend's health as its probe sees it: thresholds, and what a models answer lists.

Promises pure functions: the operator and the standalone mode send the probes and hand in what came
of them. What probes say is one thing, what is made of it (`judged`) another: requests that succeed,
or too many backends failing at once, outweigh them. A good probe ends no exclusion; that is the
verdict's business.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from nexus_api import reasons
from nexus_api.backend import Capability, DiscoveredModel
from nexus_api.meta import ConditionStatus
from nexus_quality import words_of_health

SUSPECT_BACKENDS = 3
UNHEARD_SECONDS = 60
EAGER_SECONDS = (1.0, 2.0, 4.0, 8.0)
MAX_MODELS = 512
MAX_NAME = 253


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The Healthy condition underneath, with the runs that decide when it turns.

    `message`: what the probe saw. `failing_since`: when the first of `failures` in a row was seen.
    """

    status: ConditionStatus = ConditionStatus.UNKNOWN
    reason: str = reasons.AWAITING_FIRST_PROBE
    message: str = words_of_health.NOT_PROBED
    failures: int = 0
    successes: int = 0
    latency_ms: int | None = None
    failing_since: float | None = None


def after_probe(
    health: Health,
    *,
    ok: bool,
    reason: str,
    message: str,
    failure_threshold: int,
    success_threshold: int,
    latency_ms: int | None = None,
    now: float = 0.0,
) -> Health:
    """The health after one more probe, at `now` on any clock.

    The first good probe of a backend not judged yet is enough; after that it takes
    `failure_threshold` failures in a row to turn False, `success_threshold` successes to return.
    """
    counted = replace(
        health,
        failures=0 if ok else health.failures + 1,
        successes=health.successes + 1 if ok else 0,
        latency_ms=latency_ms if ok else health.latency_ms,
        failing_since=None if ok else health.failing_since if health.failures else now,
    )
    if ok and (
        health.status is not ConditionStatus.FALSE or counted.successes >= success_threshold
    ):
        return replace(counted, status=ConditionStatus.TRUE, reason=reason, message=message)
    if not ok and counted.failures >= failure_threshold:
        return replace(counted, status=ConditionStatus.FALSE, reason=reason, message=message)
    return counted


def eager(health: Health, tries: int) -> float | None:
    """Seconds until a backend that never answered is asked again, after so many failures: it may be
    a server that has just been started. None: at its period, as every other.
    """
    answered = health.status is not ConditionStatus.UNKNOWN or health.latency_ms is not None
    return None if answered or tries >= len(EAGER_SECONDS) else EAGER_SECONDS[tries]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """Why the prober is not believed: so many of the probed backends began to fail together."""

    failing: int
    probed: int
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A probed backend as one of many. `out`: believed to be unhealthy before."""

    failing_since: float | None
    period_seconds: float
    timeout_seconds: float
    out: bool


class Crowd:
    """The probed backends together: whether one of them fails along with most others.

    Made once for as many questions as there are; an answer takes a look into a few sorted rows,
    however many backends there are.
    """

    def __init__(self, all_probed: Iterable[Patient]) -> None:
        """`all_probed`: every backend that was probed. Those that are out already can turn no more,
        and count neither way.
        """
        self._probed = 0
        self._rows: dict[tuple[float, float], list[float]] = {}
        for one in all_probed:
            if one.out:
                continue
            self._probed += 1
            if one.failing_since is not None:
                pace = (one.period_seconds, one.timeout_seconds)
                self._rows.setdefault(pace, []).append(one.failing_since)
        for row in self._rows.values():
            row.sort()

    def suspicion(self, mine: Patient) -> Suspicion | None:
        """Whether `mine`, one of the crowd, fails together with more than half, three at least:
        they began to fail within a period, as far as probes can tell.
        """
        since = mine.failing_since
        if since is None:
            return None
        failing, longest = 0, 0.0
        for (period, timeout), row in self._rows.items():
            reach = 1.2 * max(mine.period_seconds, period) + max(mine.timeout_seconds, timeout)
            together = bisect_right(row, since + reach) - bisect_left(row, since - reach)
            if together:
                failing, longest = failing + together, max(longest, period)
        if failing < SUSPECT_BACKENDS or 2 * failing <= self._probed:
            return None
        return Suspicion(failing=failing, probed=self._probed, seconds=round(longest))


def suspicion(mine: Patient, all_probed: Iterable[Patient]) -> Suspicion | None:
    """The same for one question: `mine` among `all_probed`."""
    return None if mine.failing_since is None else Crowd(all_probed).suspicion(mine)


def judged(
    health: Health,
    *,
    suspect: Suspicion | None,
    served: bool,
    heard: bool,
    failure_threshold: int,
    period_seconds: int,
) -> Health:
    """What to make of failing probes: only what no request contradicts takes a backend out.

    `served`: a proxy reported a success within the last `failure_threshold` periods; `heard`: the
    proxies had time to report one.
    """
    if health.status is not ConditionStatus.FALSE:
        return health
    span, seen = failure_threshold * period_seconds, health.message
    if suspect is not None:
        return _unknown(health, reasons.PROBER_SUSPECT, _suspicion(suspect, seen))
    if served:
        message = words_of_health.disagrees(seen=seen, seconds=span)
        return _unknown(health, reasons.PROBE_DISAGREES, message)
    if not heard:
        message = words_of_health.unheard(seen=seen, seconds=UNHEARD_SECONDS)
        return _unknown(health, reasons.PROBE_FAILED, message)
    failures = max(health.failures, failure_threshold)  # none while good ones are not enough yet
    said = words_of_health.failing(
        seen=seen, failures=failures, threshold=failure_threshold, seconds=span
    )
    return replace(health, message=said.message)


def _suspicion(suspect: Suspicion, seen: str) -> str:
    return words_of_health.suspect(
        seen=seen, failing=suspect.failing, probed=suspect.probed, seconds=suspect.seconds
    )


def _unknown(health: Health, reason: str, message: str) -> Health:
    return replace(health, status=ConditionStatus.UNKNOWN, reason=reason, message=message)


class _Listed(msgspec.Struct):
    id: str = ""
    name: str = ""
    context_length: Any = None
    max_model_len: Any = None
    capabilities: Any = None


class _Listing(msgspec.Struct):
    data: list[_Listed] | None = None
    models: list[_Listed] | None = None


_decoder = msgspec.json.Decoder(_Listing)


def parse_models(body: bytes) -> tuple[DiscoveredModel, ...]:
    """The models of a `GET /v1/models` answer; also of Ollama's `/api/tags` shape.

    ValueError in one line if the body is neither. Names are unique, sorted, at most 512.
    """
    try:
        listing = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"no list of models: {error}") from None
    except RecursionError:
        raise ValueError("no list of models: nested too deeply") from None
    if listing.data is None and listing.models is None:
        raise ValueError("no list of models: neither `data` nor `models` is in it")
    found: dict[str, DiscoveredModel] = {}
    for listed in listing.data or listing.models or ():
        name = (listed.id or listed.name).removeprefix("models/")
        if 0 < len(name) <= MAX_NAME:
            found[name] = DiscoveredModel(
                name=name,
                context_length=_context_length(listed),
                capabilities=_capabilities(listed.capabilities),
            )
    return tuple(found[name] for name in sorted(found)[:MAX_MODELS])


def _context_length(listed: _Listed) -> int | None:
    for value in (listed.context_length, listed.max_model_len):
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 100_000_000:
            return value
    return None


# What servers call them. One that lists `completion` (Ollama, llama.cpp) has no word for JSON.
_CAPABILITIES = {str(capability): capability for capability in Capability} | {
    "multimodal": Capability.VISION,
    "image": Capability.VISION,
    "tool_use": Capability.TOOLS,
    "function_calling": Capability.TOOLS,
    "embedding": Capability.EMBEDDINGS,
    "json_mode": Capability.JSON,
    "structured_outputs": Capability.JSON,
    "completion": Capability.JSON,
}


def _capabilities(value: object) -> tuple[Capability, ...] | None:
    if not isinstance(value, list):
        return None
    named = {item for item in value if isinstance(item, str)}
    found = {_CAPABILITIES[name] for name in named & _CAPABILITIES.keys()}
    return tuple(sorted(found))
