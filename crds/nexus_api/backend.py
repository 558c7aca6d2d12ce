"""LLMBackend: one LLM server or provider account, and what the operator knows about its quality.

Promises: the fields, defaults and bounds of `crds/llmbackends.yaml`.
Not here: values that depend on `type` (see `resolve`), and how quality is judged.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from nexus_api.meta import Conditions, ObjectMeta
from nexus_api.wire import Count, Milliseconds, Money, Name, Rate, Seconds, Text, Tier, Time, Wire


class BackendType(StrEnum):
    """What serves the API; decides privacy zone, health path, auth header and base path."""

    VLLM = "vllm"
    OLLAMA = "ollama"
    LLAMACPP = "llamacpp"
    LMSTUDIO = "lmstudio"
    EXO = "exo"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"
    GENERIC = "generic"


class Capability(StrEnum):
    """What a model can do beyond plain text."""

    VISION = "vision"
    TOOLS = "tools"
    JSON = "json"
    EMBEDDINGS = "embeddings"


class PrivacyZone(StrEnum):
    """Restricted: data stays inside. Open: data goes to a cloud."""

    RESTRICTED = "Restricted"
    OPEN = "Open"


class AuthMode(StrEnum):
    """Which credentials reach the backend."""

    NONE = "None"
    SECRET = "Secret"
    PASS_THROUGH = "PassThrough"


class BackendState(StrEnum):
    """State of a backend: the first that holds, in this order."""

    SUSPENDED = "Suspended"
    UNHEALTHY = "Unhealthy"
    EXCLUDED = "Excluded"
    PROBATION = "Probation"
    ACTIVE = "Active"


class SubjectState(StrEnum):
    """State of a verdict's subject, a backend or a (backend, model), without the overlays."""

    ACTIVE = "Active"
    EXCLUDED = "Excluded"
    PROBATION = "Probation"


class ExclusionRule(StrEnum):
    """The rule that excluded a subject."""

    ERROR_RATE = "ErrorRate"
    SHORT_WINDOW = "ShortWindow"
    CONSECUTIVE_FAILURES = "ConsecutiveFailures"
    FLEET_ROW = "FleetRow"
    OPEN_BREAKERS = "OpenBreakers"
    FAILED_PROBATION = "FailedProbation"
    CREDENTIALS_REJECTED = "CredentialsRejected"


Capabilities = Annotated[tuple[Capability, ...], Meta(max_length=4)]


class Pricing(Wire, frozen=True, kw_only=True):
    """Price of a model, decimal strings in USD per million tokens."""

    input_usd_per_million_tokens: Money
    output_usd_per_million_tokens: Money


class SecretKeyRef(Wire, frozen=True, kw_only=True):
    """A key of a Secret in the backend's namespace."""

    name: Name
    key: Name


class BackendModel(Wire, frozen=True, kw_only=True):
    """A model that a backend serves, as configured.

    `capabilities` None means unknown, an empty tuple means none of them.
    """

    name: Name
    upstream_name: Name | None = None
    context_length: Annotated[int, Meta(ge=1, le=100_000_000)] | None = None
    capabilities: Capabilities | None = None
    pricing: Pricing | None = None


class Auth(Wire, frozen=True, kw_only=True):
    """Credentials for the backend; `resolve.auth_mode` says which mode is in force."""

    mode: AuthMode | None = None
    secret_ref: SecretKeyRef | None = None
    header: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    scheme: Annotated[str, Meta(max_length=64)] | None = None


class Tls(Wire, frozen=True, kw_only=True):
    """How the backend's certificate is verified; absent means the system's trust store."""

    ca_secret_ref: SecretKeyRef | None = None
    server_name: Name | None = None
    insecure_skip_verify: bool = False


class Timeouts(Wire, frozen=True, kw_only=True):
    """Limits of one attempt, seconds."""

    connect_seconds: Seconds = 5
    first_token_seconds: Seconds = 120
    idle_seconds: Seconds = 60
    response_seconds: Seconds = 600


class HealthCheck(Wire, frozen=True, kw_only=True):
    """The operator's probe; `path` None means the one of the type."""

    enabled: bool = True
    path: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    period_seconds: Seconds = 30
    timeout_seconds: Seconds = 5
    failure_threshold: Annotated[int, Meta(ge=1, le=100)] = 3
    success_threshold: Annotated[int, Meta(ge=1, le=100)] = 2


class LLMBackendSpec(Wire, frozen=True, kw_only=True):
    """What a user says about a backend. `models` None means: discovered by the probe."""

    url: Annotated[str, Meta(min_length=1, max_length=2048)]
    type: BackendType = BackendType.GENERIC
    models: Annotated[tuple[BackendModel, ...], Meta(min_length=1, max_length=256)] | None = None
    priority: Annotated[int, Meta(ge=0, le=100)] = 50
    privacy_zone: PrivacyZone | None = None
    capability_tier: Tier = 1
    max_concurrency: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    pricing: Pricing | None = None
    auth: Auth | None = None
    tls: Tls | None = None
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)
    health_check: HealthCheck = msgspec.field(default_factory=HealthCheck)
    suspend: bool = False


class Exclusion(Wire, frozen=True, kw_only=True):
    """The latest exclusion of a subject and its way back. Times are RFC 3339."""

    start_time: Time | None = None
    until_time: Time | None = None
    rule: ExclusionRule | None = None
    errors: Count | None = None
    requests: Count | None = None
    reason: Text | None = None
    suggested_action: Text | None = None
    count: Count | None = None
    probation_share: Rate | None = None
    recovered_time: Time | None = None


class Quality(Wire, frozen=True, kw_only=True):
    """Published figures. None: no data; a figure is never a misleading zero."""

    error_rate_1h: Rate | None = None
    success_rate_24h: Rate | None = None
    requests_1h: Count | None = None
    errors_1h: Count | None = None
    requests_24h: Count | None = None
    errors_24h: Count | None = None
    throttled_1h: Count | None = None
    avg_ttft_milliseconds: Milliseconds | None = None
    p50_ttft_milliseconds: Milliseconds | None = None
    p95_ttft_milliseconds: Milliseconds | None = None
    ttft_samples_1h: Count | None = None
    reporters: Count | None = None
    last_failure_time: Time | None = None
    observed_time: Time | None = None


class ModelQuality(Quality, frozen=True, kw_only=True):
    """Published figures and verdict of one model of a backend."""

    name: Name
    state: SubjectState
    exclusion: Exclusion | None = None


class DiscoveredModel(Wire, frozen=True, kw_only=True):
    """A model that the probe found. `capabilities` None means the backend does not say."""

    name: Name
    context_length: Annotated[int, Meta(ge=1, le=100_000_000)] | None = None
    capabilities: Capabilities | None = None


class LLMBackendStatus(Wire, frozen=True, kw_only=True):
    """What the operator publishes; every field is absent until it is known."""

    observed_generation: Count | None = None
    conditions: Conditions = ()
    state: BackendState | None = None
    verdict_generation: Count | None = None
    quality: Quality | None = None
    model_quality: Annotated[tuple[ModelQuality, ...], Meta(max_length=32)] = ()
    models_omitted: Count | None = None
    models: Annotated[tuple[DiscoveredModel, ...], Meta(max_length=512)] = ()
    probe_latency_milliseconds: Milliseconds | None = None
    exclusion: Exclusion | None = None
    quality_policy: Name | None = None


class LLMBackend(Wire, frozen=True, kw_only=True):
    """A backend object."""

    metadata: ObjectMeta
    spec: LLMBackendSpec
    status: LLMBackendStatus = msgspec.field(default_factory=LLMBackendStatus)
