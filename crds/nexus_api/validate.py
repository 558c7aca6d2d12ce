"""The rules of the schemas that types alone cannot say, for objects that no API server has seen.

Promises: the same rules, patterns and messages as the CEL rules in `crds/*.yaml`; a test compares
them. Each violation is (field path, what to write).
Not here: types and bounds, which decoding checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nexus_api.backend import Auth, AuthMode, LLMBackend, Pricing, SecretKeyRef, Tls
from nexus_api.formats import (
    CONNECTION_HEADERS,
    HEADER,
    HEALTH_PATH,
    LABEL_KEY,
    LABEL_VALUE,
    MONEY,
    PERCENT,
    SCHEME,
    SECRET_KEY,
    SECRET_NAME,
    SERVER_NAME,
    URL,
    URL_PORT,
    URL_WITHOUT_QUERY,
    URL_WITHOUT_USER,
    Violation,
)
from nexus_api.policy import LabelSelector, QualityPolicy, Recovery, SelectorOperator
from nexus_api.routing import Alias, Fallback, RoutingPolicy, TrafficPolicy, Weights

MAX_ALIAS_DEPTH = 3


def violations(found: LLMBackend | QualityPolicy | RoutingPolicy) -> Iterator[Violation]:
    """All violations of an object, in the order of its fields."""
    if isinstance(found, LLMBackend):
        return _backend(found)
    if isinstance(found, QualityPolicy):
        return _quality_policy(found)
    return _routing_policy(found)


def _backend(found: LLMBackend) -> Iterator[Violation]:
    spec = found.spec
    yield from _url(spec.url)
    models = spec.models or ()
    yield from _unique("spec.models", (model.name for model in models))
    for index, model in enumerate(models):
        yield from _unique(f"spec.models[{index}].capabilities", model.capabilities or ())
        yield from _pricing(f"spec.models[{index}].pricing", model.pricing)
    yield from _pricing("spec.pricing", spec.pricing)
    yield from _auth(spec.auth or Auth())
    yield from _tls(spec.tls or Tls())
    yield from HEALTH_PATH.check("spec.healthCheck.path", spec.health_check.path)


def _url(url: str) -> Iterator[Violation]:
    yield from URL_WITHOUT_USER.check("spec.url", url)
    yield from URL_WITHOUT_QUERY.check("spec.url", url)
    yield from URL.check("spec.url", url)
    yield from URL_PORT.check("spec.url", url)


def _pricing(field: str, pricing: Pricing | None) -> Iterator[Violation]:
    if pricing is not None:
        yield from MONEY.check(
            f"{field}.inputUSDPerMillionTokens", pricing.input_usd_per_million_tokens
        )
        yield from MONEY.check(
            f"{field}.outputUSDPerMillionTokens", pricing.output_usd_per_million_tokens
        )


def _auth(auth: Auth) -> Iterator[Violation]:
    yield from _secret("spec.auth.secretRef", auth.secret_ref)
    yield from HEADER.check("spec.auth.header", auth.header)
    if auth.header is not None and auth.header.lower() in CONNECTION_HEADERS:
        yield (
            "spec.auth.header",
            "this header belongs to the HTTP connection; write one that carries credentials,"
            " such as Authorization or api-key",
        )
    yield from SCHEME.check("spec.auth.scheme", auth.scheme)
    if auth.mode is AuthMode.SECRET and auth.secret_ref is None:
        yield (
            "spec.auth.secretRef",
            "auth.mode Secret needs a Secret: write auth.secretRef with its name and key",
        )
    if auth.secret_ref is not None and auth.mode not in (None, AuthMode.SECRET):
        yield (
            "spec.auth.mode",
            "auth.secretRef goes with mode Secret only: write mode: Secret, or remove secretRef",
        )


def _tls(tls: Tls) -> Iterator[Violation]:
    yield from _secret("spec.tls.caSecretRef", tls.ca_secret_ref)
    yield from SERVER_NAME.check("spec.tls.serverName", tls.server_name)
    if tls.insecure_skip_verify and tls.ca_secret_ref is not None:
        yield (
            "spec.tls.insecureSkipVerify",
            "tls.insecureSkipVerify true makes tls.caSecretRef pointless: remove one of them",
        )


def _secret(field: str, ref: SecretKeyRef | None) -> Iterator[Violation]:
    if ref is not None:
        yield from SECRET_NAME.check(f"{field}.name", ref.name)
        yield from SECRET_KEY.check(f"{field}.key", ref.key)


def _quality_policy(found: QualityPolicy) -> Iterator[Violation]:
    spec = found.spec
    yield from _selector(spec.target_selector)
    yield from PERCENT.check("spec.errorRateThreshold", spec.error_rate_threshold)
    if spec.short_window_seconds % 10:
        yield (
            "spec.shortWindowSeconds",
            "write 0 (off) or 10 to 600 seconds in steps of 10",
        )
    yield from _recovery(spec.recovery)


def _selector(selector: LabelSelector) -> Iterator[Violation]:
    labels = "spec.targetSelector.matchLabels"
    for key, value in selector.match_labels.items():
        yield from LABEL_KEY.check(labels, key)
        yield from LABEL_VALUE.check(f"{labels}.{key}", value)
    for index, requirement in enumerate(selector.match_expressions):
        field = f"spec.targetSelector.matchExpressions[{index}]"
        yield from LABEL_KEY.check(f"{field}.key", requirement.key)
        lists = requirement.operator in (SelectorOperator.IN, SelectorOperator.NOT_IN)
        if lists and not requirement.values:
            yield (
                f"{field}.values",
                "the operators In and NotIn need values: write values with at least one entry",
            )
        if not lists and requirement.values:
            yield (
                f"{field}.values",
                "the operators Exists and DoesNotExist take no values: remove values",
            )


def _recovery(recovery: Recovery) -> Iterator[Violation]:
    if recovery.base_exclusion_seconds > recovery.max_exclusion_seconds:
        yield (
            "spec.recovery.baseExclusionSeconds",
            "recovery.baseExclusionSeconds (default 30) must not exceed"
            " recovery.maxExclusionSeconds (default 300): lower the one or raise the other",
        )


def _routing_policy(found: RoutingPolicy) -> Iterator[Violation]:
    spec = found.spec
    yield from _weights(spec.weights)
    yield from _aliases(spec.aliases)
    yield from _unique("spec.fallbacks", (fallback.model for fallback in spec.fallbacks))
    for index, fallback in enumerate(spec.fallbacks):
        yield from _fallback(f"spec.fallbacks[{index}].to", fallback)
    for index, policy in enumerate(spec.traffic_policies):
        yield from _traffic_policy(f"spec.trafficPolicies[{index}]", policy)
    yield from MONEY.check("spec.budget.monthlyLimitUSD", spec.budget.monthly_limit_usd)
    yield from PERCENT.check("spec.budget.softLimit", spec.budget.soft_limit)


def _weights(weights: Weights) -> Iterator[Violation]:
    if weights.priority + weights.load + weights.latency != 100:
        yield (
            "spec.weights",
            "weights must sum to 100: write all three of priority, load and latency"
            " (those left out are 50, 30 and 20)",
        )


def _aliases(aliases: tuple[Alias, ...]) -> Iterator[Violation]:
    yield from _unique("spec.aliases", (alias.name for alias in aliases))
    targets = {alias.name: alias.model for alias in aliases}
    if any(name == model for name, model in targets.items()):
        yield "spec.aliases", "an alias cannot stand for itself; write another model in model"
    elif any(_depth(targets, name) > MAX_ALIAS_DEPTH for name in targets):
        yield (
            "spec.aliases",
            "aliases may be at most 3 deep and must not form a circle:"
            " write the model itself in model",
        )


def _depth(targets: dict[str, str], name: str) -> int:
    depth = 0
    while name in targets and depth <= MAX_ALIAS_DEPTH:
        name = targets[name]
        depth += 1
    return depth


def _fallback(field: str, fallback: Fallback) -> Iterator[Violation]:
    if fallback.model in fallback.to:
        yield field, "a model cannot fall back to itself: write other models in to"
    if len(set(fallback.to)) < len(fallback.to):
        yield field, "write each model once in to"


def _traffic_policy(field: str, policy: TrafficPolicy) -> Iterator[Violation]:
    if policy.privacy is None and policy.min_tier is None:
        yield (
            field,
            "an entry of trafficPolicies needs a restriction: write privacy, minTier or both",
        )


def _unique(field: str, names: Iterable[str]) -> Iterator[Violation]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield field, f"{name!r} is there twice: write each name once"
        seen.add(name)
