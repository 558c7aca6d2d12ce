"""What follows from a backend's type, and what a user's own words change about it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nexus_api import AuthMode, BackendType, LLMBackendSpec, PrivacyZone
from nexus_api.resolve import (
    TYPE_DEFAULTS,
    api_path,
    auth_header,
    auth_mode,
    endpoint,
    health_path,
    is_cloud,
    locality,
    models_path,
    pricing,
    privacy_zone,
    upstream_model,
)

CHAT = "/v1/chat/completions"


def spec(url: str = "http://x", **fields: Any) -> LLMBackendSpec:
    return msgspec.convert({"url": url} | fields, LLMBackendSpec)


def test_every_type_has_defaults() -> None:
    assert set(TYPE_DEFAULTS) == set(BackendType)


@pytest.mark.parametrize(
    ("kind", "zone", "health", "header"),
    [
        ("vllm", "Restricted", "/health", "Authorization: Bearer k"),
        ("ollama", "Restricted", "/api/version", "Authorization: Bearer k"),
        ("llamacpp", "Restricted", "/health", "Authorization: Bearer k"),
        ("lmstudio", "Restricted", "/v1/models", "Authorization: Bearer k"),
        ("exo", "Restricted", "/v1/models", "Authorization: Bearer k"),
        ("openai", "Open", "/v1/models", "Authorization: Bearer k"),
        ("anthropic", "Open", "/v1/models", "x-api-key: k"),
        ("google", "Open", "/v1beta/openai/models", "Authorization: Bearer k"),
        ("generic", "Open", "/v1/models", "Authorization: Bearer k"),
    ],
)
def test_defaults_by_type(kind: str, zone: str, health: str, header: str) -> None:
    backend = spec(type=kind)
    assert privacy_zone(backend) == zone
    assert is_cloud(backend) == (zone == "Open")
    assert locality(backend) == ("cloud" if zone == "Open" else "local")
    assert health_path(backend) == health
    found = auth_header(backend)
    assert f"{found.name}: {found.value('k')}" == header


@pytest.mark.parametrize(
    ("url", "kind", "origin", "chat"),
    [
        ("http://x", "vllm", "http://x", "/v1/chat/completions"),
        ("http://x/", "vllm", "http://x", "/v1/chat/completions"),
        ("http://x/v1", "vllm", "http://x", "/v1/chat/completions"),
        ("http://x/v1/", "vllm", "http://x", "/v1/chat/completions"),
        ("http://x:80/a", "generic", "http://x", "/a/v1/chat/completions"),
        ("http://x:8000/a/b/v1", "generic", "http://x:8000", "/a/b/v1/chat/completions"),
        ("https://x:443", "openai", "https://x", "/v1/chat/completions"),
        ("https://x:80", "openai", "https://x:80", "/v1/chat/completions"),
        ("http://[::1]:11434", "ollama", "http://[::1]:11434", "/v1/chat/completions"),
        ("https://g", "google", "https://g", "/v1beta/openai/chat/completions"),
        ("https://g/v1", "google", "https://g", "/v1beta/openai/chat/completions"),
        ("https://g/v1beta/openai/", "google", "https://g", "/v1beta/openai/chat/completions"),
        ("https://g/p", "google", "https://g", "/p/v1beta/openai/chat/completions"),
        ("http://x/v10", "vllm", "http://x", "/v10/v1/chat/completions"),
    ],
)
def test_the_place_of_the_api(url: str, kind: str, origin: str, chat: str) -> None:
    backend = spec(url, type=kind)
    assert endpoint(backend).origin == origin
    assert api_path(backend, CHAT) == chat
    assert models_path(backend) == chat.replace("chat/completions", "models")


@pytest.mark.parametrize("url", ["x:80", "ftp://x", "http://", "http:///a", "", "http://x:http"])
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        endpoint(spec(url or " "))


def test_host_and_port_of_an_endpoint() -> None:
    assert endpoint(spec("https://h/a/v1")) == (True, "h", 443, "/a")
    assert endpoint(spec("http://[::1]")).authority == "[::1]"
    assert endpoint(spec("http://h:81")).authority == "h:81"


def test_the_health_path_hangs_below_the_prefix() -> None:
    assert health_path(spec("http://x/a/v1", type="vllm")) == "/a/health"
    own = spec("http://x/a/v1", healthCheck={"path": "/ready?full=1"})
    assert health_path(own) == "/a/ready?full=1"


def test_a_zone_of_ones_own_wins() -> None:
    assert privacy_zone(spec(type="generic", privacyZone="Restricted")) is PrivacyZone.RESTRICTED
    assert is_cloud(spec(type="vllm", privacyZone="Open"))


KEY = {"name": "s", "key": "k"}


@pytest.mark.parametrize(
    ("auth", "mode"),
    [
        (None, AuthMode.NONE),
        ({}, AuthMode.NONE),
        ({"mode": "None"}, AuthMode.NONE),
        ({"secretRef": KEY}, AuthMode.SECRET),
        ({"mode": "Secret", "secretRef": KEY}, AuthMode.SECRET),
        ({"mode": "PassThrough"}, AuthMode.PASS_THROUGH),
    ],
)
def test_the_mode_in_force(auth: dict[str, Any] | None, mode: AuthMode) -> None:
    assert auth_mode(spec(auth=auth)) is mode


@pytest.mark.parametrize(
    ("kind", "auth", "header"),
    [
        ("generic", {"header": "api-key"}, ("api-key", "")),
        ("generic", {"header": "authorization"}, ("authorization", "Bearer")),
        ("generic", {"scheme": "Token"}, ("Authorization", "Token")),
        ("generic", {"scheme": ""}, ("Authorization", "")),
        ("generic", {"header": "api-key", "scheme": "Key"}, ("api-key", "Key")),
        ("anthropic", {"header": "Authorization"}, ("Authorization", "Bearer")),
        ("anthropic", {"header": "X-API-Key"}, ("X-API-Key", "")),
    ],
)
def test_a_header_of_ones_own(kind: str, auth: dict[str, str], header: tuple[str, str]) -> None:
    assert auth_header(spec(type=kind, auth=auth)) == header


def price(amount: str) -> dict[str, str]:
    return {"inputUSDPerMillionTokens": amount, "outputUSDPerMillionTokens": amount}


def test_names_and_prices_of_models() -> None:
    models = [{"name": "a", "upstreamName": "A/a", "pricing": price("1")}, {"name": "b"}]
    backend = spec(models=models, pricing=price("2"))
    assert [upstream_model(backend, name) for name in "abc"] == ["A/a", "b", "c"]
    found = [pricing(backend, name) for name in "abc"]
    assert [each and each.input_usd_per_million_tokens for each in found] == ["1", "2", "2"]
    assert pricing(spec(), "a") is None
