"""A backend's health as its probe sees it: thresholds, and what a models answer lists.

Promises pure functions: the operator and the standalone mode send the probes and hand in what came
of them. A good probe ends no exclusion; that is the verdict's business.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from nexus_api import reasons
from nexus_api.backend import Capability, DiscoveredModel
from nexus_api.meta import ConditionStatus

MAX_MODELS = 512
MAX_NAME = 253


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The Healthy condition underneath, with the runs that decide when it turns."""

    status: ConditionStatus = ConditionStatus.UNKNOWN
    reason: str = reasons.AWAITING_FIRST_PROBE
    message: str = "Not probed yet"
    failures: int = 0
    successes: int = 0
    latency_ms: int | None = None


def after_probe(
    health: Health,
    *,
    ok: bool,
    reason: str,
    message: str,
    failure_threshold: int,
    success_threshold: int,
    latency_ms: int | None = None,
) -> Health:
    """The health after one more probe.

    The first good probe of a backend not judged yet is enough; after that it takes
    `failure_threshold` failures in a row to turn False, `success_threshold` successes to return.
    """
    counted = replace(
        health,
        failures=0 if ok else health.failures + 1,
        successes=health.successes + 1 if ok else 0,
        latency_ms=latency_ms if ok else health.latency_ms,
    )
    if ok and (
        health.status is not ConditionStatus.FALSE or counted.successes >= success_threshold
    ):
        return replace(counted, status=ConditionStatus.TRUE, reason=reason, message=message)
    if not ok and counted.failures >= failure_threshold:
        return replace(counted, status=ConditionStatus.FALSE, reason=reason, message=message)
    return counted


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


def _capabilities(value: object) -> tuple[Capability, ...] | None:
    if not isinstance(value, list):
        return None
    known = {str(capability) for capability in Capability}
    return tuple(Capability(item) for item in sorted({v for v in value if v in known}))
