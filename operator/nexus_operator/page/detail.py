"""One backend in full: its line, its conditions, models, exclusion, and how it came to be so.

Promises what the status has and no credential: of `auth` only its mode, of the URL neither a user
nor a query. Pure; the figures are those of the moment, as in `/v1/stats`.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from nexus_api import LLMBackend
from nexus_api.resolve import auth_mode, privacy_zone
from nexus_operator.page.rows import Figured, Row, figured
from nexus_operator.page.timeline import Moment
from nexus_quality.figures import Figures
from nexus_quality.published import with_verdicts
from nexus_quality.verdicts import Verdicts


class ModelLine(Figured, frozen=True, omit_defaults=True, kw_only=True):
    """A model that has figures or is left out."""

    name: str
    state: str
    reason: str = ""
    message: str = ""


class ConditionLine(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A condition; `since` is RFC 3339."""

    type: str
    status: str
    reason: str
    message: str
    since: str


class Out(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The latest exclusion; times are RFC 3339."""

    rule: str | None = None
    start: str | None = None
    until: str | None = None
    recovered: str | None = None
    errors: int | None = None
    requests: int | None = None
    reason: str | None = None
    suggested_action: str | None = None
    count: int | None = None
    probation_share: str | None = None


class Detail(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A backend. `latency`: of its probe, milliseconds; `serves`: models without figures."""

    row: Row
    url: str
    zone: str
    auth: str
    priority: int
    tier: int
    max_concurrency: int | None = None
    latency: int | None = None
    conditions: tuple[ConditionLine, ...] = ()
    models: tuple[ModelLine, ...] = ()
    models_omitted: int = 0
    serves: tuple[str, ...] = ()
    exclusion: Out | None = None
    timeline: Sequence[Moment] = ()


def detail(
    backend: LLMBackend,
    *,
    line: Row,
    figures: Figures,
    verdicts: Verdicts,
    timeline: Sequence[Moment],
) -> Detail:
    """The whole of a backend; `line` is its row."""
    spec, status = backend.spec, backend.status
    models = model_lines(figures, verdicts)
    named = {model.name for model in models}
    known = [model.name for model in spec.models or status.models]
    return Detail(
        row=line,
        url=shown_url(spec.url),
        zone=privacy_zone(spec).value,
        auth=auth_mode(spec).value,
        priority=spec.priority,
        tier=spec.capability_tier,
        max_concurrency=spec.max_concurrency,
        latency=status.probe_latency_milliseconds,
        conditions=tuple(
            ConditionLine(
                type=each.type,
                status=each.status.value,
                reason=each.reason,
                message=each.message,
                since=each.last_transition_time,
            )
            for each in status.conditions
        ),
        models=models,
        models_omitted=figures.models_omitted,
        serves=tuple(name for name in known if name not in named),
        exclusion=_out(backend),
        timeline=timeline,
    )


def model_lines(figures: Figures, verdicts: Verdicts) -> tuple[ModelLine, ...]:
    """The models as the status has them: those not Active first, then by requests."""
    told = with_verdicts(figures.model_quality(verdicts.models), verdicts.models)
    lines = []
    for model in told:
        out = model.exclusion if model.state.value != "Active" else None
        lines.append(
            ModelLine(
                name=model.name,
                state=model.state.value,
                reason=out.rule.value if out is not None and out.rule else "",
                message=(out.reason or "") if out is not None else "",
                **figured(model),
            )
        )
    return tuple(lines)


def shown_url(url: str) -> str:
    """A URL without what might be a secret in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _out(backend: LLMBackend) -> Out | None:
    found = backend.status.exclusion
    if found is None:
        return None
    return Out(
        rule=found.rule.value if found.rule is not None else None,
        start=found.start_time,
        until=found.until_time,
        recovered=found.recovered_time,
        errors=found.errors,
        requests=found.requests,
        reason=found.reason,
        suggested_action=found.suggested_action,
        count=found.count,
        probation_share=found.probation_share,
    )
