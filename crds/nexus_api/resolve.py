"""Values of an LLMBackend that depend on its `type`, resolved in one place for both sides.

Promises: pure functions of the spec. A value that the user wrote wins over the type's.
Not here: reading Secrets, opening connections, deciding what a change of a value means.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from nexus_api.backend import (
    Auth,
    AuthMode,
    BackendModel,
    BackendType,
    LLMBackendSpec,
    Pricing,
    PrivacyZone,
)


class TypeDefaults(NamedTuple):
    """What a backend type implies.

    `health_path` hangs below the URL's prefix, None stands for the model list. `api_root` is what
    takes the place of `/v1` in `/v1/chat/completions`. `scheme` is "" where the key stands alone.
    """

    zone: PrivacyZone
    health_path: str | None = None
    header: str = "Authorization"
    scheme: str = "Bearer"
    api_root: str = "/v1"


_INSIDE = PrivacyZone.RESTRICTED
_CLOUD = PrivacyZone.OPEN

TYPE_DEFAULTS: dict[BackendType, TypeDefaults] = {
    BackendType.VLLM: TypeDefaults(_INSIDE, "/health"),
    BackendType.OLLAMA: TypeDefaults(_INSIDE, "/api/version"),
    BackendType.LLAMACPP: TypeDefaults(_INSIDE, "/health"),
    BackendType.LMSTUDIO: TypeDefaults(_INSIDE),
    BackendType.EXO: TypeDefaults(_INSIDE),
    BackendType.OPENAI: TypeDefaults(_CLOUD),
    BackendType.ANTHROPIC: TypeDefaults(_CLOUD, header="x-api-key", scheme=""),
    BackendType.GOOGLE: TypeDefaults(_CLOUD, api_root="/v1beta/openai"),
    BackendType.GENERIC: TypeDefaults(_CLOUD),
}


class Endpoint(NamedTuple):
    """Where a backend listens. `prefix` is the URL's path, no trailing slash, no `/v1`, or ""."""

    tls: bool
    host: str
    port: int
    prefix: str

    @property
    def authority(self) -> str:
        """Value of the Host header: the port is left out where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority, such as `https://api.example.com`."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"


class AuthHeader(NamedTuple):
    """The header that carries a key; `scheme` is "" where the key stands alone."""

    name: str
    scheme: str

    def value(self, key: str) -> str:
        """The header's value for a key."""
        return f"{self.scheme} {key}" if self.scheme else key


def endpoint(spec: LLMBackendSpec) -> Endpoint:
    """Where the backend listens; ValueError when the URL has no http(s) scheme or no host."""
    parts = urlsplit(spec.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{spec.url!r} is no base URL: write http(s)://host[:port][/prefix]")
    tls = parts.scheme == "https"
    path = parts.path.rstrip("/")
    for tail in ("/v1", TYPE_DEFAULTS[spec.type].api_root):
        path = path.removesuffix(tail).rstrip("/")
    return Endpoint(tls, parts.hostname, parts.port or (443 if tls else 80), path)


def api_path(spec: LLMBackendSpec, path: str) -> str:
    """The backend's path for one of the proxy's, such as `/v1/chat/completions`."""
    root = endpoint(spec).prefix + TYPE_DEFAULTS[spec.type].api_root
    return root + path.removeprefix("/v1")


def models_path(spec: LLMBackendSpec) -> str:
    """Path of the backend's model list."""
    return api_path(spec, "/v1/models")


def health_path(spec: LLMBackendSpec) -> str:
    """Path of the health probe: `healthCheck.path` or the type's, below the URL's prefix."""
    path = spec.health_check.path or TYPE_DEFAULTS[spec.type].health_path
    return models_path(spec) if path is None else endpoint(spec).prefix + path


def privacy_zone(spec: LLMBackendSpec) -> PrivacyZone:
    """The zone that was written, else the type's."""
    return spec.privacy_zone or TYPE_DEFAULTS[spec.type].zone


def is_cloud(spec: LLMBackendSpec) -> bool:
    """Whether requests leave for a cloud: the zone is Open."""
    return privacy_zone(spec) is PrivacyZone.OPEN


def locality(spec: LLMBackendSpec) -> str:
    """`cloud` or `local`, the value of X-Nexus-Backend-Type."""
    return "cloud" if is_cloud(spec) else "local"


def auth_mode(spec: LLMBackendSpec) -> AuthMode:
    """The mode in force: the one that was written, Secret with a `secretRef`, else None."""
    auth = spec.auth or Auth()
    if auth.mode is not None:
        return auth.mode
    return AuthMode.SECRET if auth.secret_ref else AuthMode.NONE


def auth_header(spec: LLMBackendSpec) -> AuthHeader:
    """The header for the key of mode Secret.

    A header of one's own other than Authorization carries the bare key unless a scheme is written.
    """
    auth = spec.auth or Auth()
    defaults = TYPE_DEFAULTS[spec.type]
    name = auth.header or defaults.header
    if auth.scheme is not None:
        return AuthHeader(name, auth.scheme)
    same = name.lower() == defaults.header.lower()
    bearer = "Bearer" if name.lower() == "authorization" else ""
    return AuthHeader(name, defaults.scheme if same else bearer)


def configured_model(spec: LLMBackendSpec, name: str) -> BackendModel | None:
    """The entry of `models` with that name, if there is one."""
    return next((model for model in spec.models or () if model.name == name), None)


def upstream_model(spec: LLMBackendSpec, name: str) -> str:
    """The name that the backend itself uses for a model."""
    model = configured_model(spec, name)
    return (model.upstream_name if model else None) or name


def pricing(spec: LLMBackendSpec, name: str) -> Pricing | None:
    """The price of a model: its own, else the backend's, else None."""
    model = configured_model(spec, name)
    return (model.pricing if model else None) or spec.pricing
